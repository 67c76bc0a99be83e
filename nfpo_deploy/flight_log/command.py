"""`nfpo log`: list, show and repair what the flight recorder wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.repair import repair_file
from nfpo_deploy.flight_log.timeline import Stream, Timeline, analyse

NS = 1_000_000_000


@dataclass
class ListArgs:
    """List the incidents and sessions in the log folder.

    Examples:
      nfpo log list
      nfpo log list --folder /data/flight_log
    """

    folder: Path | None = None
    """Log folder; $NFPO_LOG_DIR or ~/.local/state/nfpo/flight_log where left out."""


@dataclass
class ShowArgs:
    """Tell what happened: mode changes and their reasons, trips, who commanded the motors, rates, gaps.

    Examples:
      nfpo log show latest
      nfpo log show incident_20260102T030405Z_emergency-stop-by-service-call
      nfpo log show some.mcap --json
    """

    what: tyro.conf.Positional[str]
    """An .mcap file, the folder or the name of an incident or a session, or 'latest' for the newest incident."""
    folder: Path | None = None
    """Log folder in which names are looked up."""
    json: bool = False
    """For machines."""


@dataclass
class RecoverArgs:
    """Give a file that was cut off its end back, so that every MCAP reader opens it.

    The recorder does so by itself with what an earlier run left; this is for files from elsewhere.

    Examples:
      nfpo log recover copied.mcap
      nfpo log recover damaged.mcap --output readable.mcap
    """

    file: tyro.conf.Positional[Path]
    """An .mcap file. Replaced, in one step, if nothing but its end is missing."""
    output: Path | None = None
    """Write here instead, whatever is damaged; must not exist."""


Command = (
    Annotated[ListArgs, tyro.conf.subcommand("list", description=cleandoc(ListArgs.__doc__ or ""))]
    | Annotated[ShowArgs, tyro.conf.subcommand("show", description=cleandoc(ShowArgs.__doc__ or ""))]
    | Annotated[RecoverArgs, tyro.conf.subcommand("recover", description=cleandoc(RecoverArgs.__doc__ or ""))]
)
DESCRIPTION = """Read what the flight recorder wrote.

Examples:
  nfpo log list
  nfpo log show latest
  nfpo log recover copied.mcap
