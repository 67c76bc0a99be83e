"""The simulated body: MuJoCo model and state, addressed in the robot spec's joint order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robots import mjcf
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.config import SimConfig, SimConfigError
from sim2real_checks.robot_sim.gantry import CLEARANCE, Gantry

SECONDARY_IMU = "secondary_imu"
"""Site of a second IMU, in the torso of a humanoid."""
SETTLE_S = 1.0
_SETTLE_STIFFNESS = 60.0
_SETTLE_DAMPING = 5.0
_LOWERING_STEP = 0.002
_LOCK_INERTIA = 1e6
"""kg·m² of a blocked joint's rotor: what moves the leg moves the body instead, as with a jammed gear."""
# A hand that holds the trunk: stiff against its weight, level, without swinging (critically damped for 15 kg).
_HAND_STIFFNESS, _HAND_DAMPING = 2000.0, 350.0
_LEVEL_STIFFNESS, _LEVEL_DAMPING = 60.0, 8.0


@dataclass(frozen=True)
class Truth:
    """What is really so at one moment. Positions and linear velocity in the world frame, SI units.

    `quat_wxyz` turns base_link into world; `ang_vel_b` is in base_link; joints in joint order.
    """

    time: float
    position_w: np.ndarray
    quat_wxyz: np.ndarray
    lin_vel_w: np.ndarray
    ang_vel_b: np.ndarray
    q: np.ndarray
    dq: np.ndarray


