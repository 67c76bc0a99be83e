"""What training shows the policy is what the robot shows it, tick by tick, and both turn actions into the same targets.

The environment steps its physics; each of its states goes, as a `StateEstimate`, through the robot's `PolicyRunner`.
"""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.types import StateEstimate, VelocityCommand
from nfpo_train.config import CommandConfig, RandomizationConfig, TermSetting, load_task
from nfpo_train.envs.go2_velocity import VelocityEnv
from nfpo_train.export_onnx import make_manifest
from robots import load_robot

SPEC = load_robot("go2")
EXACT = RandomizationConfig(
    friction=(0.8, 0.8), payload_kg=(0.0, 0.0), com_offset_m=(0.0, 0.0, 0.0), motor_strength_scale=(1.0, 1.0),
    gain_scale=(1.0, 1.0), joint_friction_nm=(0.2, 0.2), armature_scale=(1.0, 1.0), latency_s=(0.0, 0.0),
    encoder_bias_rad=0.0, push_speed=(0.5, 0.5), push_interval_s=(1.0, 2.0),
)  # fmt: skip
# Every environment begins with the command to stand, so that its gait clock starts where the robot's does.
QUIET = CommandConfig(stand_fraction=1.0, resample_s=(1e9, 1e9))
# The third is just too small to walk for, the last just large enough.
SCRIPT = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.095, 0.0), (0.4, -0.2, 0.6), (-0.3, 0.2, -0.8), (0.0, 0.0, 0.105)]
TICKS_EACH = 45


def quiet_env(cfg, num_envs=1, episode_s=2.3):
    terms = tuple(replace(term, noise=0.0) for term in cfg.observations)
    return replace(
        cfg, num_envs=num_envs, num_threads=1, episode_s=episode_s, observations=terms, commands=QUIET,
        randomization=EXACT,
    )  # fmt: skip


def estimate_of(env, index, tick):
    physics = env.physics
    # Rotation matrix of the quaternion written out, so that the velocity does not come from the code under test.
    w, x, y, z = physics.base_quat[index]
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    return StateEstimate(
        tick=tick, received_ns=tick, quat_wxyz=physics.base_quat[index].copy(),
        ang_vel_b=physics.base_ang_vel_b[index].copy(), lin_vel_b=rotation.T @ physics.base_lin_vel_w[index],
        lin_vel_std=np.zeros(3), position_w=physics.base_position[index].copy(), contact=np.zeros(4),
        q=physics.q[index].copy(), dq=physics.dq[index].copy(),
    )  # fmt: skip


def run_side_by_side(env, runners, act, ticks):
    """Step both; `act(runner, estimate, command)` gives the robot's joint command and the network's raw action.

    Returns:
        Ticks compared, resets, ticks with a running gait.
    """
    count = resets = walking = 0
    for tick in range(ticks):
        seen = env.get_observations()["policy"].numpy().copy()
        actions, targets = [], []
        for k, runner in enumerate(runners):
            command = VelocityCommand(*(float(v) for v in env.commands.command[k]))
            joint_command, raw = act(runner, estimate_of(env, k, tick), command)
            # float32 of the same double-precision arithmetic: a rounding apart at the most.
            np.testing.assert_allclose(
                runner.last_observation, seen[k], rtol=2e-7, atol=1e-9, err_msg=f"tick {tick}, environment {k}"
            )
            assert joint_command.state_tick == tick
            actions.append(raw)
            targets.append(joint_command.q)
            walking += bool(runner.clock.moving[0])
        next_command = SCRIPT[(tick + 1) // TICKS_EACH % len(SCRIPT)]
        env.commands.command[:] = next_command
        received = capture_targets(env)
        _, _, done, _ = env.step(torch.from_numpy(np.array(actions)))
        np.testing.assert_array_equal(received[0], np.array(targets), err_msg=f"tick {tick}")
        for k in np.flatnonzero(done.numpy()):
            runners[k].reset()
            resets += 1
        count += 1
    return count, resets, walking


def capture_targets(env):
    """List that gets a copy of the joint targets as the physics receives them in the next step."""
    received, step = [], type(env.physics).step

    def recording_step(previous, target, delay):
        received.append(target.copy())
        step(env.physics, previous, target, delay)

    env.physics.step = recording_step
    return received


def identity_policy(path, manifest):
    """ONNX file whose action is its noise input: tests choose the actions, the runner does the rest."""
    n, size = len(manifest.joint_names), manifest.observation_size
    nodes = [
        helper.make_node("MatMul", ["obs", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "noise"], ["actions"]),
    ]
    inputs = [
        helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, size]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, n]),
    ]
    arrays = {"zero": np.zeros((size, n), np.float32), "noise": np.zeros((1, n), np.float32)}
    graph = helper.make_graph(
        nodes, "identity", inputs, [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, n])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, manifest.to_metadata())
    onnx.save(model, str(path))


