"""From the simulator's record to what a fault did: the reaction, and how the robot moved.

Pure: arrays in, numbers out. Times are CLOCK_MONOTONIC ns of this host, joints in the robot spec's order, SI units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.faults.lowcmds import LowCmds, MeasureError

SAME = 1e-3
"""Relative difference below which two sums of gains count as equal: LowCmd carries float32."""
MOVED = 3e-6
"""rad, over all joints; targets that moved less have not moved."""
RISING = 3
"""Commands in a row that must go the same way: one that was bounded for its torque is no reaction."""
BASELINE = 50
"""Commands before the fault whose median stiffness is that of the mode."""
BEFORE_S = 1.0
"""How long before the fault the robot's own motion is looked at, for comparison."""
END_S = 0.3
"""Part of the record, at its end, that shows the final state."""


@dataclass(frozen=True)
class Reaction:
    """First LowCmd of each kind of safe reaction after the fault; None where there was none."""

    damp_ns: int | None = None
    """Stiffness begins to fall and does not come back."""
    stand_ns: int | None = None
    """From walking: gains begin to move to those of the held pose."""
    sit_ns: int | None = None
    """The target begins to leave the held pose toward the crouch."""
    writer: str = ""
    """Who sent the first of them."""
    stiff_again: int = 0
    """How many LowCmds had stiffness after it had become zero."""

    @property
    def first_ns(self) -> int | None:
        """The earliest."""
        found = [ns for ns in (self.damp_ns, self.stand_ns, self.sit_ns) if ns is not None]
        return min(found) if found else None


@dataclass(frozen=True)
class Motion:
    """What the robot did after the fault, and its state at the end."""

    peak_speed: float
    """Largest joint speed, rad/s; `peak_speed_joint` names the joint."""
    peak_speed_joint: str
    peak_speed_before: float
    """The same in the second before the fault."""
    peak_torque: float
    """Largest joint torque as a fraction of its limit."""
    fall_speed: float
    """Largest downward speed of the trunk, m/s."""
    foot_force: float
    """Largest force on one foot, N."""
    final_height: float
    """m of the trunk above the floor."""
    final_tilt: float
    """rad."""
    final_joint_speed: float
    """Largest joint speed in the last `END_S` before the motors were released, or of the record, rad/s. After
    that a leg which damping had held up may still fall to the ground."""
    final_stiffness: float
    """Sum of the stiffness of the command in force at the end, N·m/rad."""
    gap_max: float
    """Longest time between two LowCmds from the fault until the reaction is over, s."""
    stiff_gap_max: float
    """The longest one during which the motors held stiffness, in the whole time after the fault, s."""
    stiff_commands: int
    """How many LowCmds after the fault had any stiffness."""
    lag_max: float
    """Worst lateness of the simulator around the reaction, s: by so much the times may be wrong."""


def find_reaction(commands: LowCmds, fault_ns: int, spec: RobotSpec) -> Reaction:
    """The first safe LowCmd after a fault.

    A descent is found backwards from its end: from where the stiffness is zero for the first time, back to the last
    command that still had the full stiffness; the next one is the first safe one.
    """
    after = int(np.searchsorted(commands.ns, fault_ns, side="right"))
    if after >= len(commands):
        return Reaction()
    before = commands.kp[max(0, after - BASELINE) : after]
    baseline = float(np.median(before)) if len(before) else 0.0
    held = baseline >= (1.0 - SAME) * float(np.sum(np.broadcast_to(spec.stand_gains.stiffness, spec.num_joints)))
    zero = _first_zero(commands.kp, after)
    damp = None if zero is None else _descent(commands, after, zero, spec.safety.damp_ramp)
    end = damp if damp is not None else len(commands)
    stand = _rise(commands.kp, after, end, baseline) if 0.0 < baseline and not held else None
    sit = _leaves_pose(commands, after, end, spec) if held else None
    found = [index for index in (damp, stand, sit) if index is not None]
    damp_ns, stand_ns, sit_ns = (None if index is None else int(commands.ns[index]) for index in (damp, stand, sit))
    again = 0 if zero is None else int((commands.kp[zero:] > 0.0).sum())
    return Reaction(damp_ns, stand_ns, sit_ns, str(commands.writer[min(found)]) if found else "", again)


