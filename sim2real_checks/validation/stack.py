"""The deployed stack in one thread and in simulated time: estimator, policy, watchdog and gate at their own rates.

Every part is the runtime's own module, driven as its ROS node drives it; what is left out are the nodes, the network
and the jitter of real processes.
"""

from __future__ import annotations

import dataclasses
import math

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.errors import NfpoError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.state.estimator import EstimatorError, StateEstimator
from nfpo_deploy.types import (
    BridgeStatus,
    JointCommand,
    Mode,
    MotorCommand,
    RobotState,
    SafetyPermit,
    StateEstimate,
    VelocityCommand,
)
from robots.loader import RobotSpec

BRIDGE_HZ = 500
ESTIMATOR_EVERY, WATCHDOG_EVERY, STATUS_EVERY = 2, 5, 10
"""LowStates for each estimate; cycles of the bridge for each permit and each status."""
NS = 1_000_000_000
PERIOD_NS = NS // BRIDGE_HZ
START_NS = 10 * NS
RUNNING = (Mode.READY, Mode.WALK)


class DeployedStack:
    """One robot's software. Call `cycle` every 2 ms of simulated time.

    Attributes:
        now_ns: simulated CLOCK_MONOTONIC of the cycle under way.
        estimate: newest estimate; None before the first.
        joint_command: newest command of the policy; None before the first.
        given: velocity that the policy was given last.
    """

    def __init__(self, spec: RobotSpec, policy: OnnxPolicy) -> None:
        self.spec = spec
        self.gate = Gate(spec, float(BRIDGE_HZ))
        self.estimator = StateEstimator(spec, ESTIMATOR_EVERY / BRIDGE_HZ)
        self.runner = PolicyRunner(policy, spec)
        rate = policy.manifest.control_rate_hz
        self.watchdog = Watchdog(spec, BRIDGE_HZ / WATCHDOG_EVERY, rate, float(BRIDGE_HZ))
        self.limiter = VelocityCommandLimiter(policy.manifest.command_ranges, spec.safety.operator_timeout)
        self.now_ns = START_NS
        self.estimate: StateEstimate | None = None
        self.joint_command: JointCommand | None = None
        self.given = VelocityCommand(0.0, 0.0, 0.0)
        self._policy_every = round(BRIDGE_HZ / rate)
        self._policy_dt = 1.0 / rate
        self._cycle = self._states = 0
        self._state: RobotState | None = None
        self._permit: SafetyPermit | None = None
        self._permit_ns: int | None = None
        self._command_ns: int | None = None
        self._policy_mode = Mode.DAMP

    @property
    def mode(self) -> Mode:
        """The watchdog's mode."""
        return self.watchdog.mode

    def ask(self, mode: Mode) -> tuple[bool, str]:
        """Arm if need be and ask for a mode, as an operator does; returns acceptance and what is missing."""
        if mode is Mode.STAND:
            armed = self.watchdog.arm(self.now_ns)
            if not armed[0]:
                return armed
        return self.watchdog.request(mode.name, self.now_ns)

    def cycle(self, fresh: RobotState | None, operator: VelocityCommand) -> MotorCommand:
        """One cycle of the bridge, with what the other processes do in these 2 ms.

        Args:
            fresh: state that has just arrived; None if none has.
            operator: what the operator asks for now.
        """
        self._cycle += 1
        self.now_ns += PERIOD_NS
        now = self.now_ns
        if fresh is not None:
            self._take_state(fresh, now)
        if self._cycle % self._policy_every == 0:
            self.watchdog.observe_operator(operator, now)
            self.limiter.receive(operator.vx, operator.vy, operator.wz, now)
            self._infer(now)
        if self._cycle % WATCHDOG_EVERY == 0:
            self._permit, self._permit_ns = self.watchdog.tick(now), now
        command = self.gate.step(
            now, self._state, self._permit, self._permit_ns, self.joint_command, self._command_ns
        )  # fmt: skip
        if self._cycle % STATUS_EVERY == 0:
            self.watchdog.observe_bridge_status(self._status(now), now)
        return command

    def _take_state(self, fresh: RobotState, now: int) -> None:
        # Received now, whatever the sensor's delay was: ages are measured at the receiver.
        fresh = dataclasses.replace(fresh, received_ns=now)
        self._state = fresh
        self._states += 1
        if self._states % ESTIMATOR_EVERY:
            return
        self.watchdog.observe_state(fresh, now)
        try:
            self.estimate = self.estimator.update(fresh)
        except EstimatorError:
            return  # as in the node: the age of the estimate makes the watchdog act
        self.watchdog.observe_estimate(self.estimate, now)

    def _infer(self, now: int) -> None:
        mode = self._permit.mode if self._permit is not None else Mode.DAMP
        if mode is not self._policy_mode:
            if mode in RUNNING:
                self.runner.reset()
                self.limiter.reset()
            self._policy_mode = mode
        if mode not in RUNNING or self.estimate is None:
            return
        if now - self.estimate.received_ns > self.spec.safety.estimate_timeout * NS:
            return
        walking = mode is Mode.WALK
        self.given = self.limiter.step(now, self._policy_dt) if walking else VelocityCommand(0.0, 0.0, 0.0)
        try:
            self.joint_command = self.runner.step(self.estimate, self.given)
        except NfpoError:
            return  # as in the node: a command that does not come grows stale
        self._command_ns = now
        self.watchdog.observe_command(
            self.joint_command, now, self.runner.observation_ok, 0.0, self.runner.output_ok
        )  # fmt: skip

    def _status(self, now: int) -> BridgeStatus:
        gate = self.gate
        return BridgeStatus(
            phase=gate.phase, permit_mode=self._permit.mode if self._permit else Mode.DAMP, reason=gate.reason,
            tripped=gate.tripped, stand_reached=gate.stand_reached, sit_reached=gate.sit_reached,
            state_age=_age(now, self._state.received_ns if self._state else None),
            command_age=_age(now, self._command_ns), permit_age=_age(now, self._permit_ns),
            lowstate_count=self._states, lowcmd_count=self._cycle, limited_count=gate.limited_count,
            loop_rate=float(BRIDGE_HZ), guards_expected=0, last_trip=gate.last_trip,
        )  # fmt: skip


def _age(now: int, then: int | None) -> float:
    return math.inf if then is None else (now - then) / NS