"""


def log_command(argv: list[str]) -> int:
    """Run one subcommand; returns the exit status.

    Raises:
        FlightLogError: no such log, or it cannot be read or written.
    """
    args = tyro.cli(Command, args=argv, prog="nfpo log", description=DESCRIPTION)
    if isinstance(args, ListArgs):
        return list_logs(args)
    return show(args) if isinstance(args, ShowArgs) else recover(args)


def list_logs(args: ListArgs) -> int:
    """Print incidents and sessions."""
    root = args.folder or places.default_folder()
    incidents, sessions = places.incidents_in(root), places.sessions_in(root)
    console = _console()
    if not incidents and not sessions:
        console.print(f"no flight log in {root}", highlight=False)
        return 0
    table = Table(title=f"incidents in {root}", title_justify="left")
    for column in ("name", "reason", "state", "MB"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    for incident in incidents:
        record = places.read_record(incident / places.INCIDENT_FILE) or {}
        cells = (incident.name, str(record.get("reason", "")), str(record.get("state", "")))
        table.add_row(*(Text(_printable(cell)) for cell in cells), _megabytes(incident))
    console.print(table)
    table = Table(title="sessions", title_justify="left")
    for column in ("name", "state", "files", "MB"):
        table.add_column(column, overflow="fold", justify="left" if column in ("name", "state") else "right")
    for session in sessions:
        record = places.read_record(session / places.SESSION_FILE) or {}
        state = "recording" if places.is_alive(session) else str(record.get("state", ""))
        if state == "recording" and not places.is_alive(session):
            state = "cut off"
        table.add_row(session.name, Text(_printable(state)), str(len(places.segments_in(session))), _megabytes(session))
    console.print(table)
    return 0


def show(args: ShowArgs) -> int:
    """Print the timeline of a file, an incident or a session."""
    paths, incident = find(args.what, args.folder or places.default_folder())
    timeline = analyse(paths)
    zero_ns = incident.get("time_ns") if incident else None
    if not isinstance(zero_ns, int):
        zero_ns = timeline.start_ns
    if args.json:
        print(json.dumps(as_json(timeline, incident)))
        return 0
    console = _console()
    _print_head(console, timeline, incident, paths)
    for event in timeline.events:
        line = Text(f"{(event.time_ns - zero_ns) / NS:+10.3f} s  ")
        line.append(f"{event.kind:<8}", style=_STYLES.get(event.kind, ""))
        console.print(line.append(event.text), soft_wrap=True)
    if timeline.left_out:
        console.print(f"{timeline.left_out} more events are left out")
    console.print(_stream_table(timeline))
    for problem in timeline.problems:
        console.print(Text(f"problem: {problem}", style="yellow"), soft_wrap=True)
    return 0


def recover(args: RecoverArgs) -> int:
    """Repair a file."""
    repair = repair_file(args.file, args.output)
    console = _console()
    for problem in repair.problems:
        console.print(Text(f"byte {problem.offset}: {problem.text}; {problem.lost} bytes lost"), soft_wrap=True)
    done = "written to" if repair.changed else "nothing to repair in"
    console.print(Text(f"{repair.messages} messages, {done} {repair.path}"), soft_wrap=True)
    return 0


def find(what: str, root: Path) -> tuple[list[Path], dict | None]:
    """Files that `what` stands for, and the record of the incident if it is one.

    Raises:
        FlightLogError: nothing of that name, or nothing in it.
    """
    incidents = places.incidents_in(root)
    if what == "latest":
        if not incidents:
            raise FlightLogError(f"there is no incident in {root}; nfpo log list shows the sessions")
        path = incidents[-1]
    else:
        path = Path(what) if Path(what).exists() else root / what
    if path.is_file():
        return [path], None
    if not path.is_dir():
        raise FlightLogError(f"no log {what!r}, neither here nor in {root}; nfpo log list shows what there is")
    paths = places.segments_in(path)
    if not paths:
        raise FlightLogError(f"{path} holds no segments of a flight log; name a file, an incident or a session")
    return paths, places.read_record(path / places.INCIDENT_FILE)


def as_json(timeline: Timeline, incident: dict | None) -> dict:
    """The timeline for machines; times in ns since 1970."""
    return {
        "incident": incident,
        "first_cause": timeline.first_cause,
        "start_ns": timeline.start_ns,
        "end_ns": timeline.end_ns,
        "metadata": timeline.metadata,
        "events": [asdict(event) for event in timeline.events],
        "topics": [_summary(stream) for stream in timeline.streams],
        "problems": timeline.problems,
    }


def _summary(stream: Stream) -> dict:
    steps = np.diff(stream.sorted_times()) / NS
    span = float(steps.sum())
    return {
        "topic": stream.topic,
        "writer": stream.writer,
        "messages": stream.count,
        "rate_hz": round(len(steps) / span, 2) if span > 0 else None,
        "longest_gap_s": round(float(steps.max()), 4) if len(steps) else None,
        "lost": stream.lost,
        "ticks_missing": stream.ticks.total if stream.ticks is not None else None,
    }


def _print_head(console: Console, timeline: Timeline, incident: dict | None, paths: list[Path]) -> None:
    about = timeline.metadata
    lines = [
        ("files", ", ".join(path.name for path in paths)),
        ("from", f"{places.utc_text(timeline.start_ns)} for {(timeline.end_ns - timeline.start_ns) / NS:.1f} s"),
    ]
    if incident:
        lines += [
            ("incident", f"{incident.get('kind')} at {incident.get('time')} ({incident.get('state')}), time 0 below"),
            ("reason", str(incident.get("reason"))),
        ]
    lines.append(("first cause", timeline.first_cause or "nothing tripped"))
    if about:
        robot = f"{about.get('robot', '?')} ({about.get('robot_sha256', '')[:12]})"
        policy = f"{about.get('policy') or 'none'} {about.get('policy_sha256', '')[:12]}"
        lines += [("robot", robot), ("policy", policy), ("nfpo", about.get("nfpo", "?"))]
    for name, text in lines:
        console.print(Text(f"{name:<12}{_printable(text)}"), soft_wrap=True)
    console.print()


def _stream_table(timeline: Timeline) -> Table:
    table = Table()
    columns = ("topic", "writer", "messages", "Hz", "longest gap, s", "lost", "ticks missing")
    for column in columns:
        table.add_column(column, justify="left" if column in ("topic", "writer") else "right", overflow="fold")
    for stream in timeline.streams:
        row = _summary(stream)
        cells = ["" if row[key] is None else str(row[key]) for key in list(row)[2:]]
        table.add_row(Text(_printable(stream.topic)), Text(_printable(stream.writer)), *cells)
    return table


_STYLES = {"trip": "bold red", "mode": "bold", "gap": "yellow", "log": "yellow", "monitor": "yellow"}


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:300]


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in places.segments_in(folder)) / 1e6:.1f}"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)
