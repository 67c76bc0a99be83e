"""Order and lateness of robot states, from the robot's own tick against the time of reception.

Age alone does not see a stream that is late but steady: every state is new when it arrives, and old when it is used.
"""

from __future__ import annotations

from enum import Enum, auto

from nfpo_deploy.tick_unit import TickUnit

_COUNTER = 1 << 32
# Steps back of at most this many messages are packets that overtook each other; more is a sender that restarted.
_REORDERED_MESSAGES = 100
# How fast the floor of the lag rises, s/s: five times what quartz clocks differ, and what a tick that counts messages
# of a not quite nominal rate makes.
_DRIFT = 0.005


class Arrival(Enum):
    """What a tick means after the last one."""

    NEW = auto()
    SAME = auto()
    OLD = auto()
    """An earlier state that was overtaken."""
    RESTARTED = auto()
    """The counter went far back: the sender restarted, or another one speaks."""


class ArrivalWatch:
    """Judges ticks in order of reception.

    Attributes:
        lag_ns: how much later than the quickest of late the newest state came; 0 until the unit is known.
    """

    def __init__(self, period_s: float) -> None:
        """Prepare for states that come every `period_s`."""
        self._unit = TickUnit(period_s * 1e9)
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.lag_ns = 0.0
        self._tick: int | None = None
        self._unit.restart()
        self._elapsed_ns = 0.0
        self._floor_ns = 0.0
        self._received_ns = 0

    def judge(self, tick: int, received_ns: int) -> Arrival:
        """Take the tick (uint32) of the next state."""
        if self._tick is None:
            self._tick, self._received_ns = tick, received_ns
            return Arrival.NEW
        step = (tick - self._tick + _COUNTER // 2) % _COUNTER - _COUNTER // 2
        if step == 0:
            return Arrival.SAME
        if step < 0:
            if -step <= _REORDERED_MESSAGES * max(1, self._unit.usual_step):
                return Arrival.OLD
            self.restart()
            self._tick, self._received_ns = tick, received_ns
            return Arrival.RESTARTED
        self._tick = tick
        self._learn(step, received_ns)
        return Arrival.NEW

    def settle(self) -> None:
        """Call the present lag normal: nothing is at stake now."""
        self._floor_ns += self.lag_ns
        self.lag_ns = 0.0

    def _learn(self, step: int, received_ns: int) -> None:
        elapsed_ns = received_ns - self._received_ns
        self._received_ns = received_ns
        if not self._unit.unit:
            self._unit.learn(step, elapsed_ns)
            return
        # Lag grows by what reception advanced more than the robot's clock.
        self._elapsed_ns += elapsed_ns - step * self._unit.unit
        self._floor_ns = min(self._floor_ns + _DRIFT * max(0, elapsed_ns), self._elapsed_ns)
        self.lag_ns = self._elapsed_ns - self._floor_ns
