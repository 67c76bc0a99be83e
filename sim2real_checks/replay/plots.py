"""Figures of a comparison: simulated in blue, real in orange, what was commanded in black."""

from __future__ import annotations

from typing import Any

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.faults import html
from sim2real_checks.replay.fit import Fit, nominal_parameters
from sim2real_checks.replay.gap import SHAKING_HZ, SIGNALS, Gap, signals, stretches
from sim2real_checks.replay.legs import STEP_S
from sim2real_checks.replay.recording import Recording
from sim2real_checks.replay.windows import Windows, rollout

SIM, REAL = "tab:blue", "tab:orange"
EXCERPT_S = 1.6
SHOWN_WINDOWS = 3


def joint_kinds(spec: RobotSpec) -> dict[str, np.ndarray]:
    """The same joint of every leg: name without the leg, and indices (F,)."""
    legs = np.array([foot.joint_indices for foot in spec.feet])
    names = [spec.joint_names[i].removesuffix("_joint").partition("_")[2] for i in legs[0]]
    return dict(zip(names, legs.T, strict=True))


def excerpt(sim: Recording, real: Recording) -> Any:
    """Position and command of the first leg, a moment of each recording."""
    joints = sim.spec.feet[0].joint_indices
    figure = html.new_figure(12, 2.3 * len(joints))
    axes = figure.subplots(len(joints), 2, sharex="col", sharey="row", squeeze=False)
    for column, (recording, color) in enumerate(((sim, SIM), (real, REAL))):
        rows = max(stretches(recording), key=lambda part: part.stop - part.start)
        middle = 0.5 * (recording.time[rows.start] + recording.time[rows.stop - 1])
        shown = slice(*np.searchsorted(recording.time, (middle - EXCERPT_S / 2, middle + EXCERPT_S / 2)))
        shown = slice(max(shown.start, rows.start), min(shown.stop, rows.stop))
        time, target = recording.time[shown], recording.commanded("q")[shown]
        for row, joint in enumerate(joints):
            axis = axes[row, column]
            axis.step(time, target[:, joint], color="black", lw=0.8, where="post", label="commanded")
            axis.plot(time, recording.q[shown, joint], color=color, lw=1.4, label="measured")
            axis.set_ylabel(f"{recording.spec.joint_names[joint]}\nrad")
            axis.grid(alpha=0.3)
        axes[0, column].set_title(recording.name)
        axes[0, column].legend(fontsize=8)
        axes[-1, column].set_xlabel("time, s")
    return figure


def spectra(spec: RobotSpec, gap: Gap) -> Any:
    """Power density of joint velocities, mean over the legs."""
    kinds = joint_kinds(spec)
    figure = html.new_figure(12, 3.2)
    for axis, (name, joints) in zip(figure.subplots(1, len(kinds), sharey=True), kinds.items(), strict=True):
        for label, color, power in (("simulated", SIM, gap.spectra[0]), ("real", REAL, gap.spectra[1])):
            axis.semilogy(gap.spectrum_hz[1:], power[1:, joints].mean(axis=1), color=color, lw=1.2, label=label)
        axis.axvline(SHAKING_HZ, color="grey", lw=0.8, ls=":")
        axis.set(title=name, xlabel="Hz", xlim=(0, 80))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("(rad/s)²/Hz")
    figure.axes[0].legend(fontsize=8)
    return figure


def distributions(sim: Recording, real: Recording) -> Any:
    """Histograms of each signal, over the legs."""
    kinds = joint_kinds(sim.spec)
    values = [signals(recording) for recording in (sim, real)]
    figure = html.new_figure(12, 2.4 * len(SIGNALS))
    axes = figure.subplots(len(SIGNALS), len(kinds), squeeze=False)
    for row, (signal, unit) in enumerate(SIGNALS.items()):
        for axis, (kind, joints) in zip(axes[row], kinds.items(), strict=True):
            both = [part[signal][:, joints].ravel() for part in values]
            low, high = np.percentile(np.concatenate(both), [0.5, 99.5])
            bins = np.linspace(low, high if high > low else low + 1e-9, 60)
            for part, color, label in zip(both, (SIM, REAL), ("simulated", "real"), strict=True):
                axis.hist(part, bins, density=True, histtype="step", color=color, lw=1.3, label=label)
            axis.set(title=kind if row == 0 else "", xlabel=f"{signal}, {unit}", yticks=[])
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    return figure


def rollouts(windows: Windows, spec: RobotSpec, fit: Fit) -> Any:
    """A few windows: measured, rolled out with nominal parameters, and with the fitted ones."""
    nominal = rollout(windows, nominal_parameters(spec), np.zeros(spec.num_joints))[0]
    fitted = rollout(windows, fit.parameters(spec), fit.offset)[0]
    whole = np.flatnonzero(windows.mask.all(axis=0))
    chosen = whole if len(whole) else np.arange(len(windows))
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, SHOWN_WINDOWS).round().astype(int))]
    figure = html.new_figure(12, 6.6)
    axes = figure.subplots(3, len(chosen), sharex=True, squeeze=False)
    for column, w in enumerate(chosen):
        rows = windows.mask[:, w]
        time = 1e3 * STEP_S * np.arange(len(rows))[rows]
        for axis, joint in enumerate(windows.joints[:, w]):
            plot = axes[axis, column]
            plot.plot(time, windows.q[rows, axis, w], color=REAL, lw=2.2, label="real")
            plot.plot(time, nominal[rows, axis, w], color=SIM, lw=1.2, ls="--", label="simulated, nominal")
            plot.plot(time, fitted[rows, axis, w], color="black", lw=1.0, label="simulated, fitted")
            plot.set_ylabel(f"{spec.joint_names[joint]}\nrad", fontsize=8)
            plot.grid(alpha=0.3)
        axes[0, column].set_title(f"from {windows.start[w]:.2f} s")
        axes[-1, column].set_xlabel("ms")
    axes[0, 0].legend(fontsize=8)
    return figure
