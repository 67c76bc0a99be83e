"""What a replay needs of a flight log: commands of the policy, the estimates they answer, modes and velocities."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.flight_log.decoding import Decoders
from nfpo_deploy.flight_log.reader import LogMessage, LogReader
from nfpo_deploy.types import Mode, StateEstimate
from robots.loader import RobotSpec, RobotSpecError, load_robot

METADATA = "nfpo"
COMMAND, ESTIMATE = "nfpo_msgs/msg/JointCommand", "nfpo_msgs/msg/StateEstimate"
PERMIT, TWIST = "nfpo_msgs/msg/SafetyPermit", "geometry_msgs/msg/Twist"
VELOCITY_TOPIC = "/cmd_vel"
MAX_MESSAGES = 2_000_000
"""Of one kind that are kept: more than an hour and a half of estimates."""
TARGETS = ("q", "dq", "stiffness", "damping", "tau")
NEW_FIELDS = ("step", "velocity", "observation")


class ReplayError(NfpoError):
    """A log cannot be replayed or compared; the message says what it lacks and what to do."""


@dataclass(frozen=True)
class RecordedCommand:
    """One JointCommand of the log. Joint arrays (N,) in the robot's joint order, units as in the message."""

    time_ns: int
    """When it was recorded, ns since 1970."""
    seq: int
    step: int
    """Ticks since the policy forgot its past, this one included."""
    state: tuple[int, int]
    """Tick and reception (CLOCK_MONOTONIC, ns) of the state that it answers."""
    joint_names_crc: int
    policy_id: int
    velocity: np.ndarray
    """(3,) vx, vy in m/s, wz in rad/s."""
    observation: np.ndarray
    """(D,)."""
    targets: dict[str, np.ndarray]
    """Arrays (N,) by the names in `TARGETS`."""


