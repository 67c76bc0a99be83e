"""The soak's report: one HTML file with plots over time, JSON beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.faults import html
from sim2real_checks.plain_json import without_nan
from sim2real_checks.soak.judge import (
    EXPLAINED_PER_HOUR,
    FOLLOWS_S,
    HALT_S,
    count_falls,
    longest_halt,
    memory_problems,
    permit_problems,
    rate_problems,
    trend_of,
    wire_problems,
)
from sim2real_checks.soak.run import SoakLog

HTML, JSON = "report.html", "report.json"
NOMINAL = {"bridge_rate": 500.0, "permit_rate": 100.0, "policy_rate": 50.0}
RATE_NAMES = {"bridge_rate": "bridge loop", "permit_rate": "permits", "policy_rate": "policy"}


class Soaked:
    """A log in the form that judging and drawing need."""

    def __init__(self, log: SoakLog) -> None:
        self.log = log
        self.time = [sample["t"] for sample in log.samples]
        names = log.samples[0]["rss"] if log.samples else {}
        self.memory = {name: trend_of(self.time, [s["rss"][name] for s in log.samples]) for name in names}
        self.rates = {name: trend_of(self.time, self.series(name)) for name in NOMINAL}
        # The witness lived longer than the walk: only what it saw while the robot walked belongs to it.
        stiff = [line for line in log.wire if line["stiffness"] > 0.0 and line["height_min"] is not None]
        self.wire = [line for line in stiff if line["lowcmd_gap_max_ms"] is not None]
        self.halts = [((a - log.start_ns) * 1e-9, (b - log.start_ns) * 1e-9) for a, b in log.halts]
        """When a core stood still, s since walking began."""
        follows = [longest_halt(self.halts, trip["t"] - FOLLOWS_S, trip["t"]) for trip in log.trips]
        self.explained = [trip for trip, halt in zip(log.trips, follows, strict=True) if halt >= HALT_S]

    def series(self, name: str) -> list[float]:
        """One number of every sample."""
        return [sample[name] for sample in self.log.samples]

    def permit_series(self, name: str) -> list[float]:
        """Ages of permits, s, less what a core stood still in each sample's time."""
        starts = [-math.inf, *self.time]
        halts = [longest_halt(self.halts, a - 0.1, b) for a, b in zip(starts, self.time, strict=False)]
        return [value - halt for value, halt in zip(self.series(name), halts, strict=True)]

    def wire_gaps(self) -> list[float]:
        """Longest gap of LowCmds of each second, ms, less what a core stood still."""
        starts = [(line["ns"] - self.log.start_ns) * 1e-9 for line in self.wire]
        halts = [longest_halt(self.halts, start - 0.5, start + 1.5) for start in starts]
        return [line["lowcmd_gap_max_ms"] - halt * 1e3 for line, halt in zip(self.wire, halts, strict=True)]

    def walking(self) -> list[Mapping[str, float]]:
        """Seconds of the wire but those between a trip that is explained and the walk that followed it."""
        spans = [(trip["t"] - 1.0, trip.get("until", math.inf)) for trip in self.explained]
        times = [(line["ns"] - self.log.start_ns) * 1e-9 for line in self.wire]
        return [
            line for line, t in zip(self.wire, times, strict=True) if not any(a <= t <= b for a, b in spans)
        ]  # fmt: skip

    def wire_series(self, name: str) -> list[float]:
        """One number of every second of the wire while the robot was up."""
        return [line[name] for line in self.wire]


