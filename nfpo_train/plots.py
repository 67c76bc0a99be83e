"""Learning curves from a run's metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nfpo_train.checkpoint import CheckpointError
from robots.untrusted import UntrustedError, load_json, read_bounded

MAX_METRICS_BYTES = 1 << 28
"""Of metrics.jsonl; an iteration writes 1 kB."""

PANELS = (
    ("Tracking/planar_error", "velocity error, m/s"),
    ("Tracking/wz_error", "yaw-rate error, rad/s"),
    ("Episode/return", "episode return"),
    ("Episode/length_s", "episode length, s"),
    ("Curriculum/command_level", "command range (1 = full)"),
    ("Loss/entropy", "policy entropy, nat"),
)
SMOOTHING = 15


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """Columns of a run's metrics, one value for each iteration; the last line wins where a resume repeats one.

    Raises:
        CheckpointError: the folder holds no metrics.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = read_bounded(path, MAX_METRICS_BYTES).splitlines()
    except OSError:
        raise CheckpointError(f"{folder} holds no metrics.jsonl; give a folder that nfpo train made") from None
    except UntrustedError as error:
        raise CheckpointError(str(error)) from error
    rows: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            row = load_json(line)
        except UntrustedError:  # the line that a kill cut short
            continue
        if isinstance(row, dict) and type(row.get("iteration")) is int:
            rows[row["iteration"]] = row
    if not rows:
        raise CheckpointError(f"{path} holds no iteration; give a folder that nfpo train made")
    names = {name for row in rows.values() for name in row}
    return {n: np.array([_number(rows[i].get(n)) for i in sorted(rows)]) for n in names}


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float)) else float("nan")
    except OverflowError:
        return float("nan")


def plot_run(folder: Path) -> Path:
    """Draw one run's curves into its folder; returns the picture."""
    return plot_runs([folder], folder / "curves.png")


def plot_runs(folders: list[Path], out: Path) -> Path:
    """Draw several runs over environment steps into one picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for folder in folders:
        metrics = read_metrics(folder)
        for axis, (name, title) in zip(axes.flat, PANELS, strict=True):
            if name in metrics:
                axis.plot(metrics["steps"] / 1e6, _smooth(metrics[name]), label=folder.name, linewidth=1.4)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("million environment steps", fontsize=8)
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _smooth(values: np.ndarray) -> np.ndarray:
    """Trailing mean over up to `SMOOTHING` iterations, missing values left out."""
    return np.array([_mean(values[max(0, i - SMOOTHING + 1) : i + 1]) for i in range(len(values))])


def _mean(window: np.ndarray) -> float:
    finite = window[np.isfinite(window)]
    return float(finite.mean()) if len(finite) else float("nan")
