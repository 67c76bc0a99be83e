"""Announcements of DDS participants: real packets, hand-made ones, and garbage."""

import random
import socket
import struct
import time

import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.spdp import CYCLONE, SpdpError, parse_announcement

pytest.importorskip("cyclonedds")

from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.dds_version import require_supported_dds
from nfpo_deploy.transport.peers import FORGET_S, PeerVersions, discovery_port, is_foreign_version

DOMAIN = 38


@pytest.fixture(scope="module")
def real_packets():
    """What the installed Cyclone DDS sends: an announcement, and the goodbye of a participant that leaves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", discovery_port(DOMAIN, 7)))
        ear.settimeout(10)
        participant = DdsParticipant("lo", DOMAIN)
        hello = ear.recv(65536)
        participant.close()
        while (last := ear.recv(65536)) == hello:
            pass
    return hello, last


def test_announcement_of_the_installed_cyclone(real_packets):
    import os

    peer = parse_announcement(real_packets[0])
    assert (peer.vendor, peer.vendor_id, peer.version) == ("Cyclone DDS", CYCLONE, require_supported_dds())
    assert (peer.pid, peer.host, peer.addresses) == (str(os.getpid()), socket.gethostname(), ("127.0.0.1",))
    assert peer.guid == real_packets[0][8:20].hex() and not peer.gone
    assert not is_foreign_version(peer)
    assert f"pid {os.getpid()}" in peer.describe()


def test_goodbye(real_packets):
    peer = parse_announcement(real_packets[1])
    assert peer.gone and peer.guid == parse_announcement(real_packets[0]).guid


def announcement(version, order="<", vendor=CYCLONE, prefix=b"\x01" * 12, extra=b"", inline=b"", flags=None):
    """An announcement written by hand after DDSI-RTPS 2.5, 9.4 and 9.6."""

    def text(content):
        raw = content.encode() + b"\0"
        return struct.pack(order + "I", len(raw)) + raw + b"\0" * (-len(raw) % 4)

    def parameter(pid, value):
        return struct.pack(order + "HH", pid, len(value)) + value

    words = struct.pack(order + "5I", 0, 44, 0, 0, 0)
    parameters = parameter(0x50, prefix + b"\x00\x00\x01\xc1") + parameter(0x8007, words + text(f"vm/{version}/Linux"))
    parameters += parameter(0x62, text("bot")) + extra + parameter(1, b"")
    endian = 1 if order == "<" else 0
    body = struct.pack(order + "HH", 0, 16) + b"\x00\x01\x00\xc7\x00\x01\x00\xc2" + struct.pack(order + "iI", 0, 1)
    body += inline + (b"\x00\x03\x00\x00" if endian else b"\x00\x02\x00\x00") + parameters
    flags = (4 | endian | (2 if inline else 0)) if flags is None else flags
    header = b"RTPS\x02\x01" + struct.pack(">H", vendor) + prefix
    stamp = bytes([0x09, endian]) + struct.pack(order + "H", 8) + bytes(8)
    return header + stamp + bytes([0x15, flags]) + struct.pack(order + "H", len(body)) + body


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("version", "foreign"),
    [("0.10.2", False), ("0.10.5", False), ("0.9.1", True), ("0.100.1", True), ("11.0.1", True), ("", True)],
)
def test_versions_in_both_byte_orders(order, version, foreign):
    peer = parse_announcement(announcement(version, order))
    assert (peer.version, peer.name, peer.guid) == (version, "bot", "01" * 12)
    assert is_foreign_version(peer) == foreign


def test_another_vendor_is_named_and_its_version_not_guessed():
    peer = parse_announcement(announcement("0.10.2", vendor=0x010F))
    assert (peer.vendor, peer.version) == ("Fast DDS", "")
    assert not is_foreign_version(peer), "only Cyclone DDS was seen to crash the robot's"
    assert parse_announcement(announcement("1", vendor=0x7777)).vendor == "vendor 0x7777"


def test_packets_that_are_no_announcement():
    hello = announcement("0.10.2")
    assert parse_announcement(hello[:20]) is None
    other_writer = hello.replace(b"\x00\x01\x00\xc2", b"\x00\x00\x03\xc2")
    assert parse_announcement(other_writer) is None
    for packet in (b"", b"RTPS", b"HTTP" + hello[4:]):
        with pytest.raises(SpdpError, match="RTPS"):
            parse_announcement(packet)
    assert issubclass(SpdpError, TransportError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-40], "exceeds the packet"),
        (lambda p: p.replace(b"\x50\x00\x10\x00", b"\x50\x00\xf0\xff"), "exceeds its submessage"),
        (lambda p: p[:-4] + b"\x02\x00\x00\x00", "past the end"),
        (lambda p: p.replace(b"\x00\x03\x00\x00", b"\x00\x01\x00\x00"), "encoding"),
    ],
)
def test_broken_lengths_are_named(change, message):
    with pytest.raises(SpdpError, match=message):
        parse_announcement(change(announcement("0.10.2")))


def test_what_a_stranger_says_of_itself_cannot_reach_the_terminal_as_control_codes():
    peer = parse_announcement(announcement("11.0.1\x1b[2J\n"))
    assert "\x1b" not in peer.describe() and "\n" not in peer.describe()
    assert is_foreign_version(peer)


def mutated(source, packet):
    """One to six bytes changed, and perhaps the tail cut off or the packet repeated behind it."""
    changed = bytearray(packet)
    for _ in range(source.randint(1, 6)):
        changed[source.randrange(len(changed))] = source.choice([0, 1, 0x7F, 0x80, 0xFF, 0x15, source.randrange(256)])
    cut = source.randint(0, len(changed))
    return source.choice([bytes(changed), bytes(changed[:cut]), bytes(changed[:cut] + changed)])


def test_mutated_packets_are_parsed_or_refused_and_never_anything_else(real_packets):
    source = random.Random(5)
    bases = [*real_packets, announcement("0.10.2", ">"), announcement("11.0.1"), announcement("1", vendor=0x010F)]
    outcomes = {"announced": 0, "nothing": 0, "refused": 0}
    for _ in range(50_000):
        try:
            peer = parse_announcement(mutated(source, source.choice(bases)))
        except SpdpError:
            outcomes["refused"] += 1
            continue
        outcomes["announced" if peer else "nothing"] += 1
        if peer is not None:
            assert len(peer.describe()) < 5000 and len(peer.guid) == 24 and peer.describe().isprintable()
    assert min(outcomes.values()) > 1000, outcomes


def test_random_bytes_behind_a_valid_header():
    source = random.Random(3)
    refused = 0
    for _ in range(20_000):
        try:
            parse_announcement(b"RTPS\x02\x01\x01\x10" + source.randbytes(source.randrange(12, 200)))
        except SpdpError:
            refused += 1
    assert 1000 < refused < 20_000


def poll_until(peers, condition, timeout=15.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, [peer.describe() for peer in peers.peers()]
        peers.poll()
        time.sleep(0.02)


def send(packet, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.sendto(packet, ("127.0.0.1", port))


def test_listener_on_loopback_hears_participants_come_and_go():
    peers = PeerVersions("lo", DOMAIN)
    participant = DdsParticipant("lo", DOMAIN)
    try:
        poll_until(peers, lambda: len(peers.peers()) == 1)
        assert peers.foreign() == [] and peers.problem == ""
        participant.close()
        poll_until(peers, lambda: not peers.peers())
    finally:
        participant.close()
        peers.close()
        peers.close()


def test_foreign_version_is_a_problem_until_it_is_silent(monkeypatch):
    peers = PeerVersions("lo", DOMAIN)
    try:
        port = discovery_port(DOMAIN, 8)
        for packet in (announcement("11.0.1"), announcement("?", vendor=0x010F, prefix=b"\x02" * 12), b"RTPSgarbage"):
            send(packet, port)
        poll_until(peers, lambda: len(peers.peers()) == 2 and peers.malformed == 1)
        assert "Cyclone DDS 11.0.1" in peers.problem and "domain 38" in peers.problem
        assert [peer.vendor for peer in peers.others()] == ["Fast DDS"]
        later = time.monotonic() + FORGET_S + 1
        monkeypatch.setattr("nfpo_deploy.transport.peers.time.monotonic", lambda: later)
        peers.poll()
        assert peers.peers() == [] and peers.problem == ""
    finally:
        peers.close()


def test_a_flood_costs_little_time_and_memory():
    peers = PeerVersions("lo", DOMAIN)
    try:
        port = discovery_port(DOMAIN, 8)
        slowest = 0.0
        for i in range(400):
            send(announcement("11.0.1", prefix=struct.pack(">IQ", i, 0)), port)
            begin = time.thread_time()
            peers.poll()
            slowest = max(slowest, time.thread_time() - begin)
        assert 100 < len(peers.peers()) <= 128
        assert slowest < 0.05
    finally:
        peers.close()


@pytest.mark.parametrize(("interface", "domain"), [("eth99", 0), ("lo", -1), ("lo", 233)])
def test_listener_refuses_what_cannot_be(interface, domain):
    with pytest.raises(TransportError):
        PeerVersions(interface, domain)
