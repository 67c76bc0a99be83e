"""Which browser drives, if any: deadman, heartbeat and round trip of every connected page.

A page sends a beat ten times a second with the number of the newest status that it has seen. So a tab that was closed,
frozen or hidden, a cut connection, and one on which messages arrive too late to be meant, all look the same here: no
usable beat.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field

from nfpo_deploy.types import VelocityCommand

BEAT_TIMEOUT_S = 0.3
"""A page without a usable beat for this long is gone: three missed. With the way through the graph, the last command
is out within the 0.5 s of `operator_timeout`."""
ROUND_TRIP_S = 0.4
"""A beat that answers an older status is not taken: the operator sees the past, and so does the robot."""
REMEMBERED = 32
"""Statuses whose time of sending is kept: 3 s."""


@dataclass
class _Page:
    beat_ns: int | None = None
    held: bool = False
    released: bool = False
    velocity: VelocityCommand = field(default_factory=lambda: VelocityCommand(0.0, 0.0, 0.0))


class WebLink:
    """State of all pages; its methods may be called from several threads. Times are CLOCK_MONOTONIC ns."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._sent: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._holder: int | None = None
        self._lock = threading.Lock()

    def sent(self, number: int, now_ns: int) -> None:
        """A status with this number goes out to the pages now."""
        with self._lock:
            self._sent.append((number, now_ns))

    def connect(self, page: int) -> None:
        """A page opened its channel; its deadman counts once it has been seen released."""
        with self._lock:
            self._pages[page] = _Page()

    def disconnect(self, page: int) -> None:
        """A page's channel is closed."""
        with self._lock:
            self._pages.pop(page, None)

    def beat(self, page: int, echo: int, held: bool, velocity: VelocityCommand, now_ns: int) -> bool:
        """One beat of a page; returns whether it was usable."""
        with self._lock:
            state = self._pages.get(page)
            sent_ns = next((at for number, at in self._sent if number == echo), None)
            values = (velocity.vx, velocity.vy, velocity.wz)
            if state is None or sent_ns is None or not all(map(math.isfinite, values)):
                return False
            if now_ns - sent_ns > ROUND_TRIP_S * 1e9:
                state.released = False
                return False
            if not self._alive(state, now_ns):
                state.released = False
            if not held:
                state.released = True
            state.beat_ns, state.held, state.velocity = now_ns, held, velocity
            return True

    def output(self, now_ns: int) -> tuple[bool, VelocityCommand | None]:
        """Whether any page is there, and the velocity of the one whose deadman is held; the first to hold it drives."""
        with self._lock:
            alive = {page: state for page, state in self._pages.items() if self._alive(state, now_ns)}
            holding = [page for page, state in alive.items() if state.held and state.released]
            if self._holder not in holding:
                self._holder = holding[0] if holding else None
            return bool(alive), alive[self._holder].velocity if self._holder is not None else None

    @staticmethod
    def _alive(state: _Page, now_ns: int) -> bool:
        return state.beat_ns is not None and now_ns - state.beat_ns <= BEAT_TIMEOUT_S * 1e9
