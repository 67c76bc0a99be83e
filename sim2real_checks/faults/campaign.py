"""The campaign: runs the cases one after the other, measures each, and keeps what was found."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.types import Mode
from robots.loader import RobotSpec
from sim2real_checks.faults import detect, measure
from sim2real_checks.faults.bounds import check_bounds
from sim2real_checks.faults.catalogue import ACTIVE, Case, Expect, React
from sim2real_checks.faults.inject import inject, prepare
from sim2real_checks.faults.judge import Result, judge_reaction, judge_robot, new_result, result_from
from sim2real_checks.faults.lowcmds import lowcmds_of, window
from sim2real_checks.faults.rig import Rig, RigOptions
from sim2real_checks.faults.tap import load_tap

RESULTS, FAILED = "results.jsonl", "failed"
RUNS_PER_GRAPH = 4
"""Faults that leave the graph usable share one, up to so many: the record must not grow without end."""
BEFORE_S = 1.2
BEFORE = "the motors were damped before the fault"
ATTEMPTS = 3
"""A graph that does not reach the mode before the fault says nothing about the fault: it is tried again."""


@dataclass
class Seen:
    """A run that waits for its record."""

    case: Case
    result: Result
    fault_ns: int
    end_ns: int
    void: bool = False
    """Whether something else had happened just before the fault, so that it says nothing."""


class Campaign:
    """Runs cases in `folder`; results are appended to `results.jsonl` as they come."""

    def __init__(self, spec: RobotSpec, options: RigOptions, folder: Path, check: Callable[[], None]) -> None:
        """Prepare.

        Args:
            spec: the robot.
            options: how graphs are started.
            folder: for results, and for record and log of runs that went wrong.
            check: called all the time; raises to end the campaign.
        """
        self.spec = spec
        self.folder = folder
        self._options = options
        self._check = check
        self._path = folder / RESULTS

    def done(self) -> list[Result]:
        """Results of earlier runs in this folder.

        Raises:
            NfpoError: a file of another version.
        """
        if not self._path.exists():
            return []
        try:
            # The last line may be half written.
            lines = [line for line in self._path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            return [result_from(json.loads(line)) for line in lines]
        except (TypeError, ValueError) as error:
            raise NfpoError(
                f"{self._path}: not the results of this version ({error}); start without --resume"
            ) from error

    def run(self, cases: Sequence[Case]) -> Iterator[Result]:
        """Run the cases; yields each result when it is known, not always in their order."""
        waiting = list(cases)
        while waiting:
            batch = _next_batch(waiting)
            for case in batch:
                waiting.remove(case)
            for result in self._run_batch(batch):
                with self._path.open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
                yield result

    def _run_batch(self, batch: Sequence[Case]) -> list[Result]:
        """Runs that share a graph; those after one that ends it get a fresh one."""
        results: list[Result] = []
        todo, tries = list(batch), dict.fromkeys((case.key for case in batch), 0)
        while todo:
            scratch = self.folder / "running"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            seen: list[Seen] = []
            start = time.monotonic()
            fault = todo[0].fault
            policy = self._policy(fault.policy, scratch)
            with Rig(self._options, scratch, self._check, policy, tapped=fault.witness == "wire") as rig:
                while todo:
                    case = todo.pop(0)
                    tries[case.key] += 1
                    seen.append(self._run_case(rig, case))
                    if seen[-1].result.recovered is not True:
                        break
            for item in seen:
                item.result.duration = (time.monotonic() - start) / len(seen)
            self._measure(rig, seen)
            todo += [item.case for item in seen if item.void and tries[item.case.key] < ATTEMPTS]
            judged = [item for item in seen if not item.void or tries[item.case.key] >= ATTEMPTS]
            self._keep(scratch, judged)
            results += [item.result for item in judged]
        return results

    def _policy(self, kind: str, scratch: Path) -> str:
        if not kind:
            return ""
        from sim2real_checks.faults.spoiled import spoiled_policy

        source = resolve_policy(self._options.policy, self.spec)
        return str(spoiled_policy(source, kind, scratch / f"{kind}.onnx", self.spec))

    def _run_case(self, rig: Rig, case: Case) -> Seen:
        rng = random.Random(case.seed)
        seen = Seen(case, new_result(case, self.spec), 0, 0, void=True)
        result, fault = seen.result, case.fault
        try:
            prepare(fault, rig)
            rig.reach(case.mode, rng, slow=bool(fault.policy))
            seen.void = False
            seen.fault_ns, undos = inject(fault, rig, self.spec, rng)
            early = fault.observe if fault.undo_after is None else fault.undo_after
            rig.observe(early)
            for undo in undos:
                undo()
            rig.observe(fault.observe - early)
            seen.end_ns = time.monotonic_ns()
            result.detection_ms = detect.first_word(rig.watcher.permits, seen.fault_ns)
            if not fault.destructive and rig.running:
                obstacle = rig.recover()
                result.recovered = not obstacle
                if obstacle and case.expect.reaction is not React.ANY:
                    result.problems.append(f"cannot be used again: {obstacle}")
        except NfpoError as error:
            result.problems.append(str(error))
        return seen

    def _measure(self, rig: Rig, seen: Sequence[Seen]) -> None:
        try:
            record = rig.record()
        except (OSError, ValueError) as error:
            for item in seen:
                item.result.problems.append(f"no record: {error}")
            return
        for item in seen:
            if item.end_ns:
                try:
                    self._measure_one(rig, record, item)
                except (NfpoError, OSError) as error:
                    item.result.problems.append(str(error))

    def _measure_one(self, rig: Rig, record: dict[str, np.ndarray], item: Seen) -> None:
        spec, case, result, fault_ns = self.spec, item.case, item.result, item.fault_ns
        expect, witness = case.expect, case.fault.witness
        start_ns = fault_ns - round(BEFORE_S * 1e9)
        columns = window(record, start_ns, item.end_ns)
        if expect.onset != "injection":
            onset_ns = measure.first_row_beyond(columns, expect.onset, fault_ns, spec)
            if onset_ns is None:
                result.notes.append(f"the {expect.onset} stayed within its limit: nothing had to follow")
                result.limit_ms, expect = None, Expect(React.ANY)
            fault_ns = onset_ns or fault_ns
        if witness == "wire":
            commands = load_tap(rig.folder / "tap.npz").between(start_ns, item.end_ns)
        else:
            commands = lowcmds_of(columns)
        if case.mode in ACTIVE and measure.was_passive(commands, item.fault_ns, spec):
            item.void = True
            result.problems.append(f"{BEFORE}: {_last_reason(rig)}")
            return
        reaction = measure.find_reaction(commands, fault_ns, spec)
        bridge = rig.watcher.bridge
        gap = measure.longest_gap(commands.ns, fault_ns, reaction.first_ns or item.end_ns)
        result.detector, result.reason = detect.who_acted(
            rig.watcher.permits, bridge, fault_ns, reaction.first_ns, reaction.writer, gap, spec
        )
        if words := detect.launcher_words(rig.folder / "graph.log"):
            result.notes.append(f"launcher: {words}")
        ending_ns = detect.end_began(bridge, fault_ns)
        if case.mode is Mode.SIT and ending_ns is not None:
            # Nothing changes on the wire, but the way down is the bridge's own from then on.
            if reaction.first_ns is None or ending_ns < reaction.first_ns:
                reaction = replace(reaction, sit_ns=ending_ns)
                result.detector, result.reason = "bridge", "asked to end"
        judge_reaction(result, expect, fault_ns, item.end_ns, reaction)
        if witness == "robot":
            motion = measure.measure_motion(columns, commands, fault_ns, reaction.first_ns, spec)
            honest_until = None if case.fault.honest_state else fault_ns
            judge_robot(
                result, case, motion, check_bounds(columns, spec, fault_ns, item.end_ns, torque_until_ns=honest_until)
            )

    def _keep(self, scratch: Path, seen: Sequence[Seen]) -> None:
        """Keep record and log of runs that went wrong, for whoever looks into them."""
        for item in seen:
            if item.result.failed or item.result.late:
                target = self.folder / FAILED / item.case.key.replace(" ", "_")
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(scratch, target)
        shutil.rmtree(scratch, ignore_errors=True)


def _last_reason(rig: Rig) -> str:
    faults = [permit.reason for permit in rig.watcher.permits if permit.mode is Mode.FAULT]
    return faults[-1] if faults else "no reason was given"


def _next_batch(cases: Sequence[Case]) -> list[Case]:
    """The first case alone if it ends the graph, otherwise the next ones that leave it usable and want the same."""
    first = cases[0].fault
    if first.destructive:
        return [cases[0]]
    alike = [
        case
        for case in cases
        if not case.fault.destructive and (case.fault.policy, case.fault.witness) == (first.policy, first.witness)
    ]
    return alike[:RUNS_PER_GRAPH]
