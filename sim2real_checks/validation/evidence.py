"""Plots and pictures of what failed."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from sim2real_checks.faults import html
from sim2real_checks.plain_json import without_nan
from sim2real_checks.validation.film import Film
from sim2real_checks.validation.judge import Outcome, Verdict

FILMS = "films"
MOST_SHOWN = 12
"""Failures with plots and pictures for each policy; all of them are in the tables."""
RENDER_TIMEOUT_S = 300.0


def write_evidence(folder: Path, robot: str, verdicts: Sequence[Verdict]) -> tuple[list[str], str]:
    """Plots and strips of the first failures.

    Args:
        folder: of this policy's films; what lay there before is replaced.
        robot: its name.
        verdicts: failed ones, most important first.

    Returns:
        HTML of each failure that is shown, and why there are no pictures, empty when there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.npz"), *folder.glob("*.png")):
        old.unlink()
    shown = [(verdict, _worst(verdict)) for verdict in verdicts[:MOST_SHOWN]]
    for i, (_, outcome) in enumerate(shown):
        if outcome.film:
            _write_film(folder / f"{i:02d}.npz", robot, outcome)
    problem = _render(folder) if any(outcome.film for _, outcome in shown) else ""
    return [_part(verdict, outcome, folder / f"{i:02d}.png") for i, (verdict, outcome) in enumerate(shown)], problem


def _worst(verdict: Verdict) -> Outcome:
    """The run that ended first, or one of those that did not end."""
    return min(verdict.outcomes, key=lambda outcome: (not outcome.ended, len(outcome.film.get("time", ()))))


def _write_film(path: Path, robot: str, outcome: Outcome) -> None:
    scenario = without_nan(dataclasses.asdict(outcome.scenario))
    about = {"robot": robot, "scenario": scenario, "seed": outcome.seed, "ended": outcome.ended}
    np.savez_compressed(path, about=np.array(json.dumps(about)), **outcome.film)  # type: ignore[arg-type]


def _render(folder: Path) -> str:
    command = [sys.executable, "-m", "sim2real_checks.validation.pictures", str(folder)]
    # Without a display, MuJoCo must be told which library draws before it is imported.
    environment = dict(os.environ)
    if not environment.get("DISPLAY"):
        environment.setdefault("MUJOCO_GL", "egl")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RENDER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no pictures: rendering took more than {RENDER_TIMEOUT_S:g} s"
    if done.returncode:
        return f"no pictures: {done.stderr.strip()[-300:] or f'the renderer ended with {done.returncode}'}"
    return ""


def _part(verdict: Verdict, outcome: Outcome, strip: Path) -> str:
    title = f"{verdict.scenario.name} (seed {outcome.seed})"
    parts = [f"<h3>{escape(title)}</h3>", html.paragraph("; ".join(verdict.failures), "bad")]
    if strip.is_file():
        data = base64.b64encode(strip.read_bytes()).decode()
        parts.append(f'<p><img alt="{escape(title, quote=True)}" src="data:image/png;base64,{data}"></p>')
    if outcome.film:
        parts.append(_plot(outcome.film, title))
    return "\n".join(parts)


def _plot(film: Film, title: str) -> str:
    figure = html.new_figure(11.0, 2.6)
    names = ("vx, m/s", "vy, m/s", "yaw rate, rad/s", "tilt, rad", "torque, part of limit")
    axes = figure.subplots(1, len(names))
    time = film["time"]
    for i in range(3):
        axes[i].plot(time, film["given"][:, i], color="#888888", label="commanded")
        axes[i].plot(time, film["velocity"][:, i], color="#1f6fb2", label="measured")
    axes[0].legend(fontsize=7)
    axes[3].plot(time, film["tilt"], color="#1f6fb2")
    axes[4].plot(time, film["torque"], color="#1f6fb2")
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("s", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    return html.image(figure, f"{title}: velocities, tilt and torque over time")
