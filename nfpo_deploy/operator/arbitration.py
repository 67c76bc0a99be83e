"""Which of several operators drives: one velocity, or silence, out of remote, keyboard, web page and programs.

Silence is an answer of its own: it makes the policy stop and the watchdog stand, then sit. So a zero velocity goes out
only while the operator who drove last is still there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.operator.speeds import STANDING_STILL, Speeds
from nfpo_deploy.types import VelocityCommand

REMOTE = "remote"
SOURCES = (REMOTE, "keyboard", "web", "autonomy")
"""Highest priority first: who holds the remote stands beside the robot."""
OTHER = "another program"
"""In charge while somebody else publishes velocities; once that one is gone, no bystander stands in for it."""
SOURCE_TIMEOUT_S = 0.2
"""A source that sends 20 times a second has missed four."""


def parse_sources(text: str) -> tuple[str, ...]:
    """Names separated by commas, as the node's parameter has them, in order of priority.

    Raises:
        SafetyError: an unknown name, or none at all.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(names - set(SOURCES))
    if unknown or not names:
        raise SafetyError(f"sources: expected some of {', '.join(SOURCES)}, separated by commas, got {text!r}")
    return tuple(source for source in SOURCES if source in names)


@dataclass(frozen=True)
class _Input:
    active: bool
    velocity: VelocityCommand
    at_ns: int


class Arbiter:
    """Holds what each source said last. Times are CLOCK_MONOTONIC ns.

    Attributes:
        in_charge: source that drives, or drove last, while the robot is up; empty when nobody has.
    """

    def __init__(self, sources: Iterable[str], speeds: Speeds, timeout_s: float = SOURCE_TIMEOUT_S) -> None:
        """Create it.

        Args:
            sources: names out of `SOURCES`, in order of priority.
            speeds: bounds of every source.
            timeout_s: a source silent for longer is gone.

        Raises:
            SafetyError: a timeout that is not above zero.
        """
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise SafetyError(f"source timeout must be finite and above zero, got {timeout_s!r}")
        self._sources = tuple(sources)
        self._speeds = speeds
        self._timeout_ns = round(timeout_s * 1e9)
        self._inputs: dict[str, _Input] = {}
        self._moving = False
        self.in_charge = ""

    def observe(self, source: str, velocity: VelocityCommand, now_ns: int, active: bool | None = None) -> bool:
        """A source is there and says a velocity; returns whether it was taken.

        Args:
            source: one of the sources; others are ignored.
            velocity: m/s and rad/s; not finite counts as not said.
            now_ns: time of this call.
            active: whether it is meant (deadman held); left out, any velocity but zero is.
        """
        bounded = self._speeds.clamp(velocity)
        if source not in self._sources or bounded is None:
            return False
        self._inputs[source] = _Input(bounded != STANDING_STILL if active is None else active, bounded, now_ns)
        return True

    def lose(self, source: str) -> None:
        """A source is known to be gone."""
        self._inputs.pop(source, None)

    def take_charge(self, source: str) -> None:
        """A source showed that somebody is there, without driving."""
        if source in self._sources:
            self.in_charge = source

    def decide(self, now_ns: int, up: bool, alone: bool) -> VelocityCommand | None:
        """Velocity to publish now, None for silence.

        Args:
            now_ns: time of this call.
            up: whether the mode is READY or WALK, where an operator is expected; leaving them ends everybody's charge.
            alone: whether nobody beside this node publishes velocities; if somebody does, an idle source stays silent.
        """
        if not up:
            self.in_charge = ""
        fresh = {s: i for s, i in self._inputs.items() if 0 <= now_ns - i.at_ns <= self._timeout_ns}
        driving = next((source for source in self._sources if source in fresh and fresh[source].active), None)
        if driving is not None:
            if up:
                self.in_charge = driving
            self._moving = True
            return fresh[driving].velocity
        if up and not alone:
            self.in_charge = OTHER
        if up and alone and (self.in_charge in fresh or (fresh and not self.in_charge)):
            self._moving = False
            return STANDING_STILL
        # One zero on leaving: the robot need not walk on until the last velocity expires.
        parting = STANDING_STILL if self._moving else None
        self._moving = False
        return parting
