"""What a check of the watchdog may look at, what it answers, and the shapes that most checks share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nfpo_deploy.safety.observations import Observations, Stream
from nfpo_deploy.types import Mode
from robots.loader import RobotSpec

GAP_WARNING = 0.75
"""Part of a stream's timeout that a gap between two messages may take before it warns: a quarter is left."""


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Context:
    """What a check may look at."""

    spec: RobotSpec
    seen: Observations
    now_ns: int
    mode: Mode
    mode_age: float
    """s since the mode was entered."""
    tick_period: float
    """s between two ticks of the watchdog."""
    late: float
    """s by which this tick came late: what arrived meanwhile may not have been read yet, so no age counts it."""
    bridge_rate: float
    control_rate: float
    """Nominal rates, Hz."""
    operator_drove: bool
    """Whether a velocity command came while walking since the robot stood up."""
    disagreement: str
    """How the bridge's report contradicts the mode, in words; empty when it does not."""
    disagreement_age: float
    """s for which it has done so, at most the age of the mode."""


@dataclass(frozen=True)
class Reading:
    """What a check found: `seen` against `threshold`, in `unit`."""

    level: Level
    message: str = "ok"
    seen: float = math.nan
    threshold: float = math.nan
    unit: str = ""
    broken: bool = False
    """Whether the check itself failed with an exception."""


Check = Callable[[Context], Reading]

OK = Reading(Level.OK)
NO_STATE = Reading(Level.STALE, "no robot state received yet")
NO_STATUS = Reading(Level.STALE, "no bridge status received yet")


def age(stream: Stream, what: str, timeout: float, context: Context) -> Reading:
    """Age of a stream against its timeout, s, with one tick of slack for the way into this process."""
    seconds, limit = stream.age(context.now_ns), timeout + context.tick_period
    if math.isinf(seconds):
        return Reading(Level.STALE, f"no {what} received yet", seconds, limit, "s")
    seconds = max(0.0, seconds - context.late)
    if seconds > limit:
        return Reading(Level.STALE, f"{what} stale for {seconds * 1e3:.0f} ms", seconds, limit, "s")
    return Reading(Level.OK, "ok", seconds, limit, "s")


def gaps(stream: Stream, what: str, timeout: float) -> Reading:
    """Jitter of a stream: the longest time between two messages within the last second."""
    gap, limit = stream.longest_gap(), GAP_WARNING * timeout
    return Reading(warn_if(gap > limit), f"longest gap between {what} {gap * 1e3:.0f} ms", gap, limit, "s")


def above(value: float, limit: float, what: str, unit: str, warning: float = math.inf) -> Reading:
    """A value that must not exceed `limit`, and warns from `warning` on; NaN is an error."""
    text = f"{what} {value:.3g} {unit}"
    if not value <= limit:
        return Reading(Level.ERROR, f"{text} exceeds {limit:g}", value, limit, unit)
    return Reading(warn_if(value >= warning), text, value, limit, unit)


def rate(measured: float | None, nominal: float, what: str, context: Context) -> Reading:
    """A rate, Hz, against the parts of its nominal value that warn and stop."""
    safety = context.spec.safety
    stop, warn = safety.rate_stop * nominal, safety.rate_warning * nominal
    if measured is None:
        return Reading(Level.OK, f"{what} rate not known yet", math.nan, stop, "Hz")
    level = Level.ERROR if measured < stop else warn_if(measured < warn)
    return Reading(level, f"{what} at {measured:.0f} of {nominal:.0f} Hz", measured, stop, "Hz")


def joints(context: Context, seconds: np.ndarray, values: np.ndarray | None, limit: float, what: str) -> Reading:
    """A joint condition that must not last longer than `limit` s; shorter breaks warn."""
    if values is None:
        return NO_STATE
    worst = int(seconds.argmax())
    lasted = float(seconds[worst])
    if lasted < 0.0:
        return Reading(Level.OK, "ok", 0.0, limit, "s")
    message = f"{context.spec.joint_names[worst]}: {what} {values[worst]:.2f} beyond its limit for {lasted:.2f} s"
    return Reading(Level.ERROR if lasted > limit else Level.WARN, message, lasted, limit, "s")


def warn_if(condition: bool) -> Level:
    """WARN or OK."""
    return Level.WARN if condition else Level.OK
