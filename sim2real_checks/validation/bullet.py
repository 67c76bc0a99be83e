"""The body of a scenario in Bullet, a second physics engine: rigid contacts and a sequential-impulse solver.

It is made from the same compiled MuJoCo model, so that robot, payload, friction and ground are the same. What differs
are the laws: contacts are rigid, where MuJoCo's feet are soft, and found and solved by other code.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.robot_sim.plant import SETTLE_S, Truth
from sim2real_checks.validation.scenario import ScenarioError
from sim2real_checks.validation.urdf import ROTOR, UNTURNED, is_solid, joint_of, write_urdf

ITERATIONS = 50
"""Of the contact solver; Bullet's own default. Twenty already give a geared rotor's acceleration to nine digits."""
GEAR = 1000.0
"""Turns of a rotor for one of its joint. The larger, the less a rotor feels when the whole leg turns, as armature
does; at 1000 the accelerations of joints differ from MuJoCo's by less than 0.1 %."""
STRONG = 1e9
"""Bound of a gear's force and of joint velocities where none is wanted."""
FAR = 10.0
"""m, within which the ground is looked for."""
INSTALL = 'pip install "nfpo[bullet]"'


def load_pybullet() -> Any:
    """The module; raises `ScenarioError` with the remedy where it is not installed."""
    with _no_stderr():
        try:
            import pybullet
        except ImportError as error:
            raise ScenarioError(f"engine bullet needs PyBullet: {INSTALL}") from error
    return pybullet


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """PyBullet's C code says there when it was built, once in each process."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _World:
    """PyBullet's functions for a world of its own, which ends with this object."""

    def __init__(self) -> None:
        self._functions = load_pybullet()
        self._client = self._functions.connect(self._functions.DIRECT)
        if self._client < 0:
            raise ScenarioError("engine bullet: PyBullet opens no more worlds in this process")
        weakref.finalize(self, self._functions.disconnect, self._client)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._functions, name)
        return functools.partial(value, physicsClientId=self._client) if callable(value) else value


