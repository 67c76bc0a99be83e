"""Checks of the robot itself: posture, joints, temperatures, battery, and its remote."""

from __future__ import annotations

import math

import numpy as np

from nfpo_deploy.command.remote import ESTOP_BUTTONS
from nfpo_deploy.safety.readings import NO_STATE, OK, Context, Level, Reading, above, age, gaps, joints, warn_if

TILT_WARNING = 0.7
"""Part of the permitted tilt from which it warns."""


def state_age(c: Context) -> Reading:
    """Age of the newest robot state with a new tick."""
    return age(c.seen.state_stream, "robot state", c.spec.safety.state_timeout, c)


def state_values(c: Context) -> Reading:
    """Shape and finiteness of the robot state."""
    problem = c.seen.state_problem
    return Reading(Level.ERROR, f"robot state: {problem}") if problem else OK


def state_jitter(c: Context) -> Reading:
    """Gaps between the states that the watchdog sees: one at each tick at most."""
    return gaps(c.seen.state_stream, "robot states", c.spec.safety.state_timeout)


def remote_estop(c: Context) -> Reading:
    """The emergency-stop buttons of the robot's own remote: held now, or in any state since the last tick."""
    buttons = "+".join(sorted(ESTOP_BUTTONS, reverse=True))
    if c.seen.remote_held or c.seen.remote_pressed:
        return Reading(Level.ERROR, f"{buttons} held on the remote")
    return OK


def tilt(c: Context) -> Reading:
    """Angle of the trunk against gravity."""
    if c.seen.state is None:
        return NO_STATE
    limit = c.spec.safety.tilt
    return above(c.seen.tilt, limit, "tilt", "rad", TILT_WARNING * limit)


def height(c: Context) -> Reading:
    """Trunk above its lowest foot: a robot on its belly, or on its back, has collapsed whatever its tilt."""
    if c.seen.state is None:
        return NO_STATE
    safety, value = c.spec.safety, c.seen.height
    lasted = float(c.seen.too_low.seconds[0])
    text = f"trunk {value:.3f} m above its lowest foot"
    if lasted < 0.0:
        return Reading(Level.OK, text, value, safety.height, "m")
    message = f"{text}, below {safety.height:g} for {lasted:.2f} s"
    level = Level.ERROR if lasted > safety.height_duration else Level.WARN
    return Reading(level, message, value, safety.height, "m")


def joint_position(c: Context) -> Reading:
    """Measured joint positions against the joint limits with margin."""
    values = None if c.seen.state is None else c.seen.state.q
    limit = c.spec.safety.joint_trip_duration
    return joints(c, c.seen.over_position.seconds, values, limit, "position, rad,")


def joint_velocity(c: Context) -> Reading:
    """Measured joint speeds."""
    values = None if c.seen.state is None else c.seen.state.dq
    limit = c.spec.safety.joint_trip_duration
    return joints(c, c.seen.over_speed.seconds, values, limit, "speed, rad/s,")


def joint_torque(c: Context) -> Reading:
    """Estimated joint torques at their limit."""
    values = None if c.seen.state is None else c.seen.state.tau_est
    limit = c.spec.safety.torque_duration
    return joints(c, c.seen.over_torque.seconds, values, limit, "torque, N·m,")


def motor_temperature(c: Context) -> Reading:
    """Hottest motor."""
    if c.seen.state is None:
        return NO_STATE
    worst = int(np.argmax(c.seen.state.temperature))
    safety, value = c.spec.safety, float(c.seen.state.temperature[worst])
    what = f"temperature of {c.spec.joint_names[worst]}"
    return above(value, safety.motor_temperature, what, "°C", safety.motor_temperature_warning)


def battery(c: Context) -> Reading:
    """Charge, where the robot reports it."""
    if c.seen.state is None:
        return NO_STATE
    soc, safety = float(c.seen.state.battery_soc), c.spec.safety
    if math.isnan(soc):
        return Reading(Level.OK, "not reported by this robot")
    level = Level.ERROR if soc < safety.battery_soc else warn_if(soc < safety.battery_soc_warning)
    return Reading(level, f"battery at {soc:.0f} %", soc, safety.battery_soc, "%")
