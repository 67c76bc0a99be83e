"""This computer: its interface to the robot, its DDS library, its permissions, and a second stack on it."""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nfpo_deploy.errors import TransportError
from nfpo_deploy.guard.link import BRIDGE_ROLE, guard_role, is_served
from nfpo_deploy.realtime import DEFAULT_PRIORITY
from nfpo_deploy.transport.dds_version import require_supported_dds
from nfpo_deploy.transport.interface import address_of
from sim2real_checks.preflight.finding import Finding, Result

ROBOT_NETWORK = ipaddress.ip_network("192.168.123.0/24")
TAKEN = {"192.168.123.161": "the robot's controller", "192.168.123.18": "the robot's computer"}
"""Addresses that a Unitree robot uses itself."""
_UP, _LOOPBACK, _MULTICAST = 0x1, 0x8, 0x1000


@dataclass(frozen=True)
class Interface:
    """What the kernel says of a network interface."""

    name: str
    up: bool
    carrier: bool
    loopback: bool
    multicast: bool
    address: str
    """First IPv4 address, "" for none."""


def read_interface(name: str) -> Interface:
    """Ask the kernel.

    Raises:
        TransportError: no such interface; lists those that exist.
    """
    names = interface_names()
    if name not in names:
        raise TransportError(
            f"interface {name!r} does not exist; existing interfaces: {', '.join(names)}. Name the one that is wired "
            "to the robot, or lo for the simulated robot on this computer"
        )
    flags = int(Path(f"/sys/class/net/{name}/flags").read_text(), 16)
    try:
        carrier = Path(f"/sys/class/net/{name}/carrier").read_text().strip() == "1"
    except OSError:  # the kernel refuses to tell while the interface is down
        carrier = False
    return Interface(
        name, bool(flags & _UP), carrier, bool(flags & _LOOPBACK), bool(flags & _MULTICAST), address_of(name)
    )


def interface_names() -> list[str]:
    """All interfaces of this computer."""
    return [name for _, name in socket.if_nameindex()]


def interfaces_in_robot_network() -> list[str]:
    """Interfaces whose address lies in the network that a Unitree robot has by default."""
    return [name for name in interface_names() if _in_robot_network(address_of(name))]


def judge_interface(interface: Interface) -> Finding:
    """Whether a robot can be reached over it."""
    name = interface.name
    values = vars(interface)

    def finding(result: Result, measured: str, remedy: str = "") -> Finding:
        return Finding("interface", result, f"{name}: {measured}", remedy, values)

    if not interface.up:
        return finding(Result.FAIL, "down", f"ip link set {name} up")
    if not interface.carrier:
        return finding(Result.FAIL, "up, no carrier", "plug the cable in at both ends; is the robot switched on?")
    if not interface.address:
        return finding(Result.FAIL, "no IPv4 address", f"ip addr add 192.168.123.222/24 dev {name}")
    if interface.loopback:
        return finding(Result.PASS, f"up, {interface.address}, loopback: the simulated robot")
    if interface.address in TAKEN:
        remedy = f"that is the address of {TAKEN[interface.address]}; ip addr add 192.168.123.222/24 dev {name}"
        return finding(Result.FAIL, interface.address, remedy)
    if not interface.multicast:
        return finding(Result.FAIL, f"{interface.address}, no multicast", f"ip link set {name} multicast on")
    if not _in_robot_network(interface.address):
        return finding(
            Result.WARN, f"up, {interface.address}, outside {ROBOT_NETWORK}",
            f"right only if the robot's addresses were changed; else: ip addr add 192.168.123.222/24 dev {name}",
        )  # fmt: skip
    return finding(Result.PASS, f"up, {interface.address}, multicast")


def check_dds_library() -> Finding:
    """Whether the Cyclone DDS that this process loads is 0.10.x."""
    try:
        version = require_supported_dds()
    except TransportError as error:
        said, _, remedy = str(error).partition(";")
        return Finding("DDS library", Result.FAIL, said, remedy.strip() or "install Cyclone DDS 0.10.x")
    return Finding("DDS library", Result.PASS, f"Cyclone DDS {version}", values={"version": version})


def check_second_stack(interface: str, domain_id: int) -> Finding:
    """Whether a bridge or a guard of this project serves the same robot from this computer."""
    roles = [BRIDGE_ROLE, guard_role(0), guard_role(1)]
    return judge_second_stack([role for role in roles if is_served(role, interface, domain_id)])


def judge_second_stack(running: Sequence[str]) -> Finding:
    """The same from the roles that are taken."""
    values = {"running": list(running)}
    if not running:
        return Finding("second stack", Result.PASS, "none on this computer", values=values)
    measured = f"already running on this computer: {', '.join(running)}"
    return Finding("second stack", Result.FAIL, measured, "stop it first; the robot must lie when it ends", values)


def check_computer() -> Finding:
    """Real-time permission; kernel and cores for information."""
    return judge_computer(may_run_real_time(), platform.release(), len(os.sched_getaffinity(0)))


def judge_computer(real_time: bool, kernel: str, cores: int) -> Finding:
    """The same from what was found; `cores` are those that this process may use."""
    measured = f"kernel {kernel}, {cores} cores, real-time priority {'allowed' if real_time else 'not allowed'}"
    values = {"kernel": kernel, "cores": cores, "real_time": real_time}
    if real_time:
        return Finding("computer", Result.PASS, measured, values=values)
    lines = "'yourname - rtprio 20' and 'yourname - memlock unlimited'"
    remedy = f"write {lines} to /etc/security/limits.d/nfpo.conf and log in again"
    return Finding("computer", Result.WARN, measured, remedy, values)


def may_run_real_time() -> bool:
    """Whether the kernel lets this process have the priority of a launch; tried for a moment and undone."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(int(DEFAULT_PRIORITY)))
    except OSError:
        return False
    os.sched_setscheduler(0, policy, parameters)
    return True


def _in_robot_network(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ROBOT_NETWORK
