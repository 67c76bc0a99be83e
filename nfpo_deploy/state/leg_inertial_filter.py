"""Kalman filter that fuses accelerometer and leg kinematics; the derivation is in docs/state_estimation.md.

State of each world axis: position p and velocity v of the IMU, accelerometer bias b, and one position f of
each foot's centre. Orientation is an input. Noise is the same along x and y, so the two share one covariance
and the axes never mix: two small covariances instead of one large matrix, which is what keeps an update cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.state.contact import GRAVITY

_P, _V, _B, _FEET = 0, 1, 2, 3
_HORIZONTAL, _VERTICAL = 0, 1
# Which of the two covariances belongs to x, y and z.
_AXIS_GROUP = np.array([_HORIZONTAL, _HORIZONTAL, _VERTICAL])
# Stands for "not measured": 1e4 m, far above every real uncertainty, small enough for float64 inverses.
_IGNORED = 1e8


@dataclass(frozen=True)
class FilterConfig:
    """Noise of the model and the measurements, one standard deviation each.

    The values suit a Go2's sensors and were chosen on a trot with `sim2real_checks.estimator_accuracy`.
    """

    accel_noise: float = 0.6
    """m/s² of one sample; above the sensor's own noise because impacts alias at 500 Hz."""
    bias_walk: float = 0.02
    """m/s² in one second."""
    bias_start: float = 0.3
    """m/s²."""
    velocity_start: float = 0.7
    """m/s; a legged robot at an unknown moment of its walk."""
    stance_walk: float = 0.02
    """m in one second by which a standing foot creeps."""
    swing_jump: float = 0.1
    """m in one sample, for a foot of no trust: its old place tells nothing."""
    foot_velocity: float = 0.12
    """m/s of one standing foot in one sample, x and y: joint rate noise, small slip."""
    foot_velocity_z: float = 0.4
    """m/s, the same along z, where rubber and ground yield under the load."""
    foot_position: float = 0.004
    """m of one foot's measured place relative to the IMU."""
    height: float = 0.2
    """m in one sample, of ground level under one standing foot; large, so that stairs are followed slowly."""
    rest_velocity: float = 0.05
    """m/s, while the robot is known to be at rest."""
    flight_time: float = 0.2
    """s without any standing foot after which integrating the accelerometer is no longer relied on."""
    flight_drift: float = 0.5
    """m/s², by which the deviation of the velocity grows from then on, up to `velocity_start`: tilt errors."""
    flight_decay: float = 1.0
    """s, time constant with which the velocity then returns to zero, which bounds its drift."""
    velocity_floor: float = 0.02
    """m/s, part of the reported deviation: errors that last (yielding ground, rolling, slow slip) do not average
    out as the filter's white noise does."""
    gate: float = 16.27
    """Squared Mahalanobis distance: 99.9 % of chi-square with 3 degrees of freedom."""
    rejected_time: float = 0.1
    """s after which two or more feet that all contradict the prediction are believed instead of it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and above zero, got {value!r}")


class LegInertialFilter:
    """The filter. World frame z up; positions in m, velocities in m/s.

    Attributes:
        position, velocity: (3,) of the IMU, world frame.
        bias_b: (3,) m/s², of the accelerometer, in the IMU's frame.
        feet: (F, 3), foot centres, world frame.
        covariance: (2, 3 + F, 3 + F), of one horizontal and of the vertical axis; order p, v, b, feet.
        trust: (F,) 0 to 1, contact probability of feet that passed the gate, else 0.
    """

    def __init__(self, num_feet: int, period: float, foot_radius: float, config: FilterConfig | None = None) -> None:
        self.config = config or FilterConfig()
        self._num_feet = num_feet
        self._period = period
        self._foot_radius = foot_radius
        size = _FEET + num_feet
        self._identity = np.eye(size)
        self._feet_diagonal = np.arange(_FEET, size)
        # Rows: velocity, height, and foot minus IMU for each foot.
        H = np.zeros((2 + num_feet, size))
        H[0, _V] = 1.0
        H[1, _P] = 1.0
        H[2:, _P] = -1.0
        H[2:, _FEET:] = np.eye(num_feet)
        self._H = H
        self._noise_diagonal = np.arange(2 + num_feet)
        self._foot_variance = np.array([self.config.foot_velocity, self.config.foot_velocity_z]) ** 2
        self.bias_b = np.zeros(3)
        self.start(np.zeros(3), np.zeros(3), np.zeros((num_feet, 3)))

    def start(self, position: np.ndarray, velocity: np.ndarray, feet: np.ndarray) -> None:
        """Begin from these values with the initial uncertainty; the bias found so far is kept."""
        c = self.config
        self.position, self.velocity, self.feet = position.copy(), velocity.copy(), feet.copy()
        variances = np.full(_FEET + self._num_feet, c.foot_position**2)
        variances[:_FEET] = 1e-6, c.velocity_start**2, c.bias_start**2
        self.covariance = np.stack([np.diag(variances)] * 2)
        self.trust = np.zeros(self._num_feet)
        self._flight = 0.0
        self._rejected = 0.0

    def step(
        self,
        dt: float,
        rotation: np.ndarray,
        accel_b: np.ndarray,
        arms: np.ndarray,
        foot_velocity: np.ndarray,
        rolling: np.ndarray,
        contact: np.ndarray,
        at_rest: bool,
    ) -> None:
        """Predict over dt s and correct with the legs.

        Args:
            dt: s since the last step, above zero.
            rotation: (3, 3), base_link to world.
            accel_b: (3,) m/s², specific force at the IMU.
            arms: (F, 3) m, from IMU to foot centre, world frame.
            foot_velocity: (F, 3) m/s, velocity of the IMU that each foot implies if it stands, world frame.
            rolling: (F, 3) m/s, velocity of the centre of a standing foot that rolls, world frame.
            contact: (F,) 0 to 1, probability that the foot stands.
            at_rest: the robot is known not to move.
        """
        accel = rotation @ (accel_b - self.bias_b)
        accel[2] -= GRAVITY
        self.position += dt * (self.velocity + 0.5 * dt * accel)
        self.velocity += dt * accel
        if self._flight > self.config.flight_time:
            self.velocity *= math.exp(-dt / self.config.flight_decay)
        innovation = foot_velocity - self.velocity
        self._gate(innovation, contact, dt)
        self.feet += dt * rolling
        self._predict_covariance(dt)
        self._correct(rotation, arms, innovation, at_rest)

    def _gate(self, innovation: np.ndarray, contact: np.ndarray, dt: float) -> None:
        """Trust feet whose velocity fits the prediction; if none does for long, distrust the prediction."""
        c = self.config
        variance = self.covariance[:, _V, _V] + self._foot_variance
        squares = innovation * innovation
        distance = (squares[:, 0] + squares[:, 1]) / variance[_HORIZONTAL] + squares[:, 2] / variance[_VERTICAL]
        self.trust = contact * (distance < c.gate)
        standing, trusted = float(contact.sum()), float(self.trust.sum())
        self._flight = self._flight + dt if standing < 0.5 else 0.0
        # One foot alone may well be slipping; two that slip for so long are less likely than a lost prediction.
        self._rejected = self._rejected + dt if standing > 1.5 and trusted < 0.5 else 0.0
        if self._rejected > c.rejected_time:
            self.covariance[:, _V, _V] += c.velocity_start**2
            self._rejected = 0.0

    def _predict_covariance(self, dt: float) -> None:
        c = self.config
        F = self._identity.copy()
        F[_P, _V] = dt
        F[_P, _B] = -0.5 * dt * dt
        F[_V, _B] = -dt
        P = F @ self.covariance @ F.T
        # Noise of a sample is white, so its effect on velocity grows with the square root of time.
        P[:, _V, _V] += c.accel_noise**2 * self._period * dt
        P[:, _B, _B] += c.bias_walk**2 * dt
        if self._flight > c.flight_time:
            deviation = np.sqrt(P[:, _V, _V])
            P[:, _V, _V] = np.maximum(deviation, np.minimum(deviation + c.flight_drift * dt, c.velocity_start)) ** 2
        loose = 1.0 - self.trust
        P[:, self._feet_diagonal, self._feet_diagonal] += c.stance_walk**2 * dt + c.swing_jump**2 * loose * loose
        self.covariance = P

    def _correct(self, rotation: np.ndarray, arms: np.ndarray, innovation: np.ndarray, at_rest: bool) -> None:
        residual, noise = self._measurements(arms, innovation, at_rest)
        H, P = self._H, self.covariance
        PHt = P @ H.T
        S = H @ PHt
        S[:, self._noise_diagonal, self._noise_diagonal] += noise
        K = np.linalg.solve(S, PHt.transpose(0, 2, 1)).transpose(0, 2, 1)
        change = np.empty((P.shape[1], 3))
        change[:, :2] = K[_HORIZONTAL] @ residual[:, :2]
        change[:, 2] = K[_VERTICAL] @ residual[:, 2]
        self.position += change[_P]
        self.velocity += change[_V]
        self.bias_b = self.bias_b + change[_B] @ rotation
        self.feet += change[_FEET:]
        # Joseph's form stays positive whatever the rounding of K.
        A = self._identity - K @ H
        P = A @ P @ A.transpose(0, 2, 1) + (K * noise[:, None, :]) @ K.transpose(0, 2, 1)
        self.covariance = 0.5 * (P + P.transpose(0, 2, 1))

    def _measurements(self, arms: np.ndarray, innovation: np.ndarray, at_rest: bool) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (2 + F, 3) and variances (2, 2 + F) of velocity, height and foot positions.

        All feet measure the same velocity, so their weighted mean carries the same information as each alone.
        """
        c = self.config
        trust = self.trust
        residual = np.empty((2 + self._num_feet, 3))
        noise = np.full((2, 2 + self._num_feet), c.foot_position**2)
        total = float(trust.sum())
        information = total / self._foot_variance + 1.0 / _IGNORED
        pull = (trust @ innovation) / self._foot_variance[_AXIS_GROUP]
        if total < 1.0 and at_rest:
            weight = c.rest_velocity**-2
            pull -= weight * self.velocity
            information += weight
        residual[0] = pull / information[_AXIS_GROUP]
        noise[:, 0] = 1.0 / information
        residual[1] = 0.0
        noise[:, 1] = _IGNORED
        if total > 0.1:
            residual[1, 2] = self._foot_radius - (trust @ arms[:, 2]) / total - self.position[2]
            noise[_VERTICAL, 1] = c.height**2 / total
        residual[2:] = arms - (self.feet - self.position)
        return residual, noise
