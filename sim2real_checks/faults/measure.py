"""From the simulator's record to what a fault did: reaction, motion of the falling robot, bounds of every LowCmd.

Pure: arrays in, numbers out. Times are CLOCK_MONOTONIC ns of this host, joints in the robot spec's order, SI units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nfpo_deploy.errors import NfpoError
from robots.loader import RobotSpec

SAME = 1e-3
"""Relative difference below which two sums of gains count as equal: LowCmd carries float32."""
MOVED = 1e-5
"""rad; a target that moved less has not moved."""
RISING = 3
"""Commands in a row that must go the same way: one that was bounded for its torque is no reaction."""
BEFORE_S = 1.0
"""How long before the fault the robot's own motion is looked at, for comparison."""
END_S = 0.3
"""Part of the record, at its end, that shows the final state."""
GATE_PERIODS = 2
"""Periods of the gate's loop that one target step may cover, as its own limit says."""
STATE_MEMORY_S = 0.02
"""States that a LowCmd may have been made for: as old as `state_timeout` allows a state to be."""
SIGMAS = 5.0


class MeasureError(NfpoError):
    """The record cannot be measured: no rows, or none around the fault."""


@dataclass(frozen=True)
class LowCmds:
    """LowCmds as the robot received them, m of N joints; `writer` is "bridge", "guard", "foreign" or "" for unknown."""

    ns: np.ndarray
    kp: np.ndarray
    """(m,) sum of the stiffness over the joints, N·m/rad."""
    kd: np.ndarray
    """(m,) sum of the damping, N·m·s/rad."""
    q: np.ndarray
    """(m, N) position targets, rad."""
    writer: np.ndarray

    def __len__(self) -> int:
        return len(self.ns)


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
    """Largest joint speed in the last `END_S`, rad/s."""
    final_stiffness: float
    """Sum of the stiffness of the command in force at the end, N·m/rad."""
    gap_max: float
    """Longest time between two LowCmds from the fault until the reaction is over, s."""
    lag_max: float
    """Worst lateness of the simulator around the reaction, s: by so much the times may be wrong."""


@dataclass
class Bounds:
    """LowCmds looked at, and how many broke which bound."""

    commands: int = 0
    unseen: int = 0
    """LowCmds that came within one row of the record with another: counted, not looked at."""
    nonfinite: int = 0
    position: int = 0
    gains: int = 0
    rate: int = 0
    torque: int = 0
    worst: list[str] = field(default_factory=list)
    """The first violation of each kind in words."""

    @property
    def violations(self) -> int:
        """All of them."""
        return self.nonfinite + self.position + self.gains + self.rate + self.torque


def lowcmds_of(columns: Mapping[str, np.ndarray]) -> LowCmds:
    """LowCmds from the rows of a record: one for each row in which a new one had come.

    Raises:
        MeasureError: an empty record.
    """
    if len(columns["wall_ns"]) < 2:
        raise MeasureError(f"the simulator's record holds {len(columns['wall_ns'])} rows")
    fresh = np.flatnonzero(np.diff(columns["lowcmd_count"].astype(np.int64), prepend=0) > 0)
    return LowCmds(
        ns=columns["lowcmd_ns"][fresh].astype(np.int64),
        kp=columns["command_kp"][fresh].sum(axis=1, dtype=np.float64),
        kd=columns["command_kd"][fresh].sum(axis=1, dtype=np.float64),
        q=columns["command_q"][fresh].astype(np.float64),
        writer=np.full(len(fresh), "", dtype="U8"),
    )


def window(columns: Mapping[str, np.ndarray], start_ns: int, end_ns: int) -> dict[str, np.ndarray]:
    """Rows of a time span."""
    wall = columns["wall_ns"]
    rows = slice(int(np.searchsorted(wall, start_ns)), int(np.searchsorted(wall, end_ns)))
    return {name: values[rows] for name, values in columns.items() if len(values) == len(wall)}


