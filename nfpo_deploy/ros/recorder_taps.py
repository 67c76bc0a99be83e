"""Where the flight recorder gets its messages: raw subscriptions, and the wire beside ROS. Nothing is decoded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from nfpo_deploy.flight_log.schemas import definition_of, definition_of_record
from nfpo_deploy.flight_log.segment import Channel, Entry
from nfpo_deploy.ros.node_base import PolledGroup
from nfpo_deploy.transport.publisher import UNKNOWN
from nfpo_deploy.transport.wire_tap import LOW_CMD, WireTap, role_of

MAX_WRITERS = 64
"""Writers of one wire topic that are told apart."""


class RosTap:
    """A raw subscription: takes messages as bytes, with the times and numbers that the middleware gives them.

    Attributes:
        lost: messages that were published and never arrived, by the gaps in the publishers' own numbering.
    """

    def __init__(self, node: Node, topic: str, message_type: type, qos: QoSProfile) -> None:
        self.topic = topic
        self.lost = 0
        self._channel = Channel(topic, definition_of(message_type))
        self._node = node
        self._next: dict[bytes, int] = {}
        self._count = 0
        self._subscription: Any = node.create_subscription(
            message_type, topic, lambda message: None, qos, callback_group=PolledGroup(), raw=True
        )

    def take(self) -> list[Entry]:
        """Everything since the last call, oldest first."""
        entries: list[Entry] = []
        take, message_type, channel = self._subscription.handle.take_message, self._subscription.msg_type, self._channel
        # A thousand messages a second pass here: what is not done for each of them is CPU time for others.
        while (taken := take(message_type, True)) is not None:
            data, info = taken
            received_ns = info.get("received_timestamp") or time.time_ns()
            sent_ns = info.get("source_timestamp") or received_ns
            entries.append(Entry(channel, received_ns, sent_ns, self._number(info), data))
        return entries

    def _number(self, info: dict[str, Any]) -> int:
        number = info.get("publication_sequence_number")
        if number is None or number >= 1 << 63:  # not every middleware counts
            self._count += 1
            return self._count & 0xFFFFFFFF
        publisher = info["publisher_gid"]["data"]
        expected = self._next.get(publisher, number)
        if number > expected:
            self.lost += number - expected
        self._next[publisher] = number + 1
        return number & 0xFFFFFFFF

    def destroy(self) -> None:
        """Leave the topic."""
        self._node.destroy_subscription(self._subscription)

    def newest(self) -> None:
        """Forget what has come so far."""
        self.take()


@dataclass
class _Writer:
    """A writer of a wire topic, and how many of its messages were taken."""

    channel: Channel
    ours: bool
    count: int = 0


class WireRecorder:
    """Turns what the wire tap hears into entries, one channel for each writer.

    Attributes:
        ours_ns: CLOCK_MONOTONIC when the last LowCmd of a bridge or guard was taken; 0 before the first.
    """

    def __init__(self, tap: WireTap, wire_topics: tuple[str, ...]) -> None:
        self.ours_ns = 0
        self._tap = tap
        self._writers: dict[str, dict[int, _Writer]] = {topic: {} for topic in wire_topics}
        self._definitions = {topic: definition_of_record(tap.codecs[topic]) for topic in wire_topics}
        self._nameless = {
            topic: _Writer(Channel(topic, definition, {"publisher": UNKNOWN}), False)
            for topic, definition in self._definitions.items()
        }
        self._last_utc_ns = time.time_ns()

    def take(self) -> list[Entry]:
        """Everything since the last call, oldest first for each topic; TransportError where DDS fails."""
        now_ns, last_ns = time.time_ns(), self._last_utc_ns
        self._last_utc_ns = now_ns
        entries: list[Entry] = []
        heard = False
        for topic, known in self._writers.items():
            for data, source_ns, handle in self._tap.take(topic):
                writer = known.get(handle) or self._writer(topic, handle)
                writer.count += 1
                heard = heard or writer.ours
                # Taken between the last poll and this one; the writer's clock says more only if it agrees with that.
                log_ns = source_ns if last_ns <= source_ns <= now_ns else min(max(source_ns, last_ns), now_ns)
                entries.append(Entry(writer.channel, log_ns, max(0, source_ns), writer.count & 0xFFFFFFFF, data))
        if heard:
            self.ours_ns = time.monotonic_ns()
        return entries

    def _writer(self, topic: str, handle: int) -> _Writer:
        known = self._writers[topic]
        if len(known) >= MAX_WRITERS:
            return self._nameless[topic]
        publisher = self._tap.publisher(topic, handle)
        if publisher.guid == UNKNOWN:
            # Gone already, or not yet known to discovery, which is asked again for its next message.
            return self._nameless[topic]
        role = role_of(publisher)
        metadata = {
            # Nothing of ours writes a LowState, so there a role says nothing.
            "publisher": role if topic == LOW_CMD else publisher.process,
            "user_data": publisher.user_data.decode(errors="replace")[:200],
            "guid": publisher.guid,
            "host": publisher.host,
            "process": publisher.process,
            "pid": publisher.pid,
            "address": publisher.address,
        }
        ours = topic == LOW_CMD and role != "foreign"
        known[handle] = _Writer(Channel(topic, self._definitions[topic], metadata), ours)
        return known[handle]
