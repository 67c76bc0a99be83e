"""What a log tells: who changed the mode and why, what tripped first, who commanded the motors, and what is missing."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.flight_log.decoding import Decoders
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.reader import LogMessage, LogReader
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE, HG_LOW_CMD, HG_LOW_STATE, MessageCodec
from nfpo_deploy.transport.mapping import TickGaps
from nfpo_deploy.types import GatePhase, Mode

NS = 1_000_000_000
MAX_MESSAGES = 50_000_000
MAX_EVENTS = 5_000
GAP_S = 0.1
"""Silence of a stream that is worth telling."""
TOGETHER_S = 0.05
STEADY_S = 0.2
"""Only a stream whose messages mostly come faster than this is expected to be steady."""
WARNING = 30
_LOW_CMD = {"unitree_go/msg/LowCmd": GO_LOW_CMD, "unitree_hg/msg/LowCmd": HG_LOW_CMD}
_LOW_STATE = {"unitree_go/msg/LowState": GO_LOW_STATE, "unitree_hg/msg/LowState": HG_LOW_STATE}
_LEVELS = ("ok", "warning", "error", "stale")


@dataclass(frozen=True)
class Event:
    """One line of the timeline."""

    time_ns: int
    kind: str
    text: str


@dataclass
class Stream:
    """One topic, or one writer's part of it."""

    topic: str
    writer: str
    times: array = field(default_factory=lambda: array("Q"))
    """Log times, ns."""
    sequences: array = field(default_factory=lambda: array("Q"))
    ticks: TickGaps | None = None

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def lost(self) -> int | None:
        """Messages missing by the sender's numbering; None where several senders number the topic."""
        numbers = np.frombuffer(self.sequences, dtype=np.uint64).astype(np.int64)
        steps = np.diff(numbers)
        if len(numbers) == 0 or np.any(steps <= 0):
            return None
        return int(np.sum(steps - 1))

    def sorted_times(self) -> np.ndarray:
        """Log times in order, ns, shape (count,)."""
        return np.sort(np.frombuffer(self.times, dtype=np.uint64)).astype(np.int64)


@dataclass
class Timeline:
    """The analysis of one or several files.

    Attributes:
        events: in the order of time.
        streams: every topic, the wire's topics once for each writer.
        problems: what could not be read, as lines.
        first_cause: reason of the first trip; empty where there was none.
        metadata: the recording's own description of itself.
        left_out: events beyond the limit.
    """

    events: list[Event] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    first_cause: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    @property
    def start_ns(self) -> int:
        return min((min(stream.times) for stream in self.streams if stream.count), default=0)

    @property
    def end_ns(self) -> int:
        return max((max(stream.times) for stream in self.streams if stream.count), default=0)


def analyse(paths: Sequence[Path]) -> Timeline:
    """Read files of one recording, in order, and tell what happened.

    Raises:
        FlightLogError: a file that is no MCAP file, or more messages than can be held.
    """
    analysis = _Analysis()
    for path in paths:
        reader = LogReader(path)
        for message in reader.messages():
            analysis.observe(message)
        analysis.timeline.metadata |= reader.metadata.get("nfpo", {})
        analysis.timeline.problems += [f"{path.name}, byte {p.offset}: {p.text}" for p in reader.problems]
    return analysis.finish()


