"""What happened in a scenario, as arrays: the ground truth each 2 ms, and what the software thought of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nfpo_deploy.types import VelocityCommand
from robots.loader import RobotSpec
from sim2real_checks.validation.bodies import ScenarioRobot
from sim2real_checks.validation.stack import DeployedStack

COLUMNS: dict[str, tuple[int | str, ...]] = {
    "time": (), "position": (3,), "quat": (4,), "lin_vel": (3,), "ang_vel": (3,), "q": ("N",), "dq": ("N",),
    "torque": ("N",), "target": ("N",), "foot_position": ("F", 3), "foot_force": ("F",), "asked": (3,), "given": (3,),
    "estimated_velocity": (3,), "observation_ok": (), "limited": (),
}  # fmt: skip
"""Columns and the shape of a row. World frame, SI units; `ang_vel`, `given`, `asked` and the estimate in base_link.
`asked` is the operator's velocity command (vx, vy, wz), `given` what the limiter made of it for the policy, `limited`
how many of the gate's commands were bounded so far."""


@dataclass
class Trace:
    """Rows of `COLUMNS` from the moment of walking on, and how it ended."""

    spec: RobotSpec
    ended: str = ""
    """Why it ended early; empty when the scenario's time was over."""
    fell: bool = False
    mode: str = ""
    """Mode of the watchdog in the end."""
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(K, N) actions of the policy at its control rate."""
    observations: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(K, D)."""

    def __getattr__(self, name: str) -> np.ndarray:
        if name in COLUMNS:
            return self.columns[name]
        raise AttributeError(name)


class Recorder:
    """Collects a trace row by row."""

    def __init__(self, spec: RobotSpec, rows: int) -> None:
        sizes = {"N": spec.num_joints, "F": len(spec.feet)}
        self.trace = Trace(spec)
        self._columns = {
            name: np.zeros((rows, *(sizes[size] if isinstance(size, str) else size for size in shape)))
            for name, shape in COLUMNS.items()
        }  # fmt: skip
        self._count = 0
        self._actions: list[np.ndarray] = []
        self._observations: list[np.ndarray] = []
        self._seq = -1

    def row(self, t: float, robot: ScenarioRobot, stack: DeployedStack, asked: VelocityCommand) -> None:
        """Note the state after a cycle."""
        plant, command = robot.plant, stack.joint_command
        truth = plant.truth()
        values: dict[str, Any] = {
            "time": t, "position": truth.position_w, "quat": truth.quat_wxyz, "lin_vel": truth.lin_vel_w,
            "ang_vel": truth.ang_vel_b, "q": truth.q, "dq": truth.dq, "torque": robot.motors.torque,
            "target": command.q if command is not None else truth.q, "foot_position": plant.foot_positions_w(),
            "foot_force": plant.foot_force(), "asked": asked.as_array(), "given": stack.given.as_array(),
            "estimated_velocity": stack.estimate.lin_vel_b if stack.estimate is not None else np.nan,
            "observation_ok": stack.runner.observation_ok, "limited": stack.gate.limited_count,
        }  # fmt: skip
        for name, value in values.items():
            self._columns[name][self._count] = value
        self._count += 1
        if command is not None and command.seq != self._seq:
            self._seq = command.seq
            self._actions.append(stack.runner.last_action.copy())
            self._observations.append(stack.runner.last_observation.copy())

    def finish(self) -> Trace:
        """The trace of what was noted."""
        trace = self.trace
        trace.columns = {name: values[: self._count] for name, values in self._columns.items()}
        if self._actions:
            trace.actions, trace.observations = np.array(self._actions), np.array(self._observations)
        return trace
