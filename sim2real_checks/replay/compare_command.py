"""`nfpo compare`: a simulated and a real run beside each other, and the parameters that would close the gap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.command import find
from sim2real_checks.faults.command import describe_computer
from sim2real_checks.replay.compare_report import HTML, Comparison, actuation_yaml, verdict, write_report
from sim2real_checks.replay.fit import Fit, fit
from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.gap import SIGNALS, Gap, measure_gap
from sim2real_checks.replay.recording import Recording, load_recording
from sim2real_checks.replay.windows import Windows, cut_windows


@dataclass
class CompareArgs:
    """Measure the gap between a simulated and a real run, and fit the simulator's motors and joints to the real one.

    A run is a flight log, of the real robot or of a graph that walked the simulated one, or a record of the simulator
    (.npz). Compared is what it walked, or where it held its joints stiff if it does not say. report.html, report.json
    and actuation.yaml, lines for a scenario of `nfpo validate`, lie in the output folder.

    Examples:
      nfpo compare out/walk/record.npz latest
      nfpo compare sim.mcap real.mcap --real-from 5 --real-to 25
      nfpo compare sim.npz hanging.mcap --damping
    """

    sim: tyro.conf.Positional[str]
    """Simulated run: an .npz record, an .mcap file, or the folder or name of an incident or a session."""
    real: tyro.conf.Positional[str]
    """Real run, in the same forms; 'latest' for the newest incident."""
    fit: bool = True
    """Fit friction, armature, latency and strength to the real run."""
    damping: bool = False
    """Fit viscous damping, too."""
    sim_from: float = 0.0
    """s from the run's beginning."""
    sim_to: float = float("inf")
    real_from: float = 0.0
    real_to: float = float("inf")
    robot: str = ""
    """Robot; the one that the runs name where left out."""
    folder: Path | None = None
    """Log folder in which names are looked up."""
    out: Path = Path("out/compare")
    """Output folder."""


_HELP = cleandoc(CompareArgs.__doc__ or "")


def compare(argv: list[str]) -> int:
    """Compare; returns the exit status.

    Raises:
        NfpoError: a run that cannot be read or compared.
    """
    args = tyro.cli(CompareArgs, args=argv, prog="nfpo compare", description=_HELP)
    console = Console(width=None if Console().is_terminal else 140)
    with console.status("reading"):
        sim = _load(args, args.sim).part(args.sim_from, args.sim_to)
        real = _load(args, args.real).part(args.real_from, args.real_to)
    gap = measure_gap(sim, real)
    found, windows, why = _fit(console, real, args) if args.fit else (None, None, "--no-fit")
    write_report(args.out, Comparison(sim, real, gap, found, windows, why), describe_computer())
    for recording in (sim, real):
        for problem in recording.problems:
            console.print(Text(f"problem in {recording.name}: {_printable(problem)}", style="yellow"), soft_wrap=True)
    console.print(_gap_table(gap))
    if found is None:
        console.print(Text(f"nothing fitted: {_printable(why)}"), soft_wrap=True)
    else:
        console.print(_fit_table(found))
        for first, second, _ in found.entangled:
            console.print(f"{first} and {second} can hardly be told apart in this log", highlight=False)
        console.print(Text(actuation_yaml(found, real.spec.joint_friction)), soft_wrap=True)
    console.print(f"report: {args.out / HTML}", soft_wrap=True, highlight=False)
    return 0


def _load(args: CompareArgs, what: str) -> Recording:
    paths, _ = find(what, args.folder or places.default_folder())
    return load_recording(paths, Path(what).name, args.robot)


def _fit(console: Console, real: Recording, args: CompareArgs) -> tuple[Fit | None, Windows | None, str]:
    """Fit to the real run; or why that is impossible, which must not cost the rest of the report."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def track(parts: Iterable) -> Iterable:
            return progress.track(parts, description="legs in the air")

        try:
            windows = cut_windows(real, track)
        except ReplayError as error:
            return None, None, str(error)
        task = progress.add_task("fitting", total=None)
        return fit(windows, real.spec, args.damping, progress=lambda: progress.advance(task)), windows, ""


def _gap_table(gap: Gap) -> Table:
    table = Table("joint", *(f"{name} RMS, {unit}" for name, unit in SIGNALS.items()), "shaking, rad/s", "delay, ms",
                  title="simulated / real", title_justify="left")  # fmt: skip
    for joint, (sim, real) in gap.joints.items():
        cells = [f"{sim.rms[name]:.3g} / {real.rms[name]:.3g}" for name in SIGNALS]
        delays = f"{sim.delay_ms:.1f} / {real.delay_ms:.1f}"
        table.add_row(joint, *cells, f"{sim.shaking:.3g} / {real.shaking:.3g}", delays)
    return table


def _fit_table(found: Fit) -> Table:
    table = Table("parameter", "unit", "simulator", "fitted", "95 % interval", "")
    for one in found.estimates:
        style = "bold" if one.differs else ""
        interval = f"{one.low:.4g} to {one.high:.4g}"
        table.add_row(one.name, one.unit, f"{one.nominal:.4g}", f"{one.value:.4g}", interval, verdict(one), style=style)
    return table


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]
