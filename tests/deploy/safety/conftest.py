"""A gate on a simulated clock, with a robot whose joints go where they are told; a watchdog with healthy streams."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.types import (
    BridgeStatus,
    GatePhase,
    JointCommand,
    Mode,
    MotorCommand,
    RobotState,
    SafetyPermit,
    StateEstimate,
    VelocityCommand,
)
from robots.loader import load_robot

PERIOD_NS = 2_000_000
TICK_NS = 10_000_000
HEALTHY_PHASES = {
    Mode.DAMP: GatePhase.DAMPING, Mode.STAND: GatePhase.RAMPING, Mode.READY: GatePhase.HOLDING,
    Mode.WALK: GatePhase.TRACKING, Mode.SIT: GatePhase.RAMPING, Mode.FAULT: GatePhase.DAMPING,
}  # fmt: skip


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


class WatchdogRig:
    """A watchdog at 100 Hz with healthy streams, whose messages a test may change or withhold."""

    def __init__(self, spec):
        self.spec, self.n = spec, spec.num_joints
        self.watchdog = Watchdog(spec)
        self.now, self.k = 7_000_000_000, 0
        self.state, self.estimate, self.command, self.status = {}, {}, {}, {}
        self.policy_says = {"observation_ok": True, "output_ok": True, "inference_ms": 1.0}
        self.velocity = VelocityCommand(0.5, 0.0, 0.0)
        self.silent: set[str] = set()
        self.permit: SafetyPermit | None = None
        self.lowstates_per_tick = 5
        self.command_every = 2
        self.lowstate_count = self.seq = 0

    def tick(self) -> SafetyPermit:
        self.now += TICK_NS
        self.k += 1
        self.lowstate_count += self.lowstates_per_tick
        for stream in ("state", "estimate", "command", "operator", "status"):
            if stream not in self.silent:
                getattr(self, f"_send_{stream}")()
        self.permit = self.watchdog.tick(self.now)
        return self.permit

    def make_state(self, **changes) -> RobotState:
        n = self.n
        state = RobotState(
            5 * self.k, self.now, np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), np.array([0, 0, 9.81]),
            self.spec.default_pose.copy(), np.zeros(n), np.zeros(n), np.full(n, 40.0), np.zeros(4), 80.0, 28.0,
            bytes(40),
        )  # fmt: skip
        return replace(state, **changes)

    def _send_state(self):
        self.watchdog.observe_state(self.make_state(**self.state), self.now)

    def _send_estimate(self):
        estimate = StateEstimate(
            5 * self.k, self.now, np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), np.zeros(3), np.full(3, 0.05),
            np.zeros(3), np.ones(4), self.spec.default_pose.copy(), np.zeros(self.n),
        )  # fmt: skip
        self.watchdog.observe_estimate(replace(estimate, **self.estimate), self.now)

    def _send_command(self):
        if self.k % self.command_every:
            return
        n = self.n
        self.seq += 1
        command = JointCommand(
            self.seq, 5 * self.k, self.now, self.spec.default_pose.copy(), np.zeros(n), np.full(n, 25.0),
            np.full(n, 0.6), np.zeros(n),
        )  # fmt: skip
        self.watchdog.observe_command(replace(command, **self.command), self.now, **self.policy_says)

    def _send_operator(self):
        self.watchdog.observe_operator(self.velocity, self.now)

    def _send_status(self):
        mode = self.permit.mode if self.permit else Mode.DAMP
        status = BridgeStatus(
            HEALTHY_PHASES[mode], mode, "", False, mode in (Mode.READY, Mode.WALK), False, 0.0, 0.0, 0.0,
            lowstate_count=self.lowstate_count, loop_rate=500.0, loop_jitter_p99_ms=0.3, guards_expected=2,
            guards_alive=2,
        )  # fmt: skip
        self.watchdog.observe_bridge_status(replace(status, **self.status), self.now)

    def ticks(self, count: int) -> SafetyPermit | None:
        for _ in range(count):
            self.tick()
        return self.permit

    def run(self, seconds: float) -> SafetyPermit | None:
        return self.ticks(round(seconds * 1e9 / TICK_NS))

    def to(self, mode: Mode) -> WatchdogRig:
        """There by the operator's own way; FAULT by an emergency stop."""
        self.run(0.2)
        if mode is Mode.FAULT:
            self.watchdog.estop(self.now)
            self.run(0.1)
        if mode not in (Mode.DAMP, Mode.FAULT):
            assert self.watchdog.arm(self.now) == (True, "armed")
            assert self.watchdog.request("STAND", self.now)[0]
            self.run(0.1)
        if mode in (Mode.READY, Mode.WALK, Mode.SIT):
            self.status = {"stand_reached": True}
            self.run(0.04)
            self.status = {}
            self.run(1.1)
        if mode in (Mode.WALK, Mode.SIT):
            assert self.watchdog.request(mode.name, self.now) == (True, mode.name)
            self.run(0.2)
        assert self.watchdog.mode is mode
        return self

    def row(self, name: str):
        return next(row for row in self.watchdog.diagnostics(self.now) if row.name == name)


@pytest.fixture
def dog(spec) -> WatchdogRig:
    return WatchdogRig(spec)


@pytest.fixture(scope="session")
def spec():
    return load_robot("go2")


@pytest.fixture
def rig(spec) -> GateRig:
    return GateRig(spec)
