"""Reward terms of the velocity task: pure functions of a `StepData`, each (B,), weighted per second by the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepData:
    """What the rewards of one control step may read; arrays (B, ...), SI units, true (noise-free) values."""

    command: np.ndarray
    """(B, 3) vx, vy, wz."""
    moving: np.ndarray
    """(B,) whether the command asks to move."""
    lin_vel_b: np.ndarray
    ang_vel_b: np.ndarray
    gravity_b: np.ndarray
    height: np.ndarray
    """(B,) base_link above ground, m."""
    q: np.ndarray
    dq: np.ndarray
    previous_dq: np.ndarray
    torque: np.ndarray
    action: np.ndarray
    previous_action: np.ndarray
    older_action: np.ndarray
    default_pose: np.ndarray
    soft_lower: np.ndarray
    soft_upper: np.ndarray
    foot_contact: np.ndarray
    """(B, F) bool."""
    foot_height: np.ndarray
    """(B, F) lowest point of the foot above ground, m."""
    foot_speed: np.ndarray
    """(B, F) horizontal, m/s."""
    foot_force: np.ndarray
    """(B, F) N."""
    swing: np.ndarray
    """(B, F) 0 in stance; sin² profile over the swing that the gait clock asks for."""
    expected_stance: np.ndarray
    """(B, F) bool, from the gait clock; true everywhere while standing."""
    swing_height: float
    hip_joints: np.ndarray
    """Indices of the abduction joints."""
    dt: float
    terminated: np.ndarray


def track_lin_vel(x: StepData) -> np.ndarray:
    """exp(−|v_xy − v*|²/σ²), σ = 0.35 m/s: reaches far, so that learning starts."""
    return np.exp(-_planar_error(x) / 0.35**2)


def track_lin_vel_fine(x: StepData) -> np.ndarray:
    """The same with σ = 0.1 m/s: rewards the last centimetres per second."""
    return np.exp(-_planar_error(x) / 0.1**2)


def track_yaw_rate(x: StepData) -> np.ndarray:
    """exp(−(ω_z − ω*)²/σ²), σ = 0.4 rad/s."""
    return np.exp(-np.square(x.ang_vel_b[:, 2] - x.command[:, 2]) / 0.4**2)


def track_yaw_rate_fine(x: StepData) -> np.ndarray:
    """The same with σ = 0.12 rad/s."""
    return np.exp(-np.square(x.ang_vel_b[:, 2] - x.command[:, 2]) / 0.12**2)


def vertical_velocity(x: StepData) -> np.ndarray:
    """v_z²."""
    return np.square(x.lin_vel_b[:, 2])


def roll_pitch_rate(x: StepData) -> np.ndarray:
    """ω_x² + ω_y²."""
    return np.square(x.ang_vel_b[:, :2]).sum(axis=1)


def tilt(x: StepData) -> np.ndarray:
    """Squared horizontal part of gravity in the base frame: sin² of the tilt."""
    return np.square(x.gravity_b[:, :2]).sum(axis=1)


def base_height(x: StepData) -> np.ndarray:
    """Squared error from 0.31 m."""
    return np.square(x.height - 0.31)


def gait_contact(x: StepData) -> np.ndarray:
    """Part of the feet whose contact agrees with the gait clock."""
    return (x.foot_contact == x.expected_stance).mean(axis=1)


def foot_clearance(x: StepData) -> np.ndarray:
    """Squared error of swing height from the clock's profile, summed over swinging feet, relative to its peak."""
    error = (x.swing * x.swing_height - x.foot_height) / x.swing_height
    return (np.square(error) * (x.swing > 0)).sum(axis=1)


def foot_slip(x: StepData) -> np.ndarray:
    """Squared horizontal speed of feet on the ground."""
    return (np.square(x.foot_speed) * x.foot_contact).sum(axis=1)


def foot_impact(x: StepData) -> np.ndarray:
    """Normal force beyond 120 N, in units of 100 N, summed over feet: about three times the static load."""
    return np.maximum(x.foot_force - 120.0, 0.0).sum(axis=1) / 100.0


def torque(x: StepData) -> np.ndarray:
    """Σ τ²."""
    return np.square(x.torque).sum(axis=1)


def power(x: StepData) -> np.ndarray:
    """Σ |τ·q̇|, W."""
    return np.abs(x.torque * x.dq).sum(axis=1)


def joint_acceleration(x: StepData) -> np.ndarray:
    """Σ q̈²."""
    return np.square((x.dq - x.previous_dq) / x.dt).sum(axis=1)


def action_rate(x: StepData) -> np.ndarray:
    """Σ (a_t − a_{t−1})²."""
    return np.square(x.action - x.previous_action).sum(axis=1)


def action_smoothness(x: StepData) -> np.ndarray:
    """Σ (a_t − 2a_{t−1} + a_{t−2})²."""
    return np.square(x.action - 2.0 * x.previous_action + x.older_action).sum(axis=1)


def joint_limits(x: StepData) -> np.ndarray:
    """Sum of how far joints are beyond 95 % of their range, rad."""
    return (np.maximum(x.soft_lower - x.q, 0.0) + np.maximum(x.q - x.soft_upper, 0.0)).sum(axis=1)


def hip_deviation(x: StepData) -> np.ndarray:
    """Σ |q − q₀| of the abduction joints."""
    return np.abs(x.q - x.default_pose)[:, x.hip_joints].sum(axis=1)


def pose_deviation(x: StepData) -> np.ndarray:
    """Σ (q − q₀)² of all joints."""
    return np.square(x.q - x.default_pose).sum(axis=1)


def stand_still(x: StepData) -> np.ndarray:
    """While told to stand: Σ |q − q₀| + 0.2·Σ |q̇|."""
    deviation = np.abs(x.q - x.default_pose).sum(axis=1) + 0.2 * np.abs(x.dq).sum(axis=1)
    return deviation * ~x.moving


def alive(x: StepData) -> np.ndarray:
    """One in every step."""
    return np.ones(len(x.height))


def termination(x: StepData) -> np.ndarray:
    """One divided by dt on a fall, so that the weight is the price of one fall."""
    return x.terminated / x.dt


def _planar_error(x: StepData) -> np.ndarray:
    return np.square(x.lin_vel_b[:, :2] - x.command[:, :2]).sum(axis=1)


REWARDS: dict[str, Callable[[StepData], np.ndarray]] = {
    f.__name__: f
    for f in (
        track_lin_vel, track_lin_vel_fine, track_yaw_rate, track_yaw_rate_fine, vertical_velocity, roll_pitch_rate,
        tilt, base_height, gait_contact, foot_clearance, foot_slip, foot_impact, torque, power, joint_acceleration,
        action_rate, action_smoothness, joint_limits, hip_deviation, pose_deviation, stand_still, alive, termination,
    )
}  # fmt: skip
