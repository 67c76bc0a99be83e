"""Many MuJoCo robots stepped by threads: one compiled model, a light copy for each randomised environment."""

from __future__ import annotations

import copy
import os

import mujoco
import numpy as np
from mujoco import rollout

from nfpo_train.config import EnvConfig, RandomizationConfig
from robots import RobotSpec
from robots.mjcf import build_spec


class BatchPhysics:
    """B robots with position servos. Arrays are (B, ...), SI units, world frame unless suffixed `_b`."""

    def __init__(self, spec: RobotSpec, cfg: EnvConfig) -> None:
        """Compile the training model once and copy it for each environment (a copy shares no mutable state)."""
        self.spec, self.cfg = spec, cfg
        self.decimation = round(cfg.control_dt / cfg.physics_dt)
        self.model = _compile(spec, cfg)
        self.models = [copy.copy(self.model) for _ in range(cfg.num_envs)]
        threads = cfg.num_threads or os.cpu_count() or 1
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._scratch = mujoco.MjData(self.model)
        self._rollout = rollout.Rollout(nthread=threads)
        m = self.model
        nstate = mujoco.mj_stateSize(m, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._state = np.zeros((cfg.num_envs, nstate))
        self._states = np.zeros((cfg.num_envs, self.decimation, nstate))
        self._sensors = np.zeros((cfg.num_envs, self.decimation, m.nsensordata))
        self._control = np.zeros((cfg.num_envs, self.decimation, m.nu))
        qpos_ids = [m.joint(name).qposadr[0] for name in spec.joint_names]
        qvel_ids = [m.joint(name).dofadr[0] for name in spec.joint_names]
        self._q, self._dq = 1 + np.array(qpos_ids), 1 + m.nq + np.array(qvel_ids)
        self._actuator = np.array([_actuator_of(m, name) for name in spec.joint_names])
        self._foot_pos = _sensor_columns(m, [f"train_{foot.name}_pos" for foot in spec.feet])
        self._foot_vel = _sensor_columns(m, [f"train_{foot.name}_vel" for foot in spec.feet])
        self._foot_touch = _sensor_columns(m, [foot.name.replace("_foot", "_touch") for foot in spec.feet])[:, 0]
        self._torque = _sensor_columns(m, [f"train_{name}_torque" for name in spec.joint_names])[:, 0]

    @property
    def time(self) -> np.ndarray:
        """(B,) s; MuJoCo sets it back to zero when it resets a simulation that blew up."""
        return self._state[:, 0]

    @property
    def base_position(self) -> np.ndarray:
        return self._state[:, 1:4]

    @property
    def base_quat(self) -> np.ndarray:
        return self._state[:, 4:8]

    @property
    def base_lin_vel_w(self) -> np.ndarray:
        return self._state[:, 1 + self.model.nq : 4 + self.model.nq]

    @property
    def base_ang_vel_b(self) -> np.ndarray:
        return self._state[:, 4 + self.model.nq : 7 + self.model.nq]

    @property
    def q(self) -> np.ndarray:
        return self._state[:, self._q]

    @property
    def dq(self) -> np.ndarray:
        return self._state[:, self._dq]

    @property
    def foot_position(self) -> np.ndarray:
        """(B, F, 3) foot centres."""
        return self._sensors[:, -1, self._foot_pos]

    @property
    def foot_velocity(self) -> np.ndarray:
        return self._sensors[:, -1, self._foot_vel]

    @property
    def foot_contact(self) -> np.ndarray:
        """(B, F) whether the foot touched the ground in any step of the last control period."""
        return np.any(self._sensors[:, :, self._foot_touch] > 1.0, axis=1)

    @property
    def foot_force(self) -> np.ndarray:
        """(B, F) largest normal force in the last control period, N."""
        return self._sensors[:, :, self._foot_touch].max(axis=1)

    @property
    def torque(self) -> np.ndarray:
        """(B, N) joint torques at the last physics step."""
        return self._sensors[:, -1, self._torque]

    def step(self, previous: np.ndarray, target: np.ndarray, delay_steps: np.ndarray) -> None:
        """Advance one control period.

        Args:
            previous: (B, N) targets of the period before, rad; they act until the latency has passed.
            target: (B, N) new targets, rad.
            delay_steps: (B,) latency in physics steps, 0 to the decimation.
        """
        late = np.arange(self.decimation)[None, :] < delay_steps[:, None]
        self._control[:, :, self._actuator] = np.where(late[:, :, None], previous[:, None], target[:, None])
        self._rollout.rollout(
            self.models, self._data, self._state, self._control,
            nstep=self.decimation, state=self._states, sensordata=self._sensors, skip_checks=True,
        )  # fmt: skip
        self._state[:] = self._states[:, -1]

    def set_state(
        self, ids: np.ndarray, position: np.ndarray, quat: np.ndarray, q: np.ndarray, vel: np.ndarray
    ) -> None:
        """Place environments: position (n, 3), quat wxyz (n, 4), joints (n, N), base velocity (n, 6)."""
        self._state[ids] = 0.0
        self._state[ids, 1:4] = position
        self._state[ids, 4:8] = quat
        self._state[np.ix_(ids, self._q)] = q
        nq = self.model.nq
        self._state[ids, 1 + nq : 7 + nq] = vel

    def push(self, ids: np.ndarray, velocity: np.ndarray) -> None:
        """Add (n, 2) horizontal velocity to the bases."""
        nq = self.model.nq
        self._state[ids, 1 + nq : 3 + nq] += velocity

    def randomize(self, index: int, cfg: RandomizationConfig, rng: np.random.Generator) -> np.ndarray:
        """Redraw the physical parameters of one environment.

        Returns:
            (5,) friction, payload kg, motor strength, stiffness scale, damping scale: the critic sees them.
        """
        m, nominal = self.models[index], self.model
        base = m.body("base_link").id
        friction = rng.uniform(*cfg.friction)
        for foot in self.spec.feet:
            m.geom_friction[m.geom(foot.name).id, 0] = friction
        payload = rng.uniform(*cfg.payload_kg)
        m.body_mass[base] = nominal.body_mass[base] + payload
        m.body_inertia[base] = nominal.body_inertia[base] * m.body_mass[base] / nominal.body_mass[base]
        m.body_ipos[base] = nominal.body_ipos[base] + rng.uniform(-1, 1, 3) * np.array(cfg.com_offset_m)
        strength = rng.uniform(*cfg.motor_strength_scale)
        kp, kd = rng.uniform(*cfg.gain_scale, 2)
        m.actuator_gainprm[:, 0] = nominal.actuator_gainprm[:, 0] * kp * strength
        m.actuator_biasprm[:, 1] = nominal.actuator_biasprm[:, 1] * kp * strength
        m.actuator_biasprm[:, 2] = nominal.actuator_biasprm[:, 2] * kd * strength
        m.dof_frictionloss[6:] = rng.uniform(*cfg.joint_friction_nm, m.nv - 6)
        m.dof_armature[6:] = nominal.dof_armature[6:] * rng.uniform(*cfg.armature_scale)
        mujoco.mj_setConst(m, self._scratch)
        return np.array([friction, payload, strength, kp, kd])


def _compile(spec: RobotSpec, cfg: EnvConfig) -> mujoco.MjModel:
    mj = build_spec(
        spec.name, collision="simple", timestep=cfg.physics_dt, actuators="position",
        stiffness=cfg.stiffness, damping=cfg.damping, iterations=8, ls_iterations=20, looks=False, floor=False,
        omit_sensors=("imu_quat", "imu_gyro", "imu_acc", "base_pos", "base_quat", "base_linvel"),
    )  # fmt: skip
    # The builder's floor brings textures of over a megabyte, which every environment's copy would hold again.
    mj.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], contype=1, conaffinity=1)
    site, joint = mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_JOINT
    for foot in spec.feet:
        for kind, what in (("pos", mujoco.mjtSensor.mjSENS_FRAMEPOS), ("vel", mujoco.mjtSensor.mjSENS_FRAMELINVEL)):
            mj.add_sensor(name=f"train_{foot.name}_{kind}", type=what, objtype=site, objname=foot.name)
    for name in spec.joint_names:
        kind = mujoco.mjtSensor.mjSENS_JOINTACTFRC
        mj.add_sensor(name=f"train_{name}_torque", type=kind, objtype=joint, objname=name)
    return mj.compile()


def _actuator_of(model: mujoco.MjModel, joint: str) -> int:
    matches = np.flatnonzero(model.actuator_trnid[:, 0] == model.joint(joint).id)
    if len(matches) != 1:
        raise ValueError(f"joint {joint!r} needs exactly one actuator in the model, found {len(matches)}")
    return int(matches[0])


def _sensor_columns(model: mujoco.MjModel, names: list[str]) -> np.ndarray:
    """(len(names), d) columns of sensordata."""
    return np.array([model.sensor(n).adr[0] + np.arange(model.sensor(n).dim[0]) for n in names])
