"""The robot of a scenario: a body on the scenario's ground, with the flaws of its motors and sensors."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np

from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec
from robots.mjcf import ModelOptions, build_spec
from sim2real_checks.inprocess import Body, InProcessRobot, SensorErrors
from sim2real_checks.robot_sim.config import LOW_STATE_HZ, SensorNoise, SimConfig
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant
from sim2real_checks.validation.bullet import BulletBody
from sim2real_checks.validation.model_file import compile_model
from sim2real_checks.validation.model_robot import build_other_spec, motor_limits
from sim2real_checks.validation.scenario import Actuation, Disturbance, Scenario, ScenarioError, check_engine
from sim2real_checks.validation.terrain import add_terrain

CORNER_SPEED = 0.6
"""Part of its speed limit from which on a motor's torque falls, to zero at `NO_LOAD_SPEED`; Go2's is not published."""
NO_LOAD_SPEED = 1.1
ENCODER_BIAS = 0.006
"""rad, one sigma of an encoder's constant offset at `bias` 1."""


class FlawedMotors(MotorBank):
    """Motors whose own controllers, torque and gears are not as commanded."""

    def __init__(self, spec: RobotSpec, actuation: Actuation) -> None:
        super().__init__(spec, actuation.strength)
        self._flaws = actuation
        self._peak = spec.torque_limit
        self._corner = CORNER_SPEED * spec.velocity_limit
        self._no_load = NO_LOAD_SPEED * spec.velocity_limit

    def command(
        self, q: np.ndarray, dq: np.ndarray, kp: np.ndarray, kd: np.ndarray, tau: np.ndarray,
        enabled: np.ndarray | float = 1.0,
    ) -> None:  # fmt: skip
        """As `MotorBank.command`, with gains that are off."""
        super().command(q, dq, self._flaws.gain * kp, self._flaws.gain * kd, tau, enabled)

    def step(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """As `MotorBank.step`; an error within the gear's play makes no torque, and fast motors are weak."""
        if self._flaws.backlash:
            error = self.q - q
            play = 0.5 * self._flaws.backlash
            q = self.q - np.sign(error) * np.maximum(np.abs(error) - play, 0.0)
        torque = super().step(q, dq)
        if self._flaws.torque_speed:
            driving = torque * dq > 0.0
            left = np.clip((self._no_load - np.abs(dq)) / (self._no_load - self._corner), 0.0, 1.0)
            torque = np.where(driving, np.clip(torque, -left * self._peak, left * self._peak), torque)
            self.torque = torque
        return torque


class ScenarioBody(Body, Protocol):
    """What a scenario needs of an engine beyond a body in general; frames and units as in `Plant`."""

    def foot_positions_w(self) -> np.ndarray: ...

    def foot_friction(self, coefficient: float) -> None: ...


class MujocoBody(Plant):
    """The body in MuJoCo."""

    def __init__(self, spec: RobotSpec, config: SimConfig, model: mujoco.MjModel, heading: float = 0.0) -> None:
        super().__init__(spec, config, model, heading)
        self._feet = np.array([model.geom(foot.name).id for foot in spec.feet])

    def foot_friction(self, coefficient: float) -> None:
        """Let the feet slide with this coefficient on anything."""
        self.model.geom_friction[self._feet, 0] = coefficient


ENGINES: dict[str, Callable[[RobotSpec, SimConfig, mujoco.MjModel, float], ScenarioBody]] = {
    "mujoco": MujocoBody, "bullet": BulletBody
}  # fmt: skip
"""A body at rest on the ground, from robot, first pose, world and first yaw in rad."""


class ScenarioRobot:
    """A robot in its scenario: give it a motor command every 2 ms, take the LowState that comes of it, if one comes."""

    def __init__(self, spec: RobotSpec, scenario: Scenario, seed: int, model: Path | None = None) -> None:
        """Build world and robot, which then rests on the ground.

        Args:
            spec: the robot.
            scenario: what happens.
            seed: of noise, biases, rough ground and dropped samples.
            model: MJCF file of the robot in place of ours.

        Raises:
            ScenarioError: a joint that the robot does not have, or something that the engine cannot do.
            ModelError: the model does not fit the robot.
        """
        check_engine(scenario)
        if model is not None and scenario.physics.engine != "mujoco":
            raise ScenarioError(f"scenario {scenario.name[:80]!r}: another model of the robot runs in MuJoCo alone")
        self.spec, self.scenario = spec, scenario
        self._random = np.random.default_rng([seed, 1])
        config = SimConfig(
            robot=spec.name, timestep=scenario.physics.timestep, initial_pose=scenario.start.pose, seed=seed
        )  # fmt: skip
        world = _world(spec, scenario, seed, model)
        # Motors that another file makes weaker report, too, what they really give.
        motors = spec if model is None else dataclasses.replace(spec, torque_limit=motor_limits(world, spec))
        self.motors = FlawedMotors(motors, scenario.actuation)
        self.plant = ENGINES[scenario.physics.engine](spec, config, world, math.radians(scenario.start.yaw))
        self._sensors = InProcessRobot(spec, config, _errors(scenario, self._random), self.plant, self.motors)
        self._encoder_bias = scenario.sensing.bias * self._random.normal(0.0, ENCODER_BIAS, spec.num_joints)
        self._commands: deque[MotorCommand] = deque()
        self._states: deque[RobotState] = deque()
        self._command_delay = round(scenario.actuation.delay * LOW_STATE_HZ)
        self._state_delay = round(scenario.sensing.delay * LOW_STATE_HZ)
        self._disturbances = [_checked(disturbance, spec) for disturbance in scenario.disturbances]

    def advance(self, command: MotorCommand) -> RobotState | None:
        """2 ms of physics under the command that has arrived by now; None when the state is late or lost."""
        self._commands.append(command)
        due = self._commands.popleft() if len(self._commands) > self._command_delay else self._commands[0]
        state = self._sensors.advance(due)
        self._states.append(_biased(state, self._encoder_bias))
        if len(self._states) <= self._state_delay:
            return None
        state = self._states.popleft()
        return None if self._random.random() < self.scenario.sensing.dropout else state

    def disturb(self, t: float) -> None:
        """Let happen what the scenario foresees at `t` s of walking; call once each 2 ms."""
        self.motors.factor[:] = 1.0
        force, friction = np.zeros(3), self.scenario.terrain.friction
        for disturbance in self._disturbances:
            since = t - disturbance.at
            begins = -1e-9 <= since < 1.0 / LOW_STATE_HZ - 1e-9
            lasts = since >= -1e-9 and (not disturbance.duration or since < disturbance.duration)
            if disturbance.kind == "push" and begins:
                self.plant.push(*(disturbance.speed * self._direction(disturbance)))
            elif disturbance.kind == "shove" and lasts:
                force[:2] += disturbance.force * self._direction(disturbance)
            elif disturbance.kind == "weak_motor" and lasts:
                self.motors.factor[self.spec.joint_names.index(disturbance.joint)] *= disturbance.factor
            elif disturbance.kind == "friction" and lasts:
                friction = disturbance.friction
        self.plant.shove(force)
        self.plant.foot_friction(friction)

    def _direction(self, disturbance: Disturbance) -> np.ndarray:
        w, x, y, z = self.plant.truth().quat_wxyz
        angle = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)) + math.radians(disturbance.direction)
        return np.array([math.cos(angle), math.sin(angle)])


