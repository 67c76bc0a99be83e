"""The faults of the campaign as data: what is broken, in which modes, what must follow and who must see it.

`process_faults` has those of processes, `robot_faults` those of robot, wire and operator; this module has their terms.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from nfpo_deploy.types import Mode


class React(Enum):
    """What must follow a fault."""

    DAMP = "damp"
    """The motors fade to damping."""
    STAND = "stand"
    """Walking ends, the robot stands."""
    SIT = "sit"
    """The robot sits down and is damped."""
    NONE = "none"
    """Nothing: the robot goes on in its mode."""
    ANY = "any"
    """Going on or any of the above, as long as nothing is violated: whether the fault bites depends on chance."""


TARGETS: dict[str, float] = {"bridge": 0.010, "watchdog": 0.050, "guard": 0.100, "shutdown": 0.500}
"""Longest time, s, from the fault (or its declared timeout) to the first safe LowCmd at the robot, at the 99th
percentile: what the bridge sees itself, what the watchdog sees, the bridge's own death. For requests to end nothing is
at stake but that the end begins: a node looks for signals five times a second."""
ACTIVE = (Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT)
ALL = (Mode.DAMP, *ACTIVE)
UP = (Mode.READY, Mode.WALK)
ANY_JOINT = "any joint"
"""As a value of an injection's options: a joint that the run's random numbers choose."""
ROBOT = "robot_sim"
"""Name of the simulated robot among the processes; no part of the graph under test."""


@dataclass(frozen=True)
class Expect:
    """What must follow in one mode."""

    reaction: React
    target: str = ""
    """Key of `TARGETS`; empty for no limit."""
    allowance: str | float = 0.0
    """Declared timeout from which the time counts: a threshold of the robot spec's `safety` by name, or s."""
    by: tuple[str, ...] = ()
    """Who may be the one that acts: gate, watchdog, guard, bridge (asked to end); empty for anybody."""
    onset: str = "injection"
    """What counts as the fault: the injection, or the moment when the true state broke a limit (`tilt`, …). Where it
    never does, nothing needs to follow."""
    delay: float = 0.0
    """s more, which others of the graph may take before the declared timeout begins."""


@dataclass(frozen=True)
class Injection:
    """One way to break something; `kind` chooses the code in `inject`."""

    kind: str
    target: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue."""

    name: str
    group: str
    """process, pair, shutdown, wire, sensor, body, remote, ros, policy or operator."""
    injections: tuple[Injection, ...]
    expect: Mapping[Mode, Expect]
    destructive: bool = False
    """Whether the graph is gone afterwards."""
    undo_after: float | None = None
    """s after which the fault is taken back; None only at the end of the observation, where that is possible."""
    observe: float = 3.0
    """s to look at what follows."""
    honest_state: bool = True
    """Whether the robot's state reaches the gate as it is: otherwise the torque of a command cannot be judged."""
    witness: str = "robot"
    """Who sees the LowCmds: the robot, or the wire where the robot itself is what fails."""
    continuous: bool = True
    """Whether LowCmds must reach the robot without a pause as long as they are stiff."""
    ends_lying: bool = False
    """Whether the robot must lie, damped, when the observation ends."""
    policy: str = ""
    """Spoiled policy that the graph is started with; empty for the campaign's own."""
    quick: tuple[Mode, ...] = ()
    """Modes in which it is part of the short version."""


@dataclass(frozen=True)
class Case:
    """One run: a fault in a mode, and which repetition."""

    fault: Fault
    mode: Mode
    repeat: int

    @property
    def key(self) -> str:
        """Name of the run, `fault@MODE#repeat`."""
        return f"{self.fault.name}@{self.mode.name}#{self.repeat}"

    @property
    def seed(self) -> int:
        """Seed of the moment and of everything random, the same for every campaign."""
        return zlib.crc32(self.key.encode())

    @property
    def expect(self) -> Expect:
        """What must follow."""
        return self.fault.expect[self.mode]


def in_modes(modes: Sequence[Mode], expect: Expect) -> dict[Mode, Expect]:
    """The same expectation in several modes."""
    return dict.fromkeys(modes, expect)


def build_catalogue(processes: Sequence[str]) -> tuple[Fault, ...]:
    """All faults for a graph.

    Args:
        processes: names of its processes; each appears in the faults of processes by itself.

    Raises:
        ValueError: two faults with one name.
    """
    from sim2real_checks.faults.process_faults import process_faults
    from sim2real_checks.faults.robot_faults import robot_faults

    faults = (*process_faults(processes), *robot_faults())
    names = [fault.name for fault in faults]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two faults are called {', '.join(doubles)}: results could not be told apart")
    return faults


def build_cases(
    faults: Sequence[Fault], repeats: int, modes: Sequence[Mode] = (), only: str = "", quick: bool = False
) -> list[Case]:
    """Runs of a campaign: every repetition goes through all faults, so that a stop half-way has seen everything.

    Args:
        faults: of the catalogue.
        repeats: of each fault in each of its modes.
        modes: leave out others; empty for all.
        only: part of `fault@MODE`, upper or lower case; empty for all.
        quick: the short version.
    """
    return [
        Case(fault, mode, repeat)
        for repeat in range(repeats)
        for fault in faults
        for mode in fault.expect
        if (not modes or mode in modes)
        and (not quick or mode in fault.quick)
        and only.lower() in f"{fault.name}@{mode.name}".lower()
    ]