def find_problems(soaked: Soaked, spec: RobotSpec, minutes: float) -> list[str]:
    """Why the soak failed; empty when nothing went wrong."""
    log = soaked.log
    problems = [*log.problems]
    problems += [_describe(trip) for trip in log.trips if trip not in soaked.explained]
    allowed = EXPLAINED_PER_HOUR * max(1.0, minutes / 60.0)
    if len(soaked.explained) > allowed:
        problems.append(
            f"{len(soaked.explained)} trips because a core stood still, more than {allowed:g}: this computer is "
            "too small for the load"
        )
    if log.walked < 0.99 * minutes * 60.0:
        problems.append(f"ended after {log.walked / 60:.1f} of {minutes:g} minutes")
    if not log.samples or not soaked.wire:
        return [*problems, "nothing was seen of the run"]
    problems += memory_problems(soaked.memory)
    for name, nominal in NOMINAL.items():
        problems += rate_problems(RATE_NAMES[name], nominal, soaked.rates[name])
    problems += permit_problems(soaked.permit_series("permit_gap"), soaked.permit_series("permit_age"), spec)
    problems += wire_problems(soaked.wire_gaps(), spec)
    # Standing up and sitting down are no falls: seconds at both ends are left out by the trunk's height at rest.
    up = _while_up(soaked.walking(), spec)
    falls = count_falls([line["height_min"] for line in up], [line["tilt_max"] for line in up], spec)
    return [*problems, f"the robot fell {falls} times"] if falls else problems


def _describe(trip: Mapping[str, Any]) -> str:
    return f"unasked {trip['mode']} after {trip['t']:.0f} s: {trip['reason']}"


def describe_halts(log: SoakLog) -> list[str]:
    """What the computer did to the run, and what followed; empty when it ran all the time."""
    soaked = Soaked(log)
    longest = max((b - a for a, b in soaked.halts), default=0.0)
    if not soaked.halts:
        return []
    head = f"cores stood still {len(soaked.halts)} times, for {longest * 1e3:.0f} ms at most"
    return [head, *(f"it follows: {_describe(trip)}" for trip in soaked.explained)]


def _while_up(wire: Sequence[Mapping[str, float]], spec: RobotSpec) -> list[Mapping[str, float]]:
    standing = [i for i, line in enumerate(wire) if line["height_min"] > 0.8 * spec.base_height]
    return list(wire[standing[0] : standing[-1] + 1]) if standing else list(wire)


def write_report(folder: Path, log: SoakLog, spec: RobotSpec, minutes: float, context: Mapping[str, Any]) -> list[str]:
    """Write both files; returns the problems."""
    soaked = Soaked(log)
    problems = find_problems(soaked, spec, minutes)
    content = {
        "passed": not problems, **context, "minutes": minutes, "problems": problems, "trips": log.trips,
        "findings": log.findings, "halts": soaked.halts, "explained": soaked.explained,
        "memory": {name: asdict(trend) if trend else None for name, trend in soaked.memory.items()},
        "rates": {name: asdict(trend) if trend else None for name, trend in soaked.rates.items()},
        "samples": log.samples, "wire": log.wire,
    }  # fmt: skip
    html.write_text(folder / JSON, json.dumps(without_nan(content)) + "\n")
    html.write_text(folder / HTML, _page(soaked, problems, minutes, context))
    return problems


def _page(soaked: Soaked, problems: Sequence[str], minutes: float, context: Mapping[str, Any]) -> str:
    log = soaked.log
    parts = [
        html.paragraph(", ".join(f"{key} {value}" for key, value in context.items()), "note"),
        html.paragraph(
            f"{log.walked / 60:.1f} of {minutes:g} minutes: "
            + ("nothing went wrong" if not problems else f"{len(problems)} problems"),
            "bad" if problems else "good",
        ),
        html.bullets(problems),
        html.bullets(describe_halts(log)),
    ]
    if log.samples:
        parts += [
            html.heading("Memory"), _memory_table(soaked), _memory_figure(soaked),
            html.heading("Rates"), _rate_table(soaked), _rate_figure(soaked),
            html.heading("Wire and permits"), _wire_figure(soaked),
            html.heading("Walk"), _walk_figure(soaked),
        ]  # fmt: skip
    if log.findings:
        parts += [html.heading("What /diagnostics warned of, once each"), html.bullets(log.findings)]
    return html.page("Soak", parts)


def _memory_table(soaked: Soaked) -> str:
    head = ("process", "mean, MiB", "slope, MiB/h", "95 % from", "to", "change, MiB", "cores")
    rows = []
    for name, trend in soaked.memory.items():
        cores = float(np.nanmean([sample["cpu"][name] for sample in soaked.log.samples]))
        numbers = (trend.mean, trend.slope, trend.low, trend.high, trend.change) if trend else (math.nan,) * 5
        rows.append((name, *numbers, cores))
    return html.table(head, rows)


