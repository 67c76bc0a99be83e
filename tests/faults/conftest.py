"""Records made by hand: a robot that does exactly what a test says, one row for each millisecond."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from robots.loader import RobotSpec, load_robot

MS = 1_000_000
START_NS = 5_000_000_000


class HandMade:
    """Columns of a record of `seconds`, with a LowCmd every 2 ms that holds the default pose with stand gains."""

    def __init__(self, spec: RobotSpec, seconds: float = 2.0) -> None:
        n, rows = spec.num_joints, round(seconds * 1000)
        self.spec = spec
        self.seconds = seconds
        self.time = np.arange(rows) * 1e-3
        self.kp = np.full(rows, 60.0)
        self.kd = np.full(rows, 5.0)
        self.command_q = np.tile(spec.default_pose, (rows, 1))
        self.height = np.full(rows, spec.base_height)
        self.vertical_speed = np.zeros(rows)
        self.joint_speed = np.zeros((rows, n))
        self.joint_offset = np.zeros((rows, n))
        self.tilt = np.zeros(rows)
        self.sent = np.arange(rows) % 2 == 0
        """Rows in which a LowCmd arrives."""
        self.wall_ns = START_NS + (self.time * 1e9).round().astype(np.int64)

    def row(self, ms: float) -> int:
        return round(ms)

    def ns(self, ms: float) -> int:
        return START_NS + round(ms * MS)

    def damp(self, ms: float, ramp_ms: float = 150.0) -> None:
        """Stiffness falls to zero from `ms` on, damping goes to the damping gains."""
        since = np.clip((self.time * 1000 - ms) / ramp_ms, 0.0, 1.0)
        self.kp = self.kp * (1.0 - since)
        self.kd = self.kd + (3.0 - self.kd) * since

    def silent(self, start_ms: float, end_ms: float) -> None:
        """No LowCmd arrives in between."""
        inside = (self.time * 1000 >= start_ms) & (self.time * 1000 < end_ms)
        self.sent = self.sent & ~inside

    def lies_from(self, ms: float) -> None:
        self.height[self.row(ms) :] = 0.08

    def columns(self) -> dict[str, np.ndarray]:
        """As `load_record` returns them; between two LowCmds the last one stays in force."""
        n, rows = self.spec.num_joints, len(self.time)
        latest = np.maximum.accumulate(np.where(self.sent, np.arange(rows), 0))
        qpos = np.zeros((rows, 7 + n))
        qpos[:, 2] = self.height
        qpos[:, 3], qpos[:, 4] = np.cos(self.tilt / 2), np.sin(self.tilt / 2)
        qpos[:, 7:] = self.command_q[latest] + self.joint_offset
        qvel = np.zeros((rows, 6 + n))
        qvel[:, 2] = self.vertical_speed
        qvel[:, 6:] = self.joint_speed
        each = np.ones((1, n), dtype=np.float32)
        return {
            "time": self.time, "wall_ns": self.wall_ns, "qpos": qpos, "qvel": qvel,
            "torque": np.zeros((rows, n), dtype=np.float32),
            "command_q": self.command_q[latest].astype(np.float32),
            "command_dq": np.zeros((rows, n), dtype=np.float32), "command_tau": np.zeros((rows, n), dtype=np.float32),
            "command_kp": (self.kp[latest, None] * each).astype(np.float32),
            "command_kd": (self.kd[latest, None] * each).astype(np.float32),
            "foot_force": np.full((rows, 4), 38.0, dtype=np.float32),
            "lowcmd_ns": self.wall_ns[latest], "lowcmd_count": np.cumsum(self.sent).astype(np.uint32),
        }  # fmt: skip


@pytest.fixture(scope="session")
def spec() -> RobotSpec:
    return load_robot("go2")


@pytest.fixture
def make_record(spec: RobotSpec) -> Callable[[float], HandMade]:
    return lambda seconds: HandMade(spec, seconds)


@pytest.fixture
def hand_made(spec: RobotSpec) -> HandMade:
    return HandMade(spec)
