"""`nfpo walk`: start a simulated robot and the whole graph, let it walk, judge it by the simulator's truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from inspect import cleandoc
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from nfpo_deploy.errors import GraphError, NfpoError, PolicyError
from nfpo_deploy.graph import NO_POLICY, NODES, SIMULATOR, Graph, build_graph, resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.supervisor import Supervisor
from robots.loader import RobotSpec, load_robot
from sim2real_checks.robot_sim.recorder import load_record
from sim2real_checks.walk.graph_log import GraphLog
from sim2real_checks.walk.progress import Progress
from sim2real_checks.walk.run_log import RunLog
from sim2real_checks.walk.script import FULL_SCRIPT, QUICK_SCRIPT, Segment, within

if TYPE_CHECKING:
    from sim2real_checks.walk.operator import Operator

GRAPH = "go2_walk"
ROBOT = "go2"
INTERRUPTED = 130
SCRIPT_RECORD_HZ = 500
HAND_RECORD_HZ = 100
"""Driving by hand may take hours: 70 MB each at this rate."""
DISCOVERY_S = 3.5
OUTPUTS = ("report.json", "record.npz", "record.npz.partial", "plot.png", "walk.png", "walk.mp4", "graph.log")


@dataclass
class WalkArgs:
    """Start a simulated Go2 and the whole ROS 2 graph, let the policy walk a script, and report.

    The robot stands up, walks forward, sideways, turns, walks diagonally, stops and sits down. Then report.json,
    plot.png, walk.png, the simulator's record and the nodes' log lie in the output folder. Ctrl-C sits the robot
    down and ends; twice stops at once. Exit status: 0 when the robot did what was asked, 1 when not, 130 after Ctrl-C.

    Examples:
      nfpo walk
      nfpo walk --video
      nfpo walk --keep-running
      nfpo walk --policy runs/go2_walk_flow_seed1/policy.onnx --out out/mine
      nfpo walk --quick --domain-id 5 --ros-domain-id 55
    """

    policy: str = "walk"
    """ONNX file, or the name of a policy of the robot."""
    keep_running: bool = False
    """After the script, drive by hand: with the keyboard, or over /cmd_vel where there is no terminal."""
    quick: bool = False
    """A shorter script."""
    out: Path = Path("out/walk")
    """Output folder; what an earlier walk left there is replaced."""
    domain_id: int = 0
    """DDS domain of the simulated robot."""
    ros_domain_id: int = 42
    """ROS domain of the graph."""
    composed: bool = False
    """Run the four nodes in one process."""
    video: bool = False
    """Render walk.mp4, too; takes half as long as the walk without a GPU."""
    pictures: bool = True
    """Render the picture strip walk.png."""


def walk(argv: list[str]) -> int:
    """Walk; returns the exit status.

    Raises:
        NfpoError: a bad option, a policy that does not fit, or another graph on the same ROS domain.
    """
    args = tyro.cli(WalkArgs, args=argv, prog="nfpo walk", description=cleandoc(WalkArgs.__doc__ or ""))
    if args.policy == NO_POLICY:
        raise PolicyError("walking needs a policy; nfpo launch go2_walk sim:=true policy:=none only stands and sits")
    spec = load_robot(ROBOT)
    policy = OnnxPolicy.load(resolve_policy(args.policy, spec), spec)
    prepare_folder(args.out)
    graph = build_graph(GRAPH, launch_arguments(args))
    script = within(QUICK_SCRIPT if args.quick else FULL_SCRIPT, policy.manifest.command_ranges)
    # Before rclpy is imported: it reads the middleware's settings from the environment.
    os.environ.update(graph.environment)
    console = make_console()
    started = datetime.now(timezone.utc)
    log, graph_log = run_graph(args, graph, policy, script, console)
    context = {
        "robot": spec.name, "policy": str(args.policy), "policy_sha256": policy.sha256,
        "started": started.isoformat(timespec="seconds"), "quick": args.quick, "composed": args.composed,
    }  # fmt: skip
    passed = report(args, spec, log, policy.manifest.control_rate_hz, context, console)
    if not passed:
        console.print(f"the nodes' own words: {graph_log.path}", soft_wrap=True, highlight=False)
    return INTERRUPTED if log.interrupted else int(not passed)


def make_console() -> Console:
    """Standard output; wide where it is a file, so that the tables stay tables."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def prepare_folder(folder: Path) -> None:
    """Create the output folder and remove what an earlier walk left: old pictures must not pass for new ones.

    Raises:
        NfpoError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in OUTPUTS:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise NfpoError(f"--out {folder}: {error.strerror}; choose a folder that can be written") from error


def launch_arguments(args: WalkArgs) -> dict[str, str]:
    """Arguments of the launch that `args` stand for."""
    record_hz = HAND_RECORD_HZ if args.keep_running else SCRIPT_RECORD_HZ
    return {
        "sim": "true", "robot": ROBOT, "policy": args.policy, "composed": str(args.composed).lower(),
        "domain_id": str(args.domain_id), "ros_domain_id": str(args.ros_domain_id),
        "record": str(args.out / "record.npz"), "sim_options": f"--record-hz {record_hz}",
    }  # fmt: skip


class Signals:
    """Counts the requests to end, so that nothing is torn down in the middle of a step."""

    def __init__(self) -> None:
        self.count = 0
        self.heeded = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def take(self) -> bool:
        """Whether one came since the last call."""
        fresh = self.count > self.heeded
        self.heeded = self.count
        return fresh

    @contextmanager
    def handled(self) -> Iterator[Signals]:
        """Take SIGINT, SIGTERM and SIGHUP for the duration of a `with` block."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_graph(
    args: WalkArgs, graph: Graph, policy: OnnxPolicy, script: tuple[Segment, ...], console: Console
) -> tuple[RunLog, GraphLog]:
    """Start everything, walk, stop everything; whatever happens, the robot is damped and no process is left.

    Raises:
        GraphError: another graph runs on the same ROS domain.
    """
    from sim2real_checks.walk.course import run_course
    from sim2real_checks.walk.operator import Operator

    signals = Signals()
    with signals.handled(), GraphLog(args.out / "graph.log") as graph_log:
        operator = Operator(args.ros_domain_id)
        supervisor = Supervisor(graph, graph_log)
        try:
            refuse_company(operator, args)
            with Progress(console) as progress:
                progress.done(f"starting {', '.join(process.name for process in graph.processes)}")
                supervisor.start()
                log = run_course(operator, supervisor, signals, progress, script, policy, args.keep_running)
                progress.status("stopping the nodes")
                supervisor.stop("the walk is over")
                if supervisor.exit_status:
                    log.problems.append(f"a process of the graph failed; {graph_log.path} tells more")
                    graph_log.show_end(progress)
        finally:
            supervisor.stop("the walk was cut short")
            operator.close()
    return log, graph_log


