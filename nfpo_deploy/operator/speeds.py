"""How fast an operator may ask the robot to go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.types import VelocityCommand

STANDING_STILL = VelocityCommand(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Speeds:
    """Largest speeds at full stick, m/s and rad/s. The policy node bounds them again by what its policy knows.

    The defaults lie below what the shipped Go2 policy was trained for: a walk that a person beside the robot keeps up
    with.

    Raises:
        SafetyError: a speed that is not finite and above zero.
    """

    forward: float = 0.6
    backward: float = 0.4
    sideways: float = 0.3
    turn: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise SafetyError(f"operator speed {field.name!r} must be finite and above zero, got {value!r}")

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest vx, vy, wz."""
        return {
            "vx": (-self.backward, self.forward),
            "vy": (-self.sideways, self.sideways),
            "wz": (-self.turn, self.turn),
        }

    def clamp(self, velocity: VelocityCommand) -> VelocityCommand | None:
        """Velocity within the speeds; None where it is not finite."""
        values = (velocity.vx, velocity.vy, velocity.wz)
        if not all(map(math.isfinite, values)):
            return None
        pairs = zip(values, self.ranges.values(), strict=True)
        return VelocityCommand(*(min(max(value, low), high) for value, (low, high) in pairs))


def lowered(speeds: Speeds, ranges: Mapping[str, tuple[float, float]]) -> Speeds:
    """Speeds that also stay within the command ranges of a policy (vx, vy in m/s, wz in rad/s)."""
    return Speeds(
        forward=min(speeds.forward, ranges["vx"][1]),
        backward=min(speeds.backward, -ranges["vx"][0]),
        sideways=min(speeds.sideways, ranges["vy"][1], -ranges["vy"][0]),
        turn=min(speeds.turn, ranges["wz"][1], -ranges["wz"][0]),
    )