class BulletBody:
    """One robot on a plane. Methods, frames and units are those of `Plant`, as far as scenarios use them."""

    def __init__(self, spec: RobotSpec, config: SimConfig, model: mujoco.MjModel, heading: float = 0.0) -> None:
        """Put the robot on the ground and let it come to rest.

        Args:
            spec: the robot.
            config: first pose; the timestep is the model's.
            model: world with this robot and a plane named `floor`; it is read once.
            heading: first yaw, rad.

        Raises:
            ScenarioError: PyBullet is missing, or the model has what Bullet has no equal for.
        """
        self._world = _World()
        self._step = float(model.opt.timestep)
        self._gravity = model.opt.gravity.copy()
        self._base = int(model.body_rootid[model.jnt_bodyid[model.joint(spec.joint_names[0]).id]])
        self._inertia_pos, self._inertia_quat = model.body_ipos[self._base].copy(), model.body_iquat[self._base].copy()
        self._imu_pos, self._imu_quat = _imu_place(model, spec.imu_site, self._base)
        self._ground, self._normal = self._add_ground(model)
        feet = [foot.name for foot in spec.feet]
        self._robot = self._add_robot(model, feet)
        links = self._links()
        self._feet = [links[name] for name in feet]
        self._joints = [links[model.body(int(model.joint(name).bodyid[0])).name] for name in spec.joint_names]
        self._rotors = [links[name + ROTOR] for name in spec.joint_names]
        self._set_laws(model, feet, links)
        self._steps, self._shove, self._friction = 0, np.zeros(3), math.nan
        self._quat: np.ndarray = UNTURNED
        self._forces: np.ndarray | None = None
        self.foot_friction(float(model.geom(feet[0]).friction[0]))
        self._settle(spec, config, heading)

    @property
    def time(self) -> float:
        return self._steps * self._step

    @property
    def q(self) -> np.ndarray:
        """(N,) rad, a copy."""
        return self._q.copy()

    @property
    def dq(self) -> np.ndarray:
        """(N,) rad/s, a copy."""
        return self._dq.copy()

    def imu(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Quaternion wxyz, gyro rad/s and accelerometer m/s² (mean of the last step) in the IMU's frame, copies."""
        quat = _times(self._quat, self._imu_quat)
        rotation = _matrix(quat)
        return quat, self._ang_vel_w @ rotation, (self._acceleration_w - self._gravity) @ rotation

    def foot_force(self) -> np.ndarray:
        """(F,) N, normal force on each foot."""
        if self._forces is None:
            self._forces = np.zeros(len(self._feet))
            for contact in self._world.getContactPoints(self._robot):
                # A contact within the robot comes with either of its links first.
                for link in {contact[3], contact[4] if contact[2] == self._robot else None}:
                    if link in self._feet:
                        self._forces[self._feet.index(link)] += contact[9]
        return self._forces.copy()

    def foot_positions_w(self) -> np.ndarray:
        """(F, 3) m, foot centres in the world."""
        states = self._world.getLinkStates(self._robot, self._feet, computeForwardKinematics=True)
        return np.array([state[4] for state in states])

    def truth(self) -> Truth:
        """The current state, copied."""
        ang_vel_b = self._ang_vel_w @ _matrix(self._quat)
        base = (self._position.copy(), self._quat.copy(), self._lin_vel_w.copy())
        return Truth(self.time, *base, ang_vel_b, self.q, self.dq)

    def begin(self) -> None:
        """Nothing: what depends on position and velocity is there after each step."""

    def finish(self, torque: np.ndarray) -> None:
        """Apply joint torques, N·m in joint order, and advance one step."""
        world = self._world
        world.setJointMotorControlArray(self._robot, self._joints, world.TORQUE_CONTROL, forces=torque)
        if self._shove.any():
            centre = world.getBasePositionAndOrientation(self._robot)[0]
            world.applyExternalForce(self._robot, -1, self._shove, centre, world.WORLD_FRAME)
        before = self._imu_velocity_w()
        world.stepSimulation()
        self._steps += 1
        self._read()
        self._acceleration_w = (self._imu_velocity_w() - before) / self._step

    def shove(self, force_w: Sequence[float] | np.ndarray) -> None:
        """Push the base's centre of mass with a force, N in the world frame, until the next call; zero ends it."""
        self._shove = np.array(force_w, dtype=np.float64)

    def push(self, vx: float, vy: float) -> None:
        """Add to the base's velocity, m/s in the world frame; no sensor sees it."""
        linear, angular = self._world.getBaseVelocity(self._robot)
        self._world.resetBaseVelocity(self._robot, np.add(linear, (vx, vy, 0.0)), angular)
        self._read()

    def foot_friction(self, coefficient: float) -> None:
        """Let the feet slide with this coefficient on anything."""
        if coefficient != self._friction:
            for foot in self._feet:
                self._world.changeDynamics(self._robot, foot, lateralFriction=coefficient)
            self._friction = coefficient

    def _add_ground(self, model: mujoco.MjModel) -> tuple[int, np.ndarray]:
        """The plane named `floor`; returns its body and its unit normal (3,)."""
        floor = model.geom("floor").id
        other = [g for g in range(model.ngeom) if model.body_rootid[model.geom_bodyid[g]] != self._base and g != floor]
        if any(is_solid(model, geom) for geom in other):
            raise ScenarioError("engine bullet: the ground must be a single plane")
        normal = _matrix(model.geom_quat[floor])[:, 2]
        world = self._world
        shape = world.createCollisionShape(world.GEOM_PLANE, planeNormal=normal)
        ground = world.createMultiBody(0.0, shape, basePosition=model.geom_pos[floor])
        # Bullet multiplies the coefficients of two bodies.
        world.changeDynamics(ground, -1, lateralFriction=1.0, restitution=0.0)
        return ground, normal

    def _add_robot(self, model: mujoco.MjModel, feet: Sequence[str]) -> int:
        world = self._world
        flags = world.URDF_USE_INERTIA_FROM_FILE | world.URDF_USE_SELF_COLLISION
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "robot.urdf")
            path.write_text(write_urdf(model, self._base, feet))
            return int(world.loadURDF(str(path), flags=flags))

    def _links(self) -> dict[str, int]:
        """Bullet's index of each link by name; that of the base is -1."""
        infos = [self._world.getJointInfo(self._robot, i) for i in range(self._world.getNumJoints(self._robot))]
        return {info[12].decode(): int(info[0]) for info in infos}

    def _set_laws(self, model: mujoco.MjModel, feet: Sequence[str], links: dict[str, int]) -> None:
        world, robot = self._world, self._robot
        world.setTimeStep(self._step)
        world.setGravity(*self._gravity)
        world.setPhysicsEngineParameter(numSolverIterations=ITERATIONS, deterministicOverlappingPairs=1)
        floor = float(model.geom("floor").friction[0])
        for link in (-1, *links.values()):
            # Bullet slows everything down by default, as if in air.
            world.changeDynamics(robot, link, linearDamping=0.0, angularDamping=0.0, maxJointVelocity=STRONG)
        for geom in range(model.ngeom):
            name, body = model.geom(geom).name, int(model.geom_bodyid[geom])
            if model.body_rootid[body] == self._base and is_solid(model, geom) and name not in feet:
                friction = max(floor, float(model.geom_friction[geom, 0]))
                world.changeDynamics(robot, links.get(model.body(body).name, -1), lateralFriction=friction)
        for joint, rotor in zip(self._joints, self._rotors, strict=True):
            self._set_joint(model, joint, rotor)

    def _set_joint(self, model: mujoco.MjModel, joint: int, rotor: int) -> None:
        """Give a joint its dry friction and its armature."""
        world, robot = self._world, self._robot
        body = model.body(world.getJointInfo(robot, joint)[12].decode()).id
        hinge = joint_of(model, body)
        dof = int(model.jnt_dofadr[hinge])
        # The motor for velocity zero, bounded to the friction's torque, is Coulomb friction. It replaces the one by
        # which Bullet holds joints; torque comes on top.
        friction = float(model.dof_frictionloss[dof])
        world.setJointMotorControl2(robot, joint, world.VELOCITY_CONTROL, targetVelocity=0.0, force=friction)
        world.setJointMotorControl2(robot, rotor, world.VELOCITY_CONTROL, force=0.0)
        axis = model.jnt_axis[hinge]
        moment = float(model.dof_armature[dof]) / GEAR**2
        world.changeDynamics(robot, rotor, localInertiaDiagonal=(moment, moment, moment))
        gear = world.createConstraint(
            robot, joint, robot, rotor, world.JOINT_GEAR, axis, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
        )  # fmt: skip
        # Bullet's ratio has the other sign than the two joints' velocities.
        world.changeConstraint(gear, gearRatio=-1.0 / GEAR, maxForce=STRONG, erp=0.0)

    def _read(self) -> None:
        """Take the state from Bullet, which places a base by its centre of mass and its principal axes."""
        world = self._world
        centre, (x, y, z, w) = world.getBasePositionAndOrientation(self._robot)
        linear, angular = world.getBaseVelocity(self._robot)
        inverse = np.zeros(4)
        mujoco.mju_negQuat(inverse, self._inertia_quat)
        quat = _times(np.array([w, x, y, z]), inverse)
        # Bullet gives either sign; orientation must not jump.
        self._quat = -quat if quat @ self._quat < 0.0 else quat
        arm = _matrix(self._quat) @ self._inertia_pos
        self._position = np.array(centre) - arm
        self._ang_vel_w = np.array(angular)
        self._lin_vel_w = np.array(linear) - _cross(self._ang_vel_w, arm)
        states = world.getJointStates(self._robot, self._joints)
        self._q, self._dq = (np.array([state[i] for state in states]) for i in (0, 1))
        self._forces = None

    def place(
        self, position_w: np.ndarray, quat_wxyz: np.ndarray, q: np.ndarray, lin_vel_w: np.ndarray | None = None,
        ang_vel_w: np.ndarray | None = None, dq: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Put the robot into a state: base_link's pose and velocity in the world, joints; rest where left out."""
        world, still = self._world, np.zeros(3)
        rates = np.zeros(len(q)) if dq is None else dq
        linear, angular = (still if v is None else v for v in (lin_vel_w, ang_vel_w))
        arm = _matrix(quat_wxyz) @ self._inertia_pos
        w, x, y, z = _times(quat_wxyz, self._inertia_quat)
        world.resetBasePositionAndOrientation(self._robot, position_w + arm, (x, y, z, w))
        world.resetBaseVelocity(self._robot, linear + _cross(angular, arm), angular)
        for joint, rotor, angle, rate in zip(self._joints, self._rotors, q, rates, strict=True):
            world.resetJointState(self._robot, joint, angle, rate)
            world.resetJointState(self._robot, rotor, 0.0, GEAR * rate)
        self._quat = quat_wxyz
        self._read()
        self._acceleration_w = np.zeros(3)

    def _imu_velocity_w(self) -> np.ndarray:
        return self._lin_vel_w + _cross(self._ang_vel_w, _matrix(self._quat) @ self._imu_pos)

    def _settle(self, spec: RobotSpec, config: SimConfig, heading: float) -> None:
        """As `Plant` does: put down in the first pose, held by the stand gains until it is at rest."""
        pose = spec.crouch_pose if config.initial_pose == "crouch" else spec.default_pose
        quat = np.array([math.cos(0.5 * heading), 0.0, 0.0, math.sin(0.5 * heading)])
        high = np.array([0.0, 0.0, 2.0 * spec.base_height])
        self.place(high, quat, pose)
        gaps = [point[8] for point in self._world.getClosestPoints(self._robot, self._ground, FAR)]
        self.place(high - (0.0, 0.0, min(gaps) / self._normal[2]), quat, pose)
        for _ in range(round(SETTLE_S / self._step)):
            torque = spec.stand_gains.stiffness * (pose - self._q) - spec.stand_gains.damping * self._dq
            self.finish(np.clip(torque, -spec.torque_limit, spec.torque_limit))
        x, y, z = self._position
        # Back to the origin along the ground.
        rise = (self._normal[0] * x + self._normal[1] * y) / self._normal[2]
        self.place(np.array([0.0, 0.0, z + rise]), self._quat, self._q)
        self._steps = 0


def _imu_place(model: mujoco.MjModel, site: str, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and quaternion (4,) of the IMU in base_link."""
    index = model.site(site).id
    if model.site_bodyid[index] != base:
        raise ScenarioError("engine bullet: the IMU must sit on the robot's base")
    return model.site_pos[index].copy(), model.site_quat[index].copy()


def _times(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Product of two quaternions wxyz."""
    product = np.zeros(4)
    mujoco.mju_mulQuat(product, first, second)
    return product


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # NumPy's own takes 20 µs for two vectors, a tenth of a physics step.
    product = np.zeros(3)
    mujoco.mju_cross(product, first, second)
    return product


def _matrix(quat: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion wxyz."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, quat)
    return rotation.reshape(3, 3)
