"""The flight log: takes messages without ever blocking, and brings them to the disk on a thread of its own.

What was handed over more than about half a second ago survives a SIGKILL, a crash and a power cut. When the disk is
full, slow or gone, the caller is not delayed: the oldest messages are dropped, and counted.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.incident import Incident, Trigger
from nfpo_deploy.flight_log.repair import recover_sessions, repair_segments
from nfpo_deploy.flight_log.ring import Ring, prune_incidents
from nfpo_deploy.flight_log.segment import Entry, Segment
from nfpo_deploy.realtime import drop_priority

NS = 1_000_000_000
MB = 1_000_000
RETRY_S = 2.0
CLOSE_TIMEOUT_S = 4.0
METADATA = "nfpo"


@dataclass(frozen=True)
class LogSettings:
    """How the log is kept."""

    segment_s: float = 30.0
    """Length of one file, s."""
    ring_s: float = 300.0
    """How much is kept when nothing happens, s."""
    ring_mb: float = 1000.0
    """And how much at most, MB."""
    min_free_mb: float = 500.0
    """Room to leave on the disk, MB: the ring shrinks to the last `before_s` seconds rather than take it."""
    before_s: float = 30.0
    """How long before an incident is kept, s."""
    after_s: float = 10.0
    """And how long after it, s."""
    max_incidents: int = 20
    """The oldest beyond it are removed."""
    flush_s: float = 0.25
    """How often data are brought to the disk, s."""
    backlog_mb: float = 64.0
    """How much may wait in memory for a disk that is slow, MB."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not (math.isfinite(value) and value > 0):
                raise FlightLogError(f"{setting.name} of the flight log must be above zero, got {value}")
        if self.ring_s < self.segment_s + self.before_s:
            raise FlightLogError(
                f"ring_s of the flight log is {self.ring_s:g} s; it must hold a segment and what is kept before an "
                f"incident, {self.segment_s + self.before_s:g} s"
            )


@dataclass
class LogStatistics:
    """What the log has done since it was opened."""

    messages: int = 0
    """Written."""
    bytes_written: int = 0
    """Compressed, into files."""
    dropped: int = 0
    """Messages that never reached a file: the disk was full or too slow."""
    sync_ms: float = 0.0
    """Longest wait for the disk since the statistics were last reset, ms."""
    incidents: int = 0
    problem: str = ""
    """Why nothing is written now; empty while all is well."""
    incident_problem: str = ""
    """Why an incident could not be kept so far."""


