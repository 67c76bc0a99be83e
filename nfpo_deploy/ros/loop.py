"""Loops on absolute time, and what is known of their regularity."""

from __future__ import annotations

import math
import os
import time

import numpy as np

NS = 1_000_000_000


class Samples:
    """Newest `size` numbers, with percentiles that are computed only when asked for."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def clear(self) -> None:
        self._count = 0

    def array(self) -> np.ndarray:
        """(n,) copy of the values, in no particular order."""
        return self._values[: min(self._count, len(self._values))].copy()

    def percentile(self, percent: float) -> float:
        """Percentile of the values, NaN while there is none."""
        values = self.array()
        return float(np.percentile(values, percent)) if len(values) else math.nan


class RateLoop:
    """Wakes at `start + k / rate_hz`: lateness of one period never shifts the next.

    A loop that misses whole periods skips them rather than running a burst to catch up, and counts them.
    """

    def __init__(self, rate_hz: float) -> None:
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f"rate_hz must be a finite number above zero, got {rate_hz}")
        self.rate_hz = rate_hz
        self.period_ns = round(NS / rate_hz)
        self.overruns = 0
        self._periods = Samples(max(2, round(rate_hz)))
        self.reset()

    def reset(self) -> None:
        """Start a new grid of wake-up times at this moment."""
        self._deadline = time.monotonic_ns()
        self._last = 0
        self._periods.clear()

    def wait(self) -> int:
        """Sleep until the next wake-up time; returns CLOCK_MONOTONIC in ns."""
        self._deadline += self.period_ns
        now = time.monotonic_ns()
        missed = (now - self._deadline) // self.period_ns
        if missed > 0:
            self.overruns += missed
            self._deadline += missed * self.period_ns
        if now < self._deadline:
            time.sleep((self._deadline - now) / NS)
            now = time.monotonic_ns()
        else:
            # Under real-time scheduling the threads that bring our messages would wait until we sleep.
            os.sched_yield()
        if self._last:
            self._periods.add(now - self._last)
        self._last = now
        return now

    def statistics(self) -> tuple[float, float]:
        """Rate in Hz over the last second and the 99th percentile of |period - nominal| in ms, NaN before."""
        periods = self._periods.array()
        if not len(periods):
            return math.nan, math.nan
        jitter = np.percentile(np.abs(periods - self.period_ns), 99) * 1e-6
        return float(NS / periods.mean()), float(jitter)
