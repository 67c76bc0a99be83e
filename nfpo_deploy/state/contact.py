"""Which feet carry weight, from joint torques; the raw foot sensors are only a fallback.

Go2's `foot_force` has no published unit, and its offset and gain differ from foot to foot, so nothing here
takes its numbers for newtons. Joint torques are in N·m on every robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nfpo_deploy.state.kinematics import LegState
from robots.loader import RobotSpec

GRAVITY = 9.81
# Damping of the inverse, m²: a leg folded into the plane of its hip axis would give infinite force.
_SINGULARITY_DAMPING = 1e-4
_SILENT_MESSAGES = 50
# A third of the largest raw value seen means standing: impacts reach about three times the standing load.
_RAW_FULL_SCALE = 3.0


@dataclass(frozen=True)
class ContactConfig:
    """Thresholds as fractions of the robot's weight, of which a standing quadruped has a quarter on each foot."""

    on: float = 0.073
    """Force above which a foot is taken to stand."""
    off: float = 0.041
    """Force below which it no longer does."""
    leg_mass: float = 0.0296
    """Mass of a leg as felt at its foot, rotors included, as a fraction of the robot's mass. A swing accelerates
    it with up to 50 m/s², which without correction looks like a foot that stands."""
    force_time: float = 0.005
    """s, low-pass of force and acceleration; short enough for touch-down, long enough for noisy joint rates."""
    rise_time: float = 0.004
    """s, growth of the probability after touch-down."""
    fall_time: float = 0.003
    """s, decay of the probability after lift-off."""
    settle_time: float = 0.025
    """s after touch-down that rubber and ground take to yield and come back; the foot moves meanwhile."""
    raw_span: float = 10.0
    """Smallest range of a foot sensor's raw values that is taken for a signal."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and above zero, got {value!r}")
        if self.off >= self.on:
            raise ValueError(f"off must be below on, got off={self.off}, on={self.on}")


class ContactDetector:
    """Schmitt trigger on each foot's vertical force, smoothed into a probability.

    Where a motor board reports no torques at all (exactly zero in every joint for 0.1 s), the raw foot
    sensors take over, each scaled to the range that it has shown; sensors that never moved count as no contact.

    Attributes:
        force: (F,) N, upward force of the ground on each foot, low-passed.
        probability: (F,) 0 to 1, of standing.
        settled: (F,) 0 to 1, of standing without moving: grows later, falls as fast.
    """

    def __init__(self, spec: RobotSpec, chain: np.ndarray, config: ContactConfig | None = None) -> None:
        self._config = config or ContactConfig()
        self._chain = chain
        weight = spec.mass * GRAVITY
        self._on, self._off = self._config.on * weight, self._config.off * weight
        self._leg_mass = self._config.leg_mass * spec.mass
        self._damping = _SINGULARITY_DAMPING * np.eye(3)
        self._steps: dict[float, tuple[float, ...]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all contacts and the ranges of the foot sensors."""
        feet = len(self._chain)
        self.force = np.zeros(feet)
        self._static_force = np.zeros(feet)
        self._slow_speed: np.ndarray | None = None
        self.probability = np.zeros(feet)
        self.settled = np.zeros(feet)
        self._standing = np.zeros(feet, dtype=bool)
        self._silent = 0
        self._raw_low = np.full(feet, np.inf)
        self._raw_high = np.full(feet, -np.inf)

    def update(
        self, up_b: np.ndarray, legs: LegState, tau: np.ndarray, foot_force: np.ndarray, dt: float
    ) -> np.ndarray:
        """New probabilities (F,).

        Args:
            up_b: (3,) the world's vertical in base_link.
            legs: kinematics of this instant.
            tau: (N,) N·m, motor torques.
            foot_force: (F,) raw foot sensors.
            dt: s since the last update.
        """
        force_gain, rise, fall, settle = self._gains(dt)
        self._static_force += force_gain * (self._measured_force(up_b, legs, tau, foot_force) - self._static_force)
        speed = legs.velocity @ up_b
        if self._slow_speed is None:
            self._slow_speed = speed
        # The same low-pass on force and speed, so that the derivative of the latter is in step with the former.
        change = force_gain * (speed - self._slow_speed)
        self._slow_speed = self._slow_speed + change
        # The foot sensors, which speak when the torques are silent, do not feel the leg's inertia.
        leg_mass = self._leg_mass if self._silent < _SILENT_MESSAGES else 0.0
        self.force = self._static_force + (leg_mass / dt) * change
        self._standing = self.force > np.where(self._standing, self._off, self._on)
        standing = self._standing
        self.probability = self.probability + np.where(standing, rise, fall) * (standing - self.probability)
        self.settled = self.settled + np.where(standing, settle, fall) * (standing - self.settled)
        return self.probability

    def _measured_force(self, up_b: np.ndarray, legs: LegState, tau: np.ndarray, foot_force: np.ndarray) -> np.ndarray:
        np.minimum(self._raw_low, foot_force, out=self._raw_low)
        np.maximum(self._raw_high, foot_force, out=self._raw_high)
        self._silent = 0 if tau.any() else self._silent + 1
        if self._silent >= _SILENT_MESSAGES:
            return self._raw_fraction(foot_force) * (_RAW_FULL_SCALE * self._on)
        # Statics of a weightless leg: tau + J^T F = 0, so F = -(J J^T)^-1 J tau.
        J = legs.jacobian
        JJt = np.matmul(J, J.transpose(0, 2, 1)) + self._damping
        right = np.matmul(J, tau[self._chain][:, :, None])
        return -(np.linalg.solve(JJt, right)[:, :, 0] @ up_b)

    def _raw_fraction(self, foot_force: np.ndarray) -> np.ndarray:
        span = self._raw_high - self._raw_low
        informative = span >= self._config.raw_span
        return np.where(informative, (foot_force - self._raw_low) / np.where(informative, span, 1.0), 0.0)

    def _gains(self, dt: float) -> tuple[float, ...]:
        """Gains of the first-order filters; dt takes few values, so each is worked out once."""
        if dt not in self._steps:
            if len(self._steps) > 100:
                self._steps.clear()
            c = self._config
            times = (c.force_time, c.rise_time, c.fall_time, c.settle_time)
            self._steps[dt] = tuple(1.0 - np.exp(-dt / time) for time in times)
        return self._steps[dt]