def _world(spec: RobotSpec, scenario: Scenario, seed: int, model: Path | None) -> mujoco.MjModel:
    physics, terrain = scenario.physics, scenario.terrain
    options: dict[str, Any] = {
        "timestep": physics.timestep, "cone": physics.cone, "integrator": physics.integrator, "solver": physics.solver,
        "iterations": physics.iterations, "foot_friction": terrain.friction,
    }  # fmt: skip
    if model is None:
        world = build_spec(spec.name, collision="full", looks=True, **options)
    else:
        world = build_other_spec(spec, model, ModelOptions(**options))
    add_terrain(world, terrain, seed)
    base = next(joint.parent for joint in world.joints if joint.type == mujoco.mjtJoint.mjJNT_FREE)
    for i, load in enumerate(d for d in scenario.disturbances if d.kind == "payload"):
        # A body of its own: the base has a given inertia, to which geoms would add nothing.
        base.add_body(name=f"payload_{i}", pos=[load.x, load.y, load.z]).add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.06, 0.06, 0.03], mass=load.mass, contype=0, conaffinity=0,
            rgba=[0.8, 0.4, 0.1, 1.0],
        )  # fmt: skip
    for name in spec.joint_names:
        world.joint(name).frictionloss += scenario.actuation.friction
    return world.compile() if model is None else compile_model(world, model)


def _errors(scenario: Scenario, random: np.random.Generator) -> SensorErrors:
    """A Go2's sensor errors, multiplied; the signs of the biases are drawn."""
    plain, sensing = SensorErrors(), scenario.sensing
    n, k = plain.noise, sensing.noise
    noise = SensorNoise(k * n.q, k * n.dq, k * n.gyro, k * n.accel, k * n.orientation, k * n.tau)
    signs = random.choice([-1.0, 1.0], 6)
    accel = tuple(float(v) for v in sensing.bias * signs[:3] * plain.accel_bias)
    gyro = tuple(float(v) for v in sensing.bias * signs[3:] * plain.gyro_bias)
    return SensorErrors(noise, accel, gyro, plain.q_step if k else 0.0)  # type: ignore[arg-type]


def _biased(state: RobotState, bias: np.ndarray) -> RobotState:
    return dataclasses.replace(state, q=state.q + bias)


def _checked(disturbance: Disturbance, spec: RobotSpec) -> Disturbance:
    if disturbance.kind == "weak_motor" and disturbance.joint not in spec.joint_names:
        raise ScenarioError(
            f"weak_motor: {spec.name} has no joint {disturbance.joint!r}; it has {', '.join(spec.joint_names)}"
        )
    return disturbance
