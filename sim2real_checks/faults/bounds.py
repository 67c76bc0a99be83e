"""Every LowCmd of a record against the bounds that the gate promises. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.faults.lowcmds import LOG, foreign_rows, writers_of_log
from sim2real_checks.robot_sim.config import SensorNoise

GATE_PERIODS = 2
"""Periods of the gate's loop that one target step may cover, as its own limit says."""
STATE_MEMORY_S = 0.02
"""States that a LowCmd may have been made for: as old as `state_timeout` allows a state to be."""
SIGMAS = 5.0


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
    own = np.flatnonzero((steps > 0) & ~foreign_rows(columns))
    inside = (wall[own] >= start_ns) & (wall[own] <= end_ns)
    rows, before = own[inside], np.concatenate([own[:1], own[:-1]])[inside]
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
    # What another program sent in between is not the gate's step, and what the robot lost or overwrote is one.
    sent = _sent_between(columns, before, rows, steps)
    fast = np.abs(q[rows] - q[before]) > limit * sent[:, None] + float32
    both_stiff = stiff & (kp[before] > 0.0)
    _note(bounds, "rate", (fast & both_stiff).any(axis=1), rows, columns, "a target faster than command_rate")
    until = end_ns if torque_until_ns is None else torque_until_ns
    honest = rows[wall[rows] <= until]
    _note(bounds, "torque", _beyond_torque(columns, spec, honest), honest, columns, "a torque beyond its limit")
    return bounds


def _sent_between(
    columns: Mapping[str, np.ndarray], before: np.ndarray, rows: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """(r,) LowCmds of our own after those of the rows `before`, up to those of `rows`, heard by the robot or lost."""
    if f"{LOG}ns" not in columns:
        return steps[rows]
    own = columns[f"{LOG}ns"][writers_of_log(columns) != "foreign"]
    heard = columns["lowcmd_ns"]
    return np.searchsorted(own, heard[rows], side="right") - np.searchsorted(own, heard[before], side="right")


def _note(bounds: Bounds, kind: str, bad: Any, rows: np.ndarray, columns: Mapping[str, np.ndarray], what: str) -> None:
    if bad.any():
        setattr(bounds, kind, int(bad.sum()))
        bounds.worst.append(f"{what}, {int(bad.sum())} times, first at {columns['time'][rows[bad.argmax()]]:.3f} s")


def _beyond_torque(columns: Mapping[str, np.ndarray], spec: RobotSpec, rows: np.ndarray) -> np.ndarray:
    """(r,) whether a command asks for more than the torque limit in every state that it may have been made for."""
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
