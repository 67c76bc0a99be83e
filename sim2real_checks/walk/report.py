"""The summary for people (a table) and for machines (JSON)."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sim2real_checks.walk.analysis import SegmentResult, Summary


def write_json(path: Path, summary: Summary, context: dict[str, Any]) -> None:
    """Write the summary and what it belongs to (policy, options); never leaves half a file."""
    temporary = path.with_name(path.name + ".tmp")
    content = {"passed": not summary.problems, **context, **summary.as_json()}
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def print_summary(console: Console, summary: Summary) -> None:
    """Print the table of segments, the measures of the run, and the verdict."""
    if summary.segments:
        console.print(_segment_table(summary.segments))
    measures = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _measures(summary):
        measures.add_row(name, text)
    console.print(measures)
    for warning in summary.warnings:
        console.print(f"[yellow]note[/yellow] {escape(warning)}", highlight=False, soft_wrap=True)
    for problem in summary.problems:
        console.print(f"[red]failed[/red] {escape(problem)}", highlight=False, soft_wrap=True)
    if not summary.problems:
        console.print("[green]the robot did what was asked[/green]")


def _segment_table(segments: list[SegmentResult]) -> Table:
    table = Table(title="asked and done, by the simulator's ground truth", title_justify="left")
    for column in ("segment", "asked", "done (mean)", "mean |error|", "path", "turned"):
        table.add_column(column, justify="left" if column == "segment" else "right")
    for segment in segments:
        table.add_row(
            segment.name if segment.done else f"[red]{segment.name}[/red]",
            _velocity(segment.command),
            _velocity(segment.mean_velocity),
            f"{segment.planar_error:.2f} m/s {segment.mean_abs_error[2]:.2f} rad/s",
            f"{segment.distance:.2f} m",
            f"{math.degrees(segment.turned):+.0f}°",
        )
    return table


def _velocity(values: list[float]) -> str:
    # Adding zero turns -0.0 into 0.0.
    vx, vy, wz = (round(value, 2) + 0.0 for value in values)
    return f"{vx:+.2f} {vy:+.2f} m/s {wz:+.2f} rad/s"


def _measures(summary: Summary) -> list[tuple[str, str]]:
    timing = summary.timing
    vx, vy, wz = summary.estimator_rms
    return [
        ("distance, turned", f"{summary.distance:.2f} m, {math.degrees(summary.turned):.0f}°"),
        ("falls", f"{summary.falls}; lowest {summary.min_height:.2f} m, largest tilt {summary.max_tilt:.2f} rad"),
        ("sat down", f"{'yes' if summary.sat_down else 'no'}, base at {summary.final_height:.2f} m"),
        ("peak torque", f"{100 * summary.peak_torque:.0f} % of the limit"),
        ("state estimate", f"RMS error {vx:.3f} {vy:.3f} m/s, {wz:.3f} rad/s ({summary.estimator_samples} samples)"),
        (
            "LowCmd loop",
            f"{timing.lowcmd_rate:.1f} Hz at the robot, {timing.bridge_rate:.1f} Hz at the bridge, jitter p99 "
            f"{timing.bridge_jitter_p99:.2f} ms, {timing.bridge_overruns} periods missed",
        ),
        ("gaps in LowCmd", f"p99 {timing.lowcmd_gap_p99:.1f} ms, longest {timing.lowcmd_gap_max:.1f} ms"),
        (
            "policy loop",
            f"{timing.policy_rate:.1f} Hz, jitter p99 {timing.policy_jitter_p99:.2f} ms, inference p50 "
            f"{timing.inference_p50:.2f} ms, p99 {timing.inference_p99:.2f} ms",
        ),
        (
            "LowState → LowCmd",
            f"p50 {timing.latency_p50:.1f} ms, p99 {timing.latency_p99:.1f} ms (through estimator and policy)",
        ),
        (
            "gate, wire",
            f"{summary.gate_limited} commands bounded, {summary.lowstate_lost} states lost, "
            f"{summary.crc_errors} bad checksums",
        ),
        (
            "simulator",
            f"real-time factor {timing.real_time_factor:.3f}, worst lag {timing.simulator_lag_max:.0f} ms",
        ),
    ]
