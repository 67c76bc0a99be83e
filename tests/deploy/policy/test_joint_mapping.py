"""Joints are mapped by name: a policy with its joints in another order moves the robot in exactly the same way."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nfpo_deploy.observation.builder import TermConfig
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.types import VelocityCommand

SHUFFLES = [np.random.default_rng(seed).permutation(12) for seed in range(3)]
SHUFFLES += [np.arange(12)[::-1], np.roll(range(12), 5)]
COMMANDS = [VelocityCommand(0.0, 0.0, 0.0), VelocityCommand(0.6, 0.1, -0.3), VelocityCommand(-0.3, 0.0, 0.8)]


def run(policy_path, spec, estimates, noises):
    """Joint commands of a run; `noises` are in the robot's joint order."""
    policy = OnnxPolicy.load(policy_path, spec)
    runner = PolicyRunner(policy, spec)
    to_policy = [spec.joint_names.index(name) for name in policy.manifest.joint_names]
    commands = []
    for k, (estimate, noise) in enumerate(zip(estimates, noises, strict=True)):
        commands.append(runner.step(estimate, COMMANDS[k // 10 % 3], None if noise is None else noise[to_policy]))
    return commands, policy.manifest


def assert_same_motion(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for name in ("q", "dq", "stiffness", "damping", "tau"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def with_gathers(model, index, permutation):
    """The same network behind reordering nodes: new obs[i] = old obs[index[i]], new action i = old action p[i]."""
    inverse_obs, inverse = np.argsort(index), np.argsort(permutation)
    graph = model.graph
    for node in graph.node:
        node.input[:] = [f"inner_{name}" if name in ("obs", "noise") else name for name in node.input]
        node.output[:] = ["inner_actions" if name == "actions" else name for name in node.output]
    for name, order in (("obs", inverse_obs), ("noise", inverse), ("actions", permutation)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(order, np.int64), f"{name}_order"))
    graph.node.insert(0, helper.make_node("Gather", ["obs", "obs_order"], ["inner_obs"], axis=1))
    graph.node.insert(1, helper.make_node("Gather", ["noise", "noise_order"], ["inner_noise"], axis=1))
    graph.node.append(helper.make_node("Gather", ["inner_actions", "actions_order"], ["actions"], axis=1))
    onnx.checker.check_model(model)


@pytest.mark.parametrize("permutation", SHUFFLES, ids=["a", "b", "c", "reversed", "rolled"])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_shipped_policy_with_its_joints_shuffled_gives_the_same_targets(save, tiny, permutation, sampled):
    model = onnx.load(str(tiny.spec.folder / "policies/walk/policy.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    # Equal gains and scales would hide a mix-up.
    for key, start, step in (("joint_stiffness", 20, 1), ("joint_damping", 0.5, 0.1), ("action_scale", 0.2, 0.01)):
        metadata[key] = ",".join(str(start + step * i) for i in range(tiny.n))
    tiny.set_metadata(model, metadata)
    plain = save(model, "plain.onnx")
    manifest = OnnxPolicy.load(plain, tiny.spec).manifest
    with_gathers(model, tiny.joint_index(manifest, permutation), permutation)
    tiny.set_metadata(model, tiny.permuted_metadata(metadata, manifest, permutation))
    shuffled = save(model, "shuffled.onnx")

    rng = np.random.default_rng(5)
    estimates = [tiny.estimate(rng) for _ in range(40)]
    noises = [rng.standard_normal(tiny.n) if sampled else None for _ in range(40)]
    expected, _ = run(plain, tiny.spec, estimates, noises)
    actual, other = run(shuffled, tiny.spec, estimates, noises)
    assert other.joint_names == tuple(tiny.spec.joint_names[i] for i in permutation) != tiny.spec.joint_names
    assert_same_motion(actual, expected)


@pytest.mark.parametrize("permutation", SHUFFLES, ids=["a", "b", "c", "reversed", "rolled"])
def test_a_network_with_permuted_weights_gives_the_same_targets(save, tiny, permutation):
    manifest = tiny.manifest()
    rng = np.random.default_rng(3)
    # One number in each column: sums of floats would depend on the order of the terms.
    weight = np.zeros((manifest.observation_size, tiny.n))
    weight[rng.permutation(manifest.observation_size)[: tiny.n], np.arange(tiny.n)] = rng.normal(0, 1, tiny.n)
    bias = rng.normal(0, 1, tiny.n)
    index = tiny.joint_index(manifest, permutation)
    metadata = manifest.to_metadata()
    plain = save(tiny.linear(weight, bias, metadata), "plain.onnx")
    other = tiny.linear(
        weight[np.ix_(index, permutation)], bias[permutation], tiny.permuted_metadata(metadata, manifest, permutation)
    )
    estimates = [tiny.estimate(rng) for _ in range(40)]
    expected, _ = run(plain, tiny.spec, estimates, [None] * 40)
    actual, _ = run(save(other, "shuffled.onnx"), tiny.spec, estimates, [None] * 40)
    assert_same_motion(actual, expected)


def test_each_joint_answers_to_its_own_encoder_under_its_own_name(save, tiny):
    """A policy that knows its joints by name only: action of a joint = 3 × its own deflection, in a foreign order."""
    terms = (TermConfig("joint_pos_rel"),)
    names = sorted(tiny.spec.joint_names)
    pose = {name: float(tiny.spec.default_pose[i]) + 0.01 * i for i, name in enumerate(tiny.spec.joint_names)}
    scale = {name: 0.1 + 0.02 * i for i, name in enumerate(names)}
    gain = {name: 10.0 + i for i, name in enumerate(names)}
    manifest = tiny.manifest(
        terms, joint_names=tuple(names), default_pose=np.array([pose[x] for x in names]),
        action_scale=np.array([scale[x] for x in names]), stiffness=np.array([gain[x] for x in names]),
        observation_low=np.full(12, -1.0), observation_high=np.full(12, 1.0),
    )  # fmt: skip
    runner = PolicyRunner(
        OnnxPolicy.load(save(tiny.linear(3 * np.eye(12), metadata=manifest.to_metadata())), tiny.spec), tiny.spec
    )
    deflection = {name: 0.05 * (i - 6) for i, name in enumerate(tiny.spec.joint_names)}
    q = np.array([pose[name] + deflection[name] for name in tiny.spec.joint_names])
    command = runner.step(tiny.estimate(q=q), COMMANDS[0])
    for i, name in enumerate(tiny.spec.joint_names):
        assert command.q[i] == pytest.approx(pose[name] + scale[name] * 3 * deflection[name], abs=1e-6), name
        assert command.stiffness[i] == gain[name], name
