"""operator: wireless remote, keyboard, web page and programs in; at most one of them out, on /cmd_vel.

Reads the remote in RobotState, and velocities of the other sources on /nfpo/operator/<source>. Where nobody drives it
publishes nothing, which is what makes the watchdog stop the robot.
"""

from __future__ import annotations

import sys

from geometry_msgs.msg import Twist
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from nfpo_deploy.errors import MessageError
from nfpo_deploy.operator.arbitration import REMOTE, SOURCES, Arbiter, parse_sources
from nfpo_deploy.operator.remote_drive import DEAD_ZONE, FROZEN_S, RemoteDrive, RemoteOutput
from nfpo_deploy.operator.requests import Request
from nfpo_deploy.operator.speeds import Speeds
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode, command_qos
from nfpo_deploy.ros.parameters import Declaration, above_zero, at_least_zero, not_empty
from nfpo_deploy.ros.requester import Requester
from nfpo_deploy.types import Mode, VelocityCommand

LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ESTOP_CHECK_NS = 200_000_000
"""The watchdog reads the remote's emergency stop by itself; this long after it, the mode must be FAULT."""
MODE_KNOWN_NS = NS // 2
"""Without a permit for this long nobody knows the mode."""
UP = (Mode.READY, Mode.WALK)
"""Where the watchdog expects an operator: walking, it makes the robot stand without one, and standing, sit."""
DEFAULT = Speeds()