def was_passive(commands: LowCmds, fault_ns: int, spec: RobotSpec) -> bool:
    """Whether the motors were limp, or on their way to it, before the fault came."""
    after = int(np.searchsorted(commands.ns, fault_ns, side="right"))
    since = int(np.searchsorted(commands.ns, fault_ns - 2 * spec.safety.damp_ramp * 1e9))
    before = commands.kp[since:after]
    # A policy's commands may be bounded for their torque, but never to so little.
    return not len(before) or bool(before[-1] < 0.5 * before.max() or before[-1] == 0.0)


def _first_zero(kp: np.ndarray, after: int) -> int | None:
    """First command after the fault without stiffness, of a stream that had some."""
    if after > 0 and kp[after - 1] == 0.0:
        return None
    zero = np.flatnonzero(kp[after:] == 0.0)
    return after + int(zero[0]) if len(zero) else None


def _descent(commands: LowCmds, after: int, zero: int, damp_ramp: float) -> int:
    """First command of the descent that ends at `zero`."""
    # The ramp may be stretched by late cycles, but hardly to twice its length.
    earliest = int(np.searchsorted(commands.ns, commands.ns[zero] - 2 * damp_ramp * 1e9))
    part = commands.kp[earliest:zero]
    if not len(part):
        return zero
    full = np.flatnonzero(part >= (1.0 - SAME) * part.max())
    return max(after, earliest + int(full[-1]) + 1)


def _rise(kp: np.ndarray, after: int, end: int, baseline: float) -> int | None:
    """First command on the way from the policy's stiffness to that of the held pose."""
    for index in range(after, end - RISING + 1):
        starts = kp[index - 1] <= (1.0 + SAME) * baseline and kp[index] > baseline
        if starts and (np.diff(kp[index - 1 : index + RISING]) > 0.0).all():
            return index
    return None


def _leaves_pose(commands: LowCmds, after: int, end: int, spec: RobotSpec) -> int | None:
    """First of the commands, all stiff, whose targets move away from the default pose; None if they did before."""
    distance = np.abs(commands.q - spec.default_pose).sum(axis=1)
    leaving = np.diff(distance) > MOVED
    before = leaving[max(0, after - 1 - BASELINE) : after - 1]
    # Not all: commands that came within one row of the record show one target.
    if len(before) and before.mean() > 0.5:
        return None
    for index in range(after, end - RISING + 1):
        if leaving[index - 1 : index - 1 + RISING].all() and commands.kp[index] > 0.0:
            return index
    return None


