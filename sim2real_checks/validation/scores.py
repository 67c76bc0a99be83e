"""Numbers from a trace: less is better in all but `survived`; NaN where one has no meaning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nfpo_deploy.observation.rotations import rotate_inverse
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from sim2real_checks.robot_sim.motors import HEATING
from sim2real_checks.validation.scenario import Scenario
from sim2real_checks.validation.stack import BRIDGE_HZ
from sim2real_checks.validation.trace import Trace
from sim2real_checks.validation.training_moments import training_distance

DT = 1.0 / BRIDGE_HZ
GRAVITY = 9.81
SETTLE_S = 1.0
"""After a change of the command or a disturbance, this long does not count as steady."""
CONTACT_N = 5.0
WINDOW_S = 0.4
"""Velocities are averaged over about one stride before errors are taken of what lasts."""
RISE = 0.9
CHATTER_HZ = 10.0
"""Changes of the action above this frequency are no gait: strides are at 2 to 4 Hz."""
UNITS = {
    "survived": "", "time_to_fall": "s", "planar_error": "m/s", "yaw_error": "rad/s", "steady_planar_error": "m/s",
    "steady_yaw_error": "rad/s", "rise_time": "s", "recovery_time": "s", "drift": "m", "slip": "m/s", "impact": "N",
    "tilt_rate": "rad/s", "bounce": "m/s", "tilt": "rad", "limit_margin": "rad", "torque_peak": "", "torque_rms": "",
    "speed_peak": "", "power_mean": "W", "power_peak": "W", "heat": "°C", "action_rate": "rad", "chatter": "",
    "cost_of_transport": "", "out_of_training": "", "training_distance": "", "limited": "", "estimator_error": "m/s",
}  # fmt: skip
"""Unit of each score; those without one are fractions: of the limit, of the time, of the power of a signal."""


def score(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    """All scores of a trace, by name as in `UNITS`.

    Args:
        trace: of a run; one in which the robot never walked has `survived` 0 and nothing else.
        scenario: that was run.
        policy: that walked, for its training range and its control rate.
    """
    scores = dict.fromkeys(UNITS, math.nan)
    rows = len(trace.columns["time"]) if trace.columns else 0
    scores["survived"] = float(not trace.ended)
    if trace.fell:
        scores["time_to_fall"] = rows * DT
    if rows < 2:
        return scores
    parts: tuple[Callable[..., dict[str, float]], ...] = (_tracking, _body, _feet, _joints, _actions, _software)
    for part in parts:
        scores.update(part(trace, scenario, policy))
    return scores


def body_velocity(trace: Trace) -> np.ndarray:
    """(T, 3) vx, vy in base_link's heading frame and yaw rate, averaged over a stride."""
    linear = rotate_inverse(trace.quat, trace.lin_vel)
    return smooth(np.column_stack([linear[:, :2], trace.ang_vel[:, 2]]), WINDOW_S)


def smooth(values: np.ndarray, seconds: float) -> np.ndarray:
    """Centred moving average over `seconds`; shorter at both ends."""
    half = max(1, round(0.5 * seconds / DT))
    total = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)[:, None]


def steady(trace: Trace, scenario: Scenario) -> np.ndarray:
    """(T,) bool: rows in which the command has been reached by the limiter and nothing has happened for a while."""
    ramping = np.abs(trace.given - trace.asked).max(axis=1) > 1e-6
    moved = np.r_[False, np.abs(np.diff(trace.asked, axis=0)).max(axis=1) > 1e-9] | ramping
    events = [(d.at, d.duration) for d in scenario.disturbances if d.kind in ("push", "shove")]
    for at, duration in events:
        moved |= (trace.time >= at) & (trace.time <= at + duration)
    last = np.maximum.accumulate(np.where(moved, np.arange(len(moved)), -1))
    return (np.arange(len(moved)) - last) * DT > SETTLE_S


