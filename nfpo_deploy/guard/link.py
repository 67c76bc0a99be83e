"""How guard and bridge of one computer know of each other: datagrams on abstract Unix sockets.

A guard reports to the bridge 20 times a second; a bridge that has ended in good order dismisses the guards. The
sockets' names are also the locks that keep a second bridge or guard for the same robot from starting. Nothing is
left behind by a killed process, and no sender ever waits.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from nfpo_deploy.errors import SafetyError

HEARTBEAT_HZ = 20.0
_REPORT = struct.Struct("<8sBBI")
_REPORT_MAGIC = b"nfpo-hb1"
_DISMISS = b"nfpo-end1"
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Report:
    """One heartbeat of a guard."""

    rank: int
    active: bool
    pid: int


class Mailbox:
    """A named socket of this process; receiving and sending never block."""

    def __init__(self, role: str, interface: str, domain_id: int) -> None:
        """Take the name.

        Raises:
            SafetyError: another process has it.
        """
        self._interface, self._domain_id = interface, domain_id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            self._socket.bind(_address(role, interface, domain_id))
        except OSError as error:
            self._socket.close()
            raise SafetyError(
                f"another {role} already serves the robot on interface {interface!r}, DDS domain {domain_id}; stop it "
                f"first ({error.strerror})"
            ) from error

    def receive(self) -> list[bytes]:
        """Datagrams of this user's or root's processes since the last call, at most 64."""
        received = []
        for _ in range(64):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(256, socket.CMSG_SPACE(_CREDENTIALS.size))
            except (BlockingIOError, InterruptedError):
                break
            if _sender(ancillary) in (0, os.getuid()):
                received.append(data)
        return received

    def send(self, role: str, data: bytes) -> bool:
        """Send to the process that has that role for the same robot; False where there is none or it is full."""
        try:
            self._socket.sendto(data, _address(role, self._interface, self._domain_id))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class GuardRoll:
    """The bridge's list of living guards."""

    def __init__(self, mailbox: Mailbox, timeout_s: float) -> None:
        """Keep the roll; a guard silent for longer than `timeout_s` has gone.

        Raises:
            SafetyError: a timeout that is not above zero.
        """
        if not timeout_s > 0:
            raise SafetyError(f"guard status timeout must be above zero, got {timeout_s}")
        self._mailbox = mailbox
        self._timeout_ns = round(timeout_s * 1e9)
        self._reports: dict[int, tuple[int, Report]] = {}

    def poll(self, now_ns: int) -> None:
        """Take the reports that have arrived."""
        for data in self._mailbox.receive():
            report = parse_report(data)
            if report is not None:
                self._reports[report.rank] = (now_ns, report)

    def alive(self, now_ns: int) -> list[Report]:
        """Newest reports of the guards that are there."""
        return [report for ns, report in self._reports.values() if now_ns - ns <= self._timeout_ns]

    def dismiss(self) -> None:
        """Tell all guards that the robot needs none of them any more."""
        for rank in range(len(_GUARD_ROLES)):
            self._mailbox.send(guard_role(rank), _DISMISS)


_GUARD_ROLES = ("guard", "guard_backup")
BRIDGE_ROLE = "sdk_bridge"


def guard_role(rank: int) -> str:
    """Role, and name of the process, of the guard of a rank."""
    return _GUARD_ROLES[rank]


def encode_report(report: Report) -> bytes:
    """Heartbeat as sent."""
    return _REPORT.pack(_REPORT_MAGIC, report.rank, report.active, report.pid)


def parse_report(data: bytes) -> Report | None:
    """Heartbeat as received; None for anything else."""
    if len(data) != _REPORT.size:
        return None
    magic, rank, active, pid = _REPORT.unpack(data)
    if magic != _REPORT_MAGIC or rank >= len(_GUARD_ROLES) or active > 1:
        return None
    return Report(rank, bool(active), pid)


def is_dismissal(data: bytes) -> bool:
    """Whether a datagram is the bridge's word that it has finished."""
    return data == _DISMISS


def is_served(role: str, interface: str, domain_id: int) -> bool:
    """Whether a process of this computer has that role for that robot; nothing is taken and nothing sent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_address(role, interface, domain_id))
        except ConnectionRefusedError:
            return False
        except OSError:  # somebody is there whom we may not reach
            return True
    return True


def _address(role: str, interface: str, domain_id: int) -> str:
    return f"\0nfpo/{role}/{interface}/{domain_id}"


def _sender(ancillary: list) -> int:
    """User id of the sending process as the kernel attests it, -1 where it does not."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
            return _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1]
    return -1
