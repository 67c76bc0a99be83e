"""Somebody on the ROS domain who publishes what nobody should."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

from geometry_msgs.msg import Twist
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg

from nfpo_deploy.ros import topics
from nfpo_deploy.ros.node_base import SENSOR_QOS, PolledSubscription, command_qos
from robots.loader import RobotSpec
from sim2real_checks.faults.processes import RigError

ROGUE = "rogue of the fault campaign"
"""Reason in every rogue permit, by which it can be told from the watchdog's."""
REPEATS, PERIOD_S = 10, 0.003
"""A message alone can be overtaken by a good one before anybody looks."""
OFFER_S = 0.05
"""Deadline that our publishers offer: shorter than every one that is asked for."""


class Rogue:
    """Publishers on somebody else's node; they exist only once they are needed, and `prepare` makes them."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._commands = PolledSubscription(node, JointCommandMsg, topics.JOINT_COMMAND, SENSOR_QOS)
        self._permits = PolledSubscription(node, SafetyPermitMsg, topics.PERMIT, SENSOR_QOS)
        self._command: JointCommandMsg | None = None
        self._permit: SafetyPermitMsg | None = None

    def poll(self) -> None:
        """Keep the newest genuine messages, which the forged ones resemble."""
        self._command = self._commands.newest() or self._command
        permit = self._permits.newest()
        if permit is not None and permit.reason != ROGUE:
            self._permit = permit

    def prepare(self, kind: str) -> None:
        """Make the publisher for a kind of injection, early enough to be known when it speaks."""
        types = {
            "joint_command": (JointCommandMsg, topics.JOINT_COMMAND, command_qos(OFFER_S)),
            "permit": (SafetyPermitMsg, topics.PERMIT, command_qos(OFFER_S)),
            "velocity": (Twist, topics.VELOCITY_COMMAND, 1),
        }
        if kind in types and kind not in self._publishers:
            self._publishers[kind] = self._node.create_publisher(*types[kind])

    def send(self, kind: str, what: str, spec: RobotSpec) -> int:
        """Publish a forged message several times.

        Returns:
            CLOCK_MONOTONIC ns of the first one.

        Raises:
            RigError: there was no genuine message to forge.
            KeyError: an unknown kind or variant.
        """
        self.poll()
        forge = {"joint_command": self._joint_command, "permit": self._permit_message, "velocity": self._velocity}[kind]
        start_ns = time.monotonic_ns()
        for i in range(REPEATS):
            self._publishers[kind].publish(forge(what, i, spec))
            time.sleep(PERIOD_S)
        return start_ns

    def _joint_command(self, what: str, count: int, spec: RobotSpec) -> JointCommandMsg:
        if self._command is None:
            raise RigError("no joint command was seen that could be forged")
        message = copy.deepcopy(self._command)
        message.seq += 1 + count
        message.state_received_ns = max(message.state_received_ns, time.monotonic_ns() - 5_000_000)
        n = spec.num_joints
        if what == "old seq":
            message.seq = max(0, message.seq - 20)
            return message
        changes: dict[str, tuple[str, Any]] = {
            "nan": ("q", [math.nan] * n),
            "wrong length": ("q", [0.0] * (n - 1)),
            "huge gains": ("stiffness", [1.0e4] * n),
            "future": ("state_received_ns", time.monotonic_ns() + 1_000_000_000),
            "wrong joints": ("joint_names_crc", message.joint_names_crc ^ 1),
            "out of range": ("q", [10.0] * n),
        }
        setattr(message, *changes[what])
        return message

    def _permit_message(self, what: str, count: int, spec: RobotSpec) -> SafetyPermitMsg:
        if self._permit is None:
            raise RigError("no permit was seen that could be forged")
        seq = {"old seq": 1, "higher seq": self._permit.seq + 1_000_000}[what] + count
        return SafetyPermitMsg(header=self._permit.header, seq=seq, mode=SafetyPermitMsg.READY, reason=ROGUE)

    def _velocity(self, what: str, count: int, spec: RobotSpec) -> Twist:
        value = {"nan": math.nan, "inf": math.inf, "huge": 1.0e9}[what]
        message = Twist()
        message.linear.x = message.linear.y = message.angular.z = value
        return message
