"""Velocity tracking on a quadruped as rsl_rl `VecEnv`; observation and command code is the robot runtime's own."""

from __future__ import annotations

import numpy as np
import torch
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from nfpo_deploy.command.joint_targets import joint_targets
from nfpo_deploy.observation.builder import ObservationBuilder, TermConfig
from nfpo_deploy.observation.gait import GaitClock
from nfpo_deploy.observation.rotations import projected_gravity, rotate_inverse
from nfpo_deploy.observation.terms import ObservationInput
from nfpo_train.config import ConfigError, EnvConfig
from nfpo_train.envs.commands import CommandSampler
from nfpo_train.envs.physics import BatchPhysics
from nfpo_train.envs.rewards import REWARDS, StepData
from robots import RobotSpec, load_robot

TROT_OFFSETS = {"FR": 0.0, "RL": 0.0, "FL": 0.5, "RR": 0.5}
"""Phase of each leg in cycles: diagonal legs move together."""
FALL_TILT = 1.0
"""rad; the robot runtime's own tilt limit."""
FALL_HEIGHT = 0.15
"""m; the trunk is about to touch the ground."""
SWING_FRACTION = 0.5


class VelocityEnv(VecEnv):
    """B quadrupeds that follow velocity commands on flat ground."""

    def __init__(self, cfg: EnvConfig, seed: int) -> None:
        """Build the environments and reset all.

        Raises:
            ConfigError: unknown reward name.
        """
        unknown = sorted(set(cfg.rewards) - set(REWARDS))
        if unknown:
            raise ConfigError(f"unknown rewards {unknown}; known: {sorted(REWARDS)}")
        self.cfg = cfg
        self.spec: RobotSpec = load_robot(cfg.robot)
        self.rng = np.random.default_rng(seed)
        self.num_envs, self.num_actions, self.device = cfg.num_envs, self.spec.num_joints, "cpu"
        self.max_episode_length = round(cfg.episode_s / cfg.control_dt)
        self.episode_length_buf = torch.zeros(cfg.num_envs, dtype=torch.long)
        self.physics = BatchPhysics(self.spec, cfg)
        self.commands = CommandSampler(cfg.commands, cfg.num_envs, cfg.control_dt, self.rng)
        terms = [TermConfig(t.name, t.history, t.scale, None, t.noise) for t in cfg.observations]
        self.builder = ObservationBuilder(terms, self.num_actions, cfg.num_envs)
        self.clock = GaitClock(cfg.gait_period_s, cfg.control_dt, cfg.num_envs)
        self._weights = {name: weight * cfg.control_dt for name, weight in cfg.rewards.items() if weight != 0.0}
        b, n = cfg.num_envs, self.num_actions
        self._actions = np.zeros((3, b, n))
        self._target = np.tile(self.spec.default_pose, (b, 1))
        self._encoder_bias = np.zeros((b, n))
        self._parameters = np.zeros((b, 5))
        self._delay = np.zeros(b, dtype=np.int64)
        self._push_left = np.zeros(b)
        self._hips = np.array([i for i, name in enumerate(self.spec.joint_names) if "hip" in name])
        self._leg_offset = np.array([TROT_OFFSETS[foot.name[:2]] for foot in self.spec.feet])
        middle = (self.spec.position_lower + self.spec.position_upper) / 2
        half = 0.95 * (self.spec.position_upper - self.spec.position_lower) / 2
        self._soft = (middle - half, middle + half)
        self._scale = np.full(n, cfg.action_scale)
        self._sums = {name: np.zeros(b) for name in self._weights}
        self._errors = np.zeros(3)
        self.progress = 0.0
        """Part of the training run that is over, 0 to 1; the runner keeps it."""
        self._reset(np.arange(b))
        self._observe()

    def get_observations(self) -> TensorDict:
        """Observation groups `policy` (what the robot has) and `critic` (truth as well)."""
        return self._observations

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict]:
        """One control period for every environment; see `VecEnv.step`."""
        cfg, physics = self.cfg, self.physics
        self._actions[1:] = self._actions[:-1]
        self._actions[0] = np.clip(actions.double().numpy(), -cfg.action_clip, cfg.action_clip)
        previous_target, previous_dq, previous_time = self._target, physics.dq, physics.time.copy()
        self._target = joint_targets(self._actions[0], self.spec.default_pose, self._scale)
        physics.step(previous_target, self._target, self._delay)
        self.episode_length_buf += 1

        gravity = projected_gravity(physics.base_quat)
        height = physics.base_position[:, 2]
        # MuJoCo replaces a state that became infinite by its start pose: only its clock tells.
        broken = ~np.isfinite(physics.base_position).all(axis=1) | (physics.time <= previous_time)
        fallen = broken | (gravity[:, 2] > -np.cos(FALL_TILT)) | (height < FALL_HEIGHT)
        timeout = (self.episode_length_buf.numpy() >= self.max_episode_length) & ~fallen
        reward, log = self._reward(gravity, height, previous_dq, fallen)
        done = np.flatnonzero(fallen | timeout)
        if len(done):
            log["Episode/fall_fraction"] = float(fallen[done].mean())
            for name, total in self._sums.items():
                log[f"Reward/{name}"] = float(total[done].mean()) / cfg.episode_s
                total[done] = 0.0
            self._reset(done)
        self.commands.step()
        self._push()
        self._observe()
        extras = {"time_outs": torch.from_numpy(timeout), "log": log}
        return (
            self._observations,
            torch.from_numpy(reward).float(),
            torch.from_numpy(fallen | timeout),
            extras,
        )

    def _reward(
        self, gravity: np.ndarray, height: np.ndarray, previous_dq: np.ndarray, fallen: np.ndarray
    ) -> tuple[np.ndarray, dict[str, float]]:
        data = self._step_data(gravity, height, previous_dq, fallen)
        reward = np.zeros(self.num_envs)
        for name, weight in self._weights.items():
            value = weight * np.nan_to_num(REWARDS[name](data), nan=0.0, posinf=0.0, neginf=0.0)
            self._sums[name] += value
            reward += value
        self.commands.update_level(float(REWARDS["track_lin_vel"](data).mean()))
        error = np.abs(np.column_stack([data.lin_vel_b[:, :2], data.ang_vel_b[:, 2]]) - data.command)
        planar = np.linalg.norm(data.lin_vel_b[:, :2] - data.command[:, :2], axis=1)
        log = {
            "Tracking/planar_error": float(np.nanmean(planar)),
            "Tracking/vx_error": float(np.nanmean(error[:, 0])),
            "Tracking/vy_error": float(np.nanmean(error[:, 1])),
            "Tracking/wz_error": float(np.nanmean(error[:, 2])),
            "Curriculum/command_level": self.commands.level,
        }
        return reward, log

    def _step_data(
        self, gravity: np.ndarray, height: np.ndarray, previous_dq: np.ndarray, fallen: np.ndarray
    ) -> StepData:
        physics, cfg = self.physics, self.cfg
        phase = (self.clock.phase[:, None] + self._leg_offset) % 1.0
        moving = self.clock.moving
        in_swing = (phase < SWING_FRACTION) & moving[:, None]
        swing = np.where(in_swing, np.sin(np.pi * phase / SWING_FRACTION) ** 2, 0.0)
        return StepData(
            command=self.commands.command, moving=moving,
            lin_vel_b=rotate_inverse(physics.base_quat, physics.base_lin_vel_w),
            ang_vel_b=physics.base_ang_vel_b, gravity_b=gravity, height=height,
            q=physics.q, dq=physics.dq, previous_dq=previous_dq, torque=physics.torque,
            action=self._actions[0], previous_action=self._actions[1], older_action=self._actions[2],
            default_pose=self.spec.default_pose, soft_lower=self._soft[0], soft_upper=self._soft[1],
            foot_contact=physics.foot_contact,
            foot_height=physics.foot_position[:, :, 2] - self.spec.leg_geometry.foot_radius,
            foot_speed=np.linalg.norm(physics.foot_velocity[:, :, :2], axis=2),
            foot_force=physics.foot_force, swing=swing, expected_stance=~in_swing,
            swing_height=cfg.swing_height, hip_joints=self._hips, dt=cfg.control_dt, terminated=fallen,
        )  # fmt: skip

    def _reset(self, ids: np.ndarray) -> None:
        n, cfg, rand, rng = len(ids), self.cfg, self.cfg.randomization, self.rng
        for i in ids:
            self._parameters[i] = self.physics.randomize(int(i), rand, rng)
        q = self.spec.default_pose + rng.uniform(-0.15, 0.15, (n, self.num_actions))
        q = np.clip(q, *self._soft)
        position = np.column_stack([np.zeros((n, 2)), np.full(n, 0.335)])
        roll_pitch = rng.uniform(-0.1, 0.1, (n, 2))
        quat = np.column_stack([np.ones(n), roll_pitch / 2, np.zeros(n)])
        velocity = rng.uniform(-0.3, 0.3, (n, 6))
        self.physics.set_state(ids, position, quat / np.linalg.norm(quat, axis=1, keepdims=True), q, velocity)
        self._actions[:, ids] = 0.0
        self._target[ids] = self.spec.default_pose
        bias = rand.encoder_bias_rad
        self._encoder_bias[ids] = rng.uniform(-bias, bias, (n, self.num_actions))
        low, high = (round(value / cfg.physics_dt) for value in rand.latency_s)
        self._delay[ids] = rng.integers(low, high + 1, n)
        self._push_left[ids] = rng.uniform(*rand.push_interval_s, n)
        self.commands.resample(ids)
        self.clock.reset(ids)
        # A random phase at the start shows the policy the whole cycle from any state.
        self.clock.phase[ids] = rng.random(n)
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[ids] = True
        self.builder.reset(mask)
        self.episode_length_buf[torch.from_numpy(ids)] = 0

    def _push(self) -> None:
        rand = self.cfg.randomization
        self._push_left -= self.cfg.control_dt
        ids = np.flatnonzero(self._push_left <= 0)
        if len(ids):
            angle = self.rng.uniform(0, 2 * np.pi, len(ids))
            speed = self.rng.uniform(0, rand.push_speed[self.progress >= 0.5], len(ids))
            self.physics.push(ids, speed[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]))
            self._push_left[ids] = self.rng.uniform(*rand.push_interval_s, len(ids))

    def _observe(self) -> None:
        physics = self.physics
        gait = self.clock.advance(self.commands.command)
        lin_vel = rotate_inverse(physics.base_quat, physics.base_lin_vel_w)
        inputs = ObservationInput(
            quat_wxyz=physics.base_quat, ang_vel_b=physics.base_ang_vel_b, lin_vel_b=lin_vel,
            command=self.commands.command, q=physics.q + self._encoder_bias, dq=physics.dq,
            last_action=self._actions[0], gait_phase=gait, default_pose=self.spec.default_pose,
        )  # fmt: skip
        policy = torch.from_numpy(self.builder.build(inputs, self.rng))
        truth = np.column_stack([
            lin_vel, physics.base_ang_vel_b, projected_gravity(physics.base_quat), physics.base_position[:, 2:3],
            physics.q - self.spec.default_pose, physics.dq * 0.05, physics.foot_contact,
            physics.foot_position[:, :, 2], self._parameters, self._delay[:, None],
        ])  # fmt: skip
        self._observations = TensorDict(
            {"policy": policy, "critic": torch.from_numpy(truth.astype(np.float32))}, batch_size=[self.num_envs]
        )
