"""A simulated robot without DDS: the body and motors of `robot_sim`, stepped by function calls.

For checks that need many seconds of simulation quickly and repeatably: estimator, policies, safety limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.config import LOW_STATE_HZ, SensorNoise, SimConfig
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant, Truth

STATE_PERIOD = 1.0 / LOW_STATE_HZ
_CONTACT_FORCE = 1.0


@dataclass(frozen=True)
class SensorErrors:
    """What a Go2's sensors get wrong; white noise as standard deviations.

    The sizes are on the pessimistic side of consumer MEMS sensors and of joint rates derived from encoders.
    """

    noise: SensorNoise = SensorNoise(q=0.001, dq=0.1, gyro=0.02, accel=0.2, orientation=0.003, tau=0.3)
    accel_bias: tuple[float, float, float] = (0.15, -0.1, 0.1)
    """m/s²."""
    gyro_bias: tuple[float, float, float] = (0.003, -0.003, 0.002)
    """rad/s."""
    q_step: float = 0.002
    """rad, resolution of the encoders."""

    @staticmethod
    def none() -> SensorErrors:
        """Perfect sensors."""
        return SensorErrors(SensorNoise.none(), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)


class Body(Protocol):
    """What carries motors and sensors. Methods, frames and units are those of `Plant`."""

    @property
    def time(self) -> float: ...

    @property
    def q(self) -> np.ndarray: ...

    @property
    def dq(self) -> np.ndarray: ...

    def imu(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def foot_force(self) -> np.ndarray: ...

    def truth(self) -> Truth: ...

    def begin(self) -> None: ...

    def finish(self, torque: np.ndarray) -> None: ...

    def push(self, vx: float, vy: float) -> None: ...

    def shove(self, force_w: Sequence[float] | np.ndarray) -> None: ...


class InProcessRobot:
    """A robot that answers each motor command with the state 2 ms later.

    Args:
        spec: the robot.
        config: body, floor and physics step; its DDS settings and its noise are not used.
        errors: sensor errors; None for `SensorErrors()`.
        plant: a body of one's own in place of the one that `config` describes.
        motors: motors of one's own.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: SimConfig | None = None,
        errors: SensorErrors | None = None,
        plant: Body | None = None,
        motors: MotorBank | None = None,
    ) -> None:
        self.spec = spec
        config = config or SimConfig(robot=spec.name, initial_pose="default")
        self._errors = errors or SensorErrors()
        self._random = np.random.default_rng(config.seed)
        self._substeps = round(STATE_PERIOD / config.timestep)
        self._motors = motors or MotorBank(spec, config.motor_strength)
        self.plant: Body = plant or Plant(spec, config)
        self.plant.begin()
        self._accel = self.plant.imu()[2]

    @property
    def truth(self) -> Truth:
        """The state that the last `RobotState` measured."""
        return self.plant.truth()

    @property
    def true_lin_vel_b(self) -> np.ndarray:
        """(3,) m/s, velocity of base_link's origin, in base_link."""
        truth = self.plant.truth()
        w, v = truth.quat_wxyz[0], truth.quat_wxyz[1:]
        # Rotation by the inverse quaternion.
        return truth.lin_vel_w - 2.0 * np.cross(v, w * truth.lin_vel_w - np.cross(v, truth.lin_vel_w))

    @property
    def true_contact(self) -> np.ndarray:
        """(F,) whether the ground pushes on each foot."""
        return self.plant.foot_force() > _CONTACT_FORCE

    def push(self, vx: float, vy: float) -> None:
        """Add to the base's velocity, m/s in the world frame.

        The whole robot jumps, feet included, and no sensor sees it: policies are tested so. See `shove`.
        """
        self.plant.push(vx, vy)

    def shove(self, force_w: tuple[float, float, float]) -> None:
        """Push the base with a force, N in the world frame, until the next call; zero ends it."""
        self.plant.shove(force_w)

    def advance(self, command: MotorCommand) -> RobotState:
        """Hold `command` for 2 ms of physics, with PD at each step, and measure."""
        motors, plant = self._motors, self.plant
        motors.command(command.q, command.dq, command.stiffness, command.damping, command.tau)
        accel = np.zeros(3)
        for _ in range(self._substeps):
            plant.finish(motors.step(plant.q, plant.dq))
            plant.begin()
            accel += plant.imu()[2]
        # IMUs average over their sample; a single value of a stiff contact would be far off.
        self._accel = accel / self._substeps
        return self.measure()

    def measure(self) -> RobotState:
        """State as the sensors see it now; call once for each instant, since it draws noise."""
        errors, noise, plant = self._errors, self._errors.noise, self.plant
        quat, gyro, _ = plant.imu()
        n = self.spec.num_joints
        q = plant.q + self._noise(noise.q, n)
        if errors.q_step:
            q = np.round(q / errors.q_step) * errors.q_step
        time_ms = round(plant.time * 1000)
        return RobotState(
            tick=1000 + time_ms,
            received_ns=1_000_000 * (1000 + time_ms),
            quat_wxyz=_tilted(quat, self._noise(noise.orientation, 3)),
            gyro_b=gyro + errors.gyro_bias + self._noise(noise.gyro, 3),
            accel_b=self._accel + errors.accel_bias + self._noise(noise.accel, 3),
            q=q,
            dq=plant.dq + self._noise(noise.dq, n),
            tau_est=self._motors.torque + self._noise(noise.tau, n),
            temperature=self._motors.temperature.copy(),
            foot_force=np.clip(plant.foot_force(), 0, 32767).round(),
            battery_soc=90.0,
            voltage=29.0,
            wireless_remote=bytes(40),
        )

    def _noise(self, deviation: float, n: int) -> np.ndarray:
        return self._random.normal(0.0, deviation, n) if deviation else np.zeros(n)


def _tilted(quat: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """`quat` (4,) turned by the small rotation vector `angle` (3,) rad, in base_link."""
    w, v = quat[0], quat[1:]
    half = 0.5 * angle
    turned = np.concatenate([[w - v @ half], v + w * half + np.cross(v, half)])
    return turned / np.linalg.norm(turned)
