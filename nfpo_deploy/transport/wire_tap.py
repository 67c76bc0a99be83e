"""Listens to a robot's channel without taking part: every LowCmd and LowState as bytes, with who wrote it and when."""

from __future__ import annotations

from typing import NamedTuple

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import MessageCodec
from nfpo_deploy.transport.dds import DdsParticipant, RawReader
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.lowcmd_watch import BRIDGE, GUARD
from nfpo_deploy.transport.publisher import Publisher
from robots.loader import RobotSpec

LOW_CMD, LOW_STATE = "rt/lowcmd", "rt/lowstate"
_BATCH = 64
"""Samples taken at once; each call pays for as many, however few there are."""


class WireSample(NamedTuple):
    """One sample as it came over the wire."""

    data: bytes
    """CDR with its encapsulation header."""
    source_ns: int
    """When it was written, ns since 1970 by the writer's clock."""
    handle: int
    """Of its writer, for `WireTap.publisher`."""


class WireTap:
    """Readers of rt/lowcmd and rt/lowstate, best effort, so that no writer ever waits for them. One thread polls.

    Attributes:
        codecs: by topic, what explains the bytes.
        overflows: how often a reader was found full, so that samples may be missing.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int, topics: tuple[str, ...], depth: int) -> None:
        """Join the robot's domain.

        Args:
            spec: the robot.
            interface: network interface wired to it.
            domain_id: its DDS domain.
            topics: which of `LOW_CMD` and `LOW_STATE` to read.
            depth: samples of each topic that are kept between two calls of `take`.

        Raises:
            TransportError: unknown message family, or what `DdsParticipant` raises.
        """
        family = family_of(spec)
        from cyclonedds._clayer import ddspy_take

        self._take = ddspy_take
        self.codecs: dict[str, MessageCodec] = {LOW_CMD: family.low_cmd, LOW_STATE: family.low_state}
        self.overflows = 0
        self._participant = DdsParticipant(interface, domain_id)
        types = {LOW_CMD: family.low_cmd_type(), LOW_STATE: family.low_state_type()}
        self._readers: dict[str, RawReader] = {
            topic: self._participant.reader(topic, types[topic], depth) for topic in topics
        }

    def take(self, topic: str) -> list[WireSample]:
        """Everything on a topic since the last call, oldest first; never blocks. TransportError where DDS fails."""
        reader = self._readers[topic]
        found: list[WireSample] = []
        for _ in range(reader.depth // _BATCH):
            samples = self._take(reader.entity._ref, _BATCH)
            if isinstance(samples, int):
                raise TransportError(f"reading {topic} failed with DDS code {samples}")
            found += [
                WireSample(data, info.source_timestamp, info.publication_handle)
                for data, info in samples
                if info.valid_data
            ]
            if len(samples) < _BATCH:
                return found
        self.overflows += 1
        return found

    def publisher(self, topic: str, handle: int) -> Publisher:
        """Who wrote a sample; about a millisecond for one that was not asked for before."""
        return self._readers[topic].publisher(handle)

    def close(self) -> None:
        """Leave the domain."""
        self._participant.close()


def role_of(publisher: Publisher) -> str:
    """What a writer of rt/lowcmd is: "bridge", "guard" or, for all that do not say so, "foreign"."""
    for role, mark in (("bridge", BRIDGE), ("guard", GUARD)):
        if publisher.user_data.startswith(mark):
            return role
    return "foreign"