class _Analysis:
    def __init__(self) -> None:
        self.timeline = Timeline()
        self._streams: dict[tuple[Any, ...], Stream] = {}
        self._count = 0
        self._decoders = Decoders()
        self._last: dict[str, Any] = {}
        self._first_trip_ns = 0
        self._gaps: list[tuple[int, float, str]] = []  # start in ns, length in s, stream
        self._handlers: dict[str, Callable[[LogMessage, Any], None]] = {
            "nfpo_msgs/msg/SafetyPermit": self._permit,
            "nfpo_msgs/msg/BridgeStatus": self._status,
            "rcl_interfaces/msg/Log": self._log,
            "diagnostic_msgs/msg/DiagnosticArray": self._diagnostics,
        }

    def observe(self, message: LogMessage) -> None:
        self._count += 1
        if self._count > MAX_MESSAGES:
            raise FlightLogError(f"more than {MAX_MESSAGES} messages; look at a shorter part of the log")
        stream = self._stream(message)
        stream.times.append(message.log_ns)
        stream.sequences.append(message.sequence)
        name = message.schema.name if message.schema is not None else ""
        if name in _LOW_CMD:
            self._low_cmd(message, _LOW_CMD[name], stream)
        elif name in _LOW_STATE:
            self._low_state(message, _LOW_STATE[name], stream)
        elif name == "nfpo_msgs/msg/RobotState":
            self._robot_state(message, stream)
        elif name in self._handlers:
            self._tell(self._handlers[name], message)

    def _tell(self, handler: Callable[[LogMessage, Any], None], message: LogMessage) -> None:
        decoded = self._decoders.decode(message)
        if decoded is None:
            return
        try:
            handler(message, decoded)
        except (AttributeError, TypeError, ValueError):
            # The definition in the file has the name of ours, but other fields.
            self._decoders.failures += 1

    def finish(self) -> Timeline:
        timeline = self.timeline
        timeline.streams = sorted(self._streams.values(), key=lambda stream: (stream.topic, stream.writer))
        for stream in timeline.streams:
            self._silences(stream)
        self._tell_gaps()
        if self._decoders.failures:
            timeline.problems.append(f"{self._decoders.failures} messages do not fit their own definition")
        timeline.events.sort(key=lambda event: event.time_ns)
        return timeline

    def _stream(self, message: LogMessage) -> Stream:
        channel = message.channel
        writer = channel.metadata.get("publisher", "")
        if writer:
            writer = f"{writer}, pid {channel.metadata.get('pid', '?')}"
        key = (channel.topic, writer, channel.metadata.get("guid", ""))
        if key not in self._streams:
            self._streams[key] = Stream(channel.topic, writer)
        return self._streams[key]

    def _event(self, time_ns: int, kind: str, text: str) -> None:
        if len(self.timeline.events) < MAX_EVENTS:
            self.timeline.events.append(Event(time_ns, kind, _one_line(text)))
        else:
            self.timeline.left_out += 1

    def _changed(self, name: str, value: Any) -> bool:
        """Whether a value differs from the last one of that name; the first one does."""
        before = self._last.get(name, _NOTHING)
        self._last[name] = value
        return bool(before != value)

    def _trip(self, time_ns: int, reason: str) -> None:
        if not self._first_trip_ns or time_ns < self._first_trip_ns:
            self._first_trip_ns, self.timeline.first_cause = time_ns, _one_line(reason)

    # What the streams say.

    def _permit(self, message: LogMessage, permit: Any) -> None:
        before = self._last.get("mode")
        if not self._changed("permit", (permit.mode, permit.reason)):
            return
        mode = _name(Mode, permit.mode)
        self._last["mode"] = mode
        arrow = f"{before} → {mode}" if before not in (None, mode) else mode
        self._event(message.log_ns, "mode", f"{arrow}: {permit.reason}")
        if mode == Mode.FAULT.name and before != mode:
            self._trip(message.log_ns, permit.reason)

    def _status(self, message: LogMessage, status: Any) -> None:
        time_ns = message.log_ns
        if self._changed("gate", (status.phase, status.reason)):
            self._event(time_ns, "gate", _with_reason(_name(GatePhase, status.phase), status.reason))
        if self._changed("tripped", status.tripped) and status.tripped:
            self._event(time_ns, "trip", f"the gate tripped: {status.reason}")
            self._trip(time_ns, status.reason)
        for name, text in _STATUS_FIELDS.items():
            value = getattr(status, name, None)
            if value is not None and self._changed(name, value) and (value or name == "guards_alive"):
                self._event(time_ns, "bridge", text.format(value=value))

    def _log(self, message: LogMessage, log: Any) -> None:
        if log.level >= WARNING:
            self._event(message.log_ns, "log", f"{log.name}: {log.msg}")

    def _diagnostics(self, message: LogMessage, diagnostics: Any) -> None:
        for row in diagnostics.status:
            level = row.level if isinstance(row.level, int) else int.from_bytes(row.level, "little")
            known = f"diagnostics {row.name}" in self._last
            if self._changed(f"diagnostics {row.name}", level) and (level in (1, 2) or (known and level == 0)):
                label = _LEVELS[level] if level < len(_LEVELS) else str(level)
                self._event(message.log_ns, "monitor", f"{row.name} {label}: {row.message}")

    def _low_cmd(self, message: LogMessage, codec: MessageCodec, stream: Stream) -> None:
        try:
            motors = codec.decode(message.data)["motor_cmd"]
        except TransportError:
            self._decoders.failures += 1
            return
        motors = motors[motors["mode"] != 0]
        what = "zero torque"
        if np.any(motors["kp"] != 0):
            what = "stiff"
        elif np.any(motors["kd"] != 0):
            what = "damping"
        elif np.any(motors["tau"] != 0):
            what = "torques"
        if self._changed(f"low_cmd {id(stream)}", what):
            self._event(message.log_ns, "motors", f"{stream.writer or 'rt/lowcmd'}: {what}")

    def _low_state(self, message: LogMessage, codec: MessageCodec, stream: Stream) -> None:
        try:
            self._tick(stream, int(codec.decode(message.data)["tick"]))
        except TransportError:
            self._decoders.failures += 1

    def _robot_state(self, message: LogMessage, stream: Stream) -> None:
        try:
            self._tick(stream, robot_state_tick(message.data))
        except (struct.error, ValueError):
            self._decoders.failures += 1

    @staticmethod
    def _tick(stream: Stream, tick: int) -> None:
        if stream.ticks is None:
            stream.ticks = TickGaps()
        stream.ticks.observe(tick)

    def _silences(self, stream: Stream) -> None:
        times = stream.sorted_times()
        steps = np.diff(times)
        if stream.writer and stream.count:
            name = f"{stream.topic} by {stream.writer}"
            self._event(int(times[0]), "wire", f"{name}: first message")
            self._event(int(times[-1]), "wire", f"{name}: last message")
        if len(steps) < 10 or np.percentile(steps, 90) > STEADY_S * NS:
            return
        period = float(np.median(steps)) / NS
        name = f"{stream.topic}{f' by {stream.writer}' if stream.writer else ''}"
        for index in np.flatnonzero(steps > max(GAP_S, 5 * period) * NS):
            self._gaps.append((int(times[index]), int(steps[index]) / NS, name))

    def _tell_gaps(self) -> None:
        """Streams that fell silent together share a line: mostly they share the cause."""
        group: list[tuple[int, float, str]] = []
        for gap in sorted(self._gaps):
            if group and gap[0] - group[0][0] > TOGETHER_S * NS:
                self._tell_gap(group)
                group = []
            group.append(gap)
        if group:
            self._tell_gap(group)

    def _tell_gap(self, group: list[tuple[int, float, str]]) -> None:
        shortest, longest = min(gap[1] for gap in group), max(gap[1] for gap in group)
        span = f"{longest:.2f}" if longest - shortest < 0.01 else f"{shortest:.2f} to {longest:.2f}"
        names = ", ".join(sorted({gap[2] for gap in group}))
        self._event(group[0][0], "gap", f"nothing for {span} s: {names}")


