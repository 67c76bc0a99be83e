"""The robot's built-in controller, as little of it as clients need before they take over."""

from __future__ import annotations

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.robot_sim.motors import MotorBank

_RAMP_S = 1.5
# `mode` of SportModeState.
SPORT_IDLE, SPORT_STAND, SPORT_LIE, SPORT_DAMP = 0, 1, 5, 7


class BuiltinController:
    """While `mode` is not empty it owns the motors: it holds a pose, ramps to the next one, or damps."""

    def __init__(self, spec: RobotSpec, motors: MotorBank, mode: str, pose: np.ndarray) -> None:
        self.mode = mode
        self.sport_mode = SPORT_IDLE
        self._spec = spec
        self._motors = motors
        self._start = self._target = pose
        self._start_time = -_RAMP_S

    @property
    def active(self) -> bool:
        return bool(self.mode)

    def select(self, mode: str, q: np.ndarray, time: float) -> None:
        """Take the motors and hold the present pose `q`."""
        self.mode = mode
        self.sport_mode = SPORT_IDLE
        self._ramp(q, q, time)

    def release(self) -> None:
        """Let go: the motors are off until the first LowCmd."""
        self.mode = ""
        self.sport_mode = SPORT_IDLE
        self._motors.off()

    def stand_up(self, q: np.ndarray, time: float) -> None:
        """Ramp from `q` to the default pose."""
        self.sport_mode = SPORT_STAND
        self._ramp(q, self._spec.default_pose, time)

    def stand_down(self, q: np.ndarray, time: float) -> None:
        """Ramp from `q` to the crouch pose."""
        self.sport_mode = SPORT_LIE
        self._ramp(q, self._spec.crouch_pose, time)

    def damp(self) -> None:
        """Damp all joints."""
        self.sport_mode = SPORT_DAMP

    def step(self, time: float) -> None:
        """Command the motors for this step."""
        zero = np.zeros(self._spec.num_joints)
        damping = self.sport_mode == SPORT_DAMP
        gains = self._spec.damp_gains if damping else self._spec.stand_gains
        part = min(1.0, max(0.0, (time - self._start_time) / _RAMP_S))
        target = self._start + part * (self._target - self._start)
        self._motors.command(target, zero, gains.stiffness, gains.damping, zero)

    def _ramp(self, start: np.ndarray, target: np.ndarray, time: float) -> None:
        self._start, self._target, self._start_time = start, target, time
