"""The gap between two recordings, joint by joint and signal by signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import correlate, detrend, welch
from scipy.stats import wasserstein_distance

from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.recording import Recording

RATE_HZ = 500.0
"""Signals are resampled to it where their times must be even."""
LONGEST_GAP_S = 0.02
"""Missing states are bridged up to here; beyond it a stretch ends."""
SHORTEST_S = 0.3
SHAKING_HZ = 10.0
"""Above the gait and its first harmonics (a trot of 0.5 s has 2, 4, 6, 8 Hz): what moves faster is not asked for."""
SPECTRUM_S = 1.0
LONGEST_DELAY_S = 0.15
SIGNALS = {"tracking": "rad", "dq": "rad/s", "torque": "N m"}
"""Signals of a joint with their units; tracking is q - commanded q."""


@dataclass(frozen=True)
class JointGap:
    """What one recording shows of one joint."""

    rms: dict[str, float]
    p95: dict[str, float]
    """95th percentile of the size, by signal."""
    shaking: float
    """rad/s, RMS of dq above `SHAKING_HZ`."""
    delay_ms: float
    """By which q follows the commanded q best; NaN where it does not follow: nothing moves, or the ground decides."""


@dataclass(frozen=True)
class Gap:
    """Both recordings beside each other."""

    joints: dict[str, tuple[JointGap, JointGap]]
    """By joint name: simulated, real."""
    distance: dict[str, dict[str, float]]
    """By joint and signal: Wasserstein distance of the two distributions, in the signal's unit."""
    body: dict[str, tuple[float, float, float]]
    """By axis of gyro and acceleration: standard deviation simulated and real, and Wasserstein distance."""
    spectrum_hz: np.ndarray
    """(K,) Hz."""
    spectra: tuple[np.ndarray, np.ndarray]
    """(K, N) power density of dq, (rad/s)²/Hz: simulated, real."""


def signals(recording: Recording) -> dict[str, np.ndarray]:
    """(A, N) by name, of the A active rows."""
    rows = recording.active
    tracking = recording.q - recording.commanded("q")
    return {"tracking": tracking[rows], "dq": recording.dq[rows], "torque": recording.tau[rows]}


def stretches(recording: Recording, shortest_s: float = SHORTEST_S) -> Iterator[slice]:
    """Rows of each stretch of the active part without a longer gap."""
    rows = np.flatnonzero(recording.active)
    times = recording.time[rows]
    breaks = np.flatnonzero((np.diff(rows) > 1) | (np.diff(times) > LONGEST_GAP_S)) + 1
    for part in np.split(rows, breaks):
        if len(part) > 2 and recording.time[part[-1]] - recording.time[part[0]] >= shortest_s:
            yield slice(int(part[0]), int(part[-1]) + 1)


def measure_gap(sim: Recording, real: Recording) -> Gap:
    """Compare the active parts of two recordings.

    Raises:
        ReplayError: they are of different robots, or one has no stretch that is long enough.
    """
    if sim.spec.joint_names != real.spec.joint_names:
        raise ReplayError(f"{sim.name} is of robot {sim.spec.name!r}, {real.name} of {real.spec.name!r}")
    pair = [_measure(recording) for recording in (sim, real)]
    both = [signals(recording) for recording in (sim, real)]
    names = sim.spec.joint_names
    distance = {
        joint: {name: float(wasserstein_distance(both[0][name][:, i], both[1][name][:, i])) for name in SIGNALS}
        for i, joint in enumerate(names)
    }
    joints = {joint: (pair[0][0][i], pair[1][0][i]) for i, joint in enumerate(names)}
    frequencies = pair[0][1]
    return Gap(joints, distance, _body(sim, real), frequencies, (pair[0][2], pair[1][2]))


def _measure(recording: Recording) -> tuple[list[JointGap], np.ndarray, np.ndarray]:
    """Of each joint; frequencies (K,) Hz and spectra (K, N) of dq."""
    parts = [_even(recording, rows) for rows in stretches(recording)]
    if not parts:
        raise ReplayError(f"{recording.name}: no stretch of {SHORTEST_S:g} s without a gap to compare")
    width = round(SPECTRUM_S * RATE_HZ)
    spectra, weight = np.zeros((width // 2 + 1, recording.spec.num_joints)), 0.0
    frequencies = np.fft.rfftfreq(width, 1.0 / RATE_HZ)
    for _, dq, _ in parts:
        if len(dq) >= width:
            spectra += len(dq) * welch(dq, RATE_HZ, nperseg=width, axis=0)[1]
            weight += len(dq)
    spectra = spectra / weight if weight else np.full_like(spectra, np.nan)
    fast = frequencies >= SHAKING_HZ
    shaking = np.sqrt(spectra[fast].sum(axis=0) * (frequencies[1] - frequencies[0]))
    values = signals(recording)
    rows = []
    for i in range(recording.spec.num_joints):
        columns = {name: np.abs(values[name][:, i]) for name in SIGNALS}
        rows.append(
            JointGap(
                rms={name: float(np.sqrt(np.mean(column**2))) for name, column in columns.items()},
                p95={name: float(np.percentile(column, 95)) for name, column in columns.items()},
                shaking=float(shaking[i]),
                delay_ms=1e3 * _delay([(q[:, i], target[:, i]) for q, _, target in parts]),
            )
        )
    return rows, frequencies, spectra


def _even(recording: Recording, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q, dq and commanded q of a stretch, (M, N) each, at `RATE_HZ`."""
    time = recording.time[rows]
    even = np.arange(time[0], time[-1], 1.0 / RATE_HZ)
    index = np.maximum(np.searchsorted(recording.command_time, even, side="right") - 1, 0)

    def resampled(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(even, time, column) for column in values[rows].T], axis=1)

    return resampled(recording.q), resampled(recording.dq), recording.command["q"][index]


def _delay(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Delay of the first behind the second signal, s: maximum of their cross-correlation over all parts."""
    lags = round(LONGEST_DELAY_S * RATE_HZ)
    total = np.zeros(lags + 1)
    for answer, asked in parts:
        a, b = detrend(answer, type="constant"), detrend(asked, type="constant")
        if len(a) <= lags:
            continue
        middle = len(b) - 1
        total += correlate(a, b, method="fft")[middle : middle + lags + 1]
    best = int(total.argmax())
    if total[best] <= 0.0 or not 0 < best < lags:
        return float("nan")
    before, top, after = total[best - 1 : best + 2]
    curvature = before - 2.0 * top + after
    # The top of the parabola through the three highest points.
    return float(best + (0.5 * (before - after) / curvature if curvature else 0.0)) / RATE_HZ


def _body(sim: Recording, real: Recording) -> dict[str, tuple[float, float, float]]:
    found = {}
    for what, field in (("gyro", "gyro_b"), ("acceleration", "accel_b")):
        for i, axis in enumerate("xyz"):
            a, b = (getattr(recording, field)[recording.active, i] for recording in (sim, real))
            found[f"{what} {axis}"] = (float(a.std()), float(b.std()), float(wasserstein_distance(a, b)))
    return found
