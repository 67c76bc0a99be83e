"""What was wrong with a soak: growing memory, drifting rates, missed permits, trips, falls. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robots.loader import RobotSpec

WARM_UP = 0.2
"""Part of the run, at its beginning, in which memory and rates may settle; at most `WARM_UP_S`."""
WARM_UP_S = 600.0
BLOCKS = 12
"""A slope is that of the means of so many blocks of the run: neighbouring samples know the same."""
STUDENT_10 = 2.228
"""97.5 % quantile of Student's t with `BLOCKS` - 2 degrees of freedom."""
GROWTH_MIB = 2.0
"""Memory that a process may gain after the warm-up, MiB; more, with certainty, is a leak."""
RATE_TOLERANCE = 0.02
"""Relative deviation of a mean rate from its nominal value, and its drift over the run."""
MISSED_PERMIT = 0.5
"""Part of `permit_timeout`: a permit that is so late has been missed several times in a row."""
FOLLOWS_S = 0.3
"""A trip so soon after a core stood still for `HALT_S` is its consequence: no program of that core could have met its
deadlines."""
HALT_S = 0.015
EXPLAINED_PER_HOUR = 6.0
"""A computer whose cores stand still more often proves nothing."""
FALLEN = 0.5
"""Part of the standing height."""


@dataclass(frozen=True)
class Trend:
    """A straight line through a series after its warm-up."""

    mean: float
    slope: float
    """Per hour."""
    low: float
    high: float
    """95 % confidence interval of the slope."""
    change: float
    """By the slope, over the part of the run that was looked at."""

    @property
    def certain_change(self) -> float:
        """The part of the change that is certain: zero when the interval of the slope contains zero."""
        if self.low <= 0.0 <= self.high:
            return 0.0
        nearest = self.low if self.low > 0.0 else self.high
        return self.change * nearest / self.slope


def trend_of(seconds: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Trend of a series, None where it is too short.

    Args:
        seconds: times from the beginning of the run.
        values: at these times; NaN are left out.
    """
    time, value = np.asarray(seconds, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = np.isfinite(value)
    time, value = time[known], value[known]
    if len(time) < 2:
        return None
    warm = time >= time[0] + min(WARM_UP_S, WARM_UP * (time[-1] - time[0]))
    time, value = time[warm], value[warm]
    if len(time) < 2 * BLOCKS:
        return None
    t = np.array([part.mean() for part in np.array_split(time, BLOCKS)]) / 3600.0
    v = np.array([part.mean() for part in np.array_split(value, BLOCKS)])
    centred = t - t.mean()
    slope = float(centred @ v / (centred @ centred))
    residual = v - v.mean() - slope * centred
    error = STUDENT_10 * math.sqrt(float(residual @ residual) / (BLOCKS - 2) / float(centred @ centred))
    span = float(time[-1] - time[0]) / 3600.0
    return Trend(float(value.mean()), slope, slope - error, slope + error, slope * span)


def longest_halt(halts: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Longest time, s, that a core stood still of all halts (from, to; s) that touch a span of time."""
    return max((b - a for a, b in halts if a < end and b > start), default=0.0)


def memory_problems(trends: Mapping[str, Trend | None]) -> list[str]:
    """Processes whose resident memory (MiB) grows.

    Args:
        trends: by process.
    """
    return [
        f"memory of {name} grew by {trend.change:.1f} MiB after the warm-up, {trend.slope:.1f} MiB/h "
        f"(95 %: {trend.low:.1f} to {trend.high:.1f})"
        for name, trend in trends.items()
        if trend is not None and trend.certain_change > GROWTH_MIB
    ]


def rate_problems(name: str, nominal: float, trend: Trend | None) -> list[str]:
    """A rate (Hz) that is not what it should be, or drifts away from it."""
    if trend is None:
        return [f"{name}: too few samples of its rate"]
    problems = []
    if abs(trend.mean - nominal) > RATE_TOLERANCE * nominal:
        problems.append(f"{name} ran at {trend.mean:.1f} Hz in the mean, nominal {nominal:g}")
    if abs(trend.certain_change) > RATE_TOLERANCE * nominal:
        problems.append(f"{name} drifted by {trend.change:+.2f} Hz over the run")
    return problems


def permit_problems(gaps: Sequence[float], ages: Sequence[float], spec: RobotSpec) -> list[str]:
    """Permits that were missed.

    Args:
        gaps: longest time between two permits in each sample, s, by the watchdog's own stamps.
        ages: oldest permit that the bridge had in each sample, s.
        spec: the robot.
    """
    limit = MISSED_PERMIT * spec.safety.permit_timeout
    problems = []
    for what, values in (("no permit was sent", gaps), ("the bridge had no new permit", ages)):
        late = [value for value in values if value > limit]
        if late:
            problems.append(f"{what} for {max(late) * 1e3:.0f} ms (more than {limit * 1e3:.0f} ms {len(late)} times)")
    return problems


def wire_problems(gaps_ms: Sequence[float], spec: RobotSpec) -> list[str]:
    """Pauses of the LowCmd stream (ms) that the gate would call a stall."""
    limit = spec.safety.cycle_timeout * 1e3
    late = [gap for gap in gaps_ms if gap > limit]
    return [f"no LowCmd for {max(late):.0f} ms (more than {limit:.0f} ms {len(late)} times)"] if late else []


def count_falls(heights: Sequence[float], tilts: Sequence[float], spec: RobotSpec) -> int:
    """How often the robot went down, by the lowest trunk (m) and the largest tilt (rad) of each sample."""
    down = [
        height < FALLEN * spec.base_height or tilt > spec.safety.tilt
        for height, tilt in zip(heights, tilts, strict=True)
    ]
    return sum(now and not before for before, now in zip([False, *down], down, strict=False))
