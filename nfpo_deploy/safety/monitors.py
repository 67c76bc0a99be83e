"""The watchdog's monitors: one row each, with what it checks, when it matters and what follows.

A check looks at the observations and answers with a reading. The table at the end is the whole policy of reactions:
change it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np

from nfpo_deploy.safety.mode_machine import ACTIVE
from nfpo_deploy.safety.observations import Observations, Stream
from nfpo_deploy.types import Mode
from robots.loader import RobotSpec

# Slack of the ramps' time limits: permits and reports take their way through two processes.
TRANSITION_SLACK = 1.0


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


class Reaction(Enum):
    """What an ERROR or STALE reading leads to in the modes where the monitor is enforced."""

    WARN = "warn"
    STOP_AND_STAND = "stop and stand"
    STOP_AND_SIT = "stop and sit"
    FAULT = "fault"


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
    """s between two ticks of the watchdog: by so much its ages are too large."""
    bridge_rate: float
    control_rate: float
    """Nominal rates, Hz."""


@dataclass(frozen=True)
class Reading:
    """What a check found: `seen` against `threshold`, in `unit`."""

    level: Level
    message: str = "ok"
    seen: float = math.nan
    threshold: float = math.nan
    unit: str = ""


Check = Callable[[Context], Reading]


@dataclass(frozen=True)
class Monitor:
    """One row: a name, a check, the reaction, the modes that enforce it, and what needs it to be well."""

    name: str
    check: Check
    reaction: Reaction
    enforced: frozenset[Mode] = field(default_factory=frozenset)
    needed_for: frozenset[str] = field(default_factory=frozenset)
    """"arm" and "walk": that request is refused while the reading is ERROR or STALE."""


def _age(stream: Stream, what: str, timeout: float, context: Context) -> Reading:
    age, limit = stream.age(context.now_ns), timeout + context.tick_period
    if math.isinf(age):
        return Reading(Level.STALE, f"no {what} received yet", age, limit, "s")
    if age > limit:
        return Reading(Level.STALE, f"{what} stale for {age * 1e3:.0f} ms", age, limit, "s")
    return Reading(Level.OK, f"gaps up to {stream.longest_gap() * 1e3:.0f} ms", age, limit, "s")


def _above(value: float, limit: float, what: str, unit: str, warning: float = math.inf) -> Reading:
    text = f"{what} {value:.3g} {unit}"
    if not value <= limit:
        return Reading(Level.ERROR, f"{text} exceeds {limit:g}", value, limit, unit)
    return Reading(Level.WARN if value >= warning else Level.OK, text, value, limit, unit)


def _rate(rate: float | None, nominal: float, what: str, context: Context) -> Reading:
    safety = context.spec.safety
    stop, warn = safety.rate_stop * nominal, safety.rate_warning * nominal
    if rate is None:
        return Reading(Level.OK, f"{what} rate not known yet", math.nan, stop, "Hz")
    level = Level.ERROR if rate < stop else Level.WARN if rate < warn else Level.OK
    return Reading(level, f"{what} at {rate:.0f} of {nominal:.0f} Hz", rate, stop, "Hz")


def state_age(c: Context) -> Reading:
    """Age of the newest robot state with a new tick."""
    return _age(c.seen.state_stream, "robot state", c.spec.safety.state_timeout, c)


def state_values(c: Context) -> Reading:
    """Shape and finiteness of the robot state."""
    problem = c.seen.state_problem
    return Reading(Level.ERROR, f"robot state: {problem}") if problem else Reading(Level.OK)


def bridge_age(c: Context) -> Reading:
    """Age of the bridge's report."""
    return _age(c.seen.status_stream, "bridge status", c.spec.safety.bridge_status_timeout, c)


def gate(c: Context) -> Reading:
    """Whether the bridge's gate tripped."""
    status = c.seen.status
    if status is None:
        return Reading(Level.STALE, "no bridge status received yet")
    if status.tripped:
        return Reading(Level.ERROR, f"gate tripped: {status.reason}")
    return Reading(Level.OK, status.reason or status.phase.name)


def permit_delivery(c: Context) -> Reading:
    """Whether permits reach the bridge in time; the gate itself reacts when they do not."""
    if c.seen.status is None:
        return Reading(Level.STALE, "no bridge status received yet")
    age, limit = c.seen.status.permit_age, c.spec.safety.permit_timeout
    level = Level.OK if age <= limit else Level.WARN
    return Reading(level, f"permit {age:.3g} s old at the bridge", age, limit, "s")


def tilt(c: Context) -> Reading:
    """Angle of the trunk against gravity."""
    if c.seen.state is None:
        return Reading(Level.STALE, "no robot state received yet")
    limit = c.spec.safety.tilt
    return _above(c.seen.tilt, limit, "tilt", "rad", 0.7 * limit)


