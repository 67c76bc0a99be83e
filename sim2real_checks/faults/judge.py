"""Verdicts: one run against what was expected of it, and all runs together against the targets. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nfpo_deploy.types import Mode
from robots.loader import RobotSpec
from sim2real_checks.faults.bounds import Bounds
from sim2real_checks.faults.catalogue import TARGETS, UP, Case, Expect, React
from sim2real_checks.faults.measure import Motion, Reaction

LYING_HEIGHT = 0.15
"""m; the trunk of a robot that stands is twice as high."""
RESTING_SPEED = 1.0
"""rad/s of the fastest joint at the end: it has come to rest."""
RESTING_AFTER_MS = 1500.0
"""After the reaction; a robot on damped legs needs its time to come to rest."""
MAX_IMPACT_SPEED = 1.5
"""m/s of the trunk downward: the free fall of a Go2 from its standing height ends at 2.1 m/s. Not asked of a robot that
the fault itself throws, drops or pushes over; it is measured all the same."""

BUSY_LAG_S = 0.005


@dataclass
class Result:
    """One run, as it is written to the file of results. Times in ms."""

    key: str
    fault: str
    group: str
    mode: str
    repeat: int
    expected: str
    target: str
    limit_ms: float | None
    allowance_ms: float
    reaction: str = "none"
    """First safe reaction: damp, stand, sit or none."""
    fault_to_reaction_ms: float | None = None
    reaction_ms: float | None = None
    """The same less the declared timeout: what the target limits."""
    detector: str = ""
    reason: str = ""
    detection_ms: float | None = None
    """From the fault to the first word about it: a permit of the watchdog or the reaction itself."""
    motion: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, Any] = field(default_factory=dict)
    recovered: bool | None = None
    """Whether the graph could be used again afterwards; None where it was stopped."""
    duration: float = 0.0
    """s that the run took."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    settled: bool = True
    """Whether the robot had time to come to rest after the reaction."""

    @property
    def failed(self) -> bool:
        """Whether anything but a late reaction was wrong; lateness is judged over all runs of a target."""
        return bool(self.problems)

    @property
    def target_ms(self) -> float | None:
        """`reaction_ms`, but None where the launcher asked the bridge to end before its target's own part acted."""
        return self.reaction_ms if self.detector != "bridge" or self.target == "shutdown" else None

    @property
    def late(self) -> bool:
        """Whether the reaction came later than its target."""
        return self.limit_ms is not None and self.target_ms is not None and self.target_ms > self.limit_ms


def new_result(case: Case, spec: RobotSpec) -> Result:
    """What is known of a run before it."""
    expect = case.expect
    named = expect.allowance
    allowance = float(getattr(spec.safety, named)) if isinstance(named, str) else named
    return Result(
        key=case.key, fault=case.fault.name, group=case.fault.group, mode=case.mode.name, repeat=case.repeat,
        expected=expect.reaction.value, target=expect.target,
        limit_ms=TARGETS[expect.target] * 1e3 if expect.target else None,
        allowance_ms=(allowance + expect.delay) * 1e3,
    )  # fmt: skip


def judge_reaction(result: Result, expect: Expect, fault_ns: int, end_ns: int, reaction: Reaction) -> None:
    """Fill in what was done, when and by whom, and what is wrong with that.

    Args:
        result: gets it.
        expect: what had to follow.
        fault_ns: moment of the fault.
        end_ns: end of the observation.
        reaction: what followed.
    """
    result.reaction = _name(reaction)
    if reaction.first_ns is not None:
        result.fault_to_reaction_ms = (reaction.first_ns - fault_ns) * 1e-6
        result.reaction_ms = result.fault_to_reaction_ms - result.allowance_ms
        result.settled = (end_ns - reaction.first_ns) * 1e-6 > RESTING_AFTER_MS
        seen = [value for value in (result.detection_ms, result.fault_to_reaction_ms) if value is not None]
        result.detection_ms = min(seen)
    result.problems += _reaction_problems(result, expect)
    if reaction.stiff_again:
        result.problems.append(f"{reaction.stiff_again} stiff LowCmds after the robot had been damped")


def judge_robot(result: Result, case: Case, motion: Motion, bounds: Bounds) -> None:
    """Fill in how the robot moved and what it was told, and what is wrong with that."""
    result.motion, result.bounds = asdict(motion), asdict(bounds)
    if bounds.violations:
        result.problems += [f"bound violated: {text}" for text in bounds.worst]
    silent_ms, longest_ms = motion.stiff_gap_max * 1e3, TARGETS["guard"] * 1e3
    if case.fault.continuous and silent_ms > longest_ms:
        result.problems.append(f"the motors held a stiff command for {silent_ms:.0f} ms without a new one")
    result.problems += _end_problems(result, case, motion)
    if motion.lag_max > BUSY_LAG_S:
        result.notes.append(f"the simulator was up to {motion.lag_max * 1e3:.0f} ms late: a busy computer")


