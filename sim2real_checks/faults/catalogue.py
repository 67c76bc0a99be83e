"""The faults of the campaign as data: what is broken, in which modes, what must follow and who must see it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
"""Longest time, s, from the fault (or its declared timeout) to the first safe LowCmd at the robot: what the bridge
sees itself, what the watchdog sees, the bridge's own death (issue: targets), and requests to end, for which nothing is
at stake but that it happens: a node looks for signals five times a second."""
ACTIVE = (Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT)
QUICK = frozenset[str]()


@dataclass(frozen=True)
class Expect:
    """What must follow in one mode."""

    reaction: React
    target: str = ""
    """Key of `TARGETS`; empty for no limit."""
    allowance: str = ""
    """Threshold of the robot spec's `safety` from which the time counts instead of the fault."""
    by: tuple[str, ...] = ()
    """Who may be the one that acts: gate, watchdog, guard, bridge (asked to stop); empty for anybody."""
    onset: str = "injection"
    """What counts as the fault: the injection, or the moment when the true state broke a limit (`tilt`, …)."""


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
    injections: tuple[Injection, ...]
    expect: Mapping[Mode, Expect]
    destructive: bool = False
    """Whether the graph is gone afterwards."""
    undo_after: float | None = None
    """s after which the fault is taken back; None only at the end of the observation, where that is possible."""
    observe: float = 2.5
    """s to look at what follows."""
    honest_state: bool = True
    """Whether the robot's state reaches the gate as it is: otherwise the torque of a command cannot be judged."""
    quick: bool = False
    """Part of the short version."""


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


SIGNALS = {"kill": "SIGKILL", "stop": "SIGSTOP", "segv": "SIGSEGV", "abort": "SIGABRT"}
_BY_GATE = ("gate",)


def after_loss(process: str) -> dict[Mode, Expect]:
    """What must follow when a process no longer does its work, by mode.

    Args:
        process: name in the graph.
    """
    nothing = Expect(React.ANY)
    by_mode = {
        # The motors would keep the last command: the guard's reason to be.
        "sdk_bridge": dict.fromkeys(ACTIVE, Expect(React.DAMP, "guard", by=("guard",))),
        "safety_watchdog": dict.fromkeys(ACTIVE, Expect(React.DAMP, "bridge", "permit_timeout", _BY_GATE)),
        "policy_inference": {Mode.WALK: Expect(React.DAMP, "bridge", "command_timeout", _BY_GATE)},
        "state_estimator": {Mode.WALK: Expect(React.STAND, "watchdog", "estimate_timeout", ("watchdog",))},
        "robot_sim": dict.fromkeys(ACTIVE, Expect(React.DAMP, "bridge", "state_timeout", _BY_GATE)),
    }
    return {**dict.fromkeys((Mode.DAMP, *ACTIVE), nothing), **by_mode.get(process, {})}


def process_faults(processes: Sequence[str]) -> Iterator[Fault]:
    """Every way to lose one process.

    Args:
        processes: names in the graph.
    """
    for name in processes:
        expect = after_loss(name)
        for word, number in SIGNALS.items():
            yield Fault(
                f"{word} {name}", "process", (Injection("signal", name, {"signal": number}),), expect,
                destructive=word != "stop",
            )  # fmt: skip


def build_catalogue(processes: Sequence[str]) -> tuple[Fault, ...]:
    """All faults for a graph.

    Args:
        processes: names of its processes; each appears in the faults of processes by itself.
    """
    return tuple(process_faults(processes))


def build_cases(
    faults: Sequence[Fault], repeats: int, modes: Sequence[Mode] = (), only: str = "", quick: bool = False
) -> list[Case]:
    """Runs of a campaign in an order that keeps runs of one kind apart, so that a stop half-way has seen everything.

    Args:
        faults: of the catalogue.
        repeats: of each fault in each of its modes.
        modes: leave out others; empty for all.
        only: part of `fault@MODE`, upper or lower case; empty for all.
        quick: the short version.
    """
    cases = []
    for repeat in range(repeats):
        for fault in faults:
            for mode in fault.expect:
                wanted = (not modes or mode in modes) and (not quick or fault.quick)
                if wanted and only.lower() in f"{fault.name}@{mode.name}".lower():
                    cases.append(Case(fault, mode, repeat))
    return cases


def without_limit(expect: Expect) -> Expect:
    """The same reaction, at any time, by anybody."""
    return replace(expect, target="", by=())
