"""A few scenarios through the whole ROS 2 graph and DDS, in real time: does the in-process run tell the truth?"""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import build_graph
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.supervisor import Supervisor
from nfpo_deploy.types import Mode
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.control import SimControl
from sim2real_checks.robot_sim.recorder import load_record
from sim2real_checks.validation.film import film_of
from sim2real_checks.validation.graph_trace import trace_of
from sim2real_checks.validation.judge import Outcome, Verdict, judge
from sim2real_checks.validation.run import operator_command
from sim2real_checks.validation.scenario import Actuation, Physics, Scenario, Sensing, Start, Terrain
from sim2real_checks.validation.scores import score
from sim2real_checks.validation.stack import BRIDGE_HZ
from sim2real_checks.walk.command import Signals
from sim2real_checks.walk.drive import Drive, StopRequestedError, WalkFailureError
from sim2real_checks.walk.graph_log import GraphLog
from sim2real_checks.walk.operator import Operator
from sim2real_checks.walk.progress import Progress

GRAPH = "go2_walk"
DOMAINS = {"domain_id": "44", "ros_domain_id": "144"}
MOST = 8
REST_S = 2.0
"""Standing on the spot between two scenarios."""
UNSEEN = ("out_of_training", "training_distance", "limited")
"""Scores that need what the graph does not show to its operator exactly enough."""


@dataclass(frozen=True)
class Walked:
    """A scenario as it was walked."""

    scenario: Scenario
    start_ns: int
    end_ns: int
    ended: str


def fits_graph(scenario: Scenario) -> bool:
    """Whether the simulated robot on the network can be in this situation without being built anew."""
    kinds = {disturbance.kind for disturbance in scenario.disturbances}
    plain = (Terrain(), Sensing(), Actuation(), Start(), Physics())
    same = (scenario.terrain, scenario.sensing, scenario.actuation, scenario.start, scenario.physics) == plain
    return same and scenario.required and kinds <= {"weak_motor"}


def choose(scenarios: Sequence[Scenario], most: int = MOST) -> tuple[Scenario, ...]:
    """Those that fit: the first of each entry of the file, then further ones, in the file's order."""
    fitting = [scenario for scenario in scenarios if fits_graph(scenario)]
    first = {re.split(r" \w+=", scenario.name)[0]: scenario for scenario in reversed(fitting)}
    names = [scenario.name for scenario in first.values()]
    ranked = sorted(fitting, key=lambda scenario: scenario.name not in names)[:most]
    return tuple(scenario for scenario in fitting if scenario in ranked)


def walk_through_graph(
    policy: OnnxPolicy, spec: RobotSpec, scenarios: Sequence[Scenario], folder: Path, console: Console
) -> list[Verdict]:  # fmt: skip
    """Launch graph and robot, walk the scenarios one after the other, judge them.

    Args:
        policy: that walks.
        spec: its robot.
        scenarios: of `choose`.
        folder: for the record and the nodes' output.
        console: shows what happens.

    Raises:
        NfpoError: the graph did not come up, or ended.
        StopRequestedError: somebody asked to end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "record.npz"
    record.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="nfpo_validate_") as scratch:
        control = Path(scratch) / "control"
        arguments = {
            "sim": "true", "robot": spec.name, "policy": str(policy.path), "operator": "none", "flight_log": "false",
            "record": str(record), "sim_options": f"--record-hz {BRIDGE_HZ} --control {control}", **DOMAINS,
        }  # fmt: skip
        graph = build_graph(GRAPH, arguments)
        os.environ.update(graph.environment)
        with ExitStack() as stack:
            signals = stack.enter_context(Signals().handled())
            operator = Operator(int(DOMAINS["ros_domain_id"]))
            stack.callback(operator.close)
            supervisor = Supervisor(graph, stack.enter_context(GraphLog(folder / "graph.log")))
            stack.callback(supervisor.stop, "the validation is over")
            progress = stack.enter_context(Progress(console))
            supervisor.start()

            def check() -> None:
                if signals.take():
                    raise StopRequestedError
                if not supervisor.check():
                    raise WalkFailureError(f"the graph ended: {supervisor.reason}; see {folder / 'graph.log'}")

            walked = _walk_all(Drive(operator, progress, check), scenarios, control)
            log = operator.log
    columns = load_record(record)[0]
    verdicts = []
    for one in walked:
        trace = trace_of(columns, (one.start_ns, one.end_ns), one.scenario, policy, spec, (log.estimates, log.statuses))
        trace.ended = one.ended
        scores = score(trace, one.scenario, policy) | dict.fromkeys(UNSEEN, math.nan)
        outcome = Outcome(one.scenario, 0, scores, one.ended, math.nan, film_of(trace))
        verdicts.append(judge(one.scenario, [outcome]))
    return verdicts


def _walk_all(drive: Drive, scenarios: Sequence[Scenario], control: Path) -> list[Walked]:
    """Walk until the last scenario, or until one ended early: the robot lies then."""
    walked: list[Walked] = []
    drive.wait_until_healthy()
    drive.stand_up()
    drive.start_walking()
    with SimControl(control) as robot:
        for scenario in scenarios:
            drive.command = (0.0, 0.0, 0.0)
            drive.wait(REST_S)
            walked.append(_walk_one(drive, scenario, robot))
            robot.clear()
            if walked[-1].ended:
                return walked
    try:
        drive.sit_down()
    except NfpoError as error:
        walked[-1] = Walked(walked[-1].scenario, walked[-1].start_ns, walked[-1].end_ns, f"afterwards: {error}")
    return walked


def _walk_one(drive: Drive, scenario: Scenario, robot: SimControl) -> Walked:
    waiting = sorted(scenario.disturbances, key=lambda disturbance: disturbance.at)
    drive.progress.status(f"through the graph: {scenario.name}")
    start_ns, ended = time.monotonic_ns(), ""
    while (t := (time.monotonic_ns() - start_ns) * 1e-9) < scenario.duration:
        drive.command = tuple(float(v) for v in operator_command(scenario.commands, t).as_array())  # type: ignore[assignment]
        while waiting and waiting[0].at <= t:
            weak = waiting.pop(0)
            robot.send(weak.kind, weak.duration or None, joint=weak.joint, factor=weak.factor)
        drive.step()
        if drive.operator.mode is not Mode.WALK:
            change = drive.operator.log.modes[-1]
            ended = f"{change.mode.name}: {change.reason}"
            break
    drive.progress.done(f"through the graph: {scenario.name}" + (f": {ended}" if ended else ""))
    return Walked(scenario, start_ns, time.monotonic_ns(), ended)
