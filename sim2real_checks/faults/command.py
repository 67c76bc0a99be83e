"""`nfpo faults`: break a walking robot's software in every way that is known, and measure what follows."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from inspect import cleandoc
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.types import Mode
from robots.loader import load_robot
from sim2real_checks.faults.catalogue import Case, Fault, build_cases, build_catalogue
from sim2real_checks.faults.judge import Result
from sim2real_checks.walk.command import Signals

ROBOT = "go2"
INTERRUPTED = 130
GIVE_UP = 5
"""Runs in a row without a measurement, after which something is wrong with all of them."""
RESTART_S, REUSE_S = 16.0, 9.0
"""Rough time of a run with and without a graph of its own, for the estimate that --list gives."""


class CampaignInterruptedError(Exception):
    """Somebody asked the campaign to end."""


@dataclass
class FaultsArgs:
    """Break the graph of a simulated Go2 in every known way, in every mode, and measure what the robot does.

    Every run starts a graph, or goes on with one that survived, brings the robot into a mode, injects one fault at a
    random moment and measures on the simulator's record: time to the first safe LowCmd, bounds of every LowCmd, motion
    of the falling robot, final state. report.html and report.json lie in the output folder in the end, results.jsonl
    all the time. Exit status: 0 when every target was met and nothing was violated, 1 when not, 130 after Ctrl-C.

    Examples:
      nfpo faults --list
      nfpo faults --quick
      nfpo faults --only "kill sdk_bridge" --mode walk --repeats 10
      nfpo faults --group wire sensor body --mode walk
      nfpo faults --repeats 3 --resume
    """

    list: bool = False
    """Show the runs and how long they take; run nothing."""
    only: str = ""
    """Runs whose fault@MODE contains this text, in upper or lower case."""
    group: tuple[str, ...] = ()
    """Groups of faults, for example wire sensor; all without it."""
    mode: tuple[str, ...] = ()
    """Modes, for example walk sit; all without it."""
    repeats: int = 3
    """Runs of each fault in each mode; the moments differ."""
    quick: bool = False
    """The most important dozen faults once: three minutes."""
    resume: bool = False
    """Go on with the results that the output folder holds."""
    out: Path = Path("out/faults")
    """Output folder."""
    policy: str = "walk"
    """ONNX file, or the name of a policy of the robot."""
    domain_id: int = 43
    """DDS domain of the simulated robot."""
    ros_domain_id: int = 143
    """ROS domain of the graph."""


def faults(argv: list[str]) -> int:
    """Run a campaign; returns the exit status.

    Raises:
        NfpoError: a bad option, or results that cannot be resumed.
    """
    args = tyro.cli(FaultsArgs, args=argv, prog="nfpo faults", description=cleandoc(FaultsArgs.__doc__ or ""))
    if args.repeats < 1:
        raise NfpoError(f"--repeats must be at least 1, got {args.repeats}")
    console = Console()
    catalogue = _in_groups(catalogue_of(args), args.group)
    cases = build_cases(
        catalogue, 1 if args.quick else args.repeats, [_mode(name) for name in args.mode], args.only, args.quick
    )
    if not cases:
        raise NfpoError(
            f"nothing matches --only {args.only!r} --group {' '.join(args.group)} --mode {' '.join(args.mode)}; "
            "see nfpo faults --list"
        )
    if args.list:
        show_list(cases, console)
        return 0
    return run_campaign(args, cases, console)


def catalogue_of(args: FaultsArgs) -> tuple[Fault, ...]:
    """All faults for the graph that the options stand for."""
    from sim2real_checks.faults.rig import RigOptions, graph_of

    graph, _ = graph_of(RigOptions(args.domain_id, args.ros_domain_id, args.policy))
    return build_catalogue([process.name for process in graph.processes])


def _in_groups(catalogue: Sequence[Fault], groups: Sequence[str]) -> list[Fault]:
    known = {fault.group: None for fault in catalogue}
    for name in groups:
        if name not in known:
            raise NfpoError(f"--group {name}: known groups are {', '.join(known)}")
    return [fault for fault in catalogue if not groups or fault.group in groups]


def _mode(name: str) -> Mode:
    try:
        return Mode[name.upper()]
    except KeyError:
        known = ", ".join(mode.name.lower() for mode in Mode if mode is not Mode.FAULT)
        raise NfpoError(f"--mode {name}: known modes are {known}") from None


def show_list(cases: Sequence[Case], console: Console) -> None:
    """One line for each fault and its modes, and how long all of it takes."""
    lines: dict[str, list[Case]] = {}
    for case in cases:
        lines.setdefault(case.fault.name, []).append(case)
    for name, members in lines.items():
        modes = ", ".join(sorted({f"{case.mode.name} → {case.expect.reaction.value}" for case in members}))
        console.print(f"{name:45s} {len(members):4d}  {modes}", highlight=False, soft_wrap=True)
    console.print(f"{len(cases)} runs of {len(lines)} faults, about {estimate(cases) / 60:.0f} minutes")


def estimate(cases: Sequence[Case]) -> float:
    """Seconds that the cases take."""
    return sum(case.fault.observe + (RESTART_S if case.fault.destructive else REUSE_S) for case in cases)


def run_campaign(args: FaultsArgs, cases: Sequence[Case], console: Console) -> int:
    """Run the cases that are left and write the report."""
    from sim2real_checks.faults.campaign import FAILED, RESULTS, Campaign
    from sim2real_checks.faults.report import HTML, write_report
    from sim2real_checks.faults.rig import RigOptions

    args.out.mkdir(parents=True, exist_ok=True)
    if not args.resume:
        (args.out / RESULTS).unlink(missing_ok=True)
        shutil.rmtree(args.out / FAILED, ignore_errors=True)
    signals = Signals()

    def check() -> None:
        if signals.take():
            raise CampaignInterruptedError

    options = RigOptions(args.domain_id, args.ros_domain_id, args.policy)
    campaign = Campaign(load_robot(ROBOT), options, args.out.absolute(), check)
    results = campaign.done()
    known = {result.key for result in results}
    left = [case for case in cases if case.key not in known]
    interrupted, dead = False, 0
    with signals.handled(), _progress(console) as progress:
        task = progress.add_task("", total=len(cases), completed=len(cases) - len(left))
        try:
            for result in campaign.run(left):
                results.append(result)
                progress.advance(task)
                _show(result, progress.console)
                dead = 0 if result.motion or result.reaction != "none" else dead + 1
                if dead >= GIVE_UP:
                    raise NfpoError(f"{dead} runs in a row never reached their fault: {result.problems[-1]}")
        except CampaignInterruptedError:
            interrupted = True
    wanted = {case.key for case in cases}
    problems = write_report(args.out, [result for result in results if result.key in wanted], context_of(args))
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{'failed' if problems else 'passed'}: {args.out / HTML}", soft_wrap=True, highlight=False)
    return INTERRUPTED if interrupted else int(bool(problems))


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    # The default looks at half a minute only, hardly more than one run.
    return Progress(*columns, console=console, speed_estimate_period=600.0)


def _show(result: Result, console: Console) -> None:
    text = f"{result.key:48s} {result.reaction:6s} {result.detector:9s}"
    if result.reaction_ms is not None:
        text += f" {result.reaction_ms:7.1f} ms" + (f" of {result.limit_ms:.0f}" if result.limit_ms else "")
    bad = result.failed or result.late
    console.print(text + ("  " + "; ".join(result.problems) if result.problems else ""),
                  style="red" if bad else "", markup=False, highlight=False, soft_wrap=True)  # fmt: skip


def context_of(args: FaultsArgs) -> dict[str, Any]:
    """What the results belong to."""
    return {"quick": args.quick, "repeats": args.repeats, "policy": args.policy, **describe_computer()}


def describe_computer() -> dict[str, Any]:
    """When, on what, and with which version."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        words = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout
    except OSError:
        words = ""
    return {
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": words.strip() or "unknown",
        "computer": f"{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}, {platform.machine()}",
    }