def refuse_company(operator: Operator, args: WalkArgs) -> None:
    """Refuse a ROS domain on which a graph already runs: two of them would fight over one robot.

    Raises:
        GraphError: names the nodes that were found.
    """
    deadline = time.monotonic() + DISCOVERY_S
    while time.monotonic() < deadline:
        found = sorted(operator.nodes() & {*NODES, SIMULATOR})
        if found:
            raise GraphError(
                f"{', '.join(found)} already run on ROS domain {args.ros_domain_id}; stop them, or choose other "
                "--ros-domain-id and --domain-id"
            )
        time.sleep(0.1)


def report(
    args: WalkArgs, spec: RobotSpec, log: RunLog, policy_rate: float, context: dict[str, Any], console: Console
) -> bool:
    """Judge the run, write and print everything; returns whether the robot did what was asked."""
    from sim2real_checks.walk.analysis import AnalysisError, summarise, truth_of
    from sim2real_checks.walk.plot import write_plot
    from sim2real_checks.walk.report import print_summary, write_json

    try:
        columns = load_record(args.out / "record.npz")[0]
        summary = summarise(columns, log, spec, policy_rate)
    except (AnalysisError, ValueError, OSError) as error:
        for problem in log.problems or [f"no record of the simulator: {error}"]:
            console.print(f"failed: {problem}", style="red", markup=False, soft_wrap=True)
        return False
    write_json(args.out / "report.json", summary, context)
    print_summary(console, summary)
    write_plot(args.out / "plot.png", truth_of(columns, spec), log)
    if summary.segments and (args.pictures or args.video):
        render(args, console)
    files = [name for name in ("report.json", "plot.png", "walk.png", "walk.mp4") if (args.out / name).exists()]
    console.print(f"written to {args.out}: {', '.join(files)}", soft_wrap=True, highlight=False)
    return not summary.problems


def render(args: WalkArgs, console: Console) -> None:
    """Make the pictures; where that is impossible, say so and go on."""
    command = [sys.executable, "-m", "sim2real_checks.walk.pictures", str(args.out)]
    command += ["--strip", str(args.out / "walk.png")] if args.pictures else []
    command += ["--video", str(args.out / "walk.mp4")] if args.video else []
    with console.status("rendering"):
        result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        console.print(f"no pictures: {lines[-1]}", style="yellow", markup=False, soft_wrap=True)
