"""Give a log that was cut its end back, so that every MCAP reader opens it, and keep what a cut session left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.reader import LogMessage, LogReader, Problem
from nfpo_deploy.flight_log.segment import CHUNK_BYTES

UNCLEAN = "the recorder was cut off: killed, crashed, or the power was lost"
NS = 1_000_000_000


@dataclass(frozen=True)
class Repair:
    """What became of one file."""

    path: Path
    """The readable file."""
    messages: int
    first_ns: int
    last_ns: int
    """Log time of its first and last message, ns since 1970; 0 where it has none."""
    changed: bool
    """Whether a file was written."""
    problems: tuple[Problem, ...]
    """What could not be read."""


def repair_file(source: Path, output: Path | None = None) -> Repair:
    """Write every message that `source` holds into a complete file.

    Args:
        source: an MCAP file.
        output: where to; must not exist. Without it `source` is replaced, in one step, and only if nothing but its
            end is missing: what lies between damaged parts is evidence, which stays as it is.

    Raises:
        FlightLogError: `source` is no MCAP file, is damaged in its middle and no `output` is given, or nothing could
            be written.
    """
    if output is not None and output.exists():
        raise FlightLogError(f"{output} exists; name another output file")
    target = output or source
    partial = places.partial_of(target)
    reader = LogReader(source)
    try:
        messages, first_ns, last_ns = _copy(reader, partial)
        problems = tuple(reader.problems)
        if reader.finished and not problems and output is None:
            return Repair(source, messages, first_ns, last_ns, False, ())
        if output is None and not reader.cut_only:
            first = problems[0]
            raise FlightLogError(
                f"{source} is damaged at byte {first.offset}, before its end: {first.text}; it stays as it is, give "
                "--output FILE to write what can be read into another file"
            )
        os.replace(partial, target)
        places.sync_folder(target.parent)
        return Repair(target, messages, first_ns, last_ns, True, problems)
    except OSError as error:
        raise FlightLogError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


class _Registry:
    """Channels of the copy. Their numbers are its own: damaged files may use one for several."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[tuple[object, ...], int] = {}

    def channel(self, message: LogMessage) -> int:
        """Number of the channel of a message."""
        channel = message.channel
        schema_id = self._schema(message)
        key = (channel.topic, channel.message_encoding, schema_id, *sorted(channel.metadata.items()))
        if key not in self._channels:
            self._channels[key] = self._writer.register_channel(
                channel.topic, channel.message_encoding, schema_id, channel.metadata
            )
        return self._channels[key]

    def _schema(self, message: LogMessage) -> int:
        schema = message.schema
        if schema is None:
            return 0
        key = (schema.name, schema.encoding, schema.data)
        if key not in self._schemas:
            self._schemas[key] = self._writer.register_schema(*key)
        return self._schemas[key]


def _copy(reader: LogReader, target: Path) -> tuple[int, int, int]:
    """Copy what can be read; returns the number of messages and the log times of the first and the last."""
    count, first_ns, last_ns = 0, 0, 0
    with target.open("wb") as stream:
        writer = Writer(stream, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        registry = _Registry(writer)
        started = False
        for message in reader.messages():
            if not started:
                writer.start(reader.profile, reader.library)
                started = True
            number = registry.channel(message)
            writer.add_message(number, message.log_ns, message.data, message.publish_ns, message.sequence)
            count += 1
            first_ns = min(first_ns or message.log_ns, message.log_ns)
            last_ns = max(last_ns, message.log_ns)
        if not started:
            writer.start(reader.profile, reader.library)
        for name, record in reader.metadata.items():
            writer.add_metadata(name, record)
        for item in reader.attachments:
            writer.add_attachment(item.create_time, item.log_time, item.name, item.media_type, item.data)
        writer.finish()
        stream.flush()
        os.fsync(stream.fileno())
    return count, first_ns, last_ns


def recover_sessions(root: Path, before_s: float, report: Callable[[str], None], own: Path | None = None) -> list[Path]:
    """Repair what ended recorders left, and keep the last moments of those that were cut off as incidents.

    Args:
        root: log folder.
        before_s: how much of the end of a cut session is kept, s.
        report: called with one line for each thing done or refused.
        own: session of the caller, which is left alone.

    Returns:
        The incidents made or completed.
    """
    incidents = []
    for session in places.sessions_in(root):
        record = places.read_record(session / places.SESSION_FILE)
        if session == own or record is None or record.get("state") != "recording":
            continue
        try:
            with places.Lock(session):
                incident = _recover(root, session, record, before_s, report)
        except BlockingIOError:
            continue  # its recorder is alive
        except (OSError, FlightLogError) as error:
            report(f"{session.name} cannot be recovered: {error}")
            continue
        if incident is not None:
            incidents.append(incident)
    return incidents


def repair_segments(session: Path, root: Path, report: Callable[[str], None]) -> None:
    """Repair every segment of a session that has no end, also where incidents hold it."""
    for path in places.segments_in(session):
        if path.stat().st_size == 0:
            path.unlink()  # cut before its first write
        elif not has_end(path):
            _repair_everywhere(path, session, root, report)


def has_end(path: Path) -> bool:
    """Whether a file ends as a complete MCAP file does."""
    from mcap.writer import MCAP0_MAGIC

    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - len(MCAP0_MAGIC)))
        return size > 2 * len(MCAP0_MAGIC) and stream.read() == MCAP0_MAGIC


