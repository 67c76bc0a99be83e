"""A timed move of joint targets and gains from what is sent now to what shall be held or followed."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.safety.limits import smoothstep


class Setpoint:
    """One value of all that a motor takes, rows of one (5, N) array: q, dq, stiffness, damping, tau."""

    __slots__ = ("values", "q", "dq", "stiffness", "damping", "tau")

    def __init__(self, num_joints: int):
        self.values = np.zeros((5, num_joints))
        self.q, self.dq, self.stiffness, self.damping, self.tau = self.values

    def set(self, q: np.ndarray, stiffness: np.ndarray, damping: np.ndarray) -> None:
        """A pose to hold: no target speed, no feed-forward."""
        self.values[0] = q
        self.values[1] = 0.0
        self.values[2] = stiffness
        self.values[3] = damping
        self.values[4] = 0.0


class Ramp:
    """Interpolates between two setpoints; the pose along a smoothstep, the rest linearly in its own time."""

    def __init__(self, num_joints: int):
        self.start = Setpoint(num_joints)
        self.elapsed = 0.0
        """s since `begin`."""
        self.duration = 1.0
        self._gain_duration = 1.0

    def begin(self, now: Setpoint, duration: float, gain_duration: float) -> None:
        """Start from `now` (copied); both durations in s."""
        np.copyto(self.start.values, now.values)
        self.elapsed = 0.0
        self.duration, self._gain_duration = duration, gain_duration

    @property
    def finished(self) -> bool:
        return self.elapsed >= self.duration and self.elapsed >= self._gain_duration

    def advance(self, dt: float, end: Setpoint, out: Setpoint) -> None:
        """Let dt s pass and write the value into `out`."""
        self.elapsed += dt
        if self.finished:
            np.copyto(out.values, end.values)
            return
        gain_weight = min(1.0, self.elapsed / self._gain_duration)
        np.subtract(end.values, self.start.values, out=out.values)
        out.values[0] *= smoothstep(self.elapsed / self.duration)
        out.values[1:] *= gain_weight
        out.values += self.start.values
