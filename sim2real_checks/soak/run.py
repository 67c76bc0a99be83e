"""The soak itself: robot, graph, load and witness are started, the robot wanders, and everything is sampled."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from rich.console import Console

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import SIMULATOR, build_graph
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.ros import topics
from nfpo_deploy.ros.node_base import PolledSubscription
from nfpo_deploy.types import Mode
from sim2real_checks.faults.processes import Child, LaunchedGraph, ProcessId
from sim2real_checks.faults.rig import GRAPH, write_parameters
from sim2real_checks.robot_sim.control import SimControl
from sim2real_checks.soak.halts import Span, read_spans
from sim2real_checks.soak.wandering import Wandering
from sim2real_checks.walk.drive import Drive
from sim2real_checks.walk.operator import QUEUE, Operator
from sim2real_checks.walk.progress import Progress

STOP_S = 30.0
MAX_TRIPS = 30
"""After so many the rest of the run would say nothing new."""
RECOVER_S = 20.0
SETTLE_S = 1.0
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
TICKS_S = os.sysconf("SC_CLK_TCK")
WITNESS_FILE = "wire.jsonl"


@dataclass(frozen=True)
class SoakOptions:
    """What is run, for how long."""

    minutes: float
    load: int
    seed: int
    policy: str
    domain_id: int
    ros_domain_id: int
    sample_s: float


@dataclass
class SoakLog:
    """What was seen; times in s since walking began."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    trips: list[dict[str, Any]] = field(default_factory=list)
    """Unasked changes of the mode: time, mode, reason, and `until` it walked again."""
    start_ns: int = 0
    """CLOCK_MONOTONIC at time zero."""
    halts: list[Span] = field(default_factory=list)
    """When the computer stood still."""
    findings: list[str] = field(default_factory=list)
    """Rows of /diagnostics that were not OK at any time, the first time that each was seen."""
    problems: list[str] = field(default_factory=list)
    wire: list[dict[str, Any]] = field(default_factory=list)
    walked: float = 0.0
    """s in WALK."""


class PermitClock:
    """Longest time between two permits, by the watchdog's own stamps."""

    def __init__(self, node: Any) -> None:
        self._permits = PolledSubscription(node, SafetyPermitMsg, topics.PERMIT, QUEUE)
        self._last: tuple[int, int] | None = None
        self._longest = 0.0
        self._first: tuple[int, int] | None = None

    def poll(self) -> None:
        """Take every permit that has come."""
        while (permit := self._permits.take()) is not None:
            now = (permit.seq, permit.header.stamp.sec * 1_000_000_000 + permit.header.stamp.nanosec)
            if self._last is not None and now[0] > self._last[0]:
                # One that only we have missed must not look like one that was not sent.
                gap = (now[1] - self._last[1]) * 1e-9 / (now[0] - self._last[0])
                self._longest = max(self._longest, gap)
            self._last = now
            self._first = self._first or now

    def read(self) -> tuple[float, float]:
        """Longest gap, s, and rate, Hz, since the last call; NaN without two permits."""
        first, last, longest = self._first, self._last, self._longest
        self._first, self._longest = self._last, 0.0
        if first is None or last is None or last[0] <= first[0]:
            return math.nan, math.nan
        return longest, (last[0] - first[0]) * 1e9 / (last[1] - first[1])


