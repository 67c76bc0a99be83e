"""Operator velocity commands: bounded in size and rate, and expiring when the operator falls silent."""

from __future__ import annotations

import math

import numpy as np

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.types import VelocityCommand

ACCELERATION = (2.0, 2.0, 4.0)
"""m/s², m/s², rad/s²: half a second from rest to full speed; a policy trained with steps follows it with ease."""


class VelocityCommandLimiter:
    """Turns raw operator input into the command that a policy may see."""

    def __init__(
        self,
        ranges: dict[str, tuple[float, float]],
        timeout_s: float,
        acceleration: tuple[float, float, float] = ACCELERATION,
    ) -> None:
        """Create the limiter.

        Args:
            ranges: allowed vx, vy (m/s) and wz (rad/s).
            timeout_s: age at which the last input counts as gone and the target falls to zero.
            acceleration: largest rate of change of vx, vy (m/s²) and wz (rad/s²).

        Raises:
            SafetyError: a timeout or acceleration that is not above zero, or a range that is not finite or lacks
                zero: it would switch a protection off.
        """
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise SafetyError(f"operator timeout must be finite and above zero, got {timeout_s}")
        if not all(math.isfinite(a) and a > 0 for a in acceleration):
            raise SafetyError(f"accelerations must be finite and above zero, got {acceleration}")
        for axis in ("vx", "vy", "wz"):
            low, high = ranges[axis]
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0.0 <= high):
                raise SafetyError(f"range of {axis} must be finite and contain zero, got [{low}, {high}]")
        self._low = np.array([ranges[axis][0] for axis in ("vx", "vy", "wz")])
        self._high = np.array([ranges[axis][1] for axis in ("vx", "vy", "wz")])
        self._acceleration = np.array(acceleration)
        self._timeout_ns = round(timeout_s * 1e9)
        self._target = np.zeros(3)
        self._current = np.zeros(3)
        self._received_ns: int | None = None
        self.rejected = 0
        """Inputs dropped because they were not finite."""

    def reset(self) -> None:
        """Forget target and current command: the next command starts from rest."""
        self._target[:] = 0.0
        self._current[:] = 0.0
        self._received_ns = None

    def receive(self, vx: float, vy: float, wz: float, now_ns: int) -> bool:
        """Take operator input in m/s and rad/s; returns whether it was finite and so accepted."""
        raw = np.array([vx, vy, wz], dtype=np.float64)
        if not np.all(np.isfinite(raw)):
            self.rejected += 1
            return False
        self._target = np.clip(raw, self._low, self._high)
        self._received_ns = now_ns
        return True

    def age_s(self, now_ns: int) -> float:
        """Seconds since the last accepted input; infinite before the first."""
        return math.inf if self._received_ns is None else (now_ns - self._received_ns) * 1e-9

    def step(self, now_ns: int, dt: float) -> VelocityCommand:
        """Command for this control tick; `dt` is the time since the last one, s (negative or not finite: no change)."""
        fresh = self._received_ns is not None and 0 <= now_ns - self._received_ns <= self._timeout_ns
        goal = self._target if fresh else np.zeros(3)
        limit = self._acceleration * (dt if math.isfinite(dt) and dt > 0 else 0.0)
        self._current = self._current + np.clip(goal - self._current, -limit, limit)
        return VelocityCommand(*(float(v) for v in self._current))
