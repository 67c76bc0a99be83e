"""Short windows of a recording in which a leg is in the air, and the motor model that is rolled out through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.gap import stretches
from sim2real_checks.replay.legs import STEP_S, LegModel, Stretch
from sim2real_checks.replay.recording import Recording
from sim2real_checks.robot_sim.motors import effective_gains

WINDOW_S, SHORTEST_S = 0.2, 0.1
"""Long enough for a leg to answer its commands several times over, short enough that errors do not grow."""
MARGIN_S = 0.016
"""Left out at touch-down and lift-off: contact is noticed a little late."""
AIRBORNE = 0.05
"""Probability of contact below which a foot is in the air."""
MAX_WINDOWS = 300
MAX_S = 120.0
"""Of a recording that are looked at."""
FINE = 2
"""Steps of the rollout for each row of the grid: 1 ms, the simulator's own step."""
H = STEP_S / FINE
SWEEPS = 2
"""Passes over a leg's three joints in which friction is solved for, at each step, from the last step's solution."""


@dataclass(frozen=True)
class Parameters:
    """What the motors and joints of a robot are like."""

    friction: float
    """N·m of dry friction in each joint."""
    armature: float
    """kg·m² of each motor's rotor as felt at the joint."""
    latency: float
    """s from a command's departure to its torque, and on to the state that shows it."""
    strength: float
    """Torque made, as a multiple of the torque asked for."""
    damping: float
    """N·m·s/rad of viscous friction."""


@dataclass(frozen=True)
class Windows:
    """W windows of one leg each; K rows of the grid after the first; the last axis runs over the windows."""

    leg: np.ndarray
    """(W,)"""
    start: np.ndarray
    """(W,) s."""
    q: np.ndarray
    dq: np.ndarray
    """(K + 1, 3, W) measured."""
    inertia: np.ndarray
    """(K, 3, 3, W)"""
    bias: np.ndarray
    """(K, 3, W)"""
    mask: np.ndarray
    """(K + 1, W) whether the row belongs to the window; shorter ones are filled up."""
    command_time: np.ndarray
    drive: np.ndarray
    """(C, 3, N) integrals over time of tau + kp·q* + kd·dq*, kp and kd."""
    joints: np.ndarray
    """(3, W) joint indices."""
    limit: np.ndarray
    """(3, W) N·m."""

    def __len__(self) -> int:
        return len(self.leg)


def cut_windows(recording: Recording, track: Callable[[Iterable], Iterable] = iter) -> Windows:
    """Windows of the active part of a recording.

    Args:
        recording: at least `SHORTEST_S` of it with a foot in the air.
        track: wraps the iteration over stretches, for a progress bar.

    Raises:
        ReplayError: the log does not say which feet stand, or no leg is ever long enough in the air.
    """
    if np.isnan(recording.contact[recording.active]).all():
        raise ReplayError(f"{recording.name} does not say which feet stand: it holds no estimate of the state")
    model, legs = LegModel(recording), len(recording.spec.feet)
    found: list[tuple[Stretch, int, int, int]] = []
    seconds = 0.0
    for rows in track(list(stretches(recording))):
        rows = _shortened(recording, rows, MAX_S - seconds)
        if rows is None:
            break
        stretch = model.along(recording, rows)
        seconds += len(stretch.time) * STEP_S
        for leg in range(legs):
            found += [(stretch, leg, first, last) for first, last in _airborne(stretch.contact[:, leg])]
    if not found:
        raise ReplayError(
            f"{recording.name}: no foot is in the air for {SHORTEST_S:g} s, so motors cannot be told from the ground; "
            "walk, or hang the robot up and move its legs"
        )
    if len(found) > MAX_WINDOWS:
        found = [found[i] for i in np.linspace(0, len(found) - 1, MAX_WINDOWS).round().astype(int)]
    return _stack(recording, found)


def _shortened(recording: Recording, rows: slice, seconds: float) -> slice | None:
    end = int(np.searchsorted(recording.time, recording.time[rows.start] + seconds))
    rows = slice(rows.start, min(rows.stop, end))
    long_enough = rows.stop - rows.start > 2 and recording.time[rows.stop - 1] - recording.time[rows.start] > SHORTEST_S
    return rows if long_enough else None


