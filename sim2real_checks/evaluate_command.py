"""`nfpo evaluate`: a policy over randomised episodes, with a table and JSON."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nfpo_deploy.errors import PolicyError
from sim2real_checks.evaluate import Conditions, evaluate
from sim2real_checks.plain_json import without_nan

FLOORS: dict[str, tuple[str, float]] = {
    "no_fall_fraction": (">=", 0.99),
    "planar_error": ("<=", 0.08),
    "wz_error": ("<=", 0.10),
}
"""What a shipped walking policy must hold under the default conditions: m/s and rad/s."""


@dataclass
class EvaluateArgs:
    """Run a policy over randomised episodes in MuJoCo: friction, payload, strength, latency, pushes, noise.

    Examples:
      nfpo evaluate robots/go2/policies/walk/policy.onnx
      nfpo evaluate robots/go2/policies/walk/policy.onnx --stand --episodes 20
      nfpo evaluate a.onnx b.onnx --json report.json
    """

    policies: tyro.conf.Positional[list[Path]]
    """ONNX files; several are shown beside each other."""
    robot: str = "go2"
    """Robot folder."""
    episodes: int = 200
    """Episodes; episode i has seed + i."""
    seed: int = 10_000
    """First seed."""
    stand: bool = False
    """Command zero throughout, without pushes: drift and stepping."""
    step_commands: bool = False
    """Steps of the operator's command reach the policy at once, past the command limiter: a stress test."""
    sampled: bool = False
    """Draw from the policy instead of taking its deterministic action."""
    workers: int = os.cpu_count() or 1
    """Processes."""
    json: Path | None = None
    """Write all results here."""


_HELP = cleandoc(EvaluateArgs.__doc__ or "")
"""Whole docstring: tyro alone would drop the examples."""


def evaluate_command(argv: list[str]) -> int:
    """Evaluate; exit status 1 when a policy misses a floor."""
    args = tyro.cli(EvaluateArgs, args=argv, prog="nfpo evaluate", description=_HELP)
    if not args.policies:
        raise PolicyError("name an ONNX file; the shipped one is robots/go2/policies/walk/policy.onnx")
    if args.episodes < 1 or args.workers < 1:
        raise PolicyError(f"episodes and workers must be at least 1, got {args.episodes} and {args.workers}")
    conditions = Conditions(stand_still=args.stand, step_commands=args.step_commands, sampled=args.sampled)
    reports = []
    with Progress(transient=True) as progress:
        for path in args.policies:
            task = progress.add_task(str(path), total=args.episodes)
            reports.append(
                evaluate(
                    path, args.robot, args.episodes, conditions, args.seed, args.workers,
                    on_progress=lambda _, task=task: progress.advance(task),
                )
            )  # fmt: skip
    missed = False if args.stand or args.sampled else any(misses(r["summary"]) for r in reports)
    _print_table(args.policies, reports, floors=not (args.stand or args.sampled))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(without_nan(reports), indent=1))
    return int(missed)


def misses(summary: dict[str, float]) -> list[str]:
    """Names of the floors that a summary misses."""
    bad = []
    for name, (sense, bound) in FLOORS.items():
        value = summary[name]
        if math.isnan(value) or (value < bound if sense == ">=" else value > bound):
            bad.append(name)
    return bad


def _print_table(paths: list[Path], reports: list[dict], floors: bool) -> None:
    table = Table(title="randomised episodes")
    table.add_column("measure")
    table.add_column("floor")
    for path in paths:
        table.add_column(str(path), justify="right")
    for name in reports[0]["summary"]:
        sense, bound = FLOORS.get(name, ("", math.nan))
        bad = [floors and name in misses(r["summary"]) for r in reports]
        cells = [f"{r['summary'][name]:.4g}" for r in reports]
        cells = [f"[red]{c}[/red]" if b else c for c, b in zip(cells, bad, strict=True)]
        table.add_row(name, f"{sense} {bound:g}" if sense and floors else "", *cells)
    Console().print(table)
