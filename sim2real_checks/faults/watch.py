"""What the nodes say of a fault: permits of the watchdog and reports of the bridge, with the senders' own times."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from nfpo_deploy.ros import topics
from nfpo_deploy.ros.node_base import PolledSubscription
from nfpo_deploy.types import GatePhase, Mode
from sim2real_checks.faults.rogue import ROGUE

QUEUE = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


class PermitChange(NamedTuple):
    """The first permit of a mode or reason; `ns` is CLOCK_MONOTONIC when the watchdog sent it."""

    ns: int
    mode: Mode
    reason: str


class BridgeChange(NamedTuple):
    """The first report of a phase, reason, guard or end; `ns` is CLOCK_MONOTONIC when the bridge sent it."""

    ns: int
    phase: GatePhase
    reason: str
    tripped: bool
    guard_active: bool
    stopping: bool
    last_trip: str = ""


class Watcher:
    """Polls both topics on somebody else's node and keeps what changed."""

    def __init__(self, node: Any) -> None:
        self._permits = PolledSubscription(node, SafetyPermitMsg, topics.PERMIT, QUEUE)
        self._statuses = PolledSubscription(node, BridgeStatusMsg, topics.BRIDGE_STATUS, QUEUE)
        self.permits: list[PermitChange] = []
        self.bridge: list[BridgeChange] = []

    def poll(self) -> None:
        """Take every message that has come."""
        while (permit := self._permits.take()) is not None:
            change = PermitChange(_monotonic_ns(permit), Mode(permit.mode), permit.reason)
            if change.reason == ROGUE:
                continue
            if not self.permits or self.permits[-1][1:] != change[1:]:
                self.permits.append(change)
        while (status := self._statuses.take()) is not None:
            seen = BridgeChange(
                _monotonic_ns(status),
                GatePhase(status.phase),
                status.reason,
                status.tripped,
                status.guard_active,
                status.stopping,
                status.last_trip,
            )
            if not self.bridge or self.bridge[-1][1:] != seen[1:]:
                self.bridge.append(seen)


def _monotonic_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec - (time.time_ns() - time.monotonic_ns()))
