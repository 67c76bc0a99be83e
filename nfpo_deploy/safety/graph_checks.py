"""Checks of the programs around the robot: bridge, guards, estimator, policy, operator, and the watchdog itself."""

from __future__ import annotations

import math

from nfpo_deploy.safety.readings import NO_STATUS, OK, Context, Level, Reading, above, age, gaps, rate, warn_if
from nfpo_deploy.types import GatePhase, Mode

TRANSITION_SLACK = 1.0
"""s on top of a ramp's time limit: permits and reports take their way through two processes."""
INFERENCE_WARNING = 0.5
"""Part of the control period that the policy may spend on one command before it warns."""

# --- bridge ---


def bridge_age(c: Context) -> Reading:
    """Age of the bridge's report."""
    return age(c.seen.status_stream, "bridge status", c.spec.safety.bridge_status_timeout, c)


def gate(c: Context) -> Reading:
    """Whether the bridge's gate tripped."""
    status = c.seen.status
    if status is None:
        return NO_STATUS
    if status.tripped:
        return Reading(Level.ERROR, f"gate tripped: {status.reason}")
    return Reading(Level.OK, status.reason or status.phase.name)


def obedience(c: Context) -> Reading:
    """Whether the bridge does what is permitted, once permit and report have had their time to travel."""
    limit = c.spec.safety.permit_timeout + c.spec.safety.bridge_status_timeout
    if not c.disagreement:
        return Reading(Level.OK, "ok", 0.0, limit, "s")
    message = f"disobedient bridge: {c.disagreement} for {c.disagreement_age:.2f} s"
    level = Level.ERROR if c.disagreement_age > limit else Level.OK
    return Reading(level, message, c.disagreement_age, limit, "s")


def bridge_ending(c: Context) -> Reading:
    """Whether the bridge was asked to end: it sits the robot down by itself, and the mode follows."""
    status = c.seen.status
    if status is None:
        return NO_STATUS
    return Reading(Level.ERROR, "the bridge is ending") if status.stopping else OK


def transition(c: Context) -> Reading:
    """A ramp that never reports its end."""
    safety = c.spec.safety
    durations = {Mode.STAND: safety.stand_duration + safety.pose_timeout, Mode.SIT: safety.sit_duration}
    if c.mode is Mode.READY and c.seen.status is not None and c.seen.status.phase is GatePhase.RAMPING:
        durations[Mode.READY] = safety.settle_duration
    if c.mode not in durations:
        return OK
    # The gate counts cycles, at most two periods each, so a slow loop stretches the ramp.
    limit = durations[c.mode] / safety.rate_stop + TRANSITION_SLACK
    return above(c.mode_age, limit, f"{c.mode.name} unfinished after", "s")


def permit_delivery(c: Context) -> Reading:
    """Whether permits reach the bridge in time; the gate itself reacts when they do not."""
    if c.seen.status is None:
        return NO_STATUS
    seconds, limit = c.seen.status.permit_age, c.spec.safety.permit_timeout
    return Reading(warn_if(not seconds <= limit), f"permit {seconds:.3g} s old at the bridge", seconds, limit, "s")


def bridge_rate(c: Context) -> Reading:
    """The bridge's loop, as it measures itself."""
    status = c.seen.status
    measured = status.loop_rate if status is not None and status.loop_rate > 0.0 else None
    return rate(measured, c.bridge_rate, "bridge loop", c)


def loop_jitter(c: Context) -> Reading:
    """The bridge's own jitter: 99th percentile of |period - nominal|."""
    limit = c.spec.safety.loop_jitter_warning
    if c.seen.status is None or math.isnan(c.seen.status.loop_jitter_p99_ms):
        return Reading(Level.OK, "bridge jitter not known yet", math.nan, limit, "s")
    jitter = c.seen.status.loop_jitter_p99_ms * 1e-3
    message = f"99 % of the bridge's periods within {jitter * 1e3:.2f} ms"
    return Reading(warn_if(jitter > limit), message, jitter, limit, "s")


def state_rate(c: Context) -> Reading:
    """Robot states that reach the bridge."""
    return rate(c.seen.lowstate_stream.rate(), c.bridge_rate, "robot states", c)


def overruns(c: Context) -> Reading:
    """Periods that the bridge missed within the last second."""
    count, limit = c.seen.overruns.last_second(), (1.0 - c.spec.safety.rate_warning) * c.bridge_rate
    return Reading(warn_if(count > limit), f"{count} periods missed in the last second", count, limit, "1/s")


def wire_errors(c: Context) -> Reading:
    """Robot states lost or with a wrong checksum within the last second."""
    count, limit = c.seen.wire_errors.last_second(), (1.0 - c.spec.safety.rate_warning) * c.bridge_rate
    return Reading(warn_if(count > limit), f"{count} states lost or corrupt in the last second", count, limit, "1/s")


# --- who else is on the wire ---


def guards(c: Context) -> Reading:
    """Guard processes that would damp the robot in a dead bridge's place."""
    status = c.seen.status
    if status is None:
        return NO_STATUS
    alive, expected = status.guards_alive, status.guards_expected
    message = f"{alive} of {expected} guards alive"
    level = Level.OK if alive >= expected else Level.WARN if alive > 0 else Level.ERROR
    return Reading(level, message, alive, expected)