def _airborne(contact: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of each window in which a foot with this contact (G,) is in the air."""
    margin, longest, shortest = (round(s / STEP_S) for s in (MARGIN_S, WINDOW_S, SHORTEST_S))
    air = np.concatenate([[False], contact < AIRBORNE, [False]])
    edges = np.flatnonzero(np.diff(air.astype(np.int8)))
    windows = []
    for begin, end in edges.reshape(-1, 2):
        begin, end = begin + margin, end - 1 - margin
        while end - begin >= shortest:
            windows.append((int(begin), int(min(begin + longest, end))))
            begin += longest
    return windows


def _stack(recording: Recording, found: list[tuple[Stretch, int, int, int]]) -> Windows:
    K, W = round(WINDOW_S / STEP_S), len(found)
    q, dq, bias = np.zeros((K + 1, 3, W)), np.zeros((K + 1, 3, W)), np.zeros((K, 3, W))
    inertia = np.zeros((K, 3, 3, W)) + np.eye(3)[None, :, :, None]
    mask = np.zeros((K + 1, W), dtype=bool)
    legs = np.array([foot.joint_indices for foot in recording.spec.feet])
    leg = np.array([one[1] for one in found])
    for w, (stretch, number, first, last) in enumerate(found):
        size, joints = last - first, legs[number]
        mask[: size + 1, w] = True
        q[: size + 1, :, w] = stretch.q[first : last + 1, joints]
        dq[: size + 1, :, w] = stretch.dq[first : last + 1, joints]
        inertia[:size, :, :, w] = stretch.inertia[first:last, number]
        bias[:size, :, w] = stretch.bias[first:last, number]
    joints = legs[leg].T
    start = np.array([stretch.time[first] for stretch, _, first, _ in found])
    time, drive = _drive(recording)
    return Windows(
        leg, start, q, dq, inertia, bias, mask, time, drive, joints, recording.spec.torque_limit[joints]
    )  # fmt: skip


def _drive(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Integrals of what was commanded: their difference is the exact mean over any step, wherever commands fall."""
    c = recording.command
    kp, kd = effective_gains(c["q"], c["dq"], c["kp"], c["kd"])
    rates = np.stack([c["tau"] + kp * c["q"] + kd * c["dq"], kp, kd], axis=1)
    time = np.append(recording.command_time, recording.command_time[-1] + WINDOW_S)
    steps = np.diff(time)[:, None, None]
    return time, np.concatenate([np.zeros_like(rates[:1]), np.cumsum(rates * steps, axis=0)])


def rollout(windows: Windows, p: Parameters, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities, (K + 1, 3, W) each, that motors and joints with these parameters would have made.

    (M + armature)·ddq = strength·clip(tau + kp(q* - q) + kd(dq* - dq)) + offset - bias - damping·dq - friction, from
    the measured state at the beginning of each window, with inertia and bias of the measured motion.

    Args:
        windows: W of them.
        p: what they are rolled out with.
        offset: (N,) N·m, constant in each joint.
    """
    bias = windows.bias - offset[windows.joints]
    drive = _mean_drive(windows, p.latency)
    inverse = _inverse(windows.inertia, p.armature + H * p.damping)
    q, dq = windows.q[0].copy(), windows.dq[0].copy()
    Q, V = np.empty_like(windows.q), np.empty_like(windows.dq)
    Q[0], V[0] = q, dq
    held = np.zeros_like(q)
    for k in range(len(bias)):
        response = H * inverse[k]
        for fine in range(FINE):
            feed, kp, kd = drive[k * FINE + fine]
            torque = p.strength * np.clip(feed - kp * q - kd * dq, -windows.limit, windows.limit)
            force = torque - bias[k] - p.damping * dq + held
            dq = dq + (response * force[None]).sum(axis=1)
            for _ in range(SWEEPS):
                for i in range(3):
                    wanted = np.clip(held[i] - dq[i] / response[i, i], -p.friction, p.friction)
                    dq += response[:, i] * (wanted - held[i])
                    held[i] = wanted
            q = q + H * dq
        Q[k + 1], V[k + 1] = q, dq
    return Q, V


def _mean_drive(windows: Windows, latency: float) -> np.ndarray:
    """(K·FINE, 3, 3, W): mean of feed, kp and kd in each fine step, for each joint of each window."""
    edges = windows.start + H * np.arange(len(windows.bias) * FINE + 1)[:, None] - latency
    time = windows.command_time
    index = np.clip(np.searchsorted(time, edges, side="right") - 1, 0, len(time) - 2)
    part = ((edges - time[index]) / (time[index + 1] - time[index]))[:, None, None, :]
    # (steps, 3 signals, 3 joints, W)
    low = windows.drive[index[:, None, None, :], np.arange(3)[:, None, None], windows.joints[None, None]]
    high = windows.drive[index[:, None, None, :] + 1, np.arange(3)[:, None, None], windows.joints[None, None]]
    return np.diff(low + part * (high - low), axis=0) / H


def _inverse(inertia: np.ndarray, added: float) -> np.ndarray:
    """Inverses of symmetric matrices (K, 3, 3, W) with `added` on their diagonals, by their adjugates."""
    a, d, f = (inertia[:, i, i] + added for i in range(3))
    b, c, e = inertia[:, 0, 1], inertia[:, 0, 2], inertia[:, 1, 2]
    A, B, C = d * f - e * e, c * e - b * f, b * e - c * d
    D, E, F = a * f - c * c, b * c - a * e, a * d - b * b
    rows = np.stack([np.stack(row, axis=1) for row in ((A, B, C), (B, D, E), (C, E, F))], axis=1)
    return rows / (a * A + b * B + c * C)[:, None, None]