def _joints(c: Context, seconds: np.ndarray, values: np.ndarray | None, limit: float, what: str) -> Reading:
    """A joint condition that must not last longer than `limit` s; shorter breaks warn."""
    if values is None:
        return Reading(Level.STALE, "no robot state received yet")
    worst = int(seconds.argmax())
    lasted = float(seconds[worst])
    if lasted == 0.0:
        return Reading(Level.OK, "ok", 0.0, limit, "s")
    message = f"{c.spec.joint_names[worst]}: {what} {values[worst]:.2f} beyond its limit for {lasted:.2f} s"
    return Reading(Level.ERROR if lasted > limit else Level.WARN, message, lasted, limit, "s")


def joint_position(c: Context) -> Reading:
    """Measured joint positions against the joint limits with margin."""
    values = None if c.seen.state is None else c.seen.state.q
    limit = c.spec.safety.joint_trip_duration
    return _joints(c, c.seen.over_position.seconds, values, limit, "position, rad,")


def joint_velocity(c: Context) -> Reading:
    """Measured joint speeds."""
    values = None if c.seen.state is None else c.seen.state.dq
    limit = c.spec.safety.joint_trip_duration
    return _joints(c, c.seen.over_speed.seconds, values, limit, "speed, rad/s,")


def joint_torque(c: Context) -> Reading:
    """Estimated joint torques at their limit."""
    values = None if c.seen.state is None else c.seen.state.tau_est
    limit = c.spec.safety.torque_duration
    return _joints(c, c.seen.over_torque.seconds, values, limit, "torque, N·m,")


def motor_temperature(c: Context) -> Reading:
    """Hottest motor."""
    if c.seen.state is None:
        return Reading(Level.STALE, "no robot state received yet")
    worst = int(np.argmax(c.seen.state.temperature))
    safety, value = c.spec.safety, float(c.seen.state.temperature[worst])
    what = f"temperature of {c.spec.joint_names[worst]}"
    return _above(value, safety.motor_temperature, what, "°C", safety.motor_temperature_warning)


def battery(c: Context) -> Reading:
    """Charge, where the robot reports it."""
    if c.seen.state is None:
        return Reading(Level.STALE, "no robot state received yet")
    soc, safety = float(c.seen.state.battery_soc), c.spec.safety
    if math.isnan(soc):
        return Reading(Level.OK, "not reported by this robot")
    low, warning = soc < safety.battery_soc, soc < safety.battery_soc_warning
    level = Level.ERROR if low else Level.WARN if warning else Level.OK
    return Reading(level, f"battery at {soc:.0f} %", soc, safety.battery_soc, "%")


def estimate_age(c: Context) -> Reading:
    """Age of the state estimate."""
    return _age(c.seen.estimate_stream, "state estimate", c.spec.safety.estimate_timeout, c)


def estimate_values(c: Context) -> Reading:
    """Finiteness of the estimate and how sure the filter is of the base velocity."""
    if c.seen.estimate_problem:
        return Reading(Level.ERROR, f"state estimate: {c.seen.estimate_problem}")
    if c.seen.estimate is None:
        return Reading(Level.STALE, "no state estimate received yet")
    limit = c.spec.safety.estimate_std
    return _above(float(np.max(c.seen.estimate.lin_vel_std)), limit, "velocity std", "m/s", 0.5 * limit)


def command_age(c: Context) -> Reading:
    """Age of the policy's joint command."""
    return _age(c.seen.command_stream, "joint command", c.spec.safety.command_timeout, c)


def command_values(c: Context) -> Reading:
    """Shape and finiteness of the joint command."""
    problem = c.seen.command_problem
    return Reading(Level.ERROR, f"joint command: {problem}") if problem else Reading(Level.OK)


def observation(c: Context) -> Reading:
    """For how long the policy has seen what it was not trained on."""
    since, limit = c.seen.observation_bad_since, c.spec.safety.observation_timeout
    if since is None:
        return Reading(Level.OK, "inside the training range", 0.0, limit, "s")
    return _above((c.now_ns - since) * 1e-9, limit, "observation outside training for", "s", 0.0)


def operator(c: Context) -> Reading:
    """Age of the operator's velocity command, at most the time since walking began."""
    safety, age = c.spec.safety, c.seen.operator_stream.age(c.now_ns)
    if c.mode is Mode.WALK:
        age = min(age, c.mode_age)
    elif math.isinf(age):
        return Reading(Level.OK, "no velocity command received yet", age, safety.operator_abandon, "s")
    elif age > safety.operator_timeout:
        return Reading(Level.OK, "no velocity command, not walking", age, safety.operator_abandon, "s")
    return _above(age, safety.operator_abandon, "no velocity command for", "s", safety.operator_timeout)


