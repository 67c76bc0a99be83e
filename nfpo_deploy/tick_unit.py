"""How long one step of the robot's tick counter is; the unit is not published."""

from __future__ import annotations

from statistics import median

MESSAGES = 33
"""Messages that must agree."""
TOLERANCE = 0.15
"""Part by which the time of reception may differ from what the ticks say; a wrong whole step differs by more."""
MAX_TRIES = 30
"""Then the sender's own time differs from ours, as that of a simulator on a busy computer: its ticks are believed."""


class TickUnit:
    """Learns the unit from the usual step of messages that are known to be `period` apart.

    While a computer starts many things at once, messages are missed, and their usual step is that of every second or
    third one. Such a unit would stay wrong for as long as the robot runs, so that it is believed only where messages
    also took the time that it says.

    Attributes:
        unit: duration of one step, in the unit of `period`; 0 until known.
        usual_step: steps from one message to the next; 0 before the first `MESSAGES`, of which it may miss some.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.unit = 0.0
        self.usual_step = 0
        self._steps: list[int] = []
        self._elapsed = 0.0
        self._tries = 0

    def learn(self, step: int, elapsed: float) -> None:
        """Take the steps since the last message and how much later it was received; does nothing once known."""
        if self.unit:
            return
        self._steps.append(step)
        self._elapsed += elapsed
        if len(self._steps) < MESSAGES:
            return
        self._tries += 1
        usual = median(self._steps)
        unit = self._period / usual
        self.usual_step = round(usual)
        if self._tries >= MAX_TRIES or abs(sum(self._steps) * unit - self._elapsed) <= TOLERANCE * self._elapsed:
            self.unit = unit
        self._steps.clear()
        self._elapsed = 0.0
