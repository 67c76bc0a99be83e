"""Random velocity commands as an operator might give them: ramps, steps, stops, reversals, turns. Pure and seeded."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

AXES = ("vx", "vy", "wz")
Velocity = tuple[float, float, float]
STILL: Velocity = (0.0, 0.0, 0.0)
LONGEST_S, SHORTEST_S = 6.0, 0.5
RAMP_S = 2.0
KINDS = ("ramp", "ramp", "step", "step", "stop", "reverse", "turn")
"""What comes next; those that stand here twice come twice as often."""


@dataclass(frozen=True)
class Leg:
    """One command: from `start` to `end` within `ramp` s, held until `duration` s are over."""

    kind: str
    start: Velocity
    end: Velocity
    ramp: float
    duration: float

    def at(self, elapsed: float) -> Velocity:
        """Velocity vx, vy m/s, wz rad/s after `elapsed` s."""
        part = 1.0 if self.ramp <= 0.0 else min(1.0, max(0.0, elapsed / self.ramp))
        vx, vy, wz = (a + part * (b - a) for a, b in zip(self.start, self.end, strict=True))
        return vx, vy, wz


class Wandering:
    """An endless sequence of legs; the same seed gives the same."""

    def __init__(self, ranges: Mapping[str, tuple[float, float]], seed: int) -> None:
        """Prepare.

        Args:
            ranges: lowest and highest vx, vy (m/s), wz (rad/s) that the policy was trained for.
            seed: of the random numbers.
        """
        self._ranges = [ranges[axis] for axis in AXES]
        self._random = random.Random(seed)
        self._last: Velocity = STILL

    def next(self) -> Leg:
        """The next command, which begins where the last one ended."""
        kind = self._random.choice(KINDS)
        duration = self._random.uniform(SHORTEST_S, LONGEST_S)
        ramp = self._random.uniform(0.2, min(RAMP_S, duration)) if kind == "ramp" else 0.0
        leg = Leg(kind, self._last, self._target(kind), ramp, duration)
        self._last = leg.end
        return leg

    def _target(self, kind: str) -> Velocity:
        if kind == "stop":
            return STILL
        if kind == "reverse":
            vx, vy, wz = (
                min(max(-value, low), high) for value, (low, high) in zip(self._last, self._ranges, strict=True)
            )
            return vx, vy, wz
        if kind == "turn":
            return 0.0, 0.0, self._random.uniform(*self._ranges[2])
        vx, vy, wz = (self._random.uniform(low, high) for low, high in self._ranges)
        return vx, vy, wz
