"""state_estimator: robot state in, state estimate and odometry out."""

from __future__ import annotations

import sys

from nav_msgs.msg import Odometry
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from nfpo_deploy.errors import EstimatorError, MessageError
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode
from nfpo_deploy.ros.parameters import Declaration, above_zero
from nfpo_deploy.ros.state_wire import RobotStateWire, StateEstimateWire
from nfpo_deploy.state.estimator import StateEstimator
from nfpo_deploy.types import StateEstimate

# The filter wants every state, not the newest: two loops at the same rate drift past each other, and a late
# cycle must find what it missed. 16 ms at 250 Hz, no longer than a state may be old anyway.
STATE_QUEUE = QoSProfile(depth=4, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


class StateEstimatorNode(LoopNode):
    """Lifecycle node `state_estimator`."""

    NAME = "state_estimator"
    PARAMETERS = (
        Declaration("rate_hz", 250.0, "rate of the robot state and of the loop, Hz", above_zero),
        Declaration("odometry_rate_hz", 50.0, "rate of /odom and of the transform, Hz", above_zero),
        Declaration("publish_tf", True, "publish the transform odom to base_link"),
    )

    def setup(self) -> None:
        self._estimator = StateEstimator(self.spec, 1.0 / self.settings["rate_hz"])
        self._states = self.poll(RobotStateMsg, topics.ROBOT_STATE, STATE_QUEUE, raw=True)
        self._estimates = self.publish_on(StateEstimateMsg, topics.STATE_ESTIMATE, SENSOR_QOS)
        self._odometry = self.publish_on(Odometry, topics.ODOMETRY, 1)
        self._tf = self.publish_on(TFMessage, topics.TF, 100) if self.settings["publish_tf"] else None
        self._state_wire, self._estimate_wire = RobotStateWire(self.spec), StateEstimateWire(self.spec)
        self._odometry_period_ns = round(NS / self.settings["odometry_rate_hz"])
        self._next_odometry_ns = 0
        self._complained_ns = 0

    def start(self) -> None:
        self._states.newest()
        self._estimator.reset()

    def tick(self, now_ns: int) -> None:
        estimate = None
        while (data := self._states.take()) is not None:
            try:
                estimate = self._estimator.update(self._state_wire.decode(data))
            except MessageError as error:
                self.report_message_error(error)
            except EstimatorError as error:
                # No estimate is the message: its age makes the watchdog act.
                if now_ns - self._complained_ns > NS:
                    self._complained_ns = now_ns
                    self.get_logger().error(str(error))
        if estimate is not None:
            self._publish(estimate, now_ns)

    def _publish(self, estimate: StateEstimate, now_ns: int) -> None:
        stamp_ns = self.stamp_ns()
        self._estimates.publish(self._estimate_wire.encode(estimate, stamp_ns))
        if now_ns < self._next_odometry_ns:
            return
        self._next_odometry_ns = now_ns + self._odometry_period_ns
        stamp = conversions.stamp_of(stamp_ns)
        self._odometry.publish(conversions.odometry_message(estimate, stamp))
        if self._tf is not None:
            self._tf.publish(TFMessage(transforms=[conversions.transform_message(estimate, stamp)]))


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([StateEstimatorNode]))


if __name__ == "__main__":
    main()