def test_the_shipped_policy_sees_on_the_robot_what_training_would_show_it():
    path = SPEC.folder / "policies" / "walk" / "policy.onnx"
    policy = OnnxPolicy.load(path, SPEC)
    manifest = policy.manifest
    settings = tuple(TermSetting(t.name, t.history, t.scale) for t in manifest.terms)
    cfg = replace(
        load_task("go2_walk").env, observations=settings, control_dt=1 / manifest.control_rate_hz,
        action_scale=float(manifest.action_scale[0]), action_clip=manifest.action_clip,
        gait_period_s=manifest.gait_period_s, stiffness=float(manifest.stiffness[0]),
        damping=float(manifest.damping[0]),
    )  # fmt: skip
    env = VelocityEnv(quiet_env(cfg), seed=3)
    runner = PolicyRunner(policy, SPEC)

    def act(runner, estimate, command):
        return runner.step(estimate, command), policy(runner.last_observation)

    count, resets, walking = run_side_by_side(env, [runner], act, 6 * TICKS_EACH)
    assert count == 270
    # Episodes of 2.3 s end twice in 5.4 s; the gait runs in four of six phases.
    assert resets >= 2
    assert 4 * TICKS_EACH - 3 <= walking <= 4 * TICKS_EACH


def test_any_action_leaves_the_same_memory_and_targets(tmp_path):
    """Four robots tumble under random actions, many beyond the clip; falls reset each at its own time."""
    cfg = load_task("go2_walk")
    cfg = replace(cfg, env=quiet_env(cfg.env, num_envs=4))
    env = VelocityEnv(cfg.env, seed=5)
    size = env.builder.size
    state = {"iteration": 0, "seconds": 0.0}
    manifest = make_manifest(cfg, state, np.stack([np.full(size, -1.0), np.full(size, 1.0)]))
    path = tmp_path / "identity.onnx"
    identity_policy(path, manifest)
    runners = [PolicyRunner(OnnxPolicy.load(path, SPEC), SPEC) for _ in range(4)]
    rng = np.random.default_rng(0)
    largest = []

    def random_step(runner, estimate, command):
        noise = rng.normal(0, 5.0 if rng.random() < 0.3 else 0.5, SPEC.num_joints).astype(np.float32)
        largest.append(np.abs(noise).max())
        return runner.step(estimate, command, noise), noise

    count, resets, walking = run_side_by_side(env, runners, random_step, 150)
    assert count == 150
    assert resets >= 4
    assert walking > 100
    assert max(largest) > cfg.env.action_clip


def test_the_exported_manifest_describes_the_trained_observation():
    cfg = load_task("go2_walk")
    env = VelocityEnv(quiet_env(cfg.env), seed=0)
    manifest = make_manifest(cfg, {"iteration": 1, "seconds": 1.0}, np.zeros((2, env.builder.size)))
    assert manifest.observation_size == env.builder.size == env.get_observations()["policy"].shape[1]
    assert [(t.name, t.history, t.scale, t.clip) for t in manifest.terms] == [
        (t.name, t.history, t.scale, t.clip) for t in env.builder.terms
    ]
    assert 1 / manifest.control_rate_hz == pytest.approx(cfg.env.control_dt)
    assert manifest.gait_period_s == cfg.env.gait_period_s
    assert manifest.action_clip == cfg.env.action_clip
    np.testing.assert_array_equal(manifest.action_scale, np.full(12, cfg.env.action_scale))
    assert json.loads(manifest.to_metadata()["nfpo"])["robot"] == cfg.env.robot