def _tracking(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    velocity, settled = body_velocity(trace), steady(trace, scenario)
    error = velocity - trace.given
    planar, yaw = np.linalg.norm(error[:, :2], axis=1), np.abs(error[:, 2])
    still = not np.any(trace.asked)
    return {
        "planar_error": float(planar.mean()), "yaw_error": float(yaw.mean()),
        "steady_planar_error": _mean(planar[settled]), "steady_yaw_error": _mean(yaw[settled]),
        "rise_time": _rise_time(trace, velocity), "recovery_time": _recovery_time(trace, scenario, error),
        "drift": float(np.linalg.norm(trace.position[-1, :2] - trace.position[0, :2])) if still else math.nan,
    }  # fmt: skip


def _rise_time(trace: Trace, velocity: np.ndarray) -> float:
    """Time, s, from the operator's first command until 90 % of it is there; the limiter included."""
    moving = np.flatnonzero(np.abs(trace.asked).max(axis=1) > 0.05)
    if not len(moving):
        return math.nan
    start = moving[0]
    wanted = trace.asked[start]
    axis = int(np.argmax(np.abs(wanted)))
    same = np.flatnonzero(np.abs(trace.asked[start:, axis] - wanted[axis]) > 1e-9)
    end = start + same[0] if len(same) else len(velocity)
    there = np.flatnonzero(velocity[start:end, axis] * np.sign(wanted[axis]) >= RISE * abs(wanted[axis]))
    return float(there[0] * DT) if len(there) else math.nan


def _recovery_time(trace: Trace, scenario: Scenario, error: np.ndarray) -> float:
    """Time, s, from the last push until errors stay below 0.2 m/s and 0.3 rad/s; inf where they never do."""
    ends = [
        d.at + (d.duration if d.kind == "shove" else 0.0) for d in scenario.disturbances if d.kind in ("push", "shove")
    ]
    if not ends:
        return math.nan
    after = trace.time >= max(ends)
    bad = (np.linalg.norm(error[:, :2], axis=1) > 0.2) | (np.abs(error[:, 2]) > 0.3)
    late = np.flatnonzero(bad & after)
    if not after.any() or (len(late) and late[-1] == len(bad) - 1):
        return math.inf
    return float(trace.time[late[-1]] - max(ends)) if len(late) else 0.0


def _body(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    w, x, y, z = trace.quat.T
    return {
        "tilt_rate": float(np.sqrt(np.square(trace.ang_vel[:, :2]).sum(axis=1).mean())),
        "bounce": float(np.sqrt(np.square(trace.lin_vel[:, 2] - trace.lin_vel[:, 2].mean()).mean())),
        "tilt": float(np.arccos(np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0)).max()),
    }


def _feet(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    """Slip: mean horizontal speed of feet that carry; impact: 99th percentile of the largest foot force."""
    standing = trace.foot_force[1:] > CONTACT_N
    both = standing & (trace.foot_force[:-1] > CONTACT_N)
    speed = np.linalg.norm(np.diff(trace.foot_position[:, :, :2], axis=0), axis=2) / DT
    return {
        "slip": float(speed[both].mean()) if both.any() else math.nan,
        "impact": float(np.percentile(trace.foot_force.max(axis=1), 99)),
    }


def _joints(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    spec = trace.spec
    load = np.abs(trace.torque) / spec.torque_limit
    power = np.maximum(trace.torque * trace.dq, 0.0).sum(axis=1)
    margin = np.minimum(trace.q - spec.position_lower, spec.position_upper - trace.q).min()
    distance = float(np.linalg.norm(np.diff(trace.position[:, :2], axis=0), axis=1).sum())
    return {
        # A margin is better when larger; negated, less is better as everywhere.
        "limit_margin": -float(margin), "torque_peak": float(load.max()),
        "torque_rms": float(np.sqrt(np.square(load).mean(axis=0)).max()),
        "speed_peak": float((np.abs(trace.dq) / spec.velocity_limit).max()),
        "power_mean": float(power.mean()), "power_peak": float(power.max()),
        # What the hottest motor would reach above its surroundings if the robot went on so.
        "heat": float(HEATING * np.square(load).mean(axis=0).max()),
        "cost_of_transport": float(power.sum() * DT / (spec.mass * GRAVITY * distance)) if distance > 0.5 else math.nan,
    }  # fmt: skip


def _actions(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    """Action rate: RMS change of the joint targets a tick. Chatter: part of the actions' power above 10 Hz."""
    rate = policy.manifest.control_rate_hz
    if len(trace.actions) < rate:
        return {}
    targets = trace.actions * policy.manifest.action_scale
    centred = targets - targets.mean(axis=0)
    window = np.hanning(len(centred))[:, None]
    spectrum = np.square(np.abs(np.fft.rfft(centred * window, axis=0))).sum(axis=1)
    frequency = np.fft.rfftfreq(len(centred), 1.0 / rate)
    total = float(spectrum[1:].sum())
    return {
        "action_rate": float(np.sqrt(np.square(np.diff(targets, axis=0)).mean())),
        "chatter": float(spectrum[frequency > CHATTER_HZ].sum() / total) if total > 0 else 0.0,
    }


def _software(trace: Trace, scenario: Scenario, policy: OnnxPolicy) -> dict[str, float]:
    true = rotate_inverse(trace.quat, trace.lin_vel)
    error = trace.estimated_velocity - true
    manifest = policy.manifest
    low, high = manifest.observation_low, manifest.observation_high
    outside = (trace.observations < low) | (trace.observations > high) if len(trace.observations) else np.zeros((1, 1))
    return {
        "out_of_training": float(outside.mean()),
        "training_distance": training_distance(
            policy, trace.observations[round(SETTLE_S * manifest.control_rate_hz) :]
        ),
        "limited": float((trace.limited[-1] - trace.limited[0]) / len(trace.limited)),
        "estimator_error": float(np.sqrt(np.nanmean(np.square(error)))),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
