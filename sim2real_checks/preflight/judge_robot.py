"""What LowStates say of the robot: which one, battery, motors, IMU and joints; pure functions of what was heard."""

from __future__ import annotations

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.preflight.finding import Finding, Result
from sim2real_checks.preflight.listen import Heard, States

CHECKS = ("identity", "battery", "motor temperatures", "accelerometer", "gyroscope", "orientation", "joint positions",
          "joints at rest")  # fmt: skip
GRAVITY = 9.81
GRAVITY_TOLERANCE = 0.05
LEVEL = 0.2
"""rad; a robot that lies on flat ground or hangs in a frame is flatter than this."""
AGREEMENT_WARN, AGREEMENT_FAIL = 0.05, 0.15
"""rad between the gravity of the accelerometer and that of the quaternion."""
BIAS_WARN, BIAS_FAIL = 0.02, 0.1
"""rad/s. A heading drifts by one degree a second at the first; the second tilts the estimate within seconds."""
NOISE_WARN = 0.05
"""rad/s, standard deviation."""
MOVING = 0.1
"""rad/s: mean joint speed, by encoders, of a robot that is not at rest."""
SWAY = 0.02
"""rad, standard deviation of a joint angle at rest."""
UNIT = 0.01
REPORTED_V = 1.0
"""V; below it the voltage is not reported."""


def judge_robot(heard: Heard, spec: RobotSpec) -> list[Finding]:
    """All findings of a robot that was heard."""
    states = heard.states
    resting = at_rest(states)
    return [
        judge_identity(heard, spec),
        judge_battery(states, spec),
        judge_temperatures(states, spec),
        judge_accelerometer(states, spec, resting),
        judge_gyroscope(states, resting),
        judge_orientation(states, resting),
        judge_positions(states, spec),
        judge_rest(states, spec),
    ]


def at_rest(states: States) -> bool:
    """Whether no joint moved."""
    return bool(_speeds(states).max() <= MOVING and states.q.std(axis=0).max() <= SWAY)


def judge_identity(heard: Heard, spec: RobotSpec) -> Finding:
    """Unused motor slots, voltage, mode_machine, and whether two send."""
    if heard.identity_problem:
        said, _, remedy = heard.identity_problem.partition("; ")
        return Finding("identity", Result.FAIL, said, remedy or "name the robot that is on this interface")
    slots = spec.num_motor_slots - spec.num_joints
    machine = f"mode_machine {int(heard.states.mode_machine[-1])}" if any(spec.mode_machines) else "no mode_machine"
    return Finding("identity", Result.PASS, f"a {spec.name}: {slots} unused motor slots off, one sender, {machine}")


def judge_battery(states: States, spec: RobotSpec) -> Finding:
    """State of charge and voltage."""
    soc, volts = float(np.median(states.battery_soc)), float(np.median(states.voltage))
    reported = np.isfinite(volts) and volts > REPORTED_V
    values = {"soc": soc, "voltage": volts if reported else None}
    measured = f"{soc:.0f} %, " + (f"{volts:.1f} V" if reported else "voltage not reported")
    limits, (low, high) = spec.safety, spec.voltage_range
    if not np.isfinite(soc):
        remedy = "LowState of this family carries no battery: look at the robot's app, or at the lights of the battery"
        return Finding("battery", Result.WARN, "not reported", remedy)
    if reported and not low <= volts <= high:
        return Finding(
            "battery", Result.FAIL, measured, f"expected {low} to {high} V: another robot or battery", values
        )
    if soc < limits.battery_soc:
        remedy = f"charge it: below {limits.battery_soc:.0f} % the robot sits down"
        return Finding("battery", Result.FAIL, measured, remedy, values)
    if soc < limits.battery_soc_warning:
        return Finding("battery", Result.WARN, measured, "charge it before a longer test", values)
    return Finding("battery", Result.PASS, measured, values=values)


def judge_temperatures(states: States, spec: RobotSpec) -> Finding:
    """The hottest motor."""
    hottest = np.median(states.temperature, axis=0)
    i = int(np.argmax(hottest))
    measured = f"at most {hottest[i]:.0f} °C ({spec.joint_names[i]})"
    values = dict(zip(spec.joint_names, hottest.tolist(), strict=True))
    limits = spec.safety
    if hottest[i] >= limits.motor_temperature:
        remedy = f"let it cool: at {limits.motor_temperature:.0f} °C the robot stops"
        return Finding("motor temperatures", Result.FAIL, measured, remedy, values)
    if hottest[i] >= limits.motor_temperature_warning:
        return Finding("motor temperatures", Result.WARN, measured, "let it cool before a longer test", values)
    return Finding("motor temperatures", Result.PASS, measured, values=values)


def judge_accelerometer(states: States, spec: RobotSpec, resting: bool) -> Finding:
    """Norm and level of the measured gravity."""
    mean = states.accel_b.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    tilt = float(np.arccos(np.clip(mean[2] / max(norm, 1e-9), -1.0, 1.0)))
    measured = f"{norm:.2f} m/s², {np.degrees(tilt):.1f}° from level"
    values = {"norm": norm, "tilt": tilt, "mean": mean.tolist(), "noise": states.accel_b.std(axis=0).tolist()}
    if abs(norm / GRAVITY - 1.0) > GRAVITY_TOLERANCE:
        result = Result.FAIL if resting else Result.WARN
        remedy = f"expected {GRAVITY} m/s² within {GRAVITY_TOLERANCE:.0%}: let the robot rest; if it does, restart it"
        return Finding("accelerometer", result, measured, remedy, values)
    if tilt > spec.safety.tilt:
        remedy = "put it upright or on its belly; if it is, the IMU is mounted or reported otherwise"
        return Finding("accelerometer", Result.FAIL, measured, remedy, values)
    if tilt > LEVEL:
        return Finding("accelerometer", Result.WARN, measured, "put it on level ground, feet free", values)
    return Finding("accelerometer", Result.PASS, measured, values=values)


