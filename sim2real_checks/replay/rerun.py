"""Run a recorded flight again: every recorded estimate and velocity through the deployed observation and policy code.

Each recorded command names the state that it answers, the velocity that the policy was given and the policy's tick
since it last forgot its past, so the pairing is exact and nothing depends on timing. Where the log begins in the
middle of a walk or lacks a tick, the policy's memory is filled from the log, and comparing goes on as soon as it
holds nothing unknown: after as many ticks as the longest history has frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from nfpo_deploy.contract.clearance import policy_id
from nfpo_deploy.errors import NfpoError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.types import JointCommand, VelocityCommand
from sim2real_checks.replay.flight import TARGETS, Flight, RecordedCommand

TOLERANCE = 1e-6
"""Of targets in rad, N·m/rad, …, and of observations for each unit of their size. The same code on the same computer
is exact; ONNX Runtime may differ in the last bit of a float32 on another one."""
_MAX_PHASES = 100_000


@dataclass(frozen=True)
class Difference:
    """A tick that the replay does not reproduce."""

    index: int
    """Which command of the log, from 0."""
    time_ns: int
    mode: str
    seq: int
    field: str
    """What differs most beyond the tolerance: q, stiffness, …, observation, joint order, or failure."""
    joint: str
    """Where in a target; empty for others."""
    size: float
    term: str = ""
    """Term of the observation that differs most; empty where no term differs beyond the tolerance."""
    term_size: float = 0.0
    reason: str = ""


@dataclass
class Rerun:
    """What came of a replay.

    Attributes:
        ticks: commands in the log.
        compared: of them, how many could be compared.
        skipped: why the others could not, with how often.
        largest: (N,) largest difference of q, rad, in joint order.
        largest_terms: largest difference of each term of the observation.
        differing: ticks beyond the tolerance.
        first: the first of them; None where all are equal.
        foreign: commands that carry another policy's id.
    """

    ticks: int
    compared: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    largest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    largest_terms: dict[str, float] = field(default_factory=dict)
    differing: int = 0
    first: Difference | None = None
    foreign: int = 0

    def skip(self, why: str) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + 1


def rerun(
    flight: Flight,
    policy: OnnxPolicy,
    tolerance: float = TOLERANCE,
    track: Callable[[Iterable[RecordedCommand]], Iterable[RecordedCommand]] = iter,
) -> Rerun:
    """Replay all commands of a flight.

    Args:
        flight: what was recorded.
        policy: to replay with.
        tolerance: see `TOLERANCE`.
        track: wraps the iteration, for a progress bar.
    """
    memory = _Memory(flight, policy)
    result = Rerun(len(flight.commands), largest=np.zeros(flight.spec.num_joints))
    result.largest_terms = dict.fromkeys(memory.terms, 0.0)
    own_id = policy_id(policy.sha256)
    for index, command in enumerate(track(flight.commands)):
        result.foreign += command.policy_id != own_id
        answer = memory.step(command)
        if isinstance(answer, _Unknown):
            result.skip(answer.why)
            continue
        difference = _compare(flight, memory, index, command, answer, tolerance, result)
        result.compared += 1
        if difference is not None:
            result.differing += 1
            result.first = result.first or difference
    return result


@dataclass(frozen=True)
class _Unknown:
    """Why a tick cannot be compared."""

    why: str


class _Memory:
    """A `PolicyRunner` whose memory is the recorded one: reset where it was reset, refilled where the log has a gap."""

    def __init__(self, flight: Flight, policy: OnnxPolicy) -> None:
        self._flight = flight
        self.runner = PolicyRunner(policy, flight.spec)
        manifest = policy.manifest
        self._to_policy = np.argsort(manifest.joint_order(flight.spec))
        # A frame of the last action is known one tick later than the others.
        self._frames = max(term.history + (term.name == "last_action") for term in manifest.terms)
        self._primed = 0
        self._expected = -1
        self.terms: dict[str, slice] = {}
        start = 0
        for term, width in zip(self.runner.builder.terms, self.runner.builder.widths, strict=True):
            self.terms[term.name] = slice(start, start + width * term.history)
            start += width * term.history

    def step(self, command: RecordedCommand) -> JointCommand | NfpoError | _Unknown:
        """The runner's answer to a recorded tick, or its error, or why the tick cannot be compared."""
        estimate = self._flight.estimates.get(command.state)
        if estimate is None:
            self._expected = -1
            return _Unknown("the estimate that it answers is not in the log")
        if command.step == 1:
            self.runner.reset()
            self._primed = self._frames
        elif command.step != self._expected:
            self.runner.reset()
            self._set_phase(command)
            self._primed = 0
        self._expected = command.step + 1
        try:
            answer = self.runner.step(estimate, VelocityCommand(*(float(v) for v in command.velocity)))
        except NfpoError as error:
            # The deployed policy did answer here, so whatever follows is compared with a memory that it did not have.
            self._expected = -1
            return error
        self._primed += 1
        if self._primed < self._frames:
            self.runner.last_action = self._recorded_action(command)
            return _Unknown("the policy's memory before it is not in the log")
        return answer

    def _recorded_action(self, command: RecordedCommand) -> np.ndarray:
        """(N,) the raw action behind recorded targets, exactly: networks answer in float32."""
        manifest = self.runner.manifest
        action = (command.targets["q"][self._to_policy] - manifest.default_pose) / manifest.action_scale
        exact = action.astype(np.float32).astype(np.float64)
        return np.clip(exact, -manifest.action_clip, manifest.action_clip)

    def _set_phase(self, command: RecordedCommand) -> None:
        """Set the gait clock so that its next tick has the phase that the recorded observation shows."""
        part = self.terms.get("gait_phase")
        if part is None or len(command.observation) != self.runner.manifest.observation_size:
            return
        scale = next(term.scale for term in self.runner.builder.terms if term.name == "gait_phase")
        sine, cosine = (float(v) / scale for v in command.observation[part][-2:])
        clock = self.runner.clock
        phase = math.atan2(sine, cosine) / (2.0 * math.pi) % 1.0
        # The phase is a whole number of increments, which the observation's float32 only shows to seven digits.
        counted = clock.increment * np.arange(1, min(max(command.step, 1), _MAX_PHASES) + 1) % 1.0
        apart = np.abs((counted - phase + 0.5) % 1.0 - 0.5)
        clock.phase[:] = counted[int(apart.argmin())] - clock.increment