@dataclass
class Flight:
    """A recorded flight.

    Attributes:
        spec: the robot, as it is installed here.
        metadata: the recording's own description.
        commands: in the order in which they were recorded.
        estimates: by tick and reception of the state they come from.
        modes: (time in ns, mode) of each change of the permit.
        operator: (time in ns, (3,) velocity) of each `/cmd_vel`.
        problems: what could not be read, as lines.
        refused: estimates that belong to another robot or joint order.
    """

    spec: RobotSpec
    metadata: dict[str, str]
    commands: list[RecordedCommand] = field(default_factory=list)
    estimates: dict[tuple[int, int], StateEstimate] = field(default_factory=dict)
    modes: list[tuple[int, Mode]] = field(default_factory=list)
    operator: list[tuple[int, np.ndarray]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused: int = 0

    def mode_at(self, time_ns: int) -> str:
        """Name of the mode that the newest permit had; empty before the first."""
        index = bisect_right(self.modes, time_ns, key=lambda change: change[0]) - 1
        return self.modes[index][1].name if index >= 0 else ""


def read_messages(paths: Sequence[Path], problems: list[str]) -> Iterator[tuple[LogMessage, dict[str, str]]]:
    """Messages of several files of one recording, each with the metadata known so far; appends to `problems`.

    Raises:
        FlightLogError: a file that is no MCAP file.
    """
    metadata: dict[str, str] = {}
    for path in paths:
        reader = LogReader(path)
        for message in reader.messages():
            metadata |= reader.metadata.get(METADATA, {})
            yield message, metadata
        problems += [f"{path.name}, byte {p.offset}: {p.text}" for p in reader.problems]


def robot_of(metadata: dict[str, str], wanted: str) -> RobotSpec:
    """The robot of a recording.

    Args:
        metadata: the recording's own description.
        wanted: name given by the user; empty for the one that the recording names.

    Raises:
        ReplayError: no robot is named, or the one that is named is not installed here.
    """
    name = wanted or metadata.get("robot", "")
    if not name:
        raise ReplayError("the log does not say which robot it is of; name it with --robot")
    try:
        return load_robot(name)
    except RobotSpecError as error:
        raise ReplayError(f"the log is of robot {name[:60]!r}: {error}") from error


def read_flight(paths: Sequence[Path], robot: str = "") -> Flight:
    """Read the files of one recording, in order.

    Args:
        paths: .mcap files.
        robot: name of the robot; empty for the one that the log names.

    Raises:
        FlightLogError: a file that is no MCAP file.
        ReplayError: no message, no command, commands of another robot, or of a version that logged too little.
    """
    problems: list[str] = []
    collector: _Collector | None = None
    for message, metadata in read_messages(paths, problems):
        if collector is None:
            collector = _Collector(Flight(robot_of(metadata, robot), metadata))
        collector.take(message)
    if collector is None:
        raise ReplayError(f"{paths[0]} holds no message" + (f": {problems[0]}" if problems else ""))
    flight = collector.flight
    flight.problems = problems
    if collector.failures:
        flight.problems.append(f"{collector.failures} messages do not fit their own definition")
    _check(flight, collector)
    return flight


def _check(flight: Flight, collector: _Collector) -> None:
    if collector.old:
        raise ReplayError(
            "the commands of this log do not say which velocity the policy was given: it was recorded by an older "
            "version, and what it lacks cannot be recovered exactly"
        )
    if not flight.commands:
        lines = f"; {flight.problems[0]}" if flight.problems else ""
        raise ReplayError(f"the log holds no command of a policy, so there is nothing to replay{lines}")
    spec = flight.spec
    if all(command.joint_names_crc != spec.joint_names_crc for command in flight.commands):
        raise ReplayError(
            f"the log is of another robot or joint order: its joint_names_crc is "
            f"0x{flight.commands[0].joint_names_crc:08x}, robot {spec.name!r} has 0x{spec.joint_names_crc:08x}"
        )


class _Collector:
    """Sorts messages by their type."""

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.old = 0
        self._decoders = Decoders()
        self._misfits = 0
        self._handlers: dict[str, Callable[[LogMessage, Any], None]] = {
            COMMAND: self._command, ESTIMATE: self._estimate, PERMIT: self._permit, TWIST: self._twist,
        }  # fmt: skip

    @property
    def failures(self) -> int:
        return self._decoders.failures + self._misfits

    def take(self, message: LogMessage) -> None:
        handler = self._handlers.get(message.schema.name if message.schema is not None else "")
        if handler is None or (handler == self._twist and message.channel.topic != VELOCITY_TOPIC):
            return
        decoded = self._decoders.decode(message)
        if decoded is None:
            return
        try:
            handler(message, decoded)
        except (AttributeError, TypeError, ValueError, OverflowError):
            # The definition in the file has the name of ours, but other fields or lengths.
            self._misfits += 1

    def _command(self, message: LogMessage, command: Any) -> None:
        if not all(hasattr(command, name) for name in NEW_FIELDS):
            self.old += 1
            return
        n = self.flight.spec.num_joints
        _room(self.flight.commands)
        self.flight.commands.append(
            RecordedCommand(
                time_ns=message.log_ns, seq=int(command.seq), step=int(command.step),
                state=(int(command.state_tick), int(command.state_received_ns)),
                joint_names_crc=int(command.joint_names_crc), policy_id=int(command.policy_id),
                velocity=_vector(command.velocity, 3),
                observation=np.array(command.observation, dtype=np.float32),
                targets={name: _vector(getattr(command, name), n) for name in TARGETS},
            )
        )  # fmt: skip

    def _estimate(self, message: LogMessage, estimate: Any) -> None:
        flight, spec = self.flight, self.flight.spec
        if estimate.joint_names_crc != spec.joint_names_crc:
            flight.refused += 1
            return
        sizes = {"quat_wxyz": 4, "contact": len(spec.feet), "q": spec.num_joints, "dq": spec.num_joints}
        names = ("quat_wxyz", "ang_vel_b", "lin_vel_b", "lin_vel_std", "position_w", "contact", "q", "dq")
        arrays = {name: _vector(getattr(estimate, name), sizes.get(name, 3)) for name in names}
        tick, received_ns = int(estimate.tick), int(estimate.received_ns)
        _room(flight.estimates)
        flight.estimates[tick, received_ns] = StateEstimate(tick=tick, received_ns=received_ns, **arrays)

    def _permit(self, message: LogMessage, permit: Any) -> None:
        mode, modes = Mode(permit.mode), self.flight.modes
        if not modes or modes[-1][1] is not mode:
            modes.append((message.log_ns, mode))

    def _twist(self, message: LogMessage, twist: Any) -> None:
        _room(self.flight.operator)
        velocity = _vector((twist.linear.x, twist.linear.y, twist.angular.z), 3)
        self.flight.operator.append((message.log_ns, velocity))


def _room(kept: Any) -> None:
    if len(kept) >= MAX_MESSAGES:
        raise ReplayError(f"more than {MAX_MESSAGES} messages of one kind; replay a shorter part of the log")


def _vector(values: Any, size: int) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"expected {size} values, got {array.shape}")
    return array