def _rate_table(soaked: Soaked) -> str:
    head = ("loop", "nominal, Hz", "mean, Hz", "slope, Hz/h", "95 % from", "to")
    rows = []
    for name, trend in soaked.rates.items():
        numbers = (trend.mean, trend.slope, trend.low, trend.high) if trend else (math.nan,) * 4
        rows.append((RATE_NAMES[name], NOMINAL[name], *numbers))
    return html.table(head, rows)


def _minutes(seconds: Sequence[float]) -> np.ndarray:
    return np.asarray(seconds) / 60.0


def _memory_figure(soaked: Soaked) -> str:
    figure = html.new_figure(11, 3.2)
    axis = figure.subplots()
    for name in soaked.memory:
        values = np.array([sample["rss"][name] for sample in soaked.log.samples])
        axis.plot(_minutes(soaked.time), values - values[0], lw=1.0, label=name)
    axis.set(xlabel="minutes", ylabel="resident memory gained, MiB")
    axis.legend(fontsize=7, ncols=3)
    return html.image(figure, "memory over time")


def _rate_figure(soaked: Soaked) -> str:
    figure = html.new_figure(11, 4.2)
    axes = figure.subplots(3, 1, sharex=True)
    for axis, (name, nominal) in zip(axes, NOMINAL.items(), strict=True):
        axis.plot(_minutes(soaked.time), soaked.series(name), lw=0.8)
        axis.axhline(nominal, color="0.6", lw=0.8)
        axis.set_ylabel(f"{RATE_NAMES[name]}, Hz", fontsize=8)
    axes[-1].set_xlabel("minutes")
    return html.image(figure, "rates over time")


def _wire_figure(soaked: Soaked) -> str:
    figure = html.new_figure(11, 5.2)
    axes = figure.subplots(4, 1, sharex=True)
    start = soaked.wire[0]["ns"] if soaked.wire else 0
    wire_time = [(line["ns"] - start) / 60e9 for line in soaked.wire]
    axes[0].plot(wire_time, soaked.wire_series("lowcmd_gap_max_ms"), lw=0.6)
    axes[0].set_ylabel("longest gap of\nLowCmd, ms", fontsize=8)
    axes[1].plot(_minutes(soaked.time), soaked.series("bridge_jitter_p99_ms"), lw=0.8)
    axes[1].set_ylabel("bridge jitter\n99 %, ms", fontsize=8)
    axes[2].plot(_minutes(soaked.time), 1e3 * np.array(soaked.series("permit_age")), lw=0.8, label="age at the bridge")
    axes[2].plot(_minutes(soaked.time), 1e3 * np.array(soaked.series("permit_gap")), lw=0.8, label="gap when sent")
    axes[2].set_ylabel("permit, ms", fontsize=8)
    axes[2].legend(fontsize=7)
    axes[3].plot(_minutes(soaked.time), soaked.series("latency_p99_ms"), lw=0.8)
    axes[3].set_ylabel("LowState → LowCmd\n99 %, ms", fontsize=8)
    axes[3].set_xlabel("minutes")
    return html.image(figure, "wire and permits over time")


def _walk_figure(soaked: Soaked) -> str:
    figure = html.new_figure(11, 4.6)
    axes = figure.subplots(4, 1, sharex=True)
    start = soaked.wire[0]["ns"] if soaked.wire else 0
    wire_time = [(line["ns"] - start) / 60e9 for line in soaked.wire]
    for axis, name, unit in zip(axes, ("vx", "vy", "wz"), ("m/s", "m/s", "rad/s"), strict=False):
        axis.plot(wire_time, soaked.wire_series(name), lw=0.5)
        axis.set_ylabel(f"{name}, {unit}", fontsize=8)
    axes[3].plot(_minutes(soaked.time), soaked.series("load"), lw=0.8, color="C3")
    axes[3].set_ylabel("load", fontsize=8)
    axes[3].set_xlabel("minutes")
    return html.image(figure, "velocity of the robot and load of the computer over time")