def _compare(
    flight: Flight, memory: _Memory, index: int, command: RecordedCommand, answer: JointCommand | NfpoError,
    tolerance: float, result: Rerun,
) -> Difference | None:  # fmt: skip
    """Difference of a tick beyond the tolerance; the largest differences are noted in `result`."""
    where = (index, command.time_ns, flight.mode_at(command.time_ns), command.seq)
    if command.joint_names_crc != flight.spec.joint_names_crc:
        return Difference(*where, "joint order", "", math.inf, reason="its joint_names_crc is another robot's")
    if isinstance(answer, NfpoError):
        return Difference(*where, "failure", "", math.inf, reason=str(answer))
    worst_field, worst_joint, worst = "", 0, tolerance
    for name in TARGETS:
        apart = _apart(getattr(answer, name), command.targets[name])
        if name == "q":
            result.largest = np.maximum(result.largest, apart)
        if apart.max() > worst:
            worst_field, worst_joint, worst = name, int(apart.argmax()), float(apart.max())
    term, term_size = _compare_terms(memory, command, result)
    differs = term_size > tolerance
    if not worst_field and not differs:
        return None
    known = {"term": term, "term_size": term_size} if differs else {}
    if not worst_field:
        return Difference(*where, "observation", "", term_size, **known)  # type: ignore[arg-type]
    return Difference(*where, worst_field, flight.spec.joint_names[worst_joint], worst, **known)  # type: ignore[arg-type]


def _compare_terms(memory: _Memory, command: RecordedCommand, result: Rerun) -> tuple[str, float]:
    """Term of the observation that differs most, and by how much for each unit of its size; ("", 0) if unknown."""
    ours, theirs = memory.runner.last_observation.astype(np.float64), command.observation.astype(np.float64)
    if not len(theirs):
        return "", 0.0
    if ours.shape != theirs.shape:
        return f"all: it has {len(theirs)} values, this policy's {len(ours)}", math.inf
    apart = _apart(ours, theirs) / np.maximum(1.0, np.abs(ours))
    sizes = {name: float(apart[part].max()) for name, part in memory.terms.items()}
    for name, size in sizes.items():
        result.largest_terms[name] = max(result.largest_terms[name], size)
    worst = max(sizes, key=lambda name: sizes[name])
    return worst, sizes[worst]


def _apart(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Absolute difference; what is not finite on the recorded side differs infinitely."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(ours - theirs)
    return np.where(np.isfinite(apart), apart, math.inf)
