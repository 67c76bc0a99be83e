"""The boundary between the stack and a robot: one state in, one command out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nfpo_deploy.transport.peers import PeerVersions
from nfpo_deploy.types import MotorCommand, RobotState


@dataclass(frozen=True)
class TransportStatistics:
    """Counters since the transport was opened."""

    lowstate_count: int
    """Valid states received, returned or overtaken by a newer one."""
    crc_errors: int
    """States dropped because the checksum did not match."""
    lost: int
    """States that never arrived, judged by gaps in the robot's tick."""
    malformed: int
    """States dropped for a wrong size, encoding, non-finite value or non-unit quaternion."""
    lowcmd_count: int
    """Commands written."""
    foreign_lowcmd: int = 0
    """LowCmds of other programs; those of the project's guards do not count."""
    guard_lowcmd: int = 0
    """LowCmds of the project's guards."""


class Transport(Protocol):
    """A channel to one robot. Not thread-safe: one thread reads and writes."""

    def read_state(self) -> RobotState | None:
        """Newest valid state that was not returned before; None where nothing new came. Never blocks.

        `received_ns` is CLOCK_MONOTONIC when the message was taken, hence late by at most one polling period.
        """
        ...

    def write_command(self, cmd: MotorCommand) -> None:
        """Send one command, arrays (N,) in joint order, SI units.

        Raises:
            TransportError: wrong shape or a non-finite value (nothing is sent), or the channel failed.
        """
        ...

    def release_mode(self, timeout_s: float, before: Callable[[str], None] = ...) -> str:
        """Release the robot's built-in controller and return its name, "" where none was active.

        `before` is called with the name just before the release.

        Raises: TransportError: no answer or still not released after `timeout_s` seconds; `timeout_s` not
            above zero.
        """
        ...

    def restore_mode(self, name: str, timeout_s: float) -> None:
        """Hand the robot back to its built-in controller `name`, as `release_mode` returned it.

        Call it after the last command was written: the controller takes the motors at once.

        Raises: TransportError: no such controller, no answer, or not active after `timeout_s` seconds; `timeout_s`
            not above zero, or an empty name.
        """
        ...

    def refuse_company(self, listen_s: float) -> None:
        """Listen for `listen_s` seconds for commands of other programs.

        Call it after `release_mode`: a robot's built-in controller is such a program.

        Raises: TransportError: another program commands the motors (named); `listen_s` not above zero.
        """
        ...

    @property
    def statistics(self) -> TransportStatistics: ...

    @property
    def foreign_publisher(self) -> str:
        """The program that sent the newest foreign command, for people; "" if there was none."""
        ...

    @property
    def last_foreign_ns(self) -> int:
        """CLOCK_MONOTONIC when the newest foreign command was taken; 0 if there was none."""
        ...

    @property
    def last_guard_ns(self) -> int:
        """CLOCK_MONOTONIC when the newest command of a guard was taken; 0 if there was none."""
        ...

    @property
    def identity_problem(self) -> str:
        """Why this cannot be the robot of the spec, or not the only one; "" when nothing speaks against it."""
        ...

    def peer_versions(self) -> PeerVersions:
        """Who else speaks DDS on the robot's network, and in which version; always the same object.

        To be polled from a thread other than the one that reads and writes. Raises: TransportError: cannot listen.
        """
        ...

    def close(self) -> None:
        """Leave the channel; calling it twice is harmless."""
        ...