def _recover(
    root: Path, session: Path, record: dict[str, Any], before_s: float, report: Callable[[str], None]
) -> Path | None:
    repair_segments(session, root, report)
    segments = places.segments_in(session)
    incident = None
    if segments:
        kept, end_ns = _newest(segments, before_s)
        incident = _open_incident(root, session) or places.make_folder(
            root, f"incident_{places.timestamp(end_ns)}_{places.slug('recorder cut off')}"
        )
        _keep(incident, session, record, kept, end_ns)
        report(f"{session.name} was cut off; its last {before_s:g} s are kept in {incident}")
    places.write_record(session / places.SESSION_FILE, {**record, "state": "recovered"})
    return incident


def _newest(segments: list[Path], before_s: float) -> tuple[list[Path], int]:
    """The segments that cover the last `before_s` seconds of the log, and the time of its last message."""
    kept: list[Path] = []
    end_ns = 0
    for path in reversed(segments):
        times = _times(path)
        if times is not None:
            end_ns = end_ns or times[1]
            if times[1] < end_ns - before_s * NS:
                break
        kept.insert(0, path)
    return kept, end_ns or time.time_ns()


def _times(path: Path) -> tuple[int, int] | None:
    try:
        times = [message.log_ns for message in LogReader(path).messages()]
    except (OSError, FlightLogError):
        return None
    return (min(times), max(times)) if times else None


def _open_incident(root: Path, session: Path) -> Path | None:
    """The incident of a session whose recording was not finished."""
    for incident in reversed(places.incidents_in(root)):
        record = places.read_record(incident / places.INCIDENT_FILE) or {}
        if record.get("session") == session.name and record.get("state") == "recording":
            return incident
    return None


def _keep(incident: Path, session: Path, session_record: dict[str, Any], segments: list[Path], end_ns: int) -> None:
    for path in segments:
        target = incident / path.name
        if not target.exists():
            os.link(path, target)
    end = places.utc_text(end_ns)
    context = session_record.get("context")
    record = places.read_record(incident / places.INCIDENT_FILE) or {
        "kind": "cut_off",
        "reason": UNCLEAN,
        "time": end,
        "time_ns": end_ns,
        "session": session.name,
        "events": [],
        **(context if isinstance(context, dict) else {}),
    }
    record["state"] = "cut off"
    record["events"] = [*record.get("events", []), {"kind": "cut_off", "reason": UNCLEAN, "time": end}]
    record["segments"] = [path.name for path in places.segments_in(incident)]
    places.write_record(incident / places.INCIDENT_FILE, record)


def _repair_everywhere(path: Path, session: Path, root: Path, report: Callable[[str], None]) -> None:
    old = path.stat()
    try:
        repaired = repair_file(path)
    except FlightLogError as error:
        report(f"{path.name} of {session.name} stays as it is: {error}")
        return
    report(f"{path.name} of {session.name} was not closed: repaired, {repaired.messages} messages")
    for incident in places.incidents_in(root):
        linked = incident / path.name
        if linked.exists() and (linked.stat().st_dev, linked.stat().st_ino) == (old.st_dev, old.st_ino):
            fresh = places.partial_of(linked)
            fresh.unlink(missing_ok=True)
            os.link(path, fresh)
            os.replace(fresh, linked)
            places.sync_folder(incident)