def measure_motion(
    columns: Mapping[str, np.ndarray], commands: LowCmds, fault_ns: int, reaction_ns: int | None, spec: RobotSpec
) -> Motion:
    """Peaks after the fault and the state at the end of the window.

    Raises:
        MeasureError: no rows after the fault.
    """
    wall = columns["wall_ns"].astype(np.int64)
    after = int(np.searchsorted(wall, fault_ns))
    if len(wall) - after < 2:
        raise MeasureError("the simulator's record ends before the fault")
    speed = np.abs(columns["qvel"][:, 6:])
    before = speed[int(np.searchsorted(wall, fault_ns - BEFORE_S * 1e9)) : after]
    driven = np.flatnonzero((columns["command_kp"] + columns["command_kd"]).any(axis=1))
    last = int(driven[-1]) if len(driven) and driven[-1] >= after else len(wall) - 1
    end = int(np.searchsorted(wall, wall[last] - END_S * 1e9))
    joint = int(speed[after:].max(axis=0).argmax())
    w, x, y, z = columns["qpos"][-1, 3:7]
    settled_ns = (reaction_ns or wall[-1]) + round(2 * spec.safety.damp_ramp * 1e9)
    return Motion(
        peak_speed=float(speed[after:].max()), peak_speed_joint=spec.joint_names[joint],
        peak_speed_before=float(before.max()) if len(before) else math.nan,
        peak_torque=float((np.abs(columns["torque"][after:]) / spec.torque_limit).max()),
        fall_speed=float(max(0.0, -columns["qvel"][after:, 2].min())),
        foot_force=float(columns["foot_force"][after:].max()),
        final_height=float(columns["qpos"][-1, 2]),
        final_tilt=float(np.arccos(np.clip(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0))),
        final_joint_speed=float(speed[end : last + 1].max()),
        final_stiffness=float(columns["command_kp"][-1].sum()),
        gap_max=longest_gap(commands.ns, fault_ns, min(settled_ns, int(wall[-1]))),
        stiff_gap_max=_longest_stiff_gap(commands, fault_ns, int(wall[-1])),
        stiff_commands=int((commands.kp[commands.ns > fault_ns] > 0.0).sum()),
        lag_max=_lag(columns["time"], wall, fault_ns, settled_ns),
    )  # fmt: skip


def longest_gap(ns: np.ndarray, start_ns: int, end_ns: int) -> float:
    """Longest silence that ended or lasted between two moments, s; counts from the last command before the first."""
    first = max(0, int(np.searchsorted(ns, start_ns, side="right")) - 1)
    inside = ns[first : int(np.searchsorted(ns, end_ns, side="right"))]
    if not len(inside):
        return (end_ns - start_ns) * 1e-9
    return float(np.diff(np.append(inside, max(end_ns, inside[-1]))).max()) * 1e-9


def _longest_stiff_gap(commands: LowCmds, start_ns: int, end_ns: int) -> float:
    """Longest time after `start_ns` for which a stiff command stood without a new one, s."""
    ends = np.append(commands.ns[1:], end_ns)
    open_after = (commands.kp > 0.0) & (ends > start_ns)
    return float((ends - commands.ns)[open_after].max(initial=0)) * 1e-9


def _lag(time: np.ndarray, wall: np.ndarray, start_ns: int, end_ns: int) -> float:
    """How far simulated time fell behind the wall clock between two moments, s."""
    rows = slice(max(0, int(np.searchsorted(wall, start_ns)) - 20), int(np.searchsorted(wall, end_ns)))
    if rows.stop - rows.start < 2:
        return 0.0
    behind = (wall[rows] - wall[rows][0]) * 1e-9 - (time[rows] - time[rows][0])
    return float(np.max(behind - np.minimum.accumulate(behind)))


def first_row_beyond(columns: Mapping[str, np.ndarray], what: str, after_ns: int, spec: RobotSpec) -> int | None:
    """When the true state first broke a limit after a moment, None if never.

    Args:
        columns: of the record.
        what: "tilt" (of the trunk), "joint_speed" or "joint_position".
        after_ns: where to begin.
        spec: whose limits.

    Raises:
        KeyError: an unknown `what`.
    """
    safety = spec.safety
    _, x, y, _ = columns["qpos"][:, 3:7].T
    joints = columns["qpos"][:, 7:]
    margin = safety.joint_position_margin
    broken = {
        "tilt": 1.0 - 2.0 * (x * x + y * y) < math.cos(safety.tilt),
        "joint_speed": (np.abs(columns["qvel"][:, 6:]) > safety.joint_velocity * spec.velocity_limit).any(axis=1),
        "joint_position": ((joints < spec.position_lower - margin) | (joints > spec.position_upper + margin)).any(
            axis=1
        ),
    }[what]
    rows = np.flatnonzero(broken & (columns["wall_ns"] >= after_ns))
    return int(columns["wall_ns"][rows[0]]) if len(rows) else None
