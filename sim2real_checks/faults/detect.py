"""Who acted on a fault, and the reason that was named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nfpo_deploy.types import GatePhase, Mode
from robots.loader import RobotSpec
from sim2real_checks.faults.watch import BridgeChange, PermitChange

PASSIVE = (GatePhase.DAMPING, GatePhase.ZERO_TORQUE)
REPORTED_NS = 50_000_000
BRIDGE_ENDS = "the bridge is ending"
"""The watchdog's reason when it follows a bridge that ends."""


def who_acted(
    permits: Sequence[PermitChange],
    bridge: Sequence[BridgeChange],
    fault_ns: int,
    reaction_ns: int | None,
    writer: str,
    gap: float,
    spec: RobotSpec,
) -> tuple[str, str]:
    """The one whose decision the first safe LowCmd was, with its reason; empty where nobody acted.

    Args:
        permits: of the watchdog.
        bridge: reports of the bridge.
        fault_ns: moment of the fault.
        reaction_ns: the first safe LowCmd, None if there was none.
        writer: who sent it, as the record says, "" for unknown.
        gap: longest silence of the LowCmd stream around the fault, s.
        spec: the robot.

    Returns:
        gate, watchdog, guard or bridge (which was asked to end), and the reason in the acting part's own words.
    """
    if reaction_ns is None:
        return "", ""
    report = next((r for r in bridge if r.ns >= fault_ns and (r.phase in PASSIVE or r.tripped)), None)
    # A bridge reports 50 times a second: its word about this reaction comes within two reports.
    in_time = report is not None and report.ns <= reaction_ns + REPORTED_NS
    if writer == "guard" or (not writer and not in_time and gap > spec.safety.cycle_timeout):
        return "guard", f"no LowCmd for {gap * 1e3:.0f} ms"
    if report is not None and in_time and report.tripped:
        return "gate", report.reason
    change = next((p for p in permits if p.ns >= fault_ns and p.reason != BRIDGE_ENDS), None)
    ending = next((r for r in bridge if r.ns >= fault_ns and r.stopping), None)
    if ending is not None and ending.ns <= reaction_ns + REPORTED_NS and (change is None or change.ns > ending.ns):
        return "bridge", "asked to end"
    if change is not None and change.ns <= reaction_ns:
        return "watchdog", f"{change.mode.name}: {change.reason}"
    # Nobody asked for it: the gate by itself. A watchdog that sees the same clears the trip before the next report.
    later = next((r for r in bridge if r.ns >= reaction_ns), None)
    return "gate", (later.last_trip if later is not None else "") or "tripped between two reports"


def end_began(bridge: Sequence[BridgeChange], fault_ns: int) -> int | None:
    """When the bridge said that it is ending: from then on it brings the robot down itself; None if it did not."""
    return next((report.ns for report in bridge if report.ns >= fault_ns and report.stopping), None)


def first_word(permits: Sequence[PermitChange], fault_ns: int) -> float | None:
    """Milliseconds from the fault until the watchdog changed the mode; None if it never did."""
    change = next((p for p in permits if p.ns >= fault_ns and p.mode is not Mode.STAND), None)
    return None if change is None else (change.ns - fault_ns) * 1e-6


def launcher_words(log: Path) -> str:
    """Why the launcher stopped the graph, in its own words; "" if it did not."""
    found = re.search(r"\[launch\]\s+(?:failure: )?(.*); stopping", log.read_text(errors="replace"))
    return found.group(1) if found else ""
