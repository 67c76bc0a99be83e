"""Recognises a robot that lies or hangs still, when no foot tells its velocity."""

from __future__ import annotations

import math

import numpy as np

from nfpo_deploy.state.contact import GRAVITY

# Each bound is about four times the noise of a Go2's sensors and far below any deliberate motion.
_GYRO_LIMIT = 0.15
_JOINT_LIMIT = 0.3
_ACCEL_LIMIT = 0.5
_ACCEL_FILTER_TIME = 0.05
_HOLD_TIME = 0.3


class RestDetector:
    """At rest after 0.3 s of slow gyro, slow joints (rms) and mean acceleration near gravity."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start as moving."""
        self._accel: np.ndarray | None = None
        self._still_time = 0.0

    def update(self, gyro_b: np.ndarray, accel_b: np.ndarray, dq: np.ndarray, dt: float) -> bool:
        """Whether the robot is at rest now; arrays as in `RobotState`, dt in s since the last call."""
        if self._accel is None:
            self._accel = accel_b
        self._accel = self._accel + min(1.0, dt / _ACCEL_FILTER_TIME) * (accel_b - self._accel)
        still = (
            gyro_b @ gyro_b < _GYRO_LIMIT**2
            and dq @ dq < _JOINT_LIMIT**2 * len(dq)
            and abs(math.sqrt(self._accel @ self._accel) - GRAVITY) < _ACCEL_LIMIT
        )
        self._still_time = self._still_time + dt if still else 0.0
        return self._still_time >= _HOLD_TIME