def guard_active(c: Context) -> Reading:
    """A guard that damps although the bridge lives: two programs command the motors."""
    status = c.seen.status
    if status is None:
        return NO_STATUS
    return Reading(Level.ERROR, "a guard damps the robot in the bridge's place") if status.guard_active else OK


def foreign_lowcmd(c: Context) -> Reading:
    """Motor commands of other programs within the last second."""
    if c.seen.status is None:
        return NO_STATUS
    count = c.seen.foreign_lowcmd.last_second()
    if count > 0:
        return Reading(Level.ERROR, f"{count} LowCmds of another program in the last second", count, 0.0, "1/s")
    return Reading(Level.OK, "ok", 0.0, 0.0, "1/s")


def network(c: Context) -> Reading:
    """What the bridge finds wrong on the robot's network."""
    if c.seen.status is None:
        return NO_STATUS
    problem = c.seen.status.network_problem
    return Reading(Level.ERROR, problem) if problem else OK


def clearance(c: Context) -> Reading:
    """Whether the policy may run on this robot."""
    status = c.seen.status
    if status is None:
        return NO_STATUS
    if status.clearance_problem:
        return Reading(Level.ERROR, status.clearance_problem)
    return Reading(Level.WARN, f"overridden: {status.clearance_override}") if status.clearance_override else OK


# --- estimator and policy ---


def estimate_age(c: Context) -> Reading:
    """Age of the state estimate."""
    return age(c.seen.estimate_stream, "state estimate", c.spec.safety.estimate_timeout, c)


def estimate_values(c: Context) -> Reading:
    """Finiteness of the estimate and how sure the filter is of the base velocity."""
    if c.seen.estimate_problem:
        return Reading(Level.ERROR, f"state estimate: {c.seen.estimate_problem}")
    if c.seen.estimate is None:
        return Reading(Level.STALE, "no state estimate received yet")
    limit = c.spec.safety.estimate_std
    return above(float(c.seen.estimate.lin_vel_std.max()), limit, "velocity std", "m/s", 0.5 * limit)


def estimate_jitter(c: Context) -> Reading:
    """Gaps between the estimates that the watchdog sees: one at each tick at most."""
    return gaps(c.seen.estimate_stream, "estimates", c.spec.safety.estimate_timeout)


def command_age(c: Context) -> Reading:
    """Age of the policy's joint command."""
    return age(c.seen.command_stream, "joint command", c.spec.safety.command_timeout, c)


def command_values(c: Context) -> Reading:
    """Shape and finiteness of the joint command."""
    problem = c.seen.command_problem
    return Reading(Level.ERROR, f"joint command: {problem}") if problem else OK


def command_jitter(c: Context) -> Reading:
    """Gaps between the joint commands."""
    return gaps(c.seen.command_stream, "joint commands", c.spec.safety.command_timeout)


def command_rate(c: Context) -> Reading:
    """Joint commands, by their sequence numbers."""
    return rate(c.seen.command_stream.rate(), c.control_rate, "joint commands", c)


def inference(c: Context) -> Reading:
    """Time that the policy took for its newest command."""
    seconds, limit = c.seen.inference_ms * 1e-3, INFERENCE_WARNING / c.control_rate
    return Reading(warn_if(not seconds <= limit), f"inference took {seconds * 1e3:.1f} ms", seconds, limit, "s")


def observation(c: Context) -> Reading:
    """For how long the policy has seen what it was not trained on."""
    return _outside_training(c, c.seen.observation_bad_since, "observation", c.spec.safety.observation_timeout)


def policy_output(c: Context) -> Reading:
    """For how long the policy has answered what it never did in training."""
    return _outside_training(c, c.seen.output_bad_since, "policy output", c.spec.safety.output_timeout)


def _outside_training(c: Context, since: int | None, what: str, limit: float) -> Reading:
    if since is None:
        return Reading(Level.OK, "inside the training range", 0.0, limit, "s")
    return above((c.now_ns - since) * 1e-9, limit, f"{what} outside training for", "s", 0.0)


# --- operator ---


def operator(c: Context) -> Reading:
    """Age of the operator's velocity command, at most the time since walking began."""
    safety, seconds = c.spec.safety, c.seen.operator_stream.age(c.now_ns)
    if c.mode is Mode.WALK:
        seconds = min(seconds, c.mode_age)
    elif math.isinf(seconds):
        return Reading(Level.OK, "no velocity command received yet", seconds, safety.operator_abandon, "s")
    elif seconds > safety.operator_timeout:
        return Reading(Level.OK, "no velocity command, not walking", seconds, safety.operator_abandon, "s")
    return above(seconds, safety.operator_abandon, "no velocity command for", "s", safety.operator_timeout)


def operator_gone(c: Context) -> Reading:
    """An operator who walked the robot and left it standing; who never drove is not missed."""
    limit = c.spec.safety.operator_sit
    if c.mode is not Mode.READY or not c.operator_drove:
        return Reading(Level.OK, "ok", math.nan, limit, "s")
    return above(c.seen.operator_stream.age(c.now_ns), limit, "no velocity command for", "s")


# --- the watchdog itself ---


def watchdog_rate(c: Context) -> Reading:
    """The watchdog's own ticks: a permit that it does not send in time is missed by the gate."""
    return gaps(c.seen.tick_stream, "permits", c.spec.safety.permit_timeout)
