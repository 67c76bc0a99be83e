"""Progress of a training run on the terminal: a live bar, or plain lines when the output is not a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from nfpo_train.config import TrainConfig

LINE_INTERVAL_S = 30.0


class Progress:
    """Context manager that shows iteration, time left and the numbers that tell whether a robot learns to walk."""

    def __init__(self, cfg: TrainConfig, done: int) -> None:
        self.cfg, self.total, self.first = cfg, cfg.iterations, done
        self.start = time.monotonic()
        self.last_line = 0.0
        self.live = sys.stdout.isatty()
        self.bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"), disable=not self.live,
        )  # fmt: skip
        self.task = self.bar.add_task(f"{cfg.task} ({cfg.policy})", total=self.total, completed=done, numbers="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def update(self, iteration: int, metrics: dict[str, float]) -> None:
        """Show the state after `iteration` iterations."""
        numbers = (
            f"return {metrics.get('Episode/return', float('nan')):.2f}  "
            f"episode {metrics.get('Episode/length_s', float('nan')):.1f} s  "
            f"err {metrics['Tracking/planar_error']:.3f} m/s  "
            f"yaw err {metrics['Tracking/wz_error']:.3f} rad/s  "
            f"{metrics['Perf/steps_per_s']:.0f} steps/s"
        )
        self.bar.update(self.task, completed=iteration, numbers=numbers)
        now = time.monotonic()
        if not self.live and (now - self.last_line > LINE_INTERVAL_S or iteration == self.total):
            self.last_line = now
            rate = (now - self.start) / max(1, iteration - self.first)
            left = rate * (self.total - iteration)
            print(f"[{iteration}/{self.total}] {left / 60:.0f} min left  {numbers}", flush=True)
