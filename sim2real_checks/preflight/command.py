"""`nfpo preflight`: what an engineer runs before the first start on hardware."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from inspect import cleandoc
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from nfpo_deploy.errors import NfpoError
from robots.loader import RobotSpec, load_robot
from sim2real_checks.plain_json import without_nan
from sim2real_checks.preflight import computer, judge_link, judge_robot
from sim2real_checks.preflight.finding import Finding, Result, skipped, worst
from sim2real_checks.preflight.judge_wiggle import reasons_against
from sim2real_checks.preflight.listen import Heard, domains_in_use, listen

MARKS = {
    Result.PASS: ("✓", "green"),
    Result.WARN: ("!", "yellow"),
    Result.FAIL: ("✗", "red"),
    Result.SKIP: ("–", "dim"),
}
LEAST_S, MOST_S = 0.5, 60.0
WIRE_CHECKS = ("DDS participants", "LowState", "checksums", "clock", "motor commands", "built-in controller")
SCHEMA = 1
WORD = "wiggle"
CONSENT = """
The {robot} on {interface} is going to move: each joint in turn, by 0.1 rad to either side, for about 40 s.
It lies on its belly or hangs level, its legs are free, nobody touches it, and a hand is on the remote:
L2+B, or Ctrl-C here, ends it at once and leaves the joints damped."""
REMEDY = (
    "the robot lies or hangs at rest, and its built-in controller is released: with its app, or by a launch that is "
    "ended again; nfpo restore gives it back"
)


class PreflightError(NfpoError):
    """The checks cannot be made: a bad option, or the result cannot be written."""


@dataclass
class PreflightArgs:
    """Check wire, robot and this computer before the first start. It only listens; with --wiggle it moves joints, too.

    Each line has a result (✓ pass, ! warning, ✗ failure, – not checked), what was measured, and what to do about it.
    Exit status: 0 when nothing failed, 1 when something did. Leave the robot at rest, lying or hanging, meanwhile.

    Examples:
      nfpo preflight --interface eth0
      nfpo preflight --interface eth0 --seconds 20 --json preflight.json
      nfpo preflight --interface lo --domain-id 7
      nfpo preflight --interface eth0 --wiggle                 then also move each joint by 0.1 rad
      nfpo preflight --interface lo --wiggle --yes             the same without asking
    """

    interface: str
    """Network interface wired to the robot; lo for the simulated one."""
    robot: str = "go2"
    """Robot folder."""
    domain_id: int = 0
    """DDS domain of the robot; a real one uses 0."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 3.0
    """How long to listen, s."""
    json: Path | None = None
    """Write the result to this file, too."""
    wiggle: bool = False
    """When all checks passed, move one joint after another to prove joint order, signs and motors."""
    yes: bool = False
    """With --wiggle: consent given, do not ask."""


def preflight(argv: list[str]) -> int:
    """Run the checks; returns the exit status.

    Raises:
        PreflightError: a bad option, no consent to the wiggle, or the JSON file cannot be written.
        RobotSpecError: unknown robot.
        SafetyError, TransportError: the robot may not be wiggled, or the wiggle could not be carried out.
        TransportError: unknown interface, bad domain id, or DDS fails.
    """
    args = tyro.cli(PreflightArgs, args=argv, prog="nfpo preflight", description=cleandoc(PreflightArgs.__doc__ or ""))
    if not (math.isfinite(args.seconds) and LEAST_S <= args.seconds <= MOST_S):
        raise PreflightError(f"--seconds must be in {LEAST_S:g}..{MOST_S:g}, got {args.seconds}")
    if not 0 <= args.domain_id <= 232:
        raise PreflightError(f"--domain-id must be in 0..232, got {args.domain_id}; a Unitree robot uses 0")
    if args.yes and not args.wiggle:
        raise PreflightError("--yes is consent to --wiggle and means nothing without it; leave it out, or give both")
    spec = load_robot(args.robot)
    if args.wiggle and spec.leg_geometry is None:
        raise PreflightError(f"--wiggle knows quadrupeds that lie or hang level; {spec.name} is none: leave it out")
    print(f"listening to {spec.name} on {args.interface}, DDS domain {args.domain_id} …", file=sys.stderr, flush=True)
    findings = check_all(spec, args.interface, args.domain_id, args.seconds)
    show(findings)
    if args.wiggle:
        moved = move(spec, args, findings)
        show(moved)
        findings = [*findings, *moved]
    if args.json is not None:
        write(args.json, findings, args)
    return 1 if worst(findings) is Result.FAIL else 0


