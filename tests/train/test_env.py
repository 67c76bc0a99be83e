"""The velocity environment: rewards by hand, physics parameters really applied, latency, pushes, resets."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nfpo_train.config import CommandConfig, ConfigError, RandomizationConfig, load_task
from nfpo_train.envs.commands import CommandSampler
from nfpo_train.envs.go2_velocity import VelocityEnv
from nfpo_train.envs.physics import BatchPhysics
from nfpo_train.envs.rewards import REWARDS, StepData
from robots import load_robot

STILL = RandomizationConfig(
    friction=(0.8, 0.8), payload_kg=(0.0, 0.0), com_offset_m=(0.0, 0.0, 0.0), motor_strength_scale=(1.0, 1.0),
    gain_scale=(1.0, 1.0), joint_friction_nm=(0.2, 0.2), armature_scale=(1.0, 1.0), latency_s=(0.0, 0.0),
    encoder_bias_rad=0.0, push_speed=(0.0, 0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def cfg():
    return replace(load_task("go2_walk").env, num_envs=8, num_threads=1)


def step_data(**changes) -> StepData:
    n = 12
    values = dict(
        command=np.array([[0.5, 0.0, 0.2]]), moving=np.array([True]), lin_vel_b=np.array([[0.3, 0.1, 0.2]]),
        ang_vel_b=np.array([[0.1, -0.2, 0.5]]), gravity_b=np.array([[0.3, 0.0, -0.95]]), height=np.array([0.29]),
        q=np.zeros((1, n)), dq=np.full((1, n), 2.0), previous_dq=np.full((1, n), 1.0),
        torque=np.full((1, n), -3.0), action=np.full((1, n), 0.5), previous_action=np.full((1, n), 0.2),
        older_action=np.zeros((1, n)), default_pose=np.full(n, 0.1), soft_lower=np.full(n, -1.0),
        soft_upper=np.full(n, 1.0), foot_contact=np.array([[True, False, True, False]]),
        foot_height=np.array([[0.0, 0.05, 0.0, 0.0]]), foot_speed=np.array([[0.5, 9.0, 0.0, 9.0]]),
        foot_force=np.array([[220.0, 0.0, 50.0, 0.0]]), swing=np.array([[0.0, 1.0, 0.0, 0.5]]),
        expected_stance=np.array([[True, False, False, False]]), swing_height=0.1,
        hip_joints=np.array([0, 3, 6, 9]), dt=0.02, terminated=np.array([False]),
    )  # fmt: skip
    return StepData(**(values | changes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("track_lin_vel", np.exp(-0.05 / 0.1225)),
        ("track_lin_vel_fine", np.exp(-5.0)),
        ("track_yaw_rate", np.exp(-0.09 / 0.16)),
        ("vertical_velocity", 0.04),
        ("roll_pitch_rate", 0.05),
        ("tilt", 0.09),
        ("base_height", 0.0004),
        ("gait_contact", 0.75),
        ("foot_clearance", 0.25 + 0.25),
        ("foot_slip", 0.25),
        ("foot_impact", 1.0),
        ("torque", 108.0),
        ("power", 72.0),
        ("joint_acceleration", 12 * 2500.0),
        ("action_rate", 12 * 0.09),
        ("action_smoothness", 12 * 0.01),
        ("joint_limits", 0.0),
        ("hip_deviation", 0.4),
        ("pose_deviation", 0.12),
        ("stand_still", 0.0),
        ("alive", 1.0),
        ("termination", 0.0),
    ],
)
def test_reward_by_hand(name, expected):
    assert REWARDS[name](step_data())[0] == pytest.approx(expected)


def test_rewards_that_need_another_state():
    assert REWARDS["joint_limits"](step_data(q=np.full((1, 12), 1.25)))[0] == pytest.approx(3.0)
    assert REWARDS["stand_still"](step_data(moving=np.array([False])))[0] == pytest.approx(1.2 + 0.2 * 24)
    assert REWARDS["termination"](step_data(terminated=np.array([True])))[0] == pytest.approx(50.0)


def test_unknown_reward_is_refused(cfg):
    with pytest.raises(ConfigError, match="moonwalk"):
        VelocityEnv(replace(cfg, rewards={"moonwalk": 1.0}), 0)


def test_randomisation_reaches_the_model_and_only_its_environment(cfg):
    physics = BatchPhysics(load_robot("go2"), cfg)
    before = [m.body_mass.copy() for m in physics.models]
    drawn = physics.randomize(3, cfg.randomization, np.random.default_rng(0))
    base = physics.model.body("base_link").id
    assert physics.models[3].body_mass[base] == pytest.approx(6.921 + drawn[1])
    foot = physics.model.geom("FR_foot").id
    assert physics.models[3].geom_friction[foot, 0] == pytest.approx(drawn[0])
    assert physics.models[3].actuator_gainprm[0, 0] == pytest.approx(cfg.stiffness * drawn[2] * drawn[3])
    assert physics.models[3].actuator_biasprm[0, 2] == pytest.approx(-cfg.damping * drawn[2] * drawn[4])
    for i in (0, 1, 2, 4, 5, 6, 7):
        np.testing.assert_array_equal(physics.models[i].body_mass, before[i])


def test_motor_torque_follows_the_pd_law_and_its_limit(cfg):
    spec = load_robot("go2")
    physics = BatchPhysics(spec, cfg)
    place(physics, spec, height=1.0)
    target = np.tile(spec.default_pose, (8, 1))
    target[:, 2] += 0.2
    target[:, 5] += 9.0
    physics.step(target, target, np.zeros(8, dtype=int))
    # After one period the torque of the last step follows from the state just before it, which the sensor saw.
    assert physics.torque[0, 5] == pytest.approx(45.43)
    first = BatchPhysics(spec, replace(cfg, control_dt=0.005))
    place(first, spec, height=1.0)
    first.step(target, target, np.zeros(8, dtype=int))
    assert first.torque[0, 2] == pytest.approx(25.0 * 0.2, rel=1e-6)
    assert first.torque[0, 0] == pytest.approx(0.0, abs=1e-9)


def test_latency_delays_the_target_by_whole_physics_steps(cfg):
    """An environment with full latency moves like one that got the old target; none at all, like the new one."""
    spec = load_robot("go2")
    physics = BatchPhysics(spec, cfg)
    place(physics, spec, height=1.0)
    old = np.tile(spec.default_pose, (8, 1))
    new = old.copy()
    new[:, 0] += 0.3
    physics.step(old, new, np.array([0, 1, 2, 3, 4, 4, 0, 0]))
    moved = physics.q[:, 0] - spec.default_pose[0]
    assert moved[4] == pytest.approx(0.0, abs=1e-3)
    assert np.all(np.diff(moved[:5]) < 0), "each step of latency leaves less time to move"


def test_push_changes_base_velocity_by_what_was_asked(cfg):
    spec = load_robot("go2")
    physics = BatchPhysics(spec, cfg)
    place(physics, spec, height=0.33)
    physics.push(np.array([2]), np.array([[0.4, -0.3]]))
    np.testing.assert_allclose(physics.base_lin_vel_w[2], [0.4, -0.3, 0.0])
    np.testing.assert_allclose(physics.base_lin_vel_w[1], 0.0)


def test_standing_robot_survives_and_a_toppled_one_ends(cfg):
    env = VelocityEnv(replace(cfg, randomization=STILL), 0)
    done = torch.zeros(8, dtype=torch.bool)
    for _ in range(50):
        _, reward, done, _ = env.step(torch.zeros(8, 12))
    assert not done.any() and torch.isfinite(reward).all()
    env.physics._state[0, 4:8] = [np.cos(0.8), np.sin(0.8), 0, 0]
    _, _, done, extras = env.step(torch.zeros(8, 12))
    assert done[0] and not done[1:].any() and not extras["time_outs"][0]
    assert env.episode_length_buf[0] == 0


def test_a_simulation_that_blew_up_ends_as_a_fall(cfg):
    """MuJoCo puts such a robot back to its start pose, upright, as if nothing had happened."""
    env = VelocityEnv(replace(cfg, randomization=STILL), 0)
    env.step(torch.zeros(8, 12))
    env.physics._state[3, 1 + env.physics.model.nq] = 1e12
    _, reward, done, extras = env.step(torch.zeros(8, 12))
    assert done[3] and not extras["time_outs"][3] and torch.isfinite(reward).all()
    assert not done[[0, 1, 2, 4, 5, 6, 7]].any()


def test_time_out_is_not_a_fall(cfg):
    env = VelocityEnv(replace(cfg, randomization=STILL, episode_s=0.2), 0)
    for _ in range(10):
        _, _, done, extras = env.step(torch.zeros(8, 12))
    assert done.all() and extras["time_outs"].all()


def test_same_seed_same_course(cfg):
    runs = []
    for _ in range(2):
        env = VelocityEnv(cfg, 7)
        torch.manual_seed(0)
        for _ in range(20):
            obs, reward, *_ = env.step(torch.randn(8, 12))
        runs.append((obs["policy"].clone(), reward))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=0, atol=0)
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=0, atol=0)


def test_commands_stay_in_range_and_curriculum_moves_both_ways():
    config = CommandConfig()
    sampler = CommandSampler(config, 4000, 0.02, np.random.default_rng(0))
    sampler.level = 1.0
    sampler.resample(np.arange(4000))
    low, high = sampler.command.min(axis=0), sampler.command.max(axis=0)
    np.testing.assert_allclose(high, np.array([1.0, 0.4, 1.0]) * config.margin, rtol=0.02)
    np.testing.assert_allclose(low, np.array([-0.6, -0.4, -1.0]) * config.margin, rtol=0.02)
    standing = (sampler.command == 0).all(axis=1).mean()
    # Commands along one axis that are too small to count as moving stand as well: |v| < 0.1 of each range's width.
    small = config.straight_fraction / 3 * (0.2 / 1.84 + 0.2 / 0.92 + 0.2 / 2.3)
    assert standing == pytest.approx(config.stand_fraction + small, abs=0.015)
    sampler.level = 0.5
    sampler.update_level(0.9)
    assert sampler.level > 0.5
    sampler.update_level(0.1)
    sampler.update_level(0.1)
    assert sampler.level < 0.5


def place(physics: BatchPhysics, spec, height: float) -> None:
    ids, n = np.arange(len(physics.models)), len(physics.models)
    position = np.tile([0.0, 0.0, height], (n, 1))
    quat = np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))
    physics.set_state(ids, position, quat, np.tile(spec.default_pose, (n, 1)), np.zeros((n, 6)))
