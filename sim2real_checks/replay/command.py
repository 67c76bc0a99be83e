"""`nfpo replay`: a recorded flight through the deployed code again, and the first tick that differs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nfpo_deploy.contract.onnx_guard import MAX_FILE_BYTES
from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.command import find
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec
from sim2real_checks.plain_json import without_nan
from sim2real_checks.replay.flight import Flight, RecordedCommand, ReplayError, read_flight
from sim2real_checks.replay.operator_input import OperatorInput, follow
from sim2real_checks.replay.rerun import TOLERANCE, Rerun, rerun

NS = 1_000_000_000


@dataclass
class ReplayArgs:
    """Run a recorded flight through the deployed code again, and show the first tick that differs.

    Each recorded command names the state, the velocity and the observation that it comes from; state and velocity go
    through the code that runs on the robot, and its command is compared with the recorded one. Exit status: 0 when
    every compared tick is equal, 1 when one is not.

    Examples:
      nfpo replay latest
      nfpo replay session_20260102T030405Z_4711 --policy new.onnx
      nfpo replay some.mcap --json
    """

    log: tyro.conf.Positional[str]
    """An .mcap file, the folder or the name of an incident or a session, or 'latest' for the newest incident."""
    policy: str = ""
    """ONNX file, or name of a policy of the robot; the recorded one where left out."""
    robot: str = ""
    """Robot; the one that the log names where left out."""
    tolerance: float = TOLERANCE
    """Largest difference that counts as equal: rad for positions."""
    folder: Path | None = None
    """Log folder in which names are looked up."""
    json: bool = False
    """For machines."""


_HELP = cleandoc(ReplayArgs.__doc__ or "")


@dataclass(frozen=True)
class Chosen:
    """The policy to replay with."""

    policy: OnnxPolicy
    recorded: bool | None
    """Whether its file is the one that flew, byte for byte; None where the log does not say."""


def replay(argv: list[str]) -> int:
    """Replay; returns the exit status.

    Raises:
        NfpoError: a log that cannot be replayed, or no policy for it.
    """
    args = tyro.cli(ReplayArgs, args=argv, prog="nfpo replay", description=_HELP)
    if not (math.isfinite(args.tolerance) and args.tolerance >= 0.0):
        raise ReplayError(f"--tolerance must be finite and not negative, got {args.tolerance}")
    paths, _ = find(args.log, args.folder or places.default_folder())
    console = Console(stderr=args.json, width=None if Console().is_terminal else 140)
    with console.status("reading"):
        flight = read_flight(paths, args.robot)
    chosen = choose_policy(flight, args.policy)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:

        def track(commands: Iterable[RecordedCommand]) -> Iterable[RecordedCommand]:
            return progress.track(commands, total=len(flight.commands), description="ticks")

        result = rerun(flight, chosen.policy, args.tolerance, track)
    if not result.compared:
        reasons = "; ".join(f"{why}: {count} ticks" for why, count in result.skipped.items())
        raise ReplayError(f"none of the {result.ticks} commands can be compared; {reasons}")
    operator = follow(flight, chosen.policy.manifest)
    if args.json:
        print(json.dumps(without_nan(as_json(flight, chosen, result, operator))))
    else:
        _print(console, flight, chosen, result, operator)
    return int(result.differing > 0)


def choose_policy(flight: Flight, wanted: str) -> Chosen:
    """The policy that the user named, else the recorded one, found by its sha256.

    Raises:
        ReplayError: the recorded one is not found.
        PolicyError: the one that was named does not exist or does not fit the robot.
    """
    sha256, spec = flight.metadata.get("policy_sha256", ""), flight.spec
    if wanted:
        policy = OnnxPolicy.load(resolve_policy(wanted, spec), spec)
        return Chosen(policy, policy.sha256 == sha256 if sha256 else None)
    name = flight.metadata.get("policy", "")
    if not sha256:
        raise ReplayError("the log does not say which policy flew; name it with --policy")
    for path in _candidates(name, spec):
        if path.stat().st_size <= MAX_FILE_BYTES and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return Chosen(OnnxPolicy.load(path, spec), True)
    raise ReplayError(
        f"the policy that flew ({name[-120:]!r}, sha256 {sha256[:12]}…) is neither there any more nor among those of "
        f"{spec.name}; name a file with --policy to replay with it"
    )


def _candidates(name: str, spec: RobotSpec) -> list[Path]:
    own = sorted((spec.folder / "policies").glob("*/policy.onnx"))
    recorded = Path(name)
    try:
        return [recorded, *own] if name.endswith(".onnx") and recorded.is_file() else own
    except (OSError, ValueError):
        return own


def as_json(flight: Flight, chosen: Chosen, result: Rerun, operator: OperatorInput) -> dict[str, Any]:
    """Everything that was found, as plain data; times in ns since 1970, differences in the targets' units."""
    first = None if result.first is None else asdict(result.first)
    return {
        "robot": flight.spec.name,
        "robot_unchanged": flight.metadata.get("robot_sha256") == flight.spec.sha256,
        "policy": str(chosen.policy.path),
        "policy_sha256": chosen.policy.sha256,
        "policy_is_the_recorded_one": chosen.recorded,
        "commands_of_another_policy": result.foreign,
        "ticks": result.ticks,
        "compared": result.compared,
        "differing": result.differing,
        "skipped": result.skipped,
        "largest_q": dict(zip(flight.spec.joint_names, result.largest.tolist(), strict=True)),
        "largest_terms": result.largest_terms,
        "first": first,
        "operator": asdict(operator),
        "problems": flight.problems,
    }


