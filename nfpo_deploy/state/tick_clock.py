"""Time between two LowStates from the robot's tick counter, whose unit is not published."""

from __future__ import annotations

from enum import Enum

from nfpo_deploy.tick_unit import TickUnit

_COUNTER = 1 << 32


class TickEvent(Enum):
    """What a new tick means."""

    FIRST = "first"
    STEP = "step"
    DUPLICATE = "duplicate"
    GAP = "gap"
    RESTART = "restart"


class TickClock:
    """Turns ticks into elapsed seconds.

    Ticks come from the sender, so they carry no jitter of the network and stay true when the sender runs slow
    (a simulator on a busy machine). Their unit differs (milliseconds in Unitree's simulator, unknown on the
    robots), so it is learnt from the first messages. Until then, elapsed time is the difference of the times of
    reception, rounded to whole periods.

    Args:
        period: s between two messages of the sender.
        longest_gap: s; more than this and the messages in between are too many to bridge.

    Raises:
        ValueError: `period` or `longest_gap` not above zero.
    """

    def __init__(self, period: float, longest_gap: float) -> None:
        if not (period > 0 and longest_gap > 0):
            raise ValueError(f"period and longest_gap must be above zero, got {period!r} and {longest_gap!r}")
        self._period = period
        self._longest_gap = longest_gap
        self._unit = TickUnit(period)
        self.reset()

    def reset(self) -> None:
        """Forget everything, the unit included."""
        self._last: tuple[int, int] | None = None
        self._unit.restart()

    def advance(self, tick: int, received_ns: int) -> tuple[TickEvent, float]:
        """Event and elapsed s since the last message; elapsed is above zero for STEP and 0 for the rest.

        A counter that goes backwards, other than by the wrap of 32 bits, is a RESTART of the sender.
        """
        if self._last is None:
            self._last = (tick, received_ns)
            return TickEvent.FIRST, 0.0
        last_tick, last_ns = self._last
        step = (tick - last_tick) % _COUNTER
        if step == 0:
            return TickEvent.DUPLICATE, 0.0
        if step >= _COUNTER // 2:
            self.reset()
            self._last = (tick, received_ns)
            return TickEvent.RESTART, 0.0
        self._last = (tick, received_ns)
        elapsed = self._elapsed(step, (received_ns - last_ns) * 1e-9)
        if elapsed > self._longest_gap:
            return TickEvent.GAP, 0.0
        return TickEvent.STEP, elapsed

    def _elapsed(self, step: int, received: float) -> float:
        self._unit.learn(step, received)
        if not self._unit.unit:
            return self._period * max(1, round(received / self._period))
        return step * self._unit.unit