def state_rate(c: Context) -> Reading:
    """Robot states that reach the bridge."""
    return _rate(c.seen.lowstate_stream.rate(), c.bridge_rate, "robot states", c)


def command_rate(c: Context) -> Reading:
    """Joint commands, by their sequence numbers."""
    return _rate(c.seen.command_stream.rate(), c.control_rate, "joint commands", c)


def bridge_rate(c: Context) -> Reading:
    """The bridge's loop, as it measures itself."""
    status = c.seen.status
    measured = status.loop_rate if status is not None and status.loop_rate > 0.0 else None
    return _rate(measured, c.bridge_rate, "bridge loop", c)


def watchdog_rate(c: Context) -> Reading:
    """The watchdog's own ticks: a permit that it does not send in time is missed by the gate."""
    gap, limit = c.seen.tick_stream.longest_gap(), c.spec.safety.permit_timeout
    level = Level.WARN if gap > limit else Level.OK
    return Reading(level, f"longest gap between permits {gap * 1e3:.0f} ms", gap, limit, "s")


def estimate_rate(c: Context) -> Reading:
    """Jitter of the state estimates; the watchdog sees no more of them than it has ticks."""
    gap, limit = c.seen.estimate_stream.longest_gap(), c.spec.safety.estimate_timeout
    level = Level.WARN if gap > limit else Level.OK
    return Reading(level, f"longest gap between estimates {gap * 1e3:.0f} ms", gap, limit, "s")


def overruns(c: Context) -> Reading:
    """Periods that the bridge missed within the last second."""
    count, limit = c.seen.overruns.last_second(), (1.0 - c.spec.safety.rate_warning) * c.bridge_rate
    level = Level.WARN if count > limit else Level.OK
    return Reading(level, f"{count} periods missed in the last second", count, limit, "1/s")


def wire_errors(c: Context) -> Reading:
    """Robot states lost or with a wrong checksum within the last second."""
    count, limit = c.seen.wire_errors.last_second(), (1.0 - c.spec.safety.rate_warning) * c.bridge_rate
    level = Level.WARN if count > limit else Level.OK
    return Reading(level, f"{count} states lost or corrupt in the last second", count, limit, "1/s")


def transition(c: Context) -> Reading:
    """A ramp that never reports its end."""
    safety = c.spec.safety
    durations = {Mode.STAND: safety.stand_duration + safety.pose_timeout, Mode.SIT: safety.sit_duration}
    if c.mode not in durations:
        return Reading(Level.OK)
    # The gate counts cycles, at most two periods each, so a slow loop stretches the ramp.
    limit = durations[c.mode] / safety.rate_stop + TRANSITION_SLACK
    return _above(c.mode_age, limit, f"{c.mode.name} unfinished after", "s")


_WALK = frozenset({Mode.WALK})
_UP = frozenset({Mode.READY, Mode.WALK, Mode.SIT})
_RAMPS = frozenset({Mode.STAND, Mode.SIT})
_ARM = frozenset({"arm", "walk"})
_TO_WALK = frozenset({"walk"})

# Order matters within a tick: the first fault that is found is named as the cause.
MONITORS = (
    Monitor("state_age", state_age, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("state_values", state_values, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("gate", gate, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("bridge_age", bridge_age, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("tilt", tilt, Reaction.FAULT, ACTIVE, _ARM),
    # Not enforced while standing up: folded legs rest on their stops, the gate knows where the ramp began.
    Monitor("joint_position", joint_position, Reaction.FAULT, _UP, _TO_WALK),
    Monitor("joint_velocity", joint_velocity, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("joint_torque", joint_torque, Reaction.FAULT, ACTIVE, _TO_WALK),
    Monitor("command_age", command_age, Reaction.FAULT, _WALK, _TO_WALK),
    Monitor("command_values", command_values, Reaction.FAULT, _WALK, _TO_WALK),
    Monitor("transition", transition, Reaction.FAULT, _RAMPS),
    Monitor("motor_temperature", motor_temperature, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("battery", battery, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("estimate_age", estimate_age, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("estimate_values", estimate_values, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("observation", observation, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("operator", operator, Reaction.STOP_AND_STAND, _WALK),
    Monitor("state_rate", state_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("command_rate", command_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("bridge_rate", bridge_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("estimate_rate", estimate_rate, Reaction.WARN),
    Monitor("watchdog_rate", watchdog_rate, Reaction.WARN),
    Monitor("permit_delivery", permit_delivery, Reaction.WARN),
    Monitor("overruns", overruns, Reaction.WARN),
    Monitor("wire_errors", wire_errors, Reaction.WARN),
)