class Soak:
    """One soak; `run` does everything."""

    def __init__(self, options: SoakOptions, policy: OnnxPolicy, folder: Path, check: Callable[[], None]) -> None:
        """Prepare.

        Args:
            options: what to do.
            policy: that walks, for its ranges.
            folder: for the nodes' log and the witness's file.
            check: called all the time; raises to end the soak.
        """
        self.log = SoakLog()
        self._options = options
        self._folder = folder
        self._control = Path()
        self._check = check
        self._wandering = Wandering(policy.manifest.command_ranges, options.seed)
        self._cpu: dict[str, tuple[float, float]] = {}
        self._policy_seq: tuple[int, int] | None = None

    def run(self) -> Iterator[float]:
        """Run; yields the part that is done, 0 to 1, about once a second.

        Raises:
            NfpoError: the graph could not be started. What goes wrong later is in the log.
        """
        options, log = self._options, self._folder / "graph.log"
        arguments = {
            "interface": "lo", "policy": options.policy, "log_dir": str(self._folder / "flight_log"),
            "domain_id": str(options.domain_id), "ros_domain_id": str(options.ros_domain_id), "spread_cores": "true",
        }  # fmt: skip
        robot = build_graph(GRAPH, {**arguments, "interface": "", "sim": "true"}).process(SIMULATOR)
        write_parameters(options.policy, self._folder / "parameters.yaml")
        arguments["params_file"] = str(self._folder / "parameters.yaml")
        graph = build_graph(GRAPH, arguments)
        os.environ.update(graph.environment)
        log.unlink(missing_ok=True)
        with ExitStack() as stack:
            # Last of all, whatever ends the run: the witness has written everything then.
            stack.callback(self._read_files)
            operator = Operator(options.ros_domain_id, topics.OPERATOR_INPUT + "autonomy")
            stack.callback(operator.close)
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="nfpo_soak_"))
            self._control = Path(scratch) / "control"
            robot_child = Child([*robot.command(sys.executable), "--control", str(self._control)], {}, log)
            stack.callback(robot_child.stop, STOP_S)
            for watcher in self._watchers():
                child = Child([sys.executable, "-m", *watcher], {}, log)
                stack.callback(child.stop, STOP_S)
            launched = LaunchedGraph(GRAPH, graph, arguments, log, {})
            stack.callback(launched.close, sit_down=True)
            permits = PermitClock(operator.node)
            drive = Drive(operator, Progress(Console(file=io.StringIO())), lambda: self._poll(permits, launched))
            launched.wait_for_processes(self._check)
            drive.wait_until_healthy()
            drive.stand_up()
            drive.wait(SETTLE_S)
            drive.start_walking()
            for _ in range(options.load):
                burner = Child([sys.executable, "-m", "sim2real_checks.soak.burner"], {}, log)
                stack.callback(burner.stop, 1.0)
            processes = {**launched.processes, SIMULATOR: robot_child.id}
            yield from self._wander(drive, permits, processes)
            self._sit_down(drive)

    def _watchers(self) -> Iterator[list[str]]:
        """Modules and arguments of the programs that only look."""
        for path in (self._folder / WITNESS_FILE, *self._halt_files()):
            path.unlink(missing_ok=True)
        wire = str(self._folder / WITNESS_FILE)
        yield ["sim2real_checks.soak.witness", "--out", wire, "--domain-id", str(self._options.domain_id)]
        for core, path in zip(sorted(os.sched_getaffinity(0)), self._halt_files(), strict=True):
            yield ["sim2real_checks.soak.halts", "--core", str(core), "--out", str(path)]

    def _halt_files(self) -> list[Path]:
        return [self._folder / f"halts_{core}.jsonl" for core in sorted(os.sched_getaffinity(0))]

    def _read_files(self) -> None:
        self.log.halts = read_spans(self._halt_files())
        path = self._folder / WITNESS_FILE
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            self.log.wire = [json.loads(line) for line in lines if line.endswith("\n")]

    def _poll(self, permits: PermitClock, launched: LaunchedGraph) -> None:
        permits.poll()
        self._check()
        if launched.exit_status is not None:
            raise NfpoError(
                f"the graph ended with exit status {launched.exit_status}; see {self._folder / 'graph.log'}"
            )

    def _wander(self, drive: Drive, permits: PermitClock, processes: dict[str, ProcessId]) -> Iterator[float]:
        total, start = self._options.minutes * 60.0, time.monotonic()
        self.log.start_ns = time.monotonic_ns()
        leg, leg_start = self._wandering.next(), start
        next_sample, next_yield = start + self._options.sample_s, start
        self._read_everything(drive, permits, processes, 0.0)
        drive.operator.watching = True
        try:
            while (now := time.monotonic()) < start + total:
                if now - leg_start >= leg.duration:
                    leg, leg_start = self._wandering.next(), now
                drive.command = leg.at(now - leg_start)
                drive.step()
                if drive.operator.mode is not Mode.WALK:
                    # Not `now`: a halt of the computer lies between it and what was seen after it.
                    self._trip(drive, time.monotonic() - start)
                    self.log.trips[-1]["until"] = time.monotonic() - start
                    leg_start = time.monotonic()
                if now >= next_sample:
                    next_sample += self._options.sample_s
                    self.log.samples.append(self._read_everything(drive, permits, processes, now - start))
                if now >= next_yield:
                    next_yield = now + 1.0
                    yield (now - start) / total
        except NfpoError as error:
            self.log.problems.append(f"after {time.monotonic() - start:.0f} s: {error}")
        finally:
            self.log.walked = time.monotonic() - start
        self.log.findings = [f"{f.level}: {f.name}: {f.message}" for f in drive.operator.log.findings]

    def _trip(self, drive: Drive, elapsed: float) -> None:
        """Nobody asked for another mode: write it down and walk on.

        Raises:
            NfpoError: too many trips, or no way back to walking.
        """
        change = drive.operator.log.modes[-1]
        self.log.trips.append({"t": elapsed, "mode": change.mode.name, "reason": change.reason})
        if len(self.log.trips) >= MAX_TRIPS:
            raise NfpoError(f"{MAX_TRIPS} unasked changes of the mode: given up")
        drive.command = (0.0, 0.0, 0.0)
        try:
            self._recover(drive)
        except NfpoError:
            with SimControl(self._control) as robot:
                robot.request("lay_down")
            drive.wait(SETTLE_S)
            self._recover(drive)

    def _recover(self, drive: Drive) -> None:
        """From whatever mode to WALK.

        Raises:
            NfpoError: no way back to walking.
        """
        if drive.operator.mode is Mode.FAULT:
            drive.wait(2.0)
            deadline = time.monotonic() + RECOVER_S
            while not (answer := drive.call(topics.RESET))[0]:
                if time.monotonic() > deadline:
                    raise NfpoError(f"no reset after a trip: {answer[1]}")
                drive.wait(0.5)
            while drive.operator.mode is Mode.FAULT and time.monotonic() < deadline:
                drive.step()
        if drive.operator.mode is Mode.DAMP:
            drive.insist(topics.ARM)
            drive.stand_up()
            drive.wait(SETTLE_S)
        drive.wait(SETTLE_S)
        drive.start_walking()

    def _sit_down(self, drive: Drive) -> None:
        try:
            drive.sit_down()
        except NfpoError as error:
            self.log.problems.append(f"did not sit down in the end: {error}")

    def _read_everything(
        self, drive: Drive, permits: PermitClock, processes: dict[str, ProcessId], elapsed: float
    ) -> dict[str, Any]:
        """One sample; what was collected since the last one is dropped, so that our own memory stays flat."""
        log = drive.operator.log
        gap, permit_rate = permits.read()
        statuses = [sample.status for sample in log.statuses]
        last = statuses[-1] if statuses else None
        policy = log.policy[-1] if log.policy else None
        sample: dict[str, Any] = {
            "t": elapsed,
            "command": list(drive.command or (0.0, 0.0, 0.0)),
            "permit_gap": gap,
            "permit_rate": permit_rate,
            "permit_age": max((s.permit_age for s in statuses), default=math.nan),
            "state_age": max((s.state_age for s in statuses), default=math.nan),
            "bridge_rate": last.loop_rate if last else math.nan,
            "bridge_jitter_p99_ms": last.loop_jitter_p99_ms if last else math.nan,
            "latency_p99_ms": last.latency_p99_ms if last else math.nan,
            "overruns": last.loop_overruns if last else 0,
            "policy_rate": self._policy_rate(policy),
            "load": os.getloadavg()[0],
            "rss": {name: _rss_mib(process.pid) for name, process in processes.items()},
            "cpu": {name: self._cores(name, process.pid) for name, process in processes.items()},
        }
        for values in (log.statuses, log.policy, log.estimates):
            values.clear()
        return sample

    def _policy_rate(self, newest: Any) -> float:
        before, self._policy_seq = self._policy_seq, (newest.seq, newest.stamp_ns) if newest else None
        if before is None or newest is None or newest.seq <= before[0]:
            return math.nan
        return float((newest.seq - before[0]) * 1e9 / (newest.stamp_ns - before[1]))

    def _cores(self, name: str, pid: int) -> float:
        """CPU time over wall time since the last call, in cores."""
        now, used = time.monotonic(), _cpu_seconds(pid)
        before, self._cpu[name] = self._cpu.get(name), (now, used)
        return math.nan if before is None or now <= before[0] else (used - before[1]) / (now - before[0])


def _rss_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MIB
    except (OSError, IndexError):
        return math.nan


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S
    except (OSError, IndexError):
        return math.nan
