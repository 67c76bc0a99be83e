"""An operator on the ROS 2 graph: sees what every user can see and calls what every user can call.

Subscriptions are polled by the caller's own loop; an executor runs only while a service call is pending.
"""

from __future__ import annotations

import math
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from nfpo_msgs.srv import SetMode
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.node_base import SENSOR_QOS, PolledSubscription
from nfpo_deploy.types import Mode
from sim2real_checks.walk.run_log import (
    EstimateSample,
    Finding,
    ModeChange,
    PolicySample,
    RunLog,
    StatusSample,
)

NODE_NAME = "walk_operator"
QUEUE = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
_LEVELS = {
    DiagnosticStatus.OK: "ok",
    DiagnosticStatus.WARN: "warning",
    DiagnosticStatus.ERROR: "error",
    DiagnosticStatus.STALE: "stale",
}


class ServiceTimeoutError(NfpoError):
    """A node did not answer a service call in time."""


class Operator:
    """ROS side of the walk. Create it after the environment has its ROS settings, close it in the end.

    Attributes:
        log: what was seen; `log.modes[-1]` is the mode now.
        velocity: newest estimated (vx, vy, wz); NaN before the first estimate.
        unhealthy: name → message of diagnostic rows that are not OK now.
        watching: whether findings of /diagnostics go into the log (before the start most streams are rightly stale).
    """

    def __init__(self, ros_domain_id: int, velocity_topic: str = topics.VELOCITY_COMMAND) -> None:
        """Join the graph.

        Args:
            ros_domain_id: domain of the graph.
            velocity_topic: where velocities go; a graph with an operator node of its own takes them from
                `topics.OPERATOR_INPUT` + "autonomy".
        """
        self.log = RunLog()
        self.velocity = (math.nan,) * 3
        self.unhealthy: dict[str, str] = {}
        self.watching = False
        self.permit_ns = 0
        self._seen_findings: set[tuple[str, str]] = set()
        self._context = rclpy.Context()
        # Ctrl-C belongs to the command: rclpy's handler would end the context before the robot has sat down.
        rclpy.init(context=self._context, domain_id=ros_domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node: Any = rclpy.create_node(
            NODE_NAME, context=self._context, enable_rosout=False, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._velocity = self.node.create_publisher(Twist, velocity_topic, 1)
        self._permits = PolledSubscription(self.node, SafetyPermitMsg, topics.PERMIT, QUEUE)
        self._estimates = PolledSubscription(self.node, StateEstimateMsg, topics.STATE_ESTIMATE, SENSOR_QOS)
        self._statuses = PolledSubscription(self.node, BridgeStatusMsg, topics.BRIDGE_STATUS, QUEUE)
        self._commands = PolledSubscription(self.node, JointCommandMsg, topics.JOINT_COMMAND, QUEUE)
        self._diagnostics = PolledSubscription(self.node, DiagnosticArray, topics.DIAGNOSTICS, QUEUE)
        self._clients: dict[str, Any] = {
            name: self.node.create_client(Trigger, name) for name in (topics.ARM, topics.ESTOP, topics.RESET)
        }
        self._clients[topics.SET_MODE] = self.node.create_client(SetMode, topics.SET_MODE)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    @property
    def mode(self) -> Mode | None:
        """Mode that the watchdog granted last; None before the first permit."""
        return self.log.modes[-1].mode if self.log.modes else None

    def nodes(self) -> set[str]:
        """Names of the other nodes on this ROS domain that were discovered so far."""
        return set(self.node.get_node_names()) - {NODE_NAME}

    def publish_velocity(self, vx: float, vy: float, wz: float) -> None:
        """Say what the robot shall do: m/s, m/s, rad/s in base_link."""
        message = Twist()
        message.linear.x, message.linear.y, message.angular.z = float(vx), float(vy), float(wz)
        self._velocity.publish(message)

    # What it sees.

    def poll(self) -> None:
        """Take every message that has arrived and write down what matters."""
        now_ns = time.monotonic_ns()
        while (permit := self._permits.take()) is not None:
            self._take_permit(permit, now_ns)
        if (estimate := self._estimates.newest()) is not None:
            self.velocity = (estimate.lin_vel_b[0], estimate.lin_vel_b[1], estimate.ang_vel_b[2])
            self.log.estimates.append(EstimateSample(estimate.tick, *map(float, self.velocity)))
        while (status := self._statuses.take()) is not None:
            self.log.statuses.append(StatusSample(now_ns, conversions.bridge_status_from(status)))
        while (command := self._commands.take()) is not None:
            stamp = command.header.stamp
            stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
            self.log.policy.append(
                PolicySample(now_ns, stamp_ns, command.seq, command.inference_ms, command.observation_ok)
            )
        while (array := self._diagnostics.take()) is not None:
            self._take_diagnostics(array, now_ns)

    def _take_permit(self, message: SafetyPermitMsg, now_ns: int) -> None:
        permit = conversions.permit_from(message)
        self.permit_ns = now_ns
        last = self.log.modes[-1] if self.log.modes else None
        if last is None or (last.mode, last.reason) != (permit.mode, permit.reason):
            self.log.modes.append(ModeChange(now_ns, permit.mode, permit.reason))

    def _take_diagnostics(self, array: DiagnosticArray, now_ns: int) -> None:
        for row in array.status:
            name = row.name.partition(": ")[2] or row.name
            if row.level == DiagnosticStatus.OK:
                self.unhealthy.pop(name, None)
                continue
            self.unhealthy[name] = row.message
            level = _LEVELS.get(row.level, "unknown")
            if self.watching and (name, level) not in self._seen_findings:
                self._seen_findings.add((name, level))
                self.log.findings.append(Finding(now_ns, name, level, row.message))

    # What it asks for. A call is started, then `answer` is asked until it has one, so that the caller's loop goes on.

    def start_call(self, service: str, mode: str = "") -> Any:
        """Call a service of the watchdog; returns what `answer` wants.

        Raises:
            KeyError: not one of the four services.
        """
        client = self._clients[service]
        request = SetMode.Request(mode=mode) if service == topics.SET_MODE else Trigger.Request()
        return client.call_async(request)

    def answer(self, call: Any) -> tuple[bool, str] | None:
        """Success and message of a call, None while there is no answer."""
        self._executor.spin_once(timeout_sec=0.0)
        if not call.done():
            return None
        response = call.result()
        return response.success, response.message

    def service_ready(self, service: str) -> bool:
        """Whether a node offers the service."""
        return bool(self._clients[service].service_is_ready())