def _name(reaction: Reaction) -> str:
    for name, ns in (("stand", reaction.stand_ns), ("sit", reaction.sit_ns), ("damp", reaction.damp_ns)):
        if ns is not None and ns == reaction.first_ns:
            return name
    return "none"


def _reaction_problems(result: Result, expect: Expect) -> list[str]:
    # More than what was asked for is safe, too; a bridge that is asked to end chooses the gentle way itself.
    allowed = {
        React.DAMP: ("damp", "sit", "stand") if result.detector == "bridge" else ("damp",),
        React.STAND: ("stand", "damp"),
        React.SIT: ("sit", "stand", "damp"),
        # A robot that sits down is damped when it sits.
        React.NONE: ("none", "damp") if result.mode == Mode.SIT.name else ("none",),
        React.ANY: ("none", "damp", "stand", "sit"),
    }[expect.reaction]
    if result.reaction not in allowed:
        acted = f" by {result.detector}: {result.reason}" if result.detector else ""
        return [f"expected {expect.reaction.value}, saw {result.reaction}{acted}"]
    if expect.by and result.reaction != "none" and result.detector not in expect.by:
        acted = f"{result.detector or 'nobody known'} acted ({result.reason})"
        return [f"{acted}, expected {' or '.join(expect.by)}"]
    return []


def _end_problems(result: Result, case: Case, motion: Motion) -> list[str]:
    """What is wrong with the robot at the end, whatever was expected."""
    problems = []
    lying = motion.final_height < LYING_HEIGHT
    if result.reaction == "damp" or case.fault.ends_lying:
        if motion.final_stiffness > 0.0:
            problems.append(f"not damped in the end: stiffness {motion.final_stiffness:.0f} N·m/rad")
        if not lying:
            problems.append(f"not on the ground in the end: trunk at {motion.final_height:.2f} m")
    elif lying and motion.final_stiffness > 0.0 and case.mode in UP:
        problems.append(f"fell without being damped: trunk at {motion.final_height:.2f} m")
    if motion.final_joint_speed > RESTING_SPEED and lying and result.settled:
        problems.append(f"still moving in the end: {motion.final_joint_speed:.1f} rad/s")
    if motion.fall_speed > MAX_IMPACT_SPEED and case.fault.group != "body":
        problems.append(f"came down at {motion.fall_speed:.2f} m/s")
    if case.mode is Mode.DAMP and motion.stiff_commands:
        problems.append(f"{motion.stiff_commands} stiff commands to a robot that lies damped")
    return problems


@dataclass(frozen=True)
class TargetResult:
    """All runs of one target. Times in ms, NaN without a run."""

    name: str
    limit: float
    count: int
    median: float
    p99: float
    worst: float
    late: int
    met: bool


def judge_targets(results: Sequence[Result]) -> list[TargetResult]:
    """Percentiles of the reaction times of each target; the 99th is never below a measured one."""
    judged = []
    for name, limit in TARGETS.items():
        times = [r.target_ms for r in results if r.target == name and r.target_ms is not None]
        values = np.array(times, dtype=np.float64)
        p99 = float(np.percentile(values, 99, method="higher")) if len(values) else math.nan
        judged.append(
            TargetResult(
                name,
                limit * 1e3,
                len(values),
                float(np.median(values)) if len(values) else math.nan,
                p99,
                float(values.max()) if len(values) else math.nan,
                int((values > limit * 1e3).sum()),
                not len(values) or p99 <= limit * 1e3,
            )  # fmt: skip
        )
    return judged


def verdict(results: Sequence[Result]) -> list[str]:
    """Why the campaign failed, in words; empty when every run did what was expected and every target was met."""
    problems = [f"{result.key}: {text}" for result in results for text in result.problems]
    for target in judge_targets(results):
        if not target.met:
            late = ", ".join(sorted({r.fault for r in results if r.target == target.name and r.late}))
            problems.append(
                f"target {target.name}: 99th percentile {target.p99:.1f} ms of {target.count} runs exceeds "
                f"{target.limit:.0f} ms; late: {late}"
            )
    if not results:
        problems.append("nothing was run")
    return problems


def result_from(data: Mapping[str, Any]) -> Result:
    """A result as it was read from the file of results; raises `TypeError` for another version's."""
    return Result(**data)