def find_reaction(commands: LowCmds, fault_ns: int, spec: RobotSpec) -> Reaction:
    """The first safe LowCmd after a fault.

    A descent is found backwards from its end: the last time that the stiffness became zero, and from there the last
    command that still had the full stiffness; the next one is the first safe one.
    """
    after = int(np.searchsorted(commands.ns, fault_ns, side="right"))
    if after >= len(commands):
        return Reaction()
    damp = _descent(commands, after, spec.safety.damp_ramp)
    stand = _rise(commands, after, damp, float(np.sum(np.broadcast_to(spec.stand_gains.stiffness, spec.num_joints))))
    sit = None if stand is not None else _leaves_pose(commands, after, damp, spec)
    found = [index for index in (damp, stand, sit) if index is not None]
    damp_ns, stand_ns, sit_ns = (None if index is None else int(commands.ns[index]) for index in (damp, stand, sit))
    return Reaction(damp_ns, stand_ns, sit_ns, str(commands.writer[min(found)]) if found else "")


def _descent(commands: LowCmds, after: int, damp_ramp: float) -> int | None:
    kp = commands.kp
    stiff = np.flatnonzero(kp > 0.0)
    if kp[-1] > 0.0 or not len(stiff) or stiff[-1] + 1 < after:
        return None
    zero = int(stiff[-1]) + 1
    # The ramp may be stretched by late cycles, but hardly to twice its length.
    earliest = int(np.searchsorted(commands.ns, commands.ns[zero] - 2 * damp_ramp * 1e9))
    part = kp[earliest:zero]
    full = np.flatnonzero(part >= (1.0 - SAME) * part.max())
    return max(after, earliest + int(full[-1]) + 1)


def _rise(commands: LowCmds, after: int, damp: int | None, stand_stiffness: float) -> int | None:
    """First command on the way from the policy's stiffness to that of the held pose."""
    before = commands.kp[max(0, after - 50) : after]
    baseline = float(np.median(before)) if len(before) else 0.0
    if baseline <= 0.0 or baseline >= (1.0 - SAME) * stand_stiffness:
        return None
    end = damp if damp is not None else len(commands)
    for index in range(after, end - RISING + 1):
        steps = np.diff(commands.kp[index - 1 : index + RISING])
        starts = commands.kp[index - 1] <= (1.0 + SAME) * baseline
        if starts and commands.kp[index] > (1.0 + 1e-6) * baseline and (steps > 0).all():
            return index
    return None


def _leaves_pose(commands: LowCmds, after: int, damp: int | None, spec: RobotSpec) -> int | None:
    """First of the commands, all stiff, whose targets move away from the default pose."""
    end = damp if damp is not None else len(commands)
    distance = np.abs(commands.q - spec.default_pose).sum(axis=1)
    for index in range(after, end - RISING + 1):
        if (np.diff(distance[index - 1 : index + RISING]) > MOVED).all() and commands.kp[index] > 0.0:
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
    end = int(np.searchsorted(wall, wall[-1] - END_S * 1e9))
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
        final_joint_speed=float(speed[end:].max()),
        final_stiffness=float(columns["command_kp"][-1].sum()),
        gap_max=_longest_gap(commands.ns, fault_ns, min(settled_ns, int(wall[-1]))),
        lag_max=_lag(columns["time"], wall, fault_ns, settled_ns),
    )  # fmt: skip


def _longest_gap(ns: np.ndarray, start_ns: int, end_ns: int) -> float:
    """Longest silence that ended or lasted between two moments, s; counts from the last command before the first."""
    first = max(0, int(np.searchsorted(ns, start_ns, side="right")) - 1)
    inside = ns[first : int(np.searchsorted(ns, end_ns, side="right"))]
    if not len(inside):
        return (end_ns - start_ns) * 1e-9
    return float(np.diff(np.append(inside, max(end_ns, inside[-1]))).max()) * 1e-9


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


