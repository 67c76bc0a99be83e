"""Bounds on joint commands as pure functions: position, rate, gains and the PD torque that a motor would make.

A motor driver computes tau + kp·(q* - q) + kd·(dq* - dq). All arrays are (N,) in joint order, SI units. The
functions return new arrays and never change their arguments.
"""

from __future__ import annotations

import math

import numpy as np


def all_finite(*arrays: np.ndarray) -> bool:
    """Whether every element of the 1-D arrays is finite and of a size that arithmetic survives, below 1e150."""
    # x·x is finite exactly then, and costs a fifth of isfinite().all() on short arrays.
    with np.errstate(over="ignore", invalid="ignore"):
        return all(float(array.dot(array)) < math.inf for array in arrays)


def clamp_positions(q: np.ndarray, lower: np.ndarray, upper: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Targets moved into [lower + margin, upper - margin], rad; the margin must leave a range."""
    return np.minimum(np.maximum(q, lower + margin), upper - margin)


def limit_rate(target: np.ndarray, previous: np.ndarray, max_step: float) -> np.ndarray:
    """Targets at most `max_step` rad away from the previous ones."""
    return np.minimum(np.maximum(target, previous - max_step), previous + max_step)


def pd_torque(
    q: np.ndarray, dq: np.ndarray, q_target: np.ndarray, dq_target: np.ndarray,
    stiffness: np.ndarray, damping: np.ndarray, tau: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Torque that the motor driver would ask for, N·m, before its own saturation."""
    return tau + stiffness * (q_target - q) + damping * (dq_target - dq)


def _torque_cuts(
    spring: np.ndarray, tau: np.ndarray, damper: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much of spring, feed-forward and damper torque to remove so that their sum meets the limit.

    Only a part that has the sign of the excess shrinks, never past zero: spring first (a target too far
    away), then feed-forward, and the damper last because it takes energy out. The excess is never larger than
    the sum of the parts of its sign, so it always vanishes, and the total is continuous in every input.
    """
    total = spring + tau + damper
    excess = total - np.minimum(np.maximum(total, -limit), limit)
    cuts = []
    for part in (spring, tau, damper):
        cut = np.minimum(np.maximum(part, np.minimum(excess, 0.0)), np.maximum(excess, 0.0))
        excess = excess - cut
        cuts.append(cut)
    return cuts[0], cuts[1], cuts[2]


def _scaled(gain: np.ndarray, part: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Factor that yields torque `part - cut` where it yielded `part`; cut is a piece of part, of its sign."""
    safe = np.where(part == 0.0, 1.0, part)
    return gain * np.minimum(np.maximum(1.0 - cut / safe, 0.0), 1.0)


def bound_torque_by_target(
    q: np.ndarray, dq: np.ndarray, q_target: np.ndarray, dq_target: np.ndarray,
    stiffness: np.ndarray, damping: np.ndarray, tau: np.ndarray, limit: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Bound the predicted PD torque to ±limit by moving the targets toward the measured positions.

    Feed-forward shrinks where the spring alone does not suffice, damping gains where neither does. A moved
    target lies between the measured and the asked position.

    Returns:
        (q_target, tau, damping) with |pd_torque| ≤ limit; the very arguments when nothing had to change.
    """
    spring = stiffness * (q_target - q)
    damper = damping * (dq_target - dq)
    if not (np.abs(spring + tau + damper) > limit).any():
        return q_target, tau, damping
    cut_spring, cut_tau, cut_damper = _torque_cuts(spring, tau, damper, limit)
    # Not cut / stiffness: for a denormal stiffness that quotient is anything. Joints without a cut stay exact.
    moved = np.where(cut_spring == 0.0, q_target, q + _scaled(q_target - q, spring, cut_spring))
    return moved, tau - cut_tau, _scaled(damping, damper, cut_damper)


def bound_torque_by_gains(
    q: np.ndarray, dq: np.ndarray, q_target: np.ndarray, dq_target: np.ndarray,
    stiffness: np.ndarray, damping: np.ndarray, tau: np.ndarray, limit: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Bound the predicted PD torque to ±limit by lowering gains: for targets that may not move.

    Returns:
        (stiffness, tau, damping) with |pd_torque| ≤ limit; the very arguments when nothing had to change.
    """
    spring = stiffness * (q_target - q)
    damper = damping * (dq_target - dq)
    # The slack keeps rounding of an earlier bound from costing a second pass.
    if not (np.abs(spring + tau + damper) > limit * (1.0 + 1e-9)).any():
        return stiffness, tau, damping
    cut_spring, cut_tau, cut_damper = _torque_cuts(spring, tau, damper, limit)
    return _scaled(stiffness, spring, cut_spring), tau - cut_tau, _scaled(damping, damper, cut_damper)


def gains_allowed(
    stiffness: np.ndarray, damping: np.ndarray, max_stiffness: np.ndarray, max_damping: np.ndarray
) -> bool:
    """Whether 0 ≤ gain ≤ its maximum for every joint; false for NaN."""
    stiffness_ok = (stiffness >= 0.0) & (stiffness <= max_stiffness)
    return bool((stiffness_ok & (damping >= 0.0) & (damping <= max_damping)).all())


def tilt_angle(quat_wxyz: np.ndarray) -> float:
    """Angle between base_link's z axis and the world's, rad; NaN if the norm is more than 10 % away from 1.

    The z component of the rotated z axis is 1 - 2(x² + y²) for a unit quaternion.
    """
    w, x, y, z = (float(value) for value in quat_wxyz)
    norm2 = w * w + x * x + y * y + z * z
    if not 0.81 <= norm2 <= 1.21:
        return math.nan
    return math.acos(max(-1.0, min(1.0, 1.0 - 2.0 * (x * x + y * y) / norm2)))


def distance_from_line(q: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each joint, rad, from the nearest point of the straight segment of poses start–end."""
    direction = end - start
    length2 = float(direction.dot(direction))
    s = float((q - start).dot(direction)) / length2 if length2 > 0.0 else 0.0
    return np.abs(q - (start + min(1.0, max(0.0, s)) * direction))


def smoothstep(x: float) -> float:
    """3x² - 2x³ on [0, 1], clamped outside: starts and ends with zero speed, peak slope 1.5."""
    x = 0.0 if x <= 0.0 else 1.0 if x >= 1.0 else x
    return x * x * (3.0 - 2.0 * x)
