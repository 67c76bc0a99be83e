"""When the last half minute is worth keeping, and the folder that keeps it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.segment import Segment
from nfpo_deploy.types import Mode

NS = 1_000_000_000
MAX_EVENTS = 50
LATE_NS = 100_000_000
"""Between two looks at the clock; whatever is beyond is the observer's own delay."""


@dataclass(frozen=True)
class Trigger:
    """Something went wrong."""

    kind: str
    """"fault", "gate_tripped" or "bridge_silent"."""
    reason: str
    mode: str
    """Mode of the robot before, "" where unknown."""
    at_ns: int
    """CLOCK_MONOTONIC."""
    utc_ns: int
    """The same moment, ns since 1970."""


class IncidentRules:
    """Tells from permits and bridge statuses when an incident begins. Pure; times are CLOCK_MONOTONIC ns."""

    def __init__(self, bridge_silence_s: float) -> None:
        """Wait for what is observed.

        Args:
            bridge_silence_s: a bridge that was heard before and is silent for so long, s, is an incident.
        """
        self._silence_ns = round(bridge_silence_s * NS)
        self._mode: Mode | None = None
        self._tripped = False
        self._bridge_ns = 0
        self._stopping = False
        self._checked_ns = 0

    @property
    def mode(self) -> str:
        """Name of the mode in the last permit."""
        return self._mode.name if self._mode is not None else ""

    def permit(self, mode: Mode, reason: str, now_ns: int, utc_ns: int) -> Trigger | None:
        """Observe a permit: entering FAULT is an incident."""
        before, self._mode = self.mode, mode
        if mode is Mode.FAULT and before != Mode.FAULT.name:
            return Trigger("fault", reason, before, now_ns, utc_ns)
        return None

    def bridge(self, tripped: bool, reason: str, stopping: bool, now_ns: int, utc_ns: int) -> Trigger | None:
        """Observe a bridge status: a gate that trips is an incident."""
        before, self._tripped = self._tripped, tripped
        self._bridge_ns, self._stopping = now_ns, stopping
        if tripped and not before:
            return Trigger("gate_tripped", reason, self.mode, now_ns, utc_ns)
        return None

    def check(self, now_ns: int, utc_ns: int, has_left: Callable[[], bool]) -> Trigger | None:
        """Look at the clock: a bridge that falls silent without having said that it ends is an incident.

        Args:
            now_ns: CLOCK_MONOTONIC.
            utc_ns: ns since 1970.
            has_left: whether the bridge has left the graph in good order; asked once in each silence.
        """
        late_ns = now_ns - (self._checked_ns or now_ns) - LATE_NS
        self._checked_ns = now_ns
        if late_ns > 0 and self._bridge_ns:
            # Whoever was kept from looking cannot tell how long it was silent.
            self._bridge_ns += late_ns
        if not self._bridge_ns or now_ns - self._bridge_ns < self._silence_ns:
            return None
        silent_s = (now_ns - self._bridge_ns) / NS
        self._bridge_ns = 0
        if self._stopping or has_left():
            return None
        return Trigger("bridge_silent", f"bridge silent for {silent_s:.2f} s", self.mode, now_ns, utc_ns)


class Incident:
    """The folder of one incident. Everything in it can be repeated, so a failed write is tried again later."""

    def __init__(
        self, root: Path, session: str, trigger: Trigger, before_s: float, after_s: float, context: Mapping[str, Any]
    ) -> None:
        """Prepare; `keep` writes.

        Args:
            root: log folder.
            session: name of the recorder's session.
            trigger: what began it.
            before_s: how long before it is kept, s.
            after_s: and how long after it, s.
            context: what else `incident.json` says: versions, robot, policy.
        """
        self.trigger = trigger
        self.folder: Path | None = None
        self.begin_ns = trigger.at_ns - round(before_s * NS)
        self.end_ns = trigger.at_ns + round(after_s * NS)
        self._root = root
        self._record = {
            "kind": trigger.kind,
            "reason": trigger.reason,
            "mode_before": trigger.mode,
            "time": places.utc_text(trigger.utc_ns),
            "time_ns": trigger.utc_ns,
            "monotonic_ns": trigger.at_ns,
            "before_s": before_s,
            "after_s": after_s,
            "session": session,
            **context,
        }
        self._events = [_event(trigger)]

    def add(self, trigger: Trigger) -> None:
        """What went wrong later belongs to the same incident."""
        if len(self._events) < MAX_EVENTS:
            self._events.append(_event(trigger))

    def keep(self, segments: Sequence[Segment], state: str) -> None:
        """Link the segments that belong to it, and say so in `incident.json`.

        Args:
            segments: of the session; the open one grows inside the incident, too.
            state: "recording", "complete" or "cut off".

        Raises:
            OSError: the folder cannot be written; what was done stays.
        """
        if self.folder is None:
            name = f"incident_{places.timestamp(self.trigger.utc_ns)}_{places.slug(self.trigger.reason)}"
            self.folder = places.make_folder(self._root, name)
        for segment in segments:
            target = self.folder / segment.path.name
            if segment.start_ns <= self.end_ns and (segment.end_ns or self.end_ns) >= self.begin_ns:
                if segment.path.exists() and not target.exists():
                    os.link(segment.path, target)
        linked = [path.name for path in places.segments_in(self.folder)]
        record = {**self._record, "state": state, "events": self._events, "segments": linked}
        places.write_record(self.folder / places.INCIDENT_FILE, record)
        places.sync_folder(self._root)


def _event(trigger: Trigger) -> dict[str, str]:
    return {"kind": trigger.kind, "reason": trigger.reason, "time": places.utc_text(trigger.utc_ns)}