def check_bounds(
    columns: Mapping[str, np.ndarray],
    spec: RobotSpec,
    start_ns: int,
    end_ns: int,
    rate_hz: float = 500.0,
    torque_until_ns: int | None = None,
) -> Bounds:
    """Hold every LowCmd of a time span against the bounds that the gate promises.

    Args:
        columns: of the record; one row for each physics step sees every LowCmd.
        spec: the robot and its limits.
        start_ns: begin of the span.
        end_ns: end of the span.
        rate_hz: of the gate's loop, which limits the step of a target.
        torque_until_ns: end of the time in which the robot's state reaches the gate undisturbed: the torque that a
            command predicts is bounded for the state that the gate saw. None for all of the span.
    """
    bounds = Bounds()
    count = columns["lowcmd_count"].astype(np.int64)
    steps = np.diff(count, prepend=count[:1])
    wall = columns["wall_ns"]
    rows = np.flatnonzero((steps > 0) & (wall >= start_ns) & (wall <= end_ns))
    bounds.commands, bounds.unseen = len(rows), int((steps[rows] - 1).sum())
    q, kp, kd = (columns[f"command_{name}"].astype(np.float64) for name in ("q", "kp", "kd"))
    finite = np.isfinite(np.hstack([columns[f"command_{name}"][rows] for name in ("q", "dq", "kp", "kd", "tau")]))
    _note(bounds, "nonfinite", ~finite.all(axis=1), rows, columns, "a number that is not finite")
    margin, float32 = spec.safety.joint_position_margin, 1e-5
    stiff = kp[rows] > 0.0
    out = (q[rows] < spec.position_lower + margin - float32) | (q[rows] > spec.position_upper - margin + float32)
    _note(bounds, "position", (out & stiff).any(axis=1), rows, columns, "a position target out of its range")
    largest = spec.max_gains
    wrong = (kp[rows] < 0) | (kp[rows] > largest.stiffness + 1e-4) | (kd[rows] < 0)
    wrong |= kd[rows] > largest.damping + 1e-4
    _note(bounds, "gains", wrong.any(axis=1), rows, columns, "a gain out of its range")
    limit = spec.safety.command_rate * GATE_PERIODS / rate_hz
    moved = np.abs(q[rows] - q[np.maximum(rows - 1, 0)])
    fast = moved > limit * steps[rows, None] + float32
    both_stiff = stiff & (kp[np.maximum(rows - 1, 0)] > 0.0)
    _note(bounds, "rate", (fast & both_stiff).any(axis=1), rows, columns, "a target faster than command_rate")
    until = end_ns if torque_until_ns is None else torque_until_ns
    honest = rows[wall[rows] <= until]
    _note(bounds, "torque", _beyond_torque(columns, spec, honest), honest, columns, "a torque beyond its limit")
    return bounds


def _note(bounds: Bounds, kind: str, bad: Any, rows: np.ndarray, columns: Mapping[str, np.ndarray], what: str) -> None:
    if bad.any():
        setattr(bounds, kind, int(bad.sum()))
        bounds.worst.append(f"{what}, {int(bad.sum())} times, first at {columns['time'][rows[bad.argmax()]]:.3f} s")


def _beyond_torque(columns: Mapping[str, np.ndarray], spec: RobotSpec, rows: np.ndarray) -> np.ndarray:
    """(r,) whether a command asks for more than the torque limit in every state that it may have been made for."""
    from sim2real_checks.robot_sim.config import SensorNoise

    noise = SensorNoise()
    step = float(np.median(np.diff(columns["time"][:1000])))
    memory = max(1, round(STATE_MEMORY_S / step))
    command = {name: columns[f"command_{name}"].astype(np.float64) for name in ("q", "dq", "kp", "kd", "tau")}
    allowed = spec.safety.torque_fraction * spec.torque_limit
    bad = np.zeros(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        kp, kd = command["kp"][row], command["kd"][row]
        past = slice(max(0, row - memory), row + 1)
        spring = kp * (command["q"][row] - columns["qpos"][past, 7:])
        torque = command["tau"][row] + spring + kd * (command["dq"][row] - columns["qvel"][past, 6:])
        tolerance = SIGMAS * (kp * noise.q + kd * noise.dq) + 1e-3
        bad[i] = bool((np.abs(torque).min(axis=0) > allowed + tolerance).any())
    return bad
