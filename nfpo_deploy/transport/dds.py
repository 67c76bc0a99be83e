"""Raw DDS channels: bytes in, bytes out, on one named network interface.

Samples pass as CDR bytes through the reader and writer of the C library, so nothing is deserialised field by
field. QoS is that of Unitree's SDK: writers reliable, readers best effort, volatile, history depth 1 for writers.

Our endpoints announce no XTypes type information. Unitree's message types need none, and with it the announcement
of a Cyclone DDS 11 endpoint on the same topic makes 0.10.x crash in its type library: a laptop that joins the network
would kill the process that holds the robot.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nfpo_deploy.errors import TransportError
from nfpo_deploy.socket_filter import hear_only, open_sockets
from nfpo_deploy.transport.dds_version import require_supported_dds
from nfpo_deploy.transport.interface import check_interface
from nfpo_deploy.transport.publisher import Publisher, PublisherDirectory

# As Unitree's SDK has it. On loopback Cyclone then warns that it disables multicast; forbidding multicast
# here would silence that, but participants no longer found each other. Participants announce themselves every second
# instead of every 30: two that start together on loopback can miss each other's first announcement. Without multicast
# each program takes one participant index, of which there are nine by default; ours may go beyond. One that was killed
# is forgotten after 5 s instead of 10: its readers and writers count as matched until then.
_CONFIG = """<CycloneDDS><Domain Id="any">
<General><Interfaces>
<NetworkInterface name="{interface}" priority="default" multicast="default"/>
</Interfaces></General>
<Discovery>
<SPDPInterval>1 s</SPDPInterval><LeaseDuration>5 s</LeaseDuration><MaxAutoParticipantIndex>19</MaxAutoParticipantIndex>
</Discovery>
</Domain></CycloneDDS>"""
READER_DEPTH = 8
"""Samples kept between two reads: enough to count what came while the reader slept for a few periods."""

MAX_BLOCKING_MS = 1
"""Longest time that a write may wait for a slow reliable reader, half a period of the bridge's loop. With history
depth 1 it never has to (measured: docs/wire.md); Unitree's SDK would wait 100 ms."""
_TIMEOUT = -10
_LOG_ALL, _LOG_FATAL = 7, 1

_lock = threading.Lock()
_domains: dict[int, _OpenDomain] = {}


@dataclass
class _OpenDomain:
    interface: str
    domain: Any
    users: int


class DdsParticipant:
    """One participant in a Unitree domain, with its readers and writers.

    Within a process, participants of one domain share its configuration and thus its interface.

    Raises: TransportError: Cyclone DDS of the wrong version, unknown interface, domain id out of 0..232,
        domain already
            open on another interface, or a failure of DDS itself.
    """

    def __init__(self, interface: str, domain_id: int = 0) -> None:
        require_supported_dds()
        check_interface(interface)
        # 232 is the largest id whose ports fit into 16 bits (DDSI-RTPS 2.5, 9.6.2.3).
        if not 0 <= domain_id <= 232:
            raise TransportError(f"DDS domain id must be in 0..232, got {domain_id}; a Unitree robot uses 0")
        from cyclonedds.domain import DomainParticipant

        self.interface = interface
        self.domain_id = domain_id
        self._entities: list[Any] = []
        self._directory: PublisherDirectory | None = None
        _acquire_domain(interface, domain_id)
        try:
            self._participant: Any = _guard("join the DDS domain", DomainParticipant, domain_id)
        except TransportError:
            _release_domain(domain_id)
            raise

    def writer(self, topic: str, data_type: type, user_data: bytes = b"") -> RawWriter:
        """Reliable writer of `topic`, history depth 1; `user_data` tells every reader who writes."""
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.util import duration

        qos = Qos(
            Policy.Reliability.Reliable(duration(milliseconds=MAX_BLOCKING_MS)),
            Policy.History.KeepLast(1),
            Policy.Userdata(data=user_data),
        )
        opened = self._topic(topic, data_type)
        entity = _guard(f"create a writer of {topic}", DataWriter, self._participant, opened, qos)
        self._entities.append(entity)
        return RawWriter(topic, entity)

    def reader(self, topic: str, data_type: type, depth: int = READER_DEPTH, ignore_own: bool = False) -> RawReader:
        """Best-effort reader of `topic` that keeps the newest `depth` samples.

        With `ignore_own` the writers of this participant do not reach it.
        """
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader

        ignored = Policy.IgnoreLocal.Participant if ignore_own else Policy.IgnoreLocal.Nothing
        qos = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(depth), ignored)
        opened = self._topic(topic, data_type)
        entity = _guard(f"create a reader of {topic}", DataReader, self._participant, opened, qos)
        self._entities.append(entity)
        return RawReader(topic, entity, depth, self._known())

    def participants(self) -> list[Publisher]:
        """Everybody whom discovery knows in this domain, this participant included; not for a fast loop."""
        return self._known().participants()

    def _known(self) -> PublisherDirectory:
        if self._directory is None:
            self._directory = PublisherDirectory(self._participant)
        return self._directory

    def close(self) -> None:
        """Leave the domain; readers and writers made here become unusable."""
        if self._participant is None:
            return
        for entity in (*reversed(self._entities), self._participant):
            _delete(entity)
        self._entities.clear()
        self._directory = None
        self._participant = None
        _release_domain(self.domain_id)

    def _topic(self, name: str, data_type: type) -> Any:
        from cyclonedds.topic import Topic

        if self._participant is None:
            raise TransportError(f"cannot open topic {name}: this participant is closed")
        with _without_type_information(data_type):
            topic = _guard(f"create topic {name}", Topic, self._participant, name, data_type)
        self._entities.append(topic)
        return topic


