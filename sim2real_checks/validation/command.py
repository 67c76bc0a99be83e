"""`nfpo validate`: policies through a set of scenarios, with a verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec, load_robot
from robots.mjcf import ModelOptions
from sim2real_checks.faults.command import describe_computer
from sim2real_checks.validation.broken import BREAKAGES
from sim2real_checks.validation.bullet import load_pybullet
from sim2real_checks.validation.campaign import run_all
from sim2real_checks.validation.clearing import clear, unclear
from sim2real_checks.validation.judge import Outcome, Verdict, check_limits, judge
from sim2real_checks.validation.model_file import ModelFile, compile_model, find_model
from sim2real_checks.validation.model_robot import build_other_spec
from sim2real_checks.validation.report import HTML, Validated, write_report
from sim2real_checks.validation.scenario import Scenario, ScenarioError, ScenarioSet, load_set
from sim2real_checks.validation.teeth import Bite, bite, write_bites

TEETH = "teeth.json"


@dataclass
class ValidateArgs:
    """Let policies walk through a set of scenarios with the runtime's own modules, and say whether they may go on.

    Each run stands the simulated robot up and walks it under the scenario's commands, ground, disturbances, sensor and
    motor flaws and physics. report.html and report.json lie in the output folder. A policy that passed a whole set is
    cleared for hardware: its clearance is written beside it. Exit status: 0 when every policy passed, 1 when one did
    not.

    Examples:
      nfpo validate
      nfpo validate robots/go2/policies/walk/policy.onnx --set go2_quick
      nfpo validate a.onnx b.onnx --only push
      nfpo validate a.onnx --set my_scenarios.yaml --list
      nfpo validate a.onnx --graph
      nfpo validate a.onnx --model mujoco_menagerie/unitree_go2/scene.xml
      nfpo validate a.onnx --model menagerie
      nfpo validate a.onnx --teeth
    """

    policies: tyro.conf.Positional[tuple[str, ...]] = ("walk",)
    """ONNX files, or names of policies of the robot."""
    set: str = "go2_quick"
    """Scenario set of ours, or a file."""
    only: str = ""
    """Scenarios whose group and name contain this text."""
    graph: bool = False
    """Let a few scenarios run through the ROS 2 graph and DDS, too, in real time; needs ROS 2."""
    model: str = ""
    """Run on another model of the robot, too: an MJCF file, or `menagerie` for MuJoCo Menagerie's, downloaded."""
    list: bool = False
    """Show the scenarios; run nothing."""
    teeth: bool = False
    """Break the first policy in every known way instead, and show what refuses each: all must be refused."""
    clearance: bool = True
    """Write a clearance beside each policy that passed the whole set."""
    seed: int = 0
    """Of each scenario's first run."""
    workers: int = os.cpu_count() or 1
    """Processes."""
    out: Path = Path("out/validation")
    """Output folder."""


_HELP = cleandoc(ValidateArgs.__doc__ or "")


def validate(argv: list[str]) -> int:
    """Validate; returns the exit status.

    Raises:
        NfpoError: a bad option, scenario file or policy.
    """
    args = tyro.cli(ValidateArgs, args=argv, prog="nfpo validate", description=_HELP)
    if args.workers < 1 or not args.policies:
        raise NfpoError(f"--workers must be at least 1 and a policy named, got {args.workers} and {args.policies}")
    scenario_set = load_set(args.set)
    check_limits(scenario_set.scenarios)
    chosen = _choose(scenario_set, args.only)
    console = Console()
    if args.list:
        console.print(_listing(chosen))
        return 0
    if any(scenario.physics.engine == "bullet" for scenario in chosen):
        load_pybullet()
    spec = load_robot(scenario_set.robot)
    loaded = [OnnxPolicy.load(resolve_policy(name, spec), spec) for name in args.policies]
    model = _other_model(console, args, spec, chosen) if args.model else None
    if args.teeth:
        return _show_teeth(console, loaded[0], spec, chosen, args)
    began = time.monotonic()
    names = _short_names(args.policies)
    validated = [
        _validate_one(console, name, policy, spec, chosen, args, model)
        for name, policy in zip(names, loaded, strict=True)
    ]
    context = {"scenarios": len(chosen), "seed": args.seed, **describe_computer()}
    context["minutes"] = round((time.monotonic() - began) / 60.0, 2)
    write_report(args.out, validated, scenario_set, context, model)
    _print_verdict(console, validated)
    console.print(f"report: {args.out / HTML}", soft_wrap=True, highlight=False)
    if args.clearance and not args.only:
        for one, policy in zip(validated, loaded, strict=True):
            _clear(console, one, policy, spec, scenario_set, args.seed)
    return int(not all(one.passed for one in validated))


def _other_model(console: Console, args: ValidateArgs, spec: RobotSpec, chosen: tuple[Scenario, ...]) -> ModelFile:
    """The file of `--model`, after all that can be wrong with it."""
    if args.teeth:
        raise NfpoError("--teeth breaks policies on our own model of the robot: leave --model out")
    left_out = len(chosen) - len(_in_mujoco(chosen))
    if left_out == len(chosen):
        raise ScenarioError("--model: none of these scenarios runs in MuJoCo, the engine that reads such a file")
    model = find_model(args.model, spec.name)
    compile_model(build_other_spec(spec, model.path, ModelOptions()), model.path)
    more = f"; scenarios of another engine, left out there: {left_out}" if left_out else ""
    console.print(f"also on {model.path}{more}", soft_wrap=True, markup=False, highlight=False)
    return model


