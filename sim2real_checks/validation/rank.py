"""Does the verdict of `nfpo validate` agree with what an evaluation sees that shares no robot code with it?

Each policy goes through a scenario set and through the randomised episodes of `nfpo evaluate` (the training's own
environment, without estimator, watchdog and gate). A false alarm holds all floors there and is refused;
a false pass misses a floor and is cleared.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from inspect import cleandoc
from pathlib import Path

import matplotlib
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nfpo_deploy.errors import NfpoError
from robots.loader import load_robot
from sim2real_checks.evaluate import Conditions, evaluate
from sim2real_checks.evaluate_command import misses
from sim2real_checks.validation.campaign import run_all
from sim2real_checks.validation.judge import check_limits, judged
from sim2real_checks.validation.scenario import ScenarioSet, load_set

matplotlib.use("Agg")
FIRST_SEED = 10_000


@dataclass
class RankArgs:
    """Policies by scenarios held against policies by randomised episodes: false passes, false alarms, rank correlation.

    Examples:
      python -m sim2real_checks.validation.rank runs/go2_walk_flow_seed2/exported/*.onnx
      python -m sim2real_checks.validation.rank a.onnx b.onnx --episodes 100 --out out/rank
    """

    policies: tyro.conf.Positional[list[Path]]
    """ONNX files, best of one training at different times."""
    set: str = "go2_quick"
    """Scenario set of ours, or a file."""
    episodes: int = 200
    """Randomised episodes of each policy."""
    workers: int = os.cpu_count() or 1
    """Processes."""
    out: Path = Path("out/rank")
    """Output folder: rank.json and rank.png."""


@dataclass(frozen=True)
class Row:
    """What is known of one policy."""

    name: str
    held: int
    deciding: int
    missed: tuple[str, ...]
    """Floors of the evaluation."""
    no_fall_fraction: float
    planar_error: float
    """m/s."""
    wz_error: float
    """rad/s."""
    failures: tuple[str, ...]
    """Scenarios that were not held."""

    @property
    def passed(self) -> bool:
        """Whether validation would clear it."""
        return self.held == self.deciding

    @property
    def verdict(self) -> str:
        """How the two judge together."""
        if self.passed:
            return "false pass" if self.missed else "both pass"
        return "both refuse" if self.missed else "false alarm"


def rank_correlation(rows: Sequence[Row]) -> float:
    """Spearman's coefficient of scenarios held and episodes without a fall; NaN where either is constant."""
    from scipy.stats import spearmanr

    held, alive = [row.held for row in rows], [row.no_fall_fraction for row in rows]
    if len(set(held)) < 2 or len(set(alive)) < 2:
        return float("nan")
    return float(spearmanr(held, alive).statistic)


def rank(args: RankArgs) -> list[Row]:
    """Measure every policy, in the order given; rows are written as they come.

    Raises:
        NfpoError: no policy, a bad set, a policy that cannot be loaded.
    """
    if not args.policies or args.episodes < 1 or args.workers < 1:
        raise NfpoError(
            f"name at least one ONNX file; episodes and workers must be at least 1, "
            f"got {len(args.policies)} files, {args.episodes} and {args.workers}"
        )
    scenario_set = load_set(args.set)
    check_limits(scenario_set.scenarios)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with Progress(transient=True) as progress:
        task = progress.add_task("policies", total=len(args.policies))
        for path in args.policies:
            rows.append(_measure(path, scenario_set, args))
            progress.advance(task)
            record = {"set": scenario_set.name, "episodes": args.episodes, "correlation": rank_correlation(rows)}
            (args.out / "rank.json").write_text(
                json.dumps({**record, "policies": [{**asdict(row), "verdict": row.verdict} for row in rows]}, indent=1)
            )
    return rows


def _measure(path: Path, scenario_set: ScenarioSet, args: RankArgs) -> Row:
    spec = load_robot(scenario_set.robot)
    summary = evaluate(path, spec.name, args.episodes, Conditions(), FIRST_SEED, args.workers)["summary"]
    deciding = tuple(scenario for scenario in scenario_set.scenarios if scenario.required)
    verdicts = judged(run_all(path, spec.name, deciding, 0, args.workers))
    failures = [verdict.scenario.name for verdict in verdicts if not verdict.passed]
    return Row(
        path.stem, len(deciding) - len(failures), len(deciding), tuple(misses(summary)),
        summary["no_fall_fraction"], summary["planar_error"], summary["wz_error"], tuple(failures),
    )  # fmt: skip


def draw(rows: Sequence[Row], path: Path) -> None:
    """Scenarios held against episodes without a fall, one point a policy."""
    import matplotlib.pyplot as plt

    colours = {
        "both pass": "tab:green",
        "both refuse": "tab:gray",
        "false alarm": "tab:orange",
        "false pass": "tab:red",
    }
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for verdict, colour in colours.items():
        chosen = [row for row in rows if row.verdict == verdict]
        x, y = [row.no_fall_fraction for row in chosen], [row.held / row.deciding for row in chosen]
        axes.scatter(x, y, color=colour, label=f"{verdict}: {len(chosen)}", zorder=2)
    for row in rows:
        at = (row.no_fall_fraction, row.held / row.deciding)
        axes.annotate(row.name, at, fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="randomised episodes without a fall", ylabel="deciding scenarios held")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def show(rows: Sequence[Row], console: Console) -> None:
    """Table of all policies."""
    table = Table(title=f"rank correlation {rank_correlation(rows):.2f}")
    for column in ("policy", "no fall", "m/s", "rad/s", "floors missed", "held", "together"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.name, f"{row.no_fall_fraction:.3f}", f"{row.planar_error:.3f}", f"{row.wz_error:.3f}",
            ", ".join(row.missed) or "none", f"{row.held} of {row.deciding}", row.verdict,
        )  # fmt: skip
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 without a false pass, 1 with one, 2 for a bad option."""
    args = tyro.cli(RankArgs, args=argv, prog="python -m sim2real_checks.validation.rank", description=_HELP)
    try:
        rows = rank(args)
    except NfpoError as error:
        print(error, file=sys.stderr)
        return 2
    draw(rows, args.out / "rank.png")
    show(rows, Console())
    return int(any(row.verdict == "false pass" for row in rows))


_HELP = cleandoc(RankArgs.__doc__ or "")

if __name__ == "__main__":
    sys.exit(main())
