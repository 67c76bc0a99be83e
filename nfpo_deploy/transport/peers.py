"""Which DDS versions are on the robot's network, heard from the announcements that every participant sends.

A participant of Cyclone DDS 11 crashes the 0.10.x of the robot and of Unitree's SDKs when it opens one of their topics
(measured: docs/wire.md). Our own processes are protected, the robot is not: such a peer is a reason not to arm.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.interface import address_of, check_interface
from nfpo_deploy.transport.spdp import CYCLONE, PeerVersion, SpdpError, parse_announcement

SPDP_GROUP = "239.255.0.1"
"""Where participants announce themselves (DDSI-RTPS 2.5, 9.6.2.4.1)."""
FORGET_S = 60.0
"""A participant not heard for this long is gone: twice the interval at which Cyclone DDS announces itself."""
PACKETS_PER_POLL = 16
_MAX_PEERS = 128
_MAX_PACKET = 65536
_LAST_INDEX = 8
"""Highest participant index that Cyclone DDS 0.10 announces itself to by default where there is no multicast."""
_IP_MULTICAST_ALL = 49
_SUPPORTED = re.compile(r"0\.10\.\d+")


def discovery_port(domain_id: int, index: int | None = None) -> int:
    """Port of announcements in a domain: multicast, or unicast of the participant with an index."""
    return 7400 + 250 * domain_id + (0 if index is None else 10 + 2 * index)


class PeerVersions:
    """Listens for announcements on one interface.

    Poll it five to ten times a second from one thread, outside the 500 Hz loop: `poll` never blocks and takes at most
    about a millisecond. The other members may be read from any thread.

    On a network it joins the multicast group of discovery. On loopback, where Cyclone DDS 0.10 announces itself to the
    ports of nine participant indices, it also holds the highest free one of these.

    Attributes:
        malformed: announcements that broke the format.

    Raises:
        TransportError: unknown interface, or neither way of listening could be opened.
    """

    def __init__(self, interface: str, domain_id: int = 0) -> None:
        check_interface(interface)
        if not 0 <= domain_id <= 232:
            raise TransportError(f"DDS domain id must be in 0..232, got {domain_id}; a Unitree robot uses 0")
        self.malformed = 0
        self._interface = interface
        self._domain_id = domain_id
        self._peers: dict[str, tuple[PeerVersion, float]] = {}
        self._sockets: list[socket.socket] = []
        problems = []
        openers = [self._open_multicast] + ([self._open_unicast] if interface == "lo" else [])
        for opener in openers:
            try:
                self._sockets.append(opener())
            except OSError as error:
                problems.append(str(error))
        if not self._sockets:
            raise TransportError(
                f"cannot listen for DDS participants on {interface}: {'; '.join(problems)}; has it an IPv4 address?"
            )

    def poll(self) -> None:
        """Take what has arrived, at most `PACKETS_PER_POLL` packets."""
        now = time.monotonic()
        for source in self._sockets:
            for _ in range(PACKETS_PER_POLL):
                try:
                    packet = source.recv(_MAX_PACKET)
                except OSError:  # nothing more, or the interface is down
                    break
                self._take(packet, now)
        gone = [guid for guid, (_, heard) in self._peers.items() if now - heard > FORGET_S]
        for guid in gone:
            del self._peers[guid]

    def peers(self) -> list[PeerVersion]:
        """Participants heard of late, this process's own included."""
        return [peer for peer, _ in list(self._peers.values())]

    def foreign(self) -> list[PeerVersion]:
        """Those of a Cyclone DDS other than 0.10.x."""
        return [peer for peer in self.peers() if is_foreign_version(peer)]

    def others(self) -> list[PeerVersion]:
        """Those of other implementations (Fast DDS and others), for information."""
        return [peer for peer in self.peers() if peer.vendor_id != CYCLONE]

    @property
    def problem(self) -> str:
        """What is wrong with the versions on the network, for people; "" when nothing is."""
        foreign = self.foreign()
        if not foreign:
            return ""
        named = "; ".join(peer.describe() for peer in foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        return (
            f"foreign DDS version on {self._interface}, domain {self._domain_id}: {named}{more}. It can crash the DDS "
            "of the robot, which runs Cyclone DDS 0.10.x; stop that program, or move it to another domain or network"
        )

    def close(self) -> None:
        """Stop listening; calling it twice is harmless."""
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()

    def _take(self, packet: bytes, now: float) -> None:
        try:
            peer = parse_announcement(packet)
        except SpdpError:
            self.malformed += 1
            return
        if peer is None:
            return
        if peer.gone:
            self._peers.pop(peer.guid, None)
        elif peer.guid in self._peers or len(self._peers) < _MAX_PEERS:
            self._peers[peer.guid] = (peer, now)

    def _open_multicast(self) -> socket.socket:
        opened = _udp_socket()
        with _closed_on_error(opened):
            # Bound to the group, it hears nothing that is sent to this host; without MULTICAST_ALL only what arrives
            # on the interface that it joined itself.
            opened.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            opened.bind((SPDP_GROUP, discovery_port(self._domain_id)))
            membership = struct.pack(
                "4s4si", socket.inet_aton(SPDP_GROUP), b"\0\0\0\0", socket.if_nametoindex(self._interface)
            )
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        return opened

    def _open_unicast(self) -> socket.socket:
        error = OSError("all participant indices are taken")
        for index in range(_LAST_INDEX, -1, -1):
            opened = _udp_socket(shared=False)
            try:
                with _closed_on_error(opened):
                    opened.bind((address_of(self._interface), discovery_port(self._domain_id, index)))
            except OSError as failure:
                error = failure
            else:
                return opened
        raise error


def is_foreign_version(peer: PeerVersion) -> bool:
    """Whether a participant is Cyclone DDS of a version that 0.10.x was not seen to survive; unknown counts."""
    return peer.vendor_id == CYCLONE and _SUPPORTED.fullmatch(peer.version) is None


def _udp_socket(shared: bool = True) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    opened.setblocking(False)
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Which of the two options a DDS library sets differs; sharing a port needs one in common.
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return opened


@contextlib.contextmanager
def _closed_on_error(opened: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise
