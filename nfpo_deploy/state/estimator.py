"""State estimator: orientation, base velocity, odometry and contacts from IMU, encoders and motor torques."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.errors import EstimatorError
from nfpo_deploy.state.chain_kinematics import leg_kinematics
from nfpo_deploy.state.contact import ContactConfig, ContactDetector
from nfpo_deploy.state.kinematics import LegState
from nfpo_deploy.state.leg_inertial_filter import FilterConfig, LegInertialFilter
from nfpo_deploy.state.rest import RestDetector
from nfpo_deploy.state.tick_clock import TickClock, TickEvent
from nfpo_deploy.types import RobotState, StateEstimate
from robots.loader import RobotSpec

LONGEST_GAP = 0.1
"""s of lost states that the filter bridges; after more it starts anew from the last position."""
# Beyond these no sensor of a legged robot reads; a corrupt message does. Units as in RobotState.
_BOUNDS = {
    "gyro_b": 100.0,
    "accel_b": 1000.0,
    "q": 100.0,
    "dq": 1000.0,
    "tau_est": 10000.0,
    "foot_force": 1e6,
}
_QUATERNION_TOLERANCE = 0.05


class StateEstimator:
    """Estimates the state of a legged robot, one LowState at a time.

    Orientation and angular velocity are the robot's own IMU's. Velocity and position come from a Kalman
    filter (`LegInertialFilter`) that integrates the accelerometer at the IMU's place and is corrected by the
    feet that stand (`ContactDetector`). Position is odometry: x and y drift slowly, z is the height above the ground
    under the standing feet. `lin_vel_std` grows while no foot stands.

    Lost ticks are bridged up to 0.1 s; after a longer gap velocity starts anew with a large `lin_vel_std`. A
    tick that repeats returns the last estimate. A tick counter that went backwards is a robot that restarted: as
    `reset`.

    Args:
        spec: robot whose legs robot.yaml describes.
        dt: s between two LowStates of the robot.
        filter_config, contact_config: noise and thresholds; None for the defaults.

    Raises:
        EstimatorError: the robot's legs are not supported.
        ValueError: dt not above zero.
    """

    def __init__(
        self,
        spec: RobotSpec,
        dt: float = 0.002,
        filter_config: FilterConfig | None = None,
        contact_config: ContactConfig | None = None,
    ) -> None:
        self._clock = TickClock(dt, LONGEST_GAP)
        self._period = dt
        self._legs = leg_kinematics(spec)
        self._contact = ContactDetector(spec, self._legs.chain, contact_config)
        self._rest = RestDetector()
        self._radius = self._legs.foot_radius
        self._filter = LegInertialFilter(len(spec.feet), dt, self._radius, filter_config)
        self._imu = spec.imu_position
        sizes = {"gyro_b": 3, "accel_b": 3, "foot_force": len(spec.feet)}
        self._sizes = {name: sizes.get(name, spec.num_joints) for name in _BOUNDS}
        self._bounds = np.concatenate([np.full(self._sizes[name], bound) for name, bound in _BOUNDS.items()])
        self._last: StateEstimate | None = None

    @property
    def filter(self) -> LegInertialFilter:
        """The filter, to look into."""
        return self._filter

    @property
    def contact_force(self) -> np.ndarray:
        """(F,) N, estimated upward force of the ground on each foot."""
        return self._contact.force.copy()

    def reset(self) -> None:
        """Forget everything; the next state becomes the origin of the odometry."""
        self._clock.reset()
        self._forget()

    def _forget(self) -> None:
        self._contact.reset()
        self._rest.reset()
        self._filter.bias_b = np.zeros(3)
        self._last = None

    def update(self, state: RobotState) -> StateEstimate:
        """Estimate at `state`; all values of the result are finite.

        Raises:
            EstimatorError: a value of `state` is non-finite, impossible or of the wrong shape; the message
                names it and the estimator is as before, so that the next good state continues. Also if the
                filter itself became non-finite, in which case it was reset.
        """
        quat = self._checked(state)
        event, dt = self._clock.advance(state.tick, state.received_ns)
        if event is TickEvent.DUPLICATE and self._last is not None:
            return self._last
        if event is TickEvent.RESTART:
            self._forget()
        rotation = _rotation(*quat.tolist())
        legs = self._legs.forward(state.q, state.dq)
        up_b = rotation[2]
        contact = self._contact.update(up_b, legs, state.tau_est, state.foot_force, dt or self._period)
        at_rest = self._rest.update(state.gyro_b, state.accel_b, state.dq, dt or self._period)
        arms_b = legs.position - self._imu
        if event is TickEvent.STEP and self._last is not None:
            velocity_b, rolling_b = self._standing_foot(state.gyro_b, up_b, legs, arms_b)
            to_world = rotation.T
            self._filter.step(
                dt, rotation, state.accel_b, arms_b @ to_world, velocity_b @ to_world, rolling_b @ to_world,
                self._contact.settled, at_rest,
            )  # fmt: skip
        else:
            self._start(rotation, arms_b)
        self._last = self._estimate(state, quat, rotation, contact)
        return self._last

    def _checked(self, state: RobotState) -> np.ndarray:
        """Normalised quaternion of a state whose values are all plausible."""
        quat = np.asarray(state.quat_wxyz, dtype=np.float64)
        norm = float(np.sqrt(quat @ quat)) if quat.shape == (4,) else float("nan")
        if not abs(norm - 1.0) <= _QUATERNION_TOLERANCE:
            raise EstimatorError(f"tick {state.tick}: quat_wxyz {state.quat_wxyz!r} is not a unit quaternion")
        values = np.concatenate([state.gyro_b, state.accel_b, state.q, state.dq, state.tau_est, state.foot_force])
        # A comparison with NaN is false, so one test finds both NaN and absurd values.
        if values.shape != self._bounds.shape or not (np.abs(values) <= self._bounds).all():
            self._blame(state)
        return quat / norm

    def _blame(self, state: RobotState) -> None:
        for name, bound in _BOUNDS.items():
            value = np.asarray(getattr(state, name))
            if value.shape != (self._sizes[name],):
                raise EstimatorError(
                    f"tick {state.tick}: {name} has shape {value.shape}, expected ({self._sizes[name]},)"
                )
            bad = ~(np.abs(value) <= bound)
            if bad.any():
                i = int(np.argmax(bad))
                raise EstimatorError(
                    f"tick {state.tick}: {name}[{i}] = {value[i]} is not within ±{bound:g}; state skipped"
                )

    def _standing_foot(
        self, gyro_b: np.ndarray, up_b: np.ndarray, legs: LegState, arms_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Velocity of the IMU that each foot implies if it stands, and of its rolling centre; (F, 3).

        Both in base_link.

        The point of the foot that touches the ground stands still; the centre above it moves with the calf's
        turning: omega_calf x (radius up).
        """
        rolling = (legs.calf_rate + gyro_b) @ _cross_matrix(self._radius * up_b)
        # a @ _cross_matrix(b) = a x b, and omega x arm = -(arm x omega).
        return rolling - legs.velocity + arms_b @ _cross_matrix(gyro_b), rolling

    def _start(self, rotation: np.ndarray, arms_b: np.ndarray) -> None:
        """Begin at the last position and velocity, or above the origin with the lowest foot on the ground."""
        arms = arms_b @ rotation.T
        if self._last is None:
            position = rotation @ self._imu
            position[2] = self._radius - arms[:, 2].min()
            velocity = np.zeros(3)
        else:
            position, velocity = self._filter.position, self._filter.velocity
        self._filter.start(position, velocity, position + arms)

    def _estimate(
        self, state: RobotState, quat: np.ndarray, rotation: np.ndarray, contact: np.ndarray
    ) -> StateEstimate:
        f = self._filter
        ang_vel_b = np.array(state.gyro_b, dtype=np.float64)
        # The filter follows the IMU; base_link moves with it, less the turning of the lever arm.
        lin_vel_b = f.velocity @ rotation - ang_vel_b @ _cross_matrix(self._imu)
        horizontal, vertical = f.covariance[:, 1, 1].tolist()
        variance = f.config.velocity_floor**2 + horizontal + (vertical - horizontal) * rotation[2] ** 2
        position = f.position - rotation @ self._imu
        if not (np.isfinite(lin_vel_b).all() and np.isfinite(position).all() and np.isfinite(variance).all()):
            self.reset()
            raise EstimatorError(f"tick {state.tick}: the filter became non-finite and was reset")
        return StateEstimate(
            tick=state.tick,
            received_ns=state.received_ns,
            quat_wxyz=quat,
            ang_vel_b=ang_vel_b,
            lin_vel_b=lin_vel_b,
            lin_vel_std=np.sqrt(variance),
            position_w=position,
            contact=contact.copy(),
            q=np.array(state.q, dtype=np.float64),
            dq=np.array(state.dq, dtype=np.float64),
        )


def _rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Rotation matrix (3, 3) of a unit quaternion."""
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def _cross_matrix(vector: np.ndarray) -> np.ndarray:
    """Matrix M (3, 3) such that a @ M = a x vector for rows a; `np.cross` costs ten times as much."""
    x, y, z = vector.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
