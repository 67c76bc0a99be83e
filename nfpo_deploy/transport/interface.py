"""Network interfaces of this host: refuse one that cannot reach a robot before DDS tries."""

from __future__ import annotations

import fcntl
import socket
import struct

from nfpo_deploy.errors import TransportError

_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_IFF_UP = 1


def check_interface(interface: str) -> None:
    """Raise TransportError, with the remedy, unless `interface` exists, is up and has an IPv4 address."""
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        problem = f"interface {interface!r} does not exist" if interface else "no network interface given"
        raise TransportError(
            f"{problem}; existing interfaces: {', '.join(names)}. Name the one that is wired to the robot, "
            "or lo for the simulated robot on this computer"
        )
    if not struct.unpack_from("H", _ask(interface, _SIOCGIFFLAGS), 16)[0] & _IFF_UP:
        raise TransportError(f"interface {interface!r} is down; switch it on: ip link set {interface} up")
    if not address_of(interface):
        raise TransportError(
            f"interface {interface!r} has no IPv4 address; give it one of the robot's network, for a Unitree robot: "
            f"ip addr add 192.168.123.222/24 dev {interface}"
        )


def address_of(interface: str) -> str:
    """The first IPv4 address of an interface, "" where it has none."""
    try:
        return socket.inet_ntoa(_ask(interface, _SIOCGIFADDR)[20:24])
    except OSError:
        return ""


def _ask(interface: str, request: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return fcntl.ioctl(probe, request, struct.pack("256s", interface.encode()[:15]))
