"""The campaign's report: one HTML file for people, JSON beside it for machines."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sim2real_checks.faults import html
from sim2real_checks.faults.judge import Result, TargetResult, judge_targets, verdict
from sim2real_checks.plain_json import without_nan

HTML, JSON = "report.html", "report.json"
TARGET_TEXT = {
    "bridge": "what the bridge sees itself, from its declared timeout",
    "watchdog": "what the watchdog sees, from its declared timeout",
    "guard": "the bridge's own death",
    "shutdown": "requests to end",
}
MODE_COLOURS = {"DAMP": "C7", "STAND": "C0", "READY": "C2", "WALK": "C1", "SIT": "C4"}


def write_report(folder: Path, results: Sequence[Result], context: Mapping[str, Any]) -> list[str]:
    """Write both files; returns what failed, empty for a campaign that passed.

    Args:
        folder: where they go.
        results: of all runs.
        context: what they belong to: versions, options, computer.
    """
    problems, targets = verdict(results), judge_targets(results)
    content = {
        "passed": not problems, **context, "problems": problems,
        "targets": [without_nan(asdict(target)) for target in targets],
        "runs": [without_nan(asdict(result)) for result in results],
    }  # fmt: skip
    html.write_text(folder / JSON, json.dumps(content, indent=1) + "\n")
    html.write_text(folder / HTML, _page(results, targets, problems, context))
    return problems


def _page(
    results: Sequence[Result], targets: Sequence[TargetResult], problems: Sequence[str], context: Mapping[str, Any]
) -> str:
    failed = [result for result in results if result.failed or result.late]
    parts = [
        html.paragraph(", ".join(f"{key} {value}" for key, value in context.items()), "note"),
        html.paragraph(
            f"{len(results)} runs, {len({r.fault for r in results})} faults: "
            + ("every target met, nothing violated" if not problems else f"{len(problems)} problems"),
            "bad" if problems else "good",
        ),
        html.bullets(problems),
        html.heading("Reaction: from the fault to the first safe LowCmd at the robot"),
        _target_table(targets),
        _reaction_figure(results),
    ]
    if failed:
        parts += [html.heading("Runs that went wrong"), _run_table(failed)]
    if results:
        parts += [
            html.heading("What the robot did"),
            html.paragraph("Largest values after each fault, by mode: median and maximum over its runs."),
            _motion_figure(results),
            html.heading("Every fault"),
            _fault_table(results),
            html.heading("Every run"),
            _run_table(results),
        ]
    return html.page("Fault campaign", parts)


def _target_table(targets: Sequence[TargetResult]) -> str:
    head = ("target", "limit, ms", "runs", "median, ms", "99 %, ms", "worst, ms", "late runs")
    rows = [(f"{t.name}: {TARGET_TEXT[t.name]}", t.limit, t.count, t.median, t.p99, t.worst, t.late) for t in targets]
    return html.table(head, rows, [not target.met for target in targets])


def _reaction_figure(results: Sequence[Result]) -> str:
    """One line for each fault with its runs as dots; the limit as a mark."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.target and result.target_ms is not None:
            groups[result.target, result.fault].append(result)
    if not groups:
        return html.paragraph("No run with a limit.", "note")
    names = sorted(groups, reverse=True)
    figure = html.new_figure(11, 1.2 + 0.24 * len(names))
    axis = figure.subplots()
    for line, name in enumerate(names):
        members = groups[name]
        for mode, colour in MODE_COLOURS.items():
            times = [r.reaction_ms for r in members if r.mode == mode]
            offsets = line + 0.5 * (np.arange(len(times)) / max(1, len(times) - 1) - 0.5) if len(times) > 1 else [line]
            axis.plot(times, offsets[: len(times)], ".", ms=5, color=colour, label=mode if line == 0 else None)
        axis.plot([members[0].limit_ms] * 2, [line - 0.45, line + 0.45], color="red", lw=1.5)
    axis.set_yticks(range(len(names)), [f"{fault}  ({target})" for target, fault in names], fontsize=8)
    axis.set_xlabel("ms after the fault, or after its declared timeout; red: limit")
    axis.axvline(0.0, color="0.7", lw=0.8)
    axis.set_xscale("symlog", linthresh=20.0)
    axis.set_ylim(-0.7, len(names) - 0.3)
    handles = [axis.plot([], [], "o", color=colour, label=mode)[0] for mode, colour in MODE_COLOURS.items()]
    axis.legend(handles=handles, fontsize=8, ncols=5, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return html.image(figure, "reaction times of every fault")


def _motion_figure(results: Sequence[Result]) -> str:
    measures = (
        ("peak_speed", "joint speed, rad/s"), ("peak_torque", "torque, of its limit"),
        ("fall_speed", "trunk downward, m/s"), ("foot_force", "force on a foot, N"),
    )  # fmt: skip
    figure = html.new_figure(11, 3.2)
    for axis, (name, label) in zip(figure.subplots(1, 4), measures, strict=True):
        modes = [mode for mode in MODE_COLOURS if any(r.mode == mode and r.motion for r in results)]
        values = [[r.motion[name] for r in results if r.mode == mode and r.motion] for mode in modes]
        if modes:
            axis.boxplot(values, whis=(0, 100), widths=0.6)
        axis.set_xticks(range(1, len(modes) + 1), modes, fontsize=8)
        axis.set_title(label, fontsize=9)
        axis.set_ylim(bottom=0.0)
    return html.image(figure, "motion after the faults, by mode")


def _fault_table(results: Sequence[Result]) -> str:
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.fault, result.mode].append(result)
    head = (
        "fault", "mode", "runs", "expected", "seen", "acted", "limit, ms", "median, ms", "worst, ms", "detected, ms",
        "joint rad/s", "torque", "trunk m/s", "foot N", "gap, ms",
    )  # fmt: skip
    rows, bad = [], []
    for (fault, mode), runs in groups.items():
        rows.append(
            (
                fault, mode, len(runs), runs[0].expected, _distinct(r.reaction for r in runs),
                _distinct(r.detector for r in runs), runs[0].limit_ms,
                _statistic([r.reaction_ms for r in runs], np.median), _statistic([r.reaction_ms for r in runs], np.max),
                _statistic([r.detection_ms for r in runs], np.median),
                *(_statistic([r.motion.get(n) for r in runs], np.max)
                  for n in ("peak_speed", "peak_torque", "fall_speed", "foot_force")),
                _statistic([1e3 * r.motion["gap_max"] for r in runs if r.motion], np.max),
            )
        )  # fmt: skip
        bad.append(any(r.failed or r.late for r in runs))
    return html.table(head, rows, bad)


def _run_table(results: Sequence[Result]) -> str:
    head = ("run", "what was wrong, and notes", "seen", "acted", "reason", "reaction, ms", "limit, ms", "height, m")
    rows = [
        (
            r.key, "; ".join([*r.problems, *(["late"] if r.late else []), *r.notes]), r.reaction, r.detector,
            r.reason, r.reaction_ms, r.limit_ms, r.motion.get("final_height"),
        )
        for r in results
    ]  # fmt: skip
    return html.table(head, rows, [r.failed or r.late for r in results])


def _distinct(values: Any) -> str:
    return ", ".join(sorted({value for value in values if value})) or "–"


def _statistic(values: Sequence[float | None], function: Any) -> float:
    known = [value for value in values if value is not None]
    return float(function(known)) if known else math.nan
