"""`nfpo soak`: let the robot wander for a long time on a busy computer and find whatever wears out."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import load_robot
from sim2real_checks.faults.command import INTERRUPTED, ROBOT, describe_computer
from sim2real_checks.walk.command import Signals

SAMPLES = 720
"""About so many samples, whatever the length of the run; at most one each second."""


class SoakInterruptedError(Exception):
    """Somebody asked the soak to end."""


@dataclass
class SoakArgs:
    """Let a simulated Go2 walk with random commands under CPU load, and check that nothing wears out.

    Seeded ramps, steps, stops, reversals and turns. Problems are: a missed permit, a mode that nobody asked for,
    a fall, memory that grows, a rate that is wrong or drifts, a pause of the LowCmd stream. What follows from the
    computer's own standing still (not even a thread of the highest priority ran on any core, as happens to virtual
    machines) is reported apart from them. report.html and report.json lie in the output folder. Exit status: 0 when
    there was no problem, 1 when there was, 130 after Ctrl-C.

    Examples:
      nfpo soak --minutes 60
      nfpo soak --minutes 2 --load 0
      nfpo soak --minutes 240 --load 8 --seed 3 --out out/soak_night
    """

    minutes: float = 60.0
    """How long to walk."""
    load: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Programs at normal priority that compute all the time; as many as there are cores, when left out."""
    seed: int = 0
    """Of the commands."""
    out: Path = Path("out/soak")
    """Output folder."""
    policy: str = "walk"
    """ONNX file, or the name of a policy of the robot."""
    domain_id: int = 43
    """DDS domain of the simulated robot."""
    ros_domain_id: int = 143
    """ROS domain of the graph."""


def soak(argv: list[str]) -> int:
    """Run a soak; returns the exit status.

    Raises:
        NfpoError: a bad option, or a graph that does not start.
    """
    args = tyro.cli(SoakArgs, args=argv, prog="nfpo soak", description=cleandoc(SoakArgs.__doc__ or ""))
    if not 0.0 < args.minutes < float("inf"):
        raise NfpoError(f"--minutes must be above zero and finite, got {args.minutes}")
    if args.load < 0:
        raise NfpoError(f"--load must be a number of programs, zero for none, got {args.load}")
    from sim2real_checks.soak.report import HTML, describe_halts, write_report
    from sim2real_checks.soak.run import Soak, SoakOptions

    spec = load_robot(ROBOT)
    policy = OnnxPolicy.load(resolve_policy(args.policy, spec), spec)
    args.out.mkdir(parents=True, exist_ok=True)
    sample_s = max(1.0, args.minutes * 60.0 / SAMPLES)
    options = SoakOptions(
        args.minutes, args.load, args.seed, args.policy, args.domain_id, args.ros_domain_id, sample_s
    )  # fmt: skip
    signals, interrupted, console = Signals(), False, Console()

    def check() -> None:
        if signals.take():
            raise SoakInterruptedError

    run = Soak(options, policy, args.out.absolute(), check)
    began = time.monotonic()
    with signals.handled(), _progress(console) as progress:
        task = progress.add_task("", total=1.0)
        try:
            for part in run.run():
                progress.update(task, completed=part)
        except SoakInterruptedError:
            interrupted = True
            run.log.problems.append(f"interrupted after {time.monotonic() - began:.0f} s")
    context = {"load": args.load, "seed": args.seed, "policy": args.policy, **describe_computer()}
    problems = write_report(args.out, run.log, spec, args.minutes, context)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    for line in describe_halts(run.log):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{'failed' if problems else 'passed'}: {args.out / HTML}", soft_wrap=True, highlight=False)
    return INTERRUPTED if interrupted else int(bool(problems))


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, console=console)