def move(spec: RobotSpec, args: PreflightArgs, findings: Sequence[Finding]) -> list[Finding]:
    """Findings of the wiggle; one that fails where the checks speak against it. Errors as `preflight`."""
    reasons = reasons_against(findings)
    if reasons:
        return [Finding("wiggle", Result.FAIL, f"nothing was moved: {'; '.join(reasons)}", REMEDY)]
    ask(args)
    from sim2real_checks.preflight.wiggle import wiggle

    return wiggle(spec, args.interface, args.domain_id)


def ask(args: PreflightArgs) -> None:
    """Ask for consent on the terminal; PreflightError without it."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise PreflightError("--wiggle moves the robot: confirm it on a terminal, or consent with --yes")
    print(CONSENT.format(robot=args.robot, interface=args.interface), file=sys.stderr, flush=True)
    try:
        answer = input(f"type {WORD} to go on: ")
    except EOFError:
        answer = ""
    if answer.strip() != WORD:
        raise PreflightError(f"nothing was moved: expected {WORD!r}, got {answer!r}")


def check_all(spec: RobotSpec, interface: str, domain_id: int, seconds: float) -> list[Finding]:
    """All findings in the order of the checklist; errors as `preflight`."""
    link = computer.read_interface(interface)
    findings = [computer.judge_interface(link), computer.check_dds_library()]
    own = [computer.check_second_stack(interface, domain_id), computer.check_computer()]
    if worst(findings) is Result.FAIL:
        reason = f"needs a good {next(one.check for one in findings if one.result is Result.FAIL)}"
        return findings + skipped((*WIRE_CHECKS, *judge_robot.CHECKS), reason) + own
    heard = listen(spec, interface, domain_id, seconds)
    diagnosis = ""
    if not heard.came:
        elsewhere = domains_in_use(interface, domain_id)
        diagnosis = judge_link.diagnose_silence(
            heard, interface, domain_id, link.loopback, elsewhere, computer.interfaces_in_robot_network()
        )
    return findings + judge_heard(heard, spec, diagnosis) + own


def judge_heard(heard: Heard, spec: RobotSpec, diagnosis: str) -> list[Finding]:
    """Findings of the wire, then of the robot."""
    wire = [
        judge_link.judge_peers(heard.peers),
        judge_link.judge_low_state(heard, spec, diagnosis),
        judge_link.judge_checksums(heard),
        judge_link.judge_clock(heard.states),
        judge_link.judge_commands(heard.commands, heard.controller),
        judge_link.judge_controller(heard.controller, heard.came > 0),
    ]
    if not len(heard.states):
        return wire + skipped(judge_robot.CHECKS, "no valid LowState")
    return wire + judge_robot.judge_robot(heard, spec)


def show(findings: Sequence[Finding]) -> None:
    """Print the checklist and the verdict."""
    console = Console(highlight=False)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = MARKS[finding.result]
        # Text, not markup: names of programs come from anybody on the network.
        console.print(
            Text(f"{mark} ", style=style) + Text(f"{finding.check:<{width}}  {finding.measured}"), soft_wrap=True
        )
        for line in finding.remedy.splitlines():
            console.print(Text(f"{'':<{width + 4}}→ {line}", style=style), soft_wrap=True)
    counts = {result: sum(finding.result is result for finding in findings) for result in Result}
    verdict = worst(findings)
    said = {
        Result.FAIL: "NOT READY: repair what failed and run this again",
        Result.WARN: "READY, with warnings: read them first",
        Result.PASS: "READY",
    }[verdict]
    numbers = ", ".join(f"{counts[result]} {result.value}" for result in Result if counts[result])
    console.print(Text(f"\n{said} ({numbers})", style=f"bold {MARKS[verdict][1]}"), soft_wrap=True)


def write(path: Path, findings: Sequence[Finding], args: PreflightArgs) -> None:
    """Write the result as JSON; raises PreflightError where that fails."""
    content = {
        "schema": SCHEMA,
        "robot": args.robot,
        "interface": args.interface,
        "domain_id": args.domain_id,
        "seconds": args.seconds,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "verdict": worst(findings).value,
        "checks": [asdict(finding) | {"result": finding.result.value} for finding in findings],
    }
    try:
        path.write_text(json.dumps(without_nan(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise PreflightError(f"cannot write {path}: {error.strerror}; name another file with --json") from error
