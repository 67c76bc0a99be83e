"""A gate on a simulated clock, with a robot whose joints go where they are told."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.types import JointCommand, Mode, MotorCommand, RobotState, SafetyPermit
from robots.loader import load_robot

PERIOD_NS = 2_000_000


class GateRig:
    """Gate at 500 Hz, permits and joint commands at 50 Hz. Joints follow their targets with a lag of about 20 ms."""

    def __init__(self, spec):
        self.spec, self.n = spec, spec.num_joints
        self.gate = Gate(spec)
        self.now = 5_000_000_000
        self.tick = self.seq = 0
        self.q = spec.crouch_pose.copy()
        self.permit: SafetyPermit | None = None
        self.permit_ns: int | None = None
        self.command: JointCommand | None = None
        self.command_ns: int | None = None
        self.state_changes: dict = {}
        self.send_state = self.send_permit = self.send_command = True
        self.last_state: RobotState | None = None
        self.costs_ns: list[int] = []

    def make_state(self) -> RobotState:
        n = self.n
        state = RobotState(
            tick=self.tick, received_ns=self.now, quat_wxyz=np.array([1.0, 0.0, 0.0, 0.0]), gyro_b=np.zeros(3),
            accel_b=np.array([0.0, 0.0, 9.81]), q=self.q.copy(), dq=np.zeros(n), tau_est=np.zeros(n),
            temperature=np.full(n, 30.0), foot_force=np.zeros(4), battery_soc=80.0, voltage=28.0,
            wireless_remote=bytes(40),
        )  # fmt: skip
        return replace(state, **self.state_changes)

    def make_command(self, **changes) -> JointCommand:
        n = self.n
        command = JointCommand(
            seq=self.seq, state_tick=self.tick, state_received_ns=self.now, q=self.spec.default_pose.copy(),
            dq=np.zeros(n), stiffness=np.full(n, 25.0), damping=np.full(n, 0.6), tau=np.zeros(n),
        )  # fmt: skip
        return replace(command, **changes)

    def step(self, mode: Mode, **command_changes) -> MotorCommand:
        self.now += PERIOD_NS
        self.tick += 1
        if self.tick % 10 == 0:
            self.seq += 1
            if self.send_permit:
                self.permit, self.permit_ns = SafetyPermit(self.seq, mode), self.now
            if self.send_command:
                self.command, self.command_ns = self.make_command(**command_changes), self.now
        if self.send_state:
            self.last_state = self.make_state()
        args = (self.now, self.last_state, self.permit, self.permit_ns, self.command, self.command_ns)
        started = time.perf_counter_ns()
        out = self.gate.step(*args)
        self.costs_ns.append(time.perf_counter_ns() - started)
        if out.stiffness.any():
            self.q = self.q + 0.1 * (out.q - self.q)
        return out

    def run(self, mode: Mode, seconds: float, **command_changes) -> list[MotorCommand]:
        return [self.step(mode, **command_changes) for _ in range(round(seconds * 500))]

    def stand(self) -> None:
        self.run(Mode.DAMP, 0.2)
        self.run(Mode.STAND, self.spec.safety.stand_duration + 0.1)
        self.run(Mode.READY, 0.1)

    def walk(self, **command_changes) -> None:
        self.stand()
        self.run(Mode.WALK, 0.5, **command_changes)


@pytest.fixture(scope="session")
def spec():
    return load_robot("go2")


@pytest.fixture
def rig(spec) -> GateRig:
    return GateRig(spec)