class RawWriter:
    """Writes CDR samples (encapsulation header included, a multiple of 4 bytes).

    Attributes:
        timeouts: samples not sent because a reliable reader was too slow.
    """

    def __init__(self, topic: str, entity: Any) -> None:
        from cyclonedds._clayer import ddspy_write

        self.topic = topic
        self.entity = entity
        self.timeouts = 0
        self._write = ddspy_write

    def write(self, sample: bytes) -> None:
        """Send one sample; TransportError where DDS refuses it. A network that is down is no error."""
        code = self._write(self.entity._ref, sample)
        if code == _TIMEOUT:
            self.timeouts += 1
        elif code < 0:
            raise TransportError(f"writing {self.topic} failed with DDS code {code}")

    def write_message(self, message: Any) -> None:
        """Send an IDL object of this topic's type."""
        self.entity.write(message)

    @property
    def matched(self) -> int:
        """How many readers receive this writer's samples now."""
        return _matched(self.entity, "dds_get_matched_subscriptions")


class RawReader:
    """Takes CDR samples, oldest first; never blocks."""

    def __init__(self, topic: str, entity: Any, depth: int, directory: PublisherDirectory) -> None:
        from cyclonedds._clayer import ddspy_take

        self.topic = topic
        self.entity = entity
        self.depth = depth
        self._directory = directory
        self._take = ddspy_take

    def take(self) -> list[bytes]:
        """All samples since the last call, at most the newest `depth`; TransportError where DDS fails."""
        return [data for data, _ in self._take_valid()]

    def take_with_handles(self) -> list[tuple[bytes, int]]:
        """As `take`, each sample with the publication handle of its writer; see `publisher`."""
        return [(data, info.publication_handle) for data, info in self._take_valid()]

    def take_with_times(self) -> list[tuple[bytes, int]]:
        """As `take`, each sample with the moment at which its writer wrote it: CLOCK_REALTIME there, ns."""
        return [(data, info.source_timestamp) for data, info in self._take_valid()]

    def _take_valid(self) -> list[tuple[bytes, Any]]:
        samples = self._take(self.entity._ref, self.depth)
        if isinstance(samples, int):
            raise TransportError(f"reading {self.topic} failed with DDS code {samples}")
        return [(data, info) for data, info in samples if info.valid_data]

    def publisher(self, handle: int) -> Publisher:
        """Who wrote a sample: cached, hence cheap for all but the first of each writer (about a millisecond)."""
        return self._directory.find(self.entity, handle)

    def publishers(self) -> list[Publisher]:
        """The writers that send to this reader now, silent ones included; not for a fast loop."""
        return self._directory.matched(self.entity)

    @property
    def matched(self) -> int:
        """How many writers send to this reader now."""
        return _matched(self.entity, "dds_get_matched_publications")


@contextmanager
def _without_type_information(data_type: Any) -> Iterator[None]:
    """While a topic of `data_type` is made, hide its XTypes description from Cyclone DDS.

    The class is shared with unitree_sdk2py, hence everything is put back.
    """
    idl = data_type.__idl__
    with _lock:
        kept, idl._xt_bytedata = idl._xt_bytedata, (None, None)
        idl.fill_type_data = lambda: None
        try:
            yield
        finally:
            del idl.fill_type_data
            idl._xt_bytedata = kept


def _guard(action: str, function: Any, *args: Any) -> Any:
    from cyclonedds.core import DDSException

    try:
        return function(*args)
    except DDSException as error:
        raise TransportError(f"cannot {action}: {error}") from error


def _matched(entity: Any, function: str) -> int:
    from cyclonedds.internal import DDS

    return max(0, getattr(DDS._dll_handle, function)(entity._ref, None, 0))


def _acquire_domain(interface: str, domain_id: int) -> None:
    from cyclonedds.domain import Domain

    with _lock:
        opened = _domains.get(domain_id)
        if opened is None:
            _log(_LOG_ALL)
            before = open_sockets()
            domain = _guard(
                f"open DDS domain {domain_id} on {interface} (is it in use in this process already, or by more than "
                "19 other programs?)",
                Domain, domain_id, _CONFIG.format(interface=interface),
            )  # fmt: skip
            # While the link is down Cyclone writes a line to stderr for every packet, from the thread that sends: a
            # reader of stderr that stalls would stop the loop that commands the motors.
            _log(_LOG_FATAL)
            try:
                hear_only(open_sockets() - before, interface)
            except OSError as error:
                _delete(domain)
                raise TransportError(f"cannot confine DDS to interface {interface!r}: {error}") from error
            _domains[domain_id] = _OpenDomain(interface, domain, 1)
        elif opened.interface != interface:
            raise TransportError(
                f"DDS domain {domain_id} is already open on interface {opened.interface!r} in this process, "
                f"cannot open it on {interface!r}; close the other transport first"
            )
        else:
            opened.users += 1


def _release_domain(domain_id: int) -> None:
    with _lock:
        opened = _domains[domain_id]
        opened.users -= 1
        if opened.users == 0:
            del _domains[domain_id]
            _delete(opened.domain)


def _log(mask: int) -> None:
    from cyclonedds.internal import DDS

    DDS._dll_handle.dds_set_log_mask(mask)


def _delete(entity: Any) -> None:
    # The package deletes an entity when its Python object is collected; leaving must not wait for that.
    # Called a second time, by the collector, it does nothing.
    entity.__del__()
