"""What the robot is asked to do: segments of constant velocity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nfpo_deploy.errors import NfpoError


@dataclass(frozen=True)
class Segment:
    """One velocity command held for a while: s, m/s, m/s, rad/s in base_link.

    Raises:
        NfpoError: a number that is not finite, or a duration that is not above zero.
    """

    name: str
    duration: float
    vx: float = 0.0
    vy: float = 0.0
    wz: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.duration, self.vx, self.vy, self.wz)):
            raise NfpoError(f"segment {self.name!r}: expected finite numbers, got {self}")
        if self.duration <= 0:
            raise NfpoError(f"segment {self.name!r}: the duration must be above zero, got {self.duration} s")

    @property
    def velocity(self) -> np.ndarray:
        """(3,) vx, vy, wz."""
        return np.array([self.vx, self.vy, self.wz])

    def __str__(self) -> str:
        parts = []
        for value, positive, negative, unit in (
            (self.vx, "forward", "backward", "m/s"),
            (self.vy, "left", "right", "m/s"),
            (self.wz, "turning left", "turning right", "rad/s"),
        ):
            if value:
                parts.append(f"{positive if value > 0 else negative} {abs(value):.1f} {unit}")
        return ", ".join(parts) or "standing still"


FULL_SCRIPT = (
    Segment("stand", 2.0),
    Segment("forward", 5.0, vx=0.6),
    Segment("sideways", 4.0, vy=0.3),
    Segment("turn", 4.0, wz=0.8),
    Segment("diagonal", 3.0, vx=0.4, vy=-0.2),
    Segment("stop", 2.0),
)
QUICK_SCRIPT = (
    Segment("stand", 1.0),
    Segment("forward", 3.0, vx=0.6),
    Segment("turn", 2.5, wz=0.8),
    Segment("stop", 1.5),
)


def within(script: tuple[Segment, ...], ranges: Mapping[str, tuple[float, float]]) -> tuple[Segment, ...]:
    """Return the script with every velocity inside the ranges that the policy was trained for."""
    return tuple(
        replace(segment, **{axis: min(max(getattr(segment, axis), low), high) for axis, (low, high) in ranges.items()})
        for segment in script
    )