class Plant:
    """One robot on a floor. A step is `begin()` (quantities of the current state), then `finish(torque)`."""

    def __init__(
        self, spec: RobotSpec, config: SimConfig, model: mujoco.MjModel | None = None, heading: float = 0.0
    ) -> None:
        """Put the robot on the ground, or into its gantry, and let it come to rest.

        Args:
            spec: the robot.
            config: payload, first pose and, where no model is given, timestep and friction.
            model: a world of one's own with this robot and torque actuators; it is changed.
            heading: first yaw, rad.
        """
        self.model = model or mjcf.build_model(
            spec.name, collision="full", timestep=config.timestep, actuators="torque",
            foot_friction=config.foot_friction,
        )  # fmt: skip
        self.data = mujoco.MjData(self.model)
        model = self.model
        joints = [model.joint(name) for name in spec.joint_names]
        by_joint = {int(model.actuator_trnid[i, 0]): i for i in range(model.nu)}
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._qvel = np.array([joint.dofadr[0] for joint in joints])
        self._ctrl = np.array([by_joint[joint.id] for joint in joints])
        self._base = int(model.body_rootid[model.jnt_bodyid[joints[0].id]])
        self._own = model.body_rootid[model.geom_bodyid] == self._base
        self._imu = _imu_slices(model, spec.imu_site)
        second = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, f"{SECONDARY_IMU}_quat") >= 0
        self._secondary_imu = _imu_slices(model, SECONDARY_IMU) if second else None
        self.gantry = Gantry(model, self._base) if Gantry.fits(model) else None
        touches = [f"{foot.name.removesuffix('_foot')}_touch" for foot in spec.feet]
        self._touch = np.array([model.sensor(name).adr[0] for name in touches])
        self._foot_sites = np.array([model.site(foot.name).id for foot in spec.feet])
        self._armature = model.dof_armature.copy()
        self._locked: frozenset[int] = frozenset()
        self._hand: np.ndarray | None = None
        self._add_payload(config.payload)
        self._spec = spec
        self._settle(spec, config, heading)

    @property
    def time(self) -> float:
        return self.data.time

    @property
    def q(self) -> np.ndarray:
        """(N,) rad, a copy."""
        return self.data.qpos[self._qpos]

    @property
    def dq(self) -> np.ndarray:
        """(N,) rad/s, a copy."""
        return self.data.qvel[self._qvel]

    @property
    def ddq(self) -> np.ndarray:
        """(N,) rad/s² of the last step."""
        return self.data.qacc[self._qvel]

    def imu(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Quaternion wxyz, gyro rad/s and accelerometer m/s² (the last step's) in the IMU's frame, copies."""
        return self._read_imu(self._imu)

    def secondary_imu(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The same of the second IMU, None for a robot with one."""
        return None if self._secondary_imu is None else self._read_imu(self._secondary_imu)

    def _read_imu(self, slices: tuple[slice, slice, slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = self.data.sensordata
        quat, gyro, acc = (values[part].copy() for part in slices)
        return quat, gyro, acc

    def foot_force(self) -> np.ndarray:
        """(F,) N, normal force on each foot."""
        return self.data.sensordata[self._touch]

    def foot_positions(self) -> np.ndarray:
        """(F, 3) m, foot centres relative to base_link, in base_link."""
        rotation = self.data.xmat[self._base].reshape(3, 3)
        return (self.data.site_xpos[self._foot_sites] - self.data.xpos[self._base]) @ rotation

    def foot_positions_w(self) -> np.ndarray:
        """(F, 3) m, foot centres in the world, a copy."""
        return self.data.site_xpos[self._foot_sites].copy()

    def truth(self) -> Truth:
        """The current state, copied."""
        qpos, qvel = self.data.qpos, self.data.qvel
        base = (qpos[:3].copy(), qpos[3:7].copy(), qvel[:3].copy(), qvel[3:6].copy())
        return Truth(self.data.time, *base, self.q, self.dq)

    def begin(self) -> None:
        """Compute everything that depends on the current position and velocity."""
        if self._hand is not None:
            self._carry(self._hand)
        if self.gantry is not None:
            self.gantry.apply(self.data)
        if self._locked:
            self.data.qvel[[self._qvel[joint] for joint in self._locked]] = 0.0
        mujoco.mj_step1(self.model, self.data)

    def finish(self, torque: np.ndarray) -> None:
        """Apply joint torques, N·m in joint order, and advance one step."""
        self.data.ctrl[self._ctrl] = torque
        mujoco.mj_step2(self.model, self.data)

    def shove(self, force_w: Sequence[float] | np.ndarray) -> None:
        """Push the base's centre of mass with a force, N in the world frame, until the next call; zero ends it."""
        self.data.xfrc_applied[self._base, :3] = force_w

    def push(self, vx: float, vy: float) -> None:
        """Add to the base's velocity, m/s in the world frame."""
        self.data.qvel[:2] += (vx, vy)

    def drop(self, height: float) -> None:
        """Put the robot `height` m higher; it falls from there."""
        self.data.qpos[2] += height

    def lay_down(self) -> None:
        """Fold the legs to the crouch pose and put the robot on the floor where it is, level and at rest."""
        w, x, y, z = self.data.qpos[3:7]
        heading = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        self.data.qpos[3:7] = (math.cos(0.5 * heading), 0.0, 0.0, math.sin(0.5 * heading))
        self.data.qpos[self._qpos] = self._spec.crouch_pose
        self.data.qvel[:] = 0.0
        self._put_on_floor(2 * self._spec.base_height)

    def lock(self, joints: Iterable[int]) -> None:
        """Block exactly these joints (indices in joint order) where they are; free those blocked before."""
        locked = frozenset(joints)
        for joint in locked - self._locked:
            self.model.dof_armature[self._qvel[joint]] = _LOCK_INERTIA
        for joint in self._locked - locked:
            self.model.dof_armature[self._qvel[joint]] = self._armature[self._qvel[joint]]
        self._locked = locked

    def lift(self, height: float | None) -> None:
        """Hold the base `height` m above where it is now, level; None lets go."""
        if height is None:
            self._hand = None
            self.data.xfrc_applied[self._base] = 0.0
        else:
            self._hand = self.data.qpos[:3] + (0.0, 0.0, height)

    def _carry(self, hand: np.ndarray) -> None:
        """Pull the base towards `hand` (3,) m and turn it level; forces in the world frame at its centre of mass."""
        data = self.data
        weight = -self.model.opt.gravity * self.model.body_subtreemass[self._base]
        pull = np.clip(hand - data.qpos[:3], -0.2, 0.2)
        data.xfrc_applied[self._base, :3] = weight + _HAND_STIFFNESS * pull - _HAND_DAMPING * data.qvel[:3]
        rotation = data.xmat[self._base].reshape(3, 3)
        # The rotation vector that turns the trunk's z axis upwards, for small angles.
        lean = np.cross(rotation[:, 2], (0.0, 0.0, 1.0))
        data.xfrc_applied[self._base, 3:] = _LEVEL_STIFFNESS * lean - _LEVEL_DAMPING * (rotation @ data.qvel[3:6])

    def _add_payload(self, mass: float) -> None:
        body_mass = self.model.body_mass[self._base]
        if body_mass + mass <= 0:
            raise SimConfigError(f"payload must be above {-body_mass:.2f} kg, the base's own mass; got {mass}")
        # At the centre of mass and of the base's own shape: inertia grows with mass.
        self.model.body_inertia[self._base] *= (body_mass + mass) / body_mass
        self.model.body_mass[self._base] += mass
        mujoco.mj_setConst(self.model, self.data)

    def _settle(self, spec: RobotSpec, config: SimConfig, heading: float) -> None:
        """Hang the robot up, or drop it from just above the floor, in its first pose and let it come to rest."""
        pose = spec.crouch_pose if config.initial_pose == "crouch" else spec.default_pose
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[3:7] = (math.cos(0.5 * heading), 0.0, 0.0, math.sin(0.5 * heading))
        self.data.qpos[self._qpos] = pose
        self._place(spec, config)
        for _ in range(round(SETTLE_S / self.model.opt.timestep)):
            self.begin()
            torque = _SETTLE_STIFFNESS * (pose - self.q) - _SETTLE_DAMPING * self.dq
            self.finish(np.clip(torque, -spec.torque_limit, spec.torque_limit))
        self.data.qpos[:2] = 0.0
        self.data.qvel[:] = 0.0
        self.data.time = 0.0

    def _place(self, spec: RobotSpec, config: SimConfig) -> None:
        """Hang the robot up, or put it on the floor."""
        asked = config.gantry == "hold" or config.gantry_release is not None
        if self.gantry is None and asked:
            raise SimConfigError(
                f"gantry: the model of {spec.name} has no site to hold it by; leave gantry and gantry_release out"
            )
        if self.gantry is None or config.gantry == "free":
            self._put_on_floor(2 * spec.base_height)
            return
        self.data.qpos[2] = spec.base_height + CLEARANCE
        mujoco.mj_forward(self.model, self.data)
        self.gantry.hang(self.data)

    def _put_on_floor(self, height: float) -> None:
        """Lower the base from `height` (m) until the first part touches the ground."""
        while height > 0:
            self.data.qpos[2] = height
            mujoco.mj_forward(self.model, self.data)
            pairs = self._own[self.data.contact.geom]
            if np.any(pairs[:, 0] != pairs[:, 1]):
                return
            height -= _LOWERING_STEP


def _imu_slices(model: mujoco.MjModel, site: str) -> tuple[slice, slice, slice]:
    quat, gyro, acc = (_sensor_slice(model, f"{site}_{part}") for part in ("quat", "gyro", "acc"))
    return quat, gyro, acc


def _sensor_slice(model: mujoco.MjModel, name: str) -> slice:
    sensor = model.sensor(name)
    return slice(int(sensor.adr[0]), int(sensor.adr[0] + sensor.dim[0]))
