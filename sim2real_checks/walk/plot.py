"""One figure of a walk: velocities (asked, true, estimated), base height, torques."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sim2real_checks.robot_sim.messages import BOOT_TICK_MS
from sim2real_checks.walk.analysis import Truth
from sim2real_checks.walk.run_log import RunLog

GAIT_S = 0.5
AXES = (("vx", "m/s"), ("vy", "m/s"), ("wz", "rad/s"))


def write_plot(path: Path, truth: Truth, log: RunLog) -> None:
    """Draw a run into an image file; the format follows the file's suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(5, 1, sharex=True, height_ratios=[1.2, 1.2, 1.2, 0.8, 1.0])
    _draw_velocities(axes[:3], truth, log)
    axes[3].plot(truth.time, truth.position[:, 2], color="tab:blue", lw=1.2)
    axes[3].set_ylabel("base height, m")
    axes[4].plot(truth.time, 100 * truth.torque.max(axis=1), color="tab:red", lw=0.6)
    axes[4].set_ylabel("largest joint torque,\n% of its limit")
    axes[4].set_xlabel("simulated time, s")
    for axis in axes:
        axis.grid(alpha=0.3)
        _mark_segments(axis, truth, log, label=axis is axes[0])
    figure.savefig(path, dpi=110)


def _draw_velocities(axes: Any, truth: Truth, log: RunLog) -> None:
    period = float(np.median(np.diff(truth.time)))
    window = max(1, round(GAIT_S / period))
    estimates = np.array(log.estimates, dtype=np.float64).reshape(-1, 4)
    for i, (axis, (name, unit)) in enumerate(zip(axes, AXES, strict=True)):
        velocity = truth.velocity[:, i]
        axis.plot(truth.time, velocity, color="tab:blue", lw=0.5, alpha=0.45, label="true")
        smooth = np.convolve(velocity, np.full(window, 1 / window), mode="same")
        axis.plot(truth.time, smooth, color="tab:blue", lw=1.6, label=f"true, mean over {GAIT_S:g} s")
        if len(estimates):
            time = (estimates[:, 0] - BOOT_TICK_MS) * 1e-3
            axis.plot(time, estimates[:, 1 + i], color="tab:orange", lw=0.6, alpha=0.9, label="estimated")
        moments = [m for run in log.segments for m in _moments(truth, run.start_ns, run.end_ns)]
        values = [v for run in log.segments for v in (run.segment.velocity[i],) * 2]
        axis.plot(moments, values, color="black", lw=1.4, label="asked")
        limit = max(0.3, 1.4 * max((abs(v) for v in values), default=0.0))
        axis.set_ylim(-limit, limit)
        axis.set_ylabel(f"{name}, {unit}")
    axes[0].legend(loc="lower right", ncols=4, fontsize=8)


def _mark_segments(axis: Any, truth: Truth, log: RunLog, label: bool) -> None:
    for i, run in enumerate(log.segments):
        start, end = _moments(truth, run.start_ns, run.end_ns)
        axis.axvspan(start, end, color="0.5", alpha=0.12 if i % 2 else 0.04, lw=0)
        if label:
            axis.text((start + end) / 2, 1.02, run.segment.name, transform=axis.get_xaxis_transform(), ha="center")


def _moments(truth: Truth, *times_ns: int) -> list[float]:
    return [float(np.interp(ns, truth.wall_ns, truth.time)) for ns in times_ns]
