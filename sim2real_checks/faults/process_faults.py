"""Faults of processes: dead, frozen, crashed, out of memory, blocked; one, two, the launcher, or all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from nfpo_deploy.types import Mode
from sim2real_checks.faults.catalogue import ACTIVE, ALL, ROBOT, UP, Expect, Fault, Injection, React, in_modes
from sim2real_checks.faults.processes import LAUNCHER

DEADLY = {"kill": "SIGKILL", "segv": "SIGSEGV", "abort": "SIGABRT"}
BLOCKED_S = 0.5
"""How long an interpreter is blocked: longer than every timeout that must notice it."""
RESUMED_S = 1.0
"""After this time a frozen process comes back."""
STRONGEST = ("sdk_bridge", "policy_inference", "safety_watchdog", "state_estimator", "operator")
"""Processes whose loss must have consequences, the one with the earliest first."""
BY_GATE, BY_GUARD, BY_WATCHDOG = ("gate",), ("guard",), ("watchdog",)
OBSERVE_S = 3.0
"""Until a robot that is damped while it walks has come to rest."""
ENDED_S = 6.0
"""The launcher sees a death, too, and ends the graph: the robot stands, sits and is damped within that time."""
LET_GO_S = 7.5
"""Without a bridge a guard damps alone, for six seconds; by then it has let go of the motors a second ago."""
OPERATOR_MISSED_S = 4.5
"""To see what follows when no velocity comes any more."""
GOES_DOWN_S = 9.0
"""A bridge that is asked to end stands, sits and damps: about seven seconds."""
NOTHING, UNMOVED = Expect(React.ANY), Expect(React.NONE)


def process_faults(processes: Sequence[str]) -> Iterator[Fault]:
    """Every fault of the processes of a graph.

    Args:
        processes: their names, without the launcher and the robot.
    """
    for name in processes:
        yield from _of_one(name)
    yield from _of_robot()
    for first, second in combinations(processes, 2):
        yield from _of_two(first, second)
    yield from _of_launcher()
    yield from _of_all(processes)


def after_loss(process: str) -> dict[Mode, Expect]:
    """What must follow when a process no longer does its work, by mode.

    Args:
        process: name in the graph.
    """
    by_process = {
        # The motors would keep the last command: the guards' reason to be.
        "sdk_bridge": in_modes(ACTIVE, Expect(React.DAMP, "guard", by=BY_GUARD)),
        "safety_watchdog": in_modes(ACTIVE, Expect(React.DAMP, "bridge", "permit_timeout", BY_GATE)),
        "policy_inference": {Mode.WALK: Expect(React.DAMP, "bridge", "command_timeout", BY_GATE)},
        # The same 60 ms twice: of the estimate, and of the state that a joint command answers. Whoever is first acts.
        "state_estimator": {Mode.WALK: Expect(React.STAND, "watchdog", "estimate_timeout", (*BY_WATCHDOG, *BY_GATE))},
        "operator": {Mode.WALK: Expect(React.STAND, "watchdog", "operator_abandon", BY_WATCHDOG)},
        ROBOT: in_modes(ACTIVE, Expect(React.DAMP, "bridge", "state_timeout", BY_GATE)),
    }
    modes = ALL if process in ("sdk_bridge", "safety_watchdog") else ACTIVE
    return {**in_modes(modes, UNMOVED), **by_process.get(process, {})}


def _noticed(expect: dict[Mode, Expect]) -> dict[Mode, Expect]:
    """The same where the launcher sees it, too, and may be faster: it asks the bridge to end."""
    return {
        mode: NOTHING if one.reaction is React.NONE else replace(one, by=one.by and (*one.by, "bridge"))
        for mode, one in expect.items()
    }


def _signal(process: str, number: str) -> Injection:
    return Injection("signal", process, {"signal": number})


def _of_one(name: str) -> Iterator[Fault]:
    expect, observe = after_loss(name), _observe(name)
    # The graph goes on without its log.
    after_death = expect if name == "flight_recorder" else _noticed(expect)
    # An operator who is missed for a second only has not gone.
    brief = in_modes(tuple(expect), UNMOVED) if name == "operator" else expect
    stop_quick = {"sdk_bridge": (Mode.READY,), "safety_watchdog": (Mode.STAND,), "policy_inference": (Mode.WALK,)}
    for word, number in DEADLY.items():
        quick = (Mode.WALK,) if name in ("sdk_bridge", "safety_watchdog") and word == "kill" else ()
        yield Fault(
            f"{word} {name}", "process", (_signal(name, number),), after_death, True, observe=_ended(name), quick=quick
        )
    alone = (_signal(LAUNCHER, "SIGSTOP"), _signal(name, "SIGKILL"))
    yield Fault(f"kill {name}, launcher frozen", "process", alone, expect, True, observe=observe)
    stop = (_signal(name, "SIGSTOP"),)
    yield Fault(f"stop {name}", "process", stop, expect, observe=observe, quick=stop_quick.get(name, ()))
    yield Fault(f"stop and continue {name}", "process", stop, brief, undo_after=RESUMED_S, observe=3.0)
    block = Injection("saboteur", name, {"fault": "hold_gil", "seconds": BLOCKED_S})
    yield Fault(f"block {name}", "process", (block,), brief)
    # When an allocation fails, and what that ends, is up to the process: nothing may be violated.
    exhaust = Injection("saboteur", name, {"fault": "exhaust_memory"})
    nothing = in_modes(tuple(expect), NOTHING)
    yield Fault(f"exhaust memory of {name}", "process", (exhaust,), nothing, True, observe=_ended(name))


def _of_robot() -> Iterator[Fault]:
    """The robot itself dies or hangs: what it would have been told is seen on the wire."""
    expect = after_loss(ROBOT)
    for word, number in {"kill": "SIGKILL", "stop": "SIGSTOP"}.items():
        yield Fault(
            f"{word} {ROBOT}",
            "process",
            (_signal(ROBOT, number),),
            expect,
            word == "kill",
            witness="wire",
            continuous=False,
        )
    block = Injection("saboteur", ROBOT, {"fault": "hold_gil", "seconds": BLOCKED_S})
    yield Fault(f"block {ROBOT}", "process", (block,), expect, witness="wire", continuous=False)


def _of_two(first: str, second: str) -> Iterator[Fault]:
    expect = {mode: _first_consequence((first, second), mode) for mode in UP}
    watched = max(_observe(first), _observe(second))
    if {first, second} == {"guard", "guard_backup"}:
        expect = in_modes(UP, Expect(React.SIT, "watchdog", "guard_status_timeout", BY_WATCHDOG))
        watched = GOES_DOWN_S
    for word, number in {"kill": "SIGKILL", "stop": "SIGSTOP"}.items():
        both = (_signal(first, number), _signal(second, number))
        dead = word == "kill"
        yield Fault(
            f"{word} {first} and {second}", "pair", both, _noticed(expect) if dead else expect, dead,
            observe=_ended(first, second) if dead else watched,
        )  # fmt: skip


def _first_consequence(lost: Sequence[str], mode: Mode) -> Expect:
    ranked = sorted(lost, key=lambda name: STRONGEST.index(name) if name in STRONGEST else len(STRONGEST))
    expected = [after_loss(name)[mode] for name in ranked]
    # Whose loss matters first while walking may not matter at all while standing.
    return next((one for one in expected if one.reaction is not React.NONE), expected[0])


def _ended(*dead: str) -> float:
    return LET_GO_S if "sdk_bridge" in dead else ENDED_S


def _observe(name: str) -> float:
    return OPERATOR_MISSED_S if name == "operator" else OBSERVE_S


def _of_launcher() -> Iterator[Fault]:
    ending = in_modes(ACTIVE, Expect(React.SIT, "shutdown"))
    for word, number in {"Ctrl-C": "SIGINT", "SIGTERM": "SIGTERM", "closed terminal": "SIGHUP"}.items():
        yield Fault(
            f"{word} at the launcher",
            "shutdown",
            (_signal(LAUNCHER, number),),
            ending,
            True,
            observe=GOES_DOWN_S,
            ends_lying=True,
        )
    for word, number in DEADLY.items():
        # The kernel tells its children to end.
        yield Fault(
            f"{word} {LAUNCHER}",
            "shutdown",
            (_signal(LAUNCHER, number),),
            ending,
            True,
            observe=GOES_DOWN_S,
            ends_lying=True,
        )
    yield Fault(f"stop {LAUNCHER}", "process", (_signal(LAUNCHER, "SIGSTOP"),), in_modes(UP, Expect(React.NONE)))


def _of_all(processes: Sequence[str]) -> Iterator[Fault]:
    """Everything on the computer is told to end at once; the robot is another computer."""
    ending = in_modes(ACTIVE, Expect(React.SIT, "shutdown"))
    everybody = (LAUNCHER, *processes)
    for word, number in {"machine shutdown": "SIGTERM", "Ctrl-C": "SIGINT", "closed terminal": "SIGHUP"}.items():
        yield Fault(
            f"{word} at all processes",
            "shutdown",
            tuple(_signal(name, number) for name in everybody),
            ending,
            True,
            observe=GOES_DOWN_S,
            ends_lying=True,
        )
    twice = (
        *(_signal(name, "SIGTERM") for name in everybody),
        Injection("wait", options={"seconds": 0.1}),
        *(_signal(name, "SIGTERM") for name in everybody),
    )
    yield Fault(
        "machine shutdown, twice",
        "shutdown",
        twice,
        in_modes(ACTIVE, Expect(React.DAMP, "shutdown")),
        True,
        observe=5.0,
        ends_lying=True,
    )