class FlightLog:
    """Writes one session. `write` and `incident` are for one thread; everything slow happens on another.

    Attributes:
        statistics: written by the log's own thread; read it from anywhere.
        session: folder of the session.
    """

    def __init__(
        self,
        root: Path,
        settings: LogSettings,
        context: Mapping[str, Any],
        report: Callable[[str], None],
    ) -> None:
        """Open a session and start the thread.

        Args:
            root: log folder; created where it is missing.
            settings: how it is kept.
            context: what is recorded: versions, robot, policy; text or numbers.
            report: called from other threads with a line for people.

        Raises:
            FlightLogError: the folder cannot be written.
        """
        places.check_folder(root)
        self.settings = settings
        self.statistics = LogStatistics()
        self._root = root
        self._context = dict(context)
        self._report = report
        self._queue: deque[Entry] = deque()
        self._triggers: deque[Trigger] = deque()
        self._bytes_in = self._bytes_out = 0
        self._refuse_bytes = 2 * settings.backlog_mb * MB
        self._refused = 0
        self._unsaved: deque[Entry] = deque()
        self._segment: Segment | None = None
        self._number = 0
        self._abandoned = False
        self._incident: Incident | None = None
        self._incident_saved = True
        self._retry_ns = 0
        try:
            self._open_session()
        except OSError as error:
            raise FlightLogError(f"the flight log cannot be written to {root}: {error.strerror or error}") from error
        self._ring = Ring(root, self.session, settings)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flight_log", daemon=True)
        self._recovery = threading.Thread(target=self._recover, name="flight_log_recovery", daemon=True)
        self._thread.start()
        self._recovery.start()

    # For the thread that records.

    def write(self, entries: Sequence[Entry]) -> None:
        """Hand over messages; never blocks. Dropped, and counted, while a stuck disk has filled the memory."""
        if self._bytes_in - self._bytes_out > self._refuse_bytes:
            self._refused += len(entries)
            return
        self._bytes_in += sum(len(entry.data) for entry in entries)
        self._queue.extend(entries)

    def incident(self, trigger: Trigger) -> None:
        """Keep what surrounds this moment; never blocks."""
        self._triggers.append(trigger)
        self._wake.set()

    def close(self) -> None:
        """Write what is left and end the session; gives up on a disk that hangs after a few seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._report(f"the disk of {self._root} does not answer; the log stays without its end")

    @property
    def dropped(self) -> int:
        """Messages that will never reach a file."""
        return self.statistics.dropped + self._refused

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait in memory."""
        return self._bytes_in - self._bytes_out

    # The log's own thread.

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self.settings.flush_s)
            self._wake.clear()
            self._cycle()
        self._cycle()
        self._end_session()

    def _cycle(self) -> None:
        self._drain()
        if self._unsaved and (time.monotonic_ns() >= self._retry_ns or self._stop.is_set()):
            self._save()
        self._follow_incidents()
        segment = self._segment
        if segment is not None and time.monotonic_ns() - segment.start_ns >= self.settings.segment_s * NS:
            self._finish_segment()

    def _drain(self) -> None:
        for _ in range(len(self._queue)):
            self._unsaved.append(self._queue.popleft())
        limit = self.settings.backlog_mb * MB
        while self.backlog_bytes > limit and len(self._unsaved) > 1:
            # The newest explain an incident best.
            self._bytes_out += len(self._unsaved.popleft().data)
            self.statistics.dropped += 1

    def _save(self) -> None:
        """Bring everything that waits to the disk; a failure costs a segment and a while, never a message."""
        full = False
        for _ in range(2):
            try:
                self._save_once(full)
            except Exception as error:  # whatever it is, recording goes on, and nobody waits for it
                self._give_up_segment()
                full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                problem = f"the flight log cannot be written: {_text(error)}"
            else:
                if self.statistics.problem:
                    self._report("the flight log is written again")
                self.statistics.problem = ""
                return
        if not self.statistics.problem:
            self._report(f"{problem}; the robot is not affected, trying again every {RETRY_S:g} s")
        self.statistics.problem = problem
        self._retry_ns = time.monotonic_ns() + round(RETRY_S * NS)

    def _save_once(self, full: bool) -> None:
        segment = self._segment or self._open_segment(full)
        before = segment.size
        for entry in self._unsaved:
            segment.add(entry)
        segment.flush()
        start = time.monotonic()
        segment.sync()
        statistics = self.statistics
        statistics.sync_ms = max(statistics.sync_ms, 1e3 * (time.monotonic() - start))
        statistics.bytes_written += segment.size - before
        statistics.messages += len(self._unsaved)
        self._bytes_out += sum(len(entry.data) for entry in self._unsaved)
        self._unsaved.clear()

    def _open_segment(self, full: bool) -> Segment:
        self._ring.make_room(time.monotonic_ns(), full)
        self._number += 1
        start_ns, utc_ns = time.monotonic_ns(), time.time_ns()
        clocks = {"utc_ns": str(utc_ns), "monotonic_ns": str(start_ns), "segment": str(self._number)}
        record = {key: str(value) for key, value in self._context.items()} | clocks
        path = self.session / places.segment_name(utc_ns, self._number)
        self._segment = segment = Segment(path, start_ns, {METADATA: record})
        self._ring.add(segment)
        self._incident_saved = False
        places.sync_folder(self.session)
        return segment

    def _finish_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.finish(time.monotonic_ns())
        except Exception as error:
            self._abandoned = True
            self._report(f"{segment.path.name} stays without its index: {_text(error)}")

    def _give_up_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        segment.abandon(time.monotonic_ns())
        self._abandoned = True
        if segment.size == 0:
            self._ring.forget(segment)

    def _follow_incidents(self) -> None:
        while self._triggers:
            trigger = self._triggers.popleft()
            if self._incident is None:
                settings = self.settings
                self._incident = Incident(
                    self._root, self.session.name, trigger, settings.before_s, settings.after_s, self._context
                )
                self.statistics.incidents += 1
                self._ring.protect_from_ns = self._incident.begin_ns
            else:
                self._incident.add(trigger)
            self._incident_saved = False
        incident = self._incident
        if incident is None:
            return
        if time.monotonic_ns() >= incident.end_ns:
            self._finish_segment()
            self._keep_incident("complete")
        elif not self._incident_saved:
            self._keep_incident("recording")

    def _keep_incident(self, state: str) -> None:
        incident = self._incident
        if incident is None:
            return
        new = incident.folder is None
        try:
            incident.keep(self._ring.segments, state)
        except OSError as error:
            problem = f"the incident {incident.trigger.reason!r} cannot be kept yet: {_text(error)}"
            if not self.statistics.incident_problem:
                self._report(problem)
            self.statistics.incident_problem = problem
            return
        self._incident_saved, self.statistics.incident_problem = True, ""
        if new:
            self._report(f"incident: {incident.trigger.reason}; kept in {incident.folder}")
        if state != "recording":
            self._incident = None
            self._ring.protect_from_ns = 0
            prune_incidents(self._root, self.settings.max_incidents, self._report)

    # Beginning and end.

    def _open_session(self) -> None:
        utc_ns = time.time_ns()
        self.session = places.make_folder(self._root, f"session_{places.timestamp(utc_ns)}_{os.getpid()}")
        self._lock = places.Lock(self.session)
        self._session_record = {
            "state": "recording",
            "started": places.utc_text(utc_ns),
            "pid": os.getpid(),
            "context": self._context,
        }
        places.write_record(self.session / places.SESSION_FILE, self._session_record)
        places.sync_folder(self._root)

    def _recover(self) -> None:
        drop_priority()  # of this thread: reading old files takes seconds
        try:
            recover_sessions(self._root, self.settings.before_s, self._report, own=self.session)
            prune_incidents(self._root, self.settings.max_incidents, self._report)
        except Exception as error:  # what an earlier run left must not stop this one
            self._report(f"earlier logs in {self._root} were not recovered: {_text(error)}")

    def _end_session(self) -> None:
        self._finish_segment()
        try:
            if self._abandoned:
                repair_segments(self.session, self._root, self._report)
            self._keep_incident("cut off")
            ended = {"state": "ended", "ended": places.utc_text(time.time_ns())}
            places.write_record(self.session / places.SESSION_FILE, {**self._session_record, **ended})
        except OSError as error:
            self._report(f"the session of the flight log was not closed: {_text(error)}")
        finally:
            self._lock.release()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