def _print(console: Console, flight: Flight, chosen: Chosen, result: Rerun, operator: OperatorInput) -> None:
    robot_changed = flight.metadata.get("robot_sha256", flight.spec.sha256) != flight.spec.sha256
    which = {True: "the recorded one", False: "NOT the recorded one", None: "the log does not say which one flew"}
    lines = [
        ("robot", flight.spec.name + (", whose robot.yaml has changed since" if robot_changed else "")),
        ("policy", f"{chosen.policy.path.name} {chosen.policy.sha256[:12]}, {which[chosen.recorded]}"),
        ("ticks", f"{result.compared} of {result.ticks} compared, {result.differing} differ"),
        *(("skipped", f"{count}: {why}") for why, count in result.skipped.items()),
        ("velocity", operator.describe()),
    ]
    if result.foreign:
        lines.append(("note", f"{result.foreign} commands carry the id of another policy than this"))
    if flight.refused:
        lines.append(("note", f"{flight.refused} estimates are of another robot or joint order"))
    for name, text in lines:
        console.print(Text(f"{name:<12}{_printable(text)}"), soft_wrap=True)
    for problem in flight.problems:
        console.print(Text(f"problem     {_printable(problem)}", style="yellow"), soft_wrap=True)
    console.print(_joint_table(flight, result))
    text, style = _verdict(flight, result)
    console.print(Text(text, style=style), soft_wrap=True)


def _joint_table(flight: Flight, result: Rerun) -> Table:
    table = Table("joint", "largest difference of q, rad", "term of the observation", "largest difference")
    terms = list(result.largest_terms.items())
    for i, (name, size) in enumerate(zip(flight.spec.joint_names, result.largest, strict=True)):
        term = (terms[i][0], f"{terms[i][1]:.3g}") if i < len(terms) else ("", "")
        table.add_row(name, f"{size:.3g}", *term)
    return table


def _verdict(flight: Flight, result: Rerun) -> tuple[str, str]:
    first = result.first
    if first is None:
        return f"equal: all {result.compared} ticks that could be compared", "green"
    began_ns = flight.commands[0].time_ns
    place = f"tick {first.index} (seq {first.seq}), {(first.time_ns - began_ns) / NS:.3f} s after the first"
    lines = [f"DIFFERS first at {place}, at {places.utc_text(first.time_ns)}, mode {first.mode or 'unknown'}"]
    if first.reason:
        lines.append(f"{first.field}: {_printable(first.reason)}")
    elif first.joint:
        lines.append(f"{first.field} of {first.joint} by {first.size:.3g}")
    if first.term:
        lines.append(f"the observation differs, too, most in {first.term}: {first.term_size:.3g}")
    elif not first.reason and first.field != "observation":
        lines.append("the observation is the recorded one, so the network or what follows it differs")
    return "\n".join(lines), "bold red"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]