class OperatorNode(LoopNode):
    """Lifecycle node `operator`."""

    NAME = "operator"
    PARAMETERS = (
        Declaration("rate_hz", 40.0, "rate at which remote and sources are read, Hz", above_zero),
        Declaration("publish_rate_hz", 20.0, "rate of /cmd_vel, Hz", above_zero),
        Declaration("sources", ",".join(SOURCES), "who may drive, separated by commas", not_empty),
        Declaration("forward", DEFAULT.forward, "speed at full stick, m/s", above_zero),
        Declaration("backward", DEFAULT.backward, "speed at full stick, m/s", above_zero),
        Declaration("sideways", DEFAULT.sideways, "speed at full stick, m/s", above_zero),
        Declaration("turn", DEFAULT.turn, "speed at full stick, rad/s", above_zero),
        Declaration("dead_zone", DEAD_ZONE, "part of a stick's travel without effect", at_least_zero),
        Declaration(
            "frozen_s", FROZEN_S, "a remote unchanged for this long with a stick deflected stops, s", above_zero
        ),
    )

    def setup(self) -> None:
        settings, safety = self.settings, self.spec.safety
        sources = parse_sources(settings["sources"])
        speeds = Speeds(*(settings[name] for name in ("forward", "backward", "sideways", "turn")))
        self._arbiter = Arbiter(sources, speeds)
        self._drive = (
            RemoteDrive(speeds, safety.operator_timeout, settings["frozen_s"], settings["dead_zone"])
            if REMOTE in sources
            else None
        )
        self._states = self.poll(RobotStateMsg, topics.ROBOT_STATE, SENSOR_QOS) if self._drive else None
        self._permits = self.poll(SafetyPermitMsg, topics.PERMIT, command_qos(safety.permit_timeout))
        self._inputs = {
            source: self.poll(Twist, topics.OPERATOR_INPUT + source, SENSOR_QOS)
            for source in sources
            if source != REMOTE
        }
        self._velocity = self.publish_on(Twist, topics.VELOCITY_COMMAND, 1)
        self._driver = self.publish_on(String, topics.OPERATOR_DRIVER, LATEST)
        self._requester = Requester(self)
        self._message = Twist()
        self._publish_ns = round(NS / settings["publish_rate_hz"])
        self._forget()
        self.get_logger().info(f"sources by priority: {', '.join(sources)}; {speeds}")

    def teardown(self) -> None:
        requester = getattr(self, "_requester", None)
        if requester is not None:
            requester.close()
        self._requester = None  # type: ignore[assignment]

    def _forget(self) -> None:
        self._mode: Mode | None = None
        self._permit_at_ns = 0
        self._next_publish_ns = 0
        self._alone, self._rivals_at_ns = True, 0
        self._estop_at_ns = 0
        self._announced: str | None = None

    def start(self) -> None:
        self._forget()
        for subscription in self._owned:
            subscription.newest()

    def tick(self, now_ns: int) -> None:
        self._receive_mode(now_ns)
        if self._drive is not None and self._states is not None:
            state = self._states.newest()
            frame = bytes(state.wireless_remote) if state is not None else None
            self._obey_remote(self._drive.step(frame, state.tick if state is not None else 0, now_ns), now_ns)
        for source, subscription in self._inputs.items():
            message = subscription.newest()
            if message is not None:
                self._arbiter.observe(source, conversions.velocity_from(message), now_ns)
        for answer in self._requester.poll(now_ns):
            self._log_answer(answer.request, answer.accepted, answer.message)
        if now_ns >= self._next_publish_ns:
            # On the loop's own grid, so that the rates divide evenly.
            self._next_publish_ns = max(self._next_publish_ns + self._publish_ns, now_ns)
            self._publish(now_ns)

    # The remote.

    def _obey_remote(self, remote: RemoteOutput, now_ns: int) -> None:
        if remote.present:
            self._arbiter.observe(REMOTE, remote.velocity, now_ns, remote.active)
        else:
            self._arbiter.lose(REMOTE)
        if remote.notice:
            self.get_logger().warning(f"remote: {remote.notice}")
        for request in remote.requests:
            self.get_logger().info(f"the remote asks: {request.value}")
            self._arbiter.take_charge(REMOTE)
            if request is Request.ESTOP:
                self._estop_at_ns = now_ns
            else:
                self._requester.send(request, now_ns)
        if self._estop_at_ns and now_ns - self._estop_at_ns > ESTOP_CHECK_NS:
            self._estop_at_ns = 0
            if self._mode is not Mode.FAULT:
                self.get_logger().error("the remote's emergency stop has not reached the watchdog: calling the service")
                self._requester.send(Request.ESTOP, now_ns)

    def _log_answer(self, request: Request, accepted: bool, message: str) -> None:
        # Two calls, because rclpy allows each place in the code one severity only.
        if accepted:
            self.get_logger().info(f"{request.value}: {message}")
        else:
            self.get_logger().warning(f"{request.value}: {message}")

    # The robot.

    def _receive_mode(self, now_ns: int) -> None:
        message = self._permits.newest()
        if message is not None:
            try:
                self._mode, self._permit_at_ns = conversions.permit_from(message).mode, now_ns
            except MessageError as error:
                self.report_message_error(error)
        elif now_ns - self._permit_at_ns > MODE_KNOWN_NS:
            self._mode = None

    def _publish(self, now_ns: int) -> None:
        if now_ns - self._rivals_at_ns > NS:
            self._rivals_at_ns = now_ns
            alone = self.count_publishers(topics.VELOCITY_COMMAND) <= 1
            if not alone and self._alone:
                self.get_logger().warning(
                    f"another program publishes on {topics.VELOCITY_COMMAND}, which no remote can overrule; let it "
                    f"publish on {topics.OPERATOR_INPUT}autonomy instead"
                )
            self._alone = alone
        velocity = self._arbiter.decide(now_ns, self._mode in UP, self._alone)
        if velocity is not None:
            self._say(velocity)
        if self._arbiter.in_charge != self._announced:
            self._announced = self._arbiter.in_charge
            self._driver.publish(String(data=self._announced))
            self.get_logger().info(f"{self._announced or 'nobody'} drives")

    def _say(self, velocity: VelocityCommand) -> None:
        message = self._message
        message.linear.x, message.linear.y, message.angular.z = velocity.vx, velocity.vy, velocity.wz
        self._velocity.publish(message)


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([OperatorNode]))


if __name__ == "__main__":
    main()