_NOTHING = object()
_STATUS_FIELDS = {
    "guards_alive": "{value} guards alive",
    "guard_active": "a guard damps the robot in the bridge's place",
    "foreign_lowcmd": "{value} LowCmds of another program so far",
    "network_problem": "network: {value}",
    "clearance_problem": "clearance: {value}",
    "clearance_override": "runs without a clearance: {value}",
    "stopping": "the bridge was asked to end",
}


def robot_state_tick(data: bytes) -> int:
    """Tick of a serialised nfpo_msgs/RobotState; `struct.error` or `ValueError` where it is none.

    Decoding the whole message would take fifty times as long.
    """
    if data[:2] != b"\x00\x01":
        raise ValueError("not little-endian CDR")
    (length,) = struct.unpack_from("<I", data, 12)  # header.frame_id, after the stamp
    offset = 12 + length  # from the end of the encapsulation header
    offset = (offset + 7) // 8 * 8 + 8  # received_ns
    (tick,) = struct.unpack_from("<I", data, 4 + offset)
    return int(tick)


def _name(kind: Any, value: Any) -> str:
    try:
        return str(kind(value).name)
    except ValueError:
        return f"unknown {value!r}"


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text


def _one_line(text: str) -> str:
    """Text from a file, fit for a terminal."""
    clean = "".join(character if character.isprintable() else " " for character in str(text)[:500])
    return " ".join(clean.split())
