"""What is kept while nothing happens: the newest segments, within a time, a size and the room on the disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.segment import Segment

if TYPE_CHECKING:
    from nfpo_deploy.flight_log.recorder import LogSettings

NS = 1_000_000_000
MB = 1_000_000


class Ring:
    """Segments of this session, and those that ended sessions left in the same folder.

    Attributes:
        segments: of this session, oldest first; the last one may be open.
        protect_from_ns: CLOCK_MONOTONIC from which on nothing may be removed, while an incident waits to be kept; 0
            where none does.
    """

    def __init__(self, root: Path, session: Path, settings: LogSettings) -> None:
        self.segments: list[Segment] = []
        self.protect_from_ns = 0
        self._root = root
        self._session = session
        self._settings = settings

    def add(self, segment: Segment) -> None:
        """Take in a new segment."""
        self.segments.append(segment)

    def forget(self, segment: Segment) -> None:
        """Remove a segment that holds nothing."""
        self.segments.remove(segment)
        segment.path.unlink(missing_ok=True)

    def make_room(self, now_ns: int, full: bool) -> None:
        """Remove the oldest segments that are beyond the limits.

        Args:
            now_ns: CLOCK_MONOTONIC.
            full: the disk takes nothing more: keep only what an incident now would need.

        Raises:
            OSError: something could not be removed.
        """
        settings = self._settings
        allowed = math.ceil(settings.ring_s / settings.segment_s)
        earlier = [path for session in self._ended_sessions() for path in places.segments_in(session)]
        own = [segment for segment in self.segments if segment.end_ns]
        sizes = [path.stat().st_size for path in earlier] + [segment.size for segment in own]
        floor = self._needed_from(now_ns)
        while sizes:
            room = places.free_bytes(self._root) >= settings.min_free_mb * MB
            if not full and room and len(sizes) <= allowed and sum(sizes) <= settings.ring_mb * MB:
                return
            if earlier:
                earlier.pop(0).unlink(missing_ok=True)
            elif own[0].end_ns < floor:
                segment = own.pop(0)
                self.segments.remove(segment)
                segment.path.unlink(missing_ok=True)
            else:
                return
            sizes.pop(0)

    def _needed_from(self, now_ns: int) -> int:
        needed = now_ns - round(self._settings.before_s * NS)
        return min(needed, self.protect_from_ns) if self.protect_from_ns else needed

    def _ended_sessions(self) -> list[Path]:
        """Ended sessions that still hold segments; those that hold none are removed."""
        ended = []
        for session in places.sessions_in(self._root):
            if session == self._session or places.is_alive(session):
                continue
            record = places.read_record(session / places.SESSION_FILE) or {}
            if record.get("state") == "recording":
                continue  # cut off, and not yet recovered
            if places.segments_in(session):
                ended.append(session)
            else:
                places.remove_session(session)
        return ended


def prune_incidents(root: Path, limit: int, report: Callable[[str], None]) -> None:
    """Remove the oldest incidents beyond `limit`, with one reported line each.

    Those that are still being recorded, and those in which somebody has put a file of his own, are neither counted
    nor removed.
    """
    alive = {session.name for session in places.sessions_in(root) if places.is_alive(session)}
    removable = []
    for incident in places.incidents_in(root):
        record = places.read_record(incident / places.INCIDENT_FILE) or {}
        growing = record.get("state") == "recording" and record.get("session") in alive
        if not growing and not places.is_pinned(incident):
            removable.append(incident)
    for incident in removable[: max(0, len(removable) - limit)]:
        try:
            places.remove_incident(incident)
            report(f"removed {incident.name}: more than {limit} incidents")
        except OSError as error:
            report(f"{incident.name} cannot be removed: {error}")
