"""Sockets bound to every address that hear one interface; that they do not hear another is in test_two_hosts.py."""

import os
import socket

import pytest

from nfpo_deploy.socket_filter import hear_only, open_sockets


@pytest.fixture
def bound():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("0.0.0.0", 0))
        made.settimeout(2.0)
        yield made


def test_finds_the_sockets_that_are_bound_to_every_address_and_no_other(bound):
    before = open_sockets()
    assert bound.fileno() in before
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as every,
        open("/dev/null"),
    ):
        loopback.bind(("127.0.0.1", 0))
        stream.bind(("0.0.0.0", 0))
        every.bind(("0.0.0.0", 0))
        assert open_sockets() - before == {every.fileno()}


def test_looking_leaves_no_descriptor_open(bound):
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        open_sockets()
        hear_only([bound.fileno()], "lo")
    assert len(os.listdir("/proc/self/fd")) == count


def test_this_host_is_heard_on_whatever_address_it_uses(bound):
    port = bound.getsockname()[1]
    assert hear_only([bound.fileno()], "lo") == [port]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for address in ("127.0.0.1", "127.9.9.9"):
            sender.sendto(address.encode(), (address, port))
            assert bound.recv(100) == address.encode()
    with open("/proc/net/udp") as table:
        (line,) = [line.split() for line in table if line.split()[1].endswith(f":{port:04X}")]
    assert line[12] == "0", "packets were dropped"


def test_an_interface_that_does_not_exist_is_an_error(bound):
    with pytest.raises(OSError):
        hear_only([bound.fileno()], "nowhere9")