def judge_gyroscope(states: States, resting: bool) -> Finding:
    """Bias, which is the mean at rest, and noise."""
    mean, noise = states.gyro_b.mean(axis=0), states.gyro_b.std(axis=0)
    worst = float(np.abs(mean).max())
    measured = f"bias {worst:.4f} rad/s, noise {noise.max():.4f} rad/s"
    values = {"mean": mean.tolist(), "noise": noise.tolist(), "at_rest": resting}
    if not resting:
        return Finding(
            "gyroscope", Result.WARN, f"{measured}, joints moving", "let the robot rest and run this again", values
        )
    if not np.ptp(states.gyro_b, axis=0).any() and not np.ptp(states.accel_b, axis=0).any():
        remedy = "an IMU has noise: it hangs; restart the robot"
        return Finding("gyroscope", Result.WARN, f"{measured}: the IMU repeats one value", remedy, values)
    if worst > BIAS_FAIL or worst > BIAS_WARN:
        result = Result.FAIL if worst > BIAS_FAIL else Result.WARN
        remedy = "is it swinging or carried? If it rests, restart it and let it lie still while it boots"
        return Finding("gyroscope", result, measured, remedy, values)
    if noise.max() > NOISE_WARN:
        return Finding("gyroscope", Result.WARN, measured, "something shakes the robot, or the IMU is loose", values)
    return Finding("gyroscope", Result.PASS, measured, values=values)


def judge_orientation(states: States, resting: bool) -> Finding:
    """Norm of the quaternion, and its gravity against that of the accelerometer."""
    deviation = float(np.abs(np.linalg.norm(states.quat_wxyz, axis=1) - 1.0).max())
    expected, mean = up_in_base(states.quat_wxyz).mean(axis=0), states.accel_b.mean(axis=0)
    product = float(np.linalg.norm(expected) * np.linalg.norm(mean))
    angle = float(np.arccos(np.clip(expected @ mean / max(product, 1e-9), -1.0, 1.0)))
    measured = f"{np.degrees(angle):.1f}° between quaternion and gravity, norm 1 within {deviation:.4f}"
    values = {"angle": angle, "norm_deviation": deviation}
    if deviation > UNIT:
        return Finding(
            "orientation", Result.FAIL, measured, "the IMU has no orientation yet: wait, then restart", values
        )
    if angle > AGREEMENT_WARN:
        result = Result.FAIL if angle > AGREEMENT_FAIL and resting else Result.WARN
        remedy = "let it rest for a minute; then restart it on level ground. It would balance against a wrong horizon"
        return Finding("orientation", result, measured, remedy, values)
    return Finding("orientation", Result.PASS, measured, values=values)


def up_in_base(quat_wxyz: np.ndarray) -> np.ndarray:
    """(S, 3) the world's upward axis in base_link, of (S, 4) unit quaternions: third row of the rotation matrix."""
    w, x, y, z = quat_wxyz.T
    return np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)


def judge_positions(states: States, spec: RobotSpec) -> Finding:
    """Joint angles within the limits of the spec and the margin of its safety layer."""
    q = np.median(states.q, axis=0)
    margin = np.minimum(q - spec.position_lower, spec.position_upper - q)
    i = int(np.argmin(margin))
    values = dict(zip(spec.joint_names, q.tolist(), strict=True))
    if margin[i] < -spec.safety.joint_position_margin:
        measured = (
            f"{spec.joint_names[i]} at {q[i]:.3f} rad, outside [{spec.position_lower[i]}, {spec.position_upper[i]}]"
        )
        remedy = "move the leg by hand and look again; if the number is wrong, the encoder or the joint order is"
        return Finding("joint positions", Result.FAIL, measured, remedy, values)
    measured = f"all within limits, closest {spec.joint_names[i]} by {margin[i]:.3f} rad"
    return Finding("joint positions", Result.PASS, measured, values=values)


def judge_rest(states: States, spec: RobotSpec) -> Finding:
    """Whether the joints stood still."""
    speeds, sway = _speeds(states), states.q.std(axis=0)
    i = int(np.argmax(np.maximum(speeds / MOVING, sway / SWAY)))
    measured = f"at most {speeds.max():.3f} rad/s, sway {sway.max():.4f} rad"
    values = {"speed": speeds.tolist(), "sway": sway.tolist()}
    if at_rest(states):
        return Finding("joints at rest", Result.PASS, measured, values=values)
    remedy = "let the robot hang or lie still and keep hands off; if nobody moves it, another program does"
    return Finding("joints at rest", Result.WARN, f"{spec.joint_names[i]} moves: {measured}", remedy, values)


def _speeds(states: States) -> np.ndarray:
    """(N,) |mean joint speed|, rad/s: noise averages out."""
    return np.abs(states.dq.mean(axis=0))