def _in_mujoco(scenarios: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
    return tuple(scenario for scenario in scenarios if scenario.physics.engine == "mujoco")


def _validate_one(
    console: Console, name: str, policy: OnnxPolicy, spec: RobotSpec, chosen: tuple[Scenario, ...], args: ValidateArgs,
    model: ModelFile | None,
) -> Validated:  # fmt: skip
    verdicts = _judge(chosen, _run(console, policy, name, spec.name, chosen, args))
    on_model: tuple[Verdict, ...] = ()
    if model is not None:
        fitting = _in_mujoco(chosen)
        where = f"{name} on {model.name}"
        on_model = _judge(fitting, _run(console, policy, where, spec.name, fitting, args, model.path))
    graph = _through_graph(console, policy, spec, chosen, args) if args.graph else ()
    return Validated(name, policy.sha256, verdicts, graph, on_model, model.name if model else "")


def _judge(scenarios: tuple[Scenario, ...], outcomes: list[Outcome]) -> tuple[Verdict, ...]:
    return tuple(judge(s, [o for o in outcomes if o.scenario.name == s.name]) for s in scenarios)


def _clear(
    console: Console, one: Validated, policy: OnnxPolicy, spec: RobotSpec, scenario_set: ScenarioSet, seed: int
) -> None:  # fmt: skip
    if one.passed:
        text = f"cleared for hardware: {clear(policy, spec, scenario_set, one.required, seed)}"
    elif one.passed_on_ours:
        # Another model may be of a robot with a load, or wrong: it withholds a clearance, and takes none away.
        text = f"not cleared: it failed on {one.model_name}; a clearance that it has stays"
    else:
        removed = unclear(policy, scenario_set)
        text = f"no longer cleared: removed {removed}" if removed else ""
    if text:
        console.print(text, style="green" if one.passed else "bold red", soft_wrap=True, highlight=False)


def _through_graph(
    console: Console, policy: OnnxPolicy, spec: RobotSpec, chosen: tuple[Scenario, ...], args: ValidateArgs
) -> tuple[Verdict, ...]:  # fmt: skip
    try:
        from sim2real_checks.validation.through_graph import choose, walk_through_graph
        from sim2real_checks.walk.drive import StopRequestedError
    except ImportError as error:
        raise NfpoError(f"--graph needs ROS 2 and the messages of ros2_ws ({error}): make setup") from error
    fitting = choose(chosen)
    if not fitting:
        raise ScenarioError("--graph: none of these scenarios can run on the simulated robot of the graph")
    try:
        return tuple(walk_through_graph(policy, spec, fitting, args.out / "graph", console))
    except StopRequestedError:
        raise NfpoError("stopped while the robot walked through the graph: there is no verdict") from None


def _choose(scenario_set: ScenarioSet, text: str) -> tuple[Scenario, ...]:
    chosen = tuple(s for s in scenario_set.scenarios if text.lower() in f"{s.group} {s.name}".lower())
    if not chosen:
        groups = ", ".join(sorted({s.group for s in scenario_set.scenarios}))
        raise ScenarioError(f"--only {text!r} fits no scenario of {scenario_set.name}; its groups: {groups}")
    return chosen


def _short_names(names: Sequence[str]) -> list[str]:
    """File names where they differ, else whole paths."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else [str(name) for name in names]


def _run(
    console: Console, policy: OnnxPolicy, name: str, robot: str, chosen: tuple[Scenario, ...], args: ValidateArgs,
    model: Path | None = None,
) -> list[Outcome]:  # fmt: skip
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    outcomes = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=sum(s.seeds for s in chosen))
        for outcome in run_all(policy.path, robot, chosen, args.seed, args.workers, model=model):
            outcomes.append(outcome)
            progress.advance(task)
            if outcome.ended:
                style = "red" if outcome.scenario.required else "yellow"
                progress.console.print(f"{outcome.scenario.name}: {outcome.ended}", style=style, highlight=False)
    return outcomes


def _show_teeth(
    console: Console, policy: OnnxPolicy, spec: RobotSpec, chosen: tuple[Scenario, ...], args: ValidateArgs
) -> int:  # fmt: skip
    """Run every breakage; exit status 1 when one was not refused."""
    bites: list[Bite] = []
    deciding = tuple(scenario for scenario in chosen if scenario.required)
    args.out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("breakages", total=len(BREAKAGES))
        for breakage in BREAKAGES:
            progress.update(task, description=breakage.name)
            bites.append(bite(breakage, policy.path, spec, deciding, args.seed, args.workers))
            write_bites(args.out / TEETH, policy.sha256, bites)
            text, style = bites[-1].describe(), "" if bites[-1].refused else "bold red"
            progress.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)
    refused = sum(one.refused for one in bites)
    console.print(f"{refused} of {len(bites)} refused: {args.out / TEETH}", soft_wrap=True, highlight=False)
    return int(refused < len(bites))


def _listing(chosen: Sequence[Scenario]) -> Table:
    table = Table("group", "scenario", "s", "runs", "decides")
    for scenario in chosen:
        decides = "yes" if scenario.required else "no"
        table.add_row(scenario.group, scenario.name, f"{scenario.duration:g}", str(scenario.seeds), decides)
    return table


def _print_verdict(console: Console, validated: Sequence[Validated]) -> None:
    for one in validated:
        through = [verdict for verdict in one.graph if not verdict.passed]
        other = [(f"on {one.model_name}, ", verdict) for verdict in one.model_failures]
        graph = [("through the graph, ", verdict) for verdict in through]
        for where, verdict in [("", verdict) for verdict in one.failures] + other + graph:
            text = f"{where}{verdict.scenario.name}: {'; '.join(verdict.failures)}"
            console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        style = "green" if one.passed else "bold red"
        console.print(f"{one.policy} {one.headline()}", style=style, markup=False, highlight=False, soft_wrap=True)
