"""policy_inference: state estimate and operator's velocity in, joint command out, at the policy's own rate.

The policy runs in READY (its commands are watched but not followed, and its velocity command is zero) and in
WALK. In all other modes it rests and forgets.
"""

from __future__ import annotations

import sys
import time

from geometry_msgs.msg import Twist
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.contract.clearance import policy_id
from nfpo_deploy.errors import MessageError, ObservationError, PolicyError
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode, command_qos
from nfpo_deploy.ros.parameters import Declaration, not_empty
from nfpo_deploy.ros.state_wire import StateEstimateWire
from nfpo_deploy.types import Mode, StateEstimate, VelocityCommand

RUNNING = (Mode.READY, Mode.WALK)
STANDING_STILL = VelocityCommand(0.0, 0.0, 0.0)


class PolicyInference(LoopNode):
    """Lifecycle node `policy_inference`."""

    NAME = "policy_inference"
    PARAMETERS = (Declaration("policy", "walk", "ONNX file, or the name of a policy of the robot", not_empty),)

    def setup(self) -> None:
        spec, safety = self.spec, self.spec.safety
        policy = OnnxPolicy.load(resolve_policy(self.settings["policy"], spec), spec)
        manifest = policy.manifest
        self._rate_hz = manifest.control_rate_hz
        self._runner = PolicyRunner(policy, spec)
        self._limiter = VelocityCommandLimiter(manifest.command_ranges, safety.operator_timeout)
        self._estimates = self.poll(StateEstimateMsg, topics.STATE_ESTIMATE, SENSOR_QOS, raw=True)
        self._permits = self.poll(SafetyPermitMsg, topics.PERMIT, command_qos(safety.permit_timeout))
        self._velocities = self.poll(Twist, topics.VELOCITY_COMMAND, SENSOR_QOS)
        self._commands = self.publish_on(JointCommandMsg, topics.JOINT_COMMAND, command_qos(safety.command_timeout))
        self._estimate_wire = StateEstimateWire(spec)
        self._message = JointCommandMsg(policy_id=policy_id(policy.sha256))
        self._estimate_timeout_ns = round(safety.estimate_timeout * NS)
        self._permit_timeout_ns = round(safety.permit_timeout * NS)
        self._forget()
        self.get_logger().info(
            f"policy {policy.path.name} sha256 {policy.sha256[:12]}, {self._rate_hz:g} Hz, observation: "
            + ", ".join(f"{term.name}×{term.history}" for term in manifest.terms)
        )

    def loop_rate_hz(self) -> float:
        return self._rate_hz

    def _forget(self) -> None:
        self._mode = Mode.DAMP
        self._permit_ns = 0
        self._estimate: StateEstimate | None = None
        self._complained_ns = 0

    def start(self) -> None:
        self._forget()
        for subscription in (self._estimates, self._permits, self._velocities):
            subscription.newest()

    def tick(self, now_ns: int) -> None:
        self._receive_mode(now_ns)
        self._receive_velocity(now_ns)
        if self._mode not in RUNNING:
            return
        self._receive_estimate()
        estimate = self._estimate
        # A command that answers an old state would look fresh to the bridge; no command is the honest answer.
        if estimate is None or time.monotonic_ns() - estimate.received_ns > self._estimate_timeout_ns:
            return
        walking = self._mode is Mode.WALK
        velocity = self._limiter.step(now_ns, 1.0 / self._rate_hz) if walking else STANDING_STILL
        try:
            command = self._runner.step(estimate, velocity)
        except (ObservationError, PolicyError) as error:
            if now_ns - self._complained_ns > NS:
                self._complained_ns = now_ns
                self.get_logger().error(f"no joint command: {error}")
            return
        message = self._message
        conversions.fill_joint_command(message, command, self.spec, conversions.stamp_of(self.stamp_ns()))
        conversions.fill_policy_input(message, self._runner.steps, velocity, self._runner.last_observation)
        message.inference_ms = self._runner.inference_ms
        message.observation_ok = self._runner.observation_ok
        message.output_ok = self._runner.output_ok
        self._commands.publish(message)

    def _receive_mode(self, now_ns: int) -> None:
        message = self._permits.newest()
        mode = self._mode
        if message is not None:
            try:
                mode, self._permit_ns = conversions.permit_from(message).mode, now_ns
            except MessageError as error:
                self.report_message_error(error)
                mode = Mode.DAMP
        elif now_ns - self._permit_ns > self._permit_timeout_ns:
            mode = Mode.DAMP
        if mode is not self._mode:
            if mode in RUNNING:
                # Neither history nor speed of the shadow run or an earlier walk may enter this one.
                self._runner.reset()
                self._limiter.reset()
            self._mode = mode

    def _receive_velocity(self, now_ns: int) -> None:
        message = self._velocities.newest()
        if message is not None:
            wanted = conversions.velocity_from(message)
            self._limiter.receive(wanted.vx, wanted.vy, wanted.wz, now_ns)

    def _receive_estimate(self) -> None:
        data = self._estimates.newest()
        if data is not None:
            try:
                self._estimate = self._estimate_wire.decode(data)
            except MessageError as error:
                self._estimate = None
                self.report_message_error(error)


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([PolicyInference]))


if __name__ == "__main__":
    main()
