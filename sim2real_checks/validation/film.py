"""What is kept of a run for plots and pictures: a few hundred bytes a simulated second."""

from __future__ import annotations

import numpy as np

from sim2real_checks.validation.scores import body_velocity
from sim2real_checks.validation.stack import BRIDGE_HZ
from sim2real_checks.validation.trace import Trace

FILM_HZ = 25

Film = dict[str, np.ndarray]
"""Columns of (T, …) float32: time, s; pose (7), base position and wxyz quaternion in the world; q (N), rad, in the
robot's joint order; velocity, given and asked (3): vx, vy, wz in base_link; tilt, rad; torque, the largest part of a
joint's limit since the row before."""


def film_of(trace: Trace) -> Film:
    """Every twentieth row of a trace; empty when the robot never walked."""
    rows = len(trace.columns["time"]) if trace.columns else 0
    if rows < 2:
        return {}
    every = BRIDGE_HZ // FILM_HZ
    pick = np.arange(0, rows, every)
    load = np.abs(trace.torque) / trace.spec.torque_limit
    w, x, y, z = trace.quat.T
    columns = {
        "time": trace.time, "pose": np.column_stack([trace.position, trace.quat]), "q": trace.q,
        "velocity": body_velocity(trace), "given": trace.given, "asked": trace.asked,
        "tilt": np.arccos(np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0)),
    }  # fmt: skip
    film = {name: values[pick].astype(np.float32) for name, values in columns.items()}
    film["torque"] = np.maximum.reduceat(load.max(axis=1), pick).astype(np.float32)
    return film
