"""Opening policy files: the shipped one runs, anything broken or foreign is refused with a reason."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nfpo_deploy.contract.manifest import REQUIRED
from nfpo_deploy.errors import PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy

GO2_WALK = "policies/walk/policy.onnx"


@pytest.fixture(scope="module")
def shipped(tiny):
    return tiny.spec.folder / GO2_WALK


@pytest.fixture
def good(tiny):
    """A valid tiny policy: small random weights, metadata of the Go2."""
    manifest = tiny.manifest()
    weight = np.random.default_rng(0).normal(0, 0.1, (manifest.observation_size, tiny.n))
    return tiny.linear(weight, bias=np.arange(tiny.n) * 0.1, metadata=manifest.to_metadata())


def metadata_of(model):
    return {entry.key: entry.value for entry in model.metadata_props}


# --- what runs ------------------------------------------------------------------------------------


def test_the_shipped_policy_opens_and_fits_its_robot(shipped, tiny):
    policy = OnnxPolicy.load(shipped, tiny.spec)
    assert policy.manifest.robot == "go2"
    assert policy.manifest.control_rate_hz == 50.0
    assert policy.sha256 == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert policy.takes_noise
    assert policy.manifest.command_ranges["vx"][0] < 0 < policy.manifest.command_ranges["vx"][1]


def test_the_shipped_policy_is_deterministic_without_noise_and_answers_to_it(shipped, tiny):
    policy = OnnxPolicy.load(shipped, tiny.spec)
    low, high = policy.manifest.observation_low, policy.manifest.observation_high
    rng = np.random.default_rng(0)
    observation = rng.uniform(low, high).astype(np.float32)
    first = policy(observation)
    assert first.shape == (tiny.n,)
    np.testing.assert_array_equal(policy(observation), first)
    np.testing.assert_array_equal(policy(observation, np.zeros(tiny.n)), first)
    noise = rng.standard_normal(tiny.n)
    sampled = policy(observation, noise)
    assert np.abs(sampled - first).max() > 1e-3
    np.testing.assert_array_equal(policy(observation, noise), sampled)


def test_output_is_the_graphs_own_arithmetic(good, save, tiny):
    policy = OnnxPolicy.load(save(good), tiny.spec)
    weight = onnx.numpy_helper.to_array(next(i for i in good.graph.initializer if i.name == "weight"))
    rng = np.random.default_rng(1)
    observation, noise = rng.normal(size=weight.shape[0]).astype(np.float32), rng.standard_normal(tiny.n)
    expected = observation.astype(float) @ weight.astype(float) + np.arange(tiny.n) * 0.1
    np.testing.assert_allclose(policy(observation), expected, atol=1e-5)
    np.testing.assert_allclose(policy(observation, noise), expected + noise, atol=1e-5)


def test_a_policy_without_noise_input_runs_but_cannot_be_sampled(tiny, save):
    manifest = tiny.manifest()
    model = tiny.linear(np.zeros((manifest.observation_size, tiny.n)), metadata=manifest.to_metadata(), noise="none")
    policy = OnnxPolicy.load(save(model), tiny.spec)
    assert not policy.takes_noise
    observation = np.zeros(manifest.observation_size, np.float32)
    np.testing.assert_array_equal(policy(observation), np.zeros(tiny.n))
    with pytest.raises(PolicyError, match="no noise input"):
        policy(observation, np.ones(tiny.n))


# --- files that are none --------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path, tiny):
    with pytest.raises(PolicyError, match=r"cannot read policy .*nowhere\.onnx: No such file"):
        OnnxPolicy.load(tmp_path / "nowhere.onnx", tiny.spec)


def test_a_folder_is_no_policy(tmp_path, tiny):
    with pytest.raises(PolicyError, match="cannot read policy"):
        OnnxPolicy.load(tmp_path, tiny.spec)


@pytest.mark.parametrize("raw", [b"", b"\x00" * 64, b"not a policy at all", b"\x7fELF\x02\x01\x01" + b"\x01" * 50])
def test_bytes_that_are_no_onnx_are_refused(tmp_path, tiny, raw):
    path = tmp_path / "broken.onnx"
    path.write_bytes(raw)
    with pytest.raises(PolicyError, match=r"broken\.onnx"):
        OnnxPolicy.load(path, tiny.spec)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(shipped, tmp_path, tiny, part):
    raw = shipped.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(PolicyError):
        OnnxPolicy.load(path, tiny.spec)


def test_an_unknown_operator_is_refused(good, save, tiny):
    good.graph.node[0].op_type = "Teleport"
    with pytest.raises(PolicyError, match="not a valid ONNX policy"):
        OnnxPolicy.load(save(good), tiny.spec)


# --- files that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("key", REQUIRED)
def test_each_missing_metadata_key_is_named(good, save, tiny, key):
    metadata = metadata_of(good)
    del metadata[key]
    tiny.set_metadata(good, metadata)
    with pytest.raises(PolicyError, match=rf"metadata lacks \['{key}'\]"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_no_metadata_at_all_is_refused(good, save, tiny):
    tiny.set_metadata(good, {})
    with pytest.raises(PolicyError, match="metadata lacks"):
        OnnxPolicy.load(save(good), tiny.spec)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("joint_stiffness", ",".join(["nan"] * 12), "joint_stiffness: expected 12 finite numbers"),
        ("joint_stiffness", ",".join(["500.0"] * 12), "stiffness of FR_hip_joint is 500.0, the robot allows 100.0"),
        ("joint_damping", ",".join(["9.0"] * 12), "damping of FR_hip_joint is 9.0, the robot allows 8.0"),
        ("default_joint_pos", ",".join(["inf"] * 12), "default_joint_pos: expected 12 finite numbers"),
        ("action_scale", "0.1,0.2", "action_scale: expected 12 finite numbers"),
        ("joint_names", "a,b,c", "joint_"),
        ("observation_names", "base_ang_vel,smell", "expected|unknown"),
        ("nfpo", "{}", "schema"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(good, save, tiny, key, text, message):
    tiny.set_metadata(good, metadata_of(good) | {key: text})
    with pytest.raises(PolicyError, match=message):
        OnnxPolicy.load(save(good), tiny.spec)


def test_another_schema_is_refused(good, save, tiny):
    metadata = metadata_of(good)
    metadata["nfpo"] = json.dumps(json.loads(metadata["nfpo"]) | {"schema": 99})
    tiny.set_metadata(good, metadata)
    with pytest.raises(PolicyError, match="schema 99 is not supported"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_a_policy_of_another_robot_is_refused(good, save, tiny):
    tiny.set_metadata(good, tiny.manifest(robot="g1").to_metadata())
    with pytest.raises(PolicyError, match="trained for robot 'g1', this is 'go2'"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_a_foreign_joint_is_named(good, save, tiny):
    names = ("FR_wheel_joint", *tiny.spec.joint_names[1:])
    tiny.set_metadata(good, tiny.manifest(joint_names=names).to_metadata())
    with pytest.raises(PolicyError, match=r"lacks \['FR_hip_joint'\] and has unknown \['FR_wheel_joint'\]"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_an_observation_of_another_width_than_the_metadata_says_is_refused(tiny, save):
    manifest = tiny.manifest()
    model = tiny.linear(np.zeros((manifest.observation_size + 3, tiny.n)), metadata=manifest.to_metadata())
    with pytest.raises(
        PolicyError,
        match=f"obs has width {manifest.observation_size + 3}, the metadata's terms make {manifest.observation_size}",
    ):
        OnnxPolicy.load(save(model), tiny.spec)


def test_an_action_of_another_width_than_the_joints_is_refused(tiny, save):
    manifest = tiny.manifest()
    model = tiny.linear(np.zeros((manifest.observation_size, 11)), metadata=manifest.to_metadata())
    with pytest.raises(PolicyError, match="actions has width 11, joint_names has 12"):
        OnnxPolicy.load(save(model), tiny.spec)


def test_other_tensor_names_are_refused(good, save, tiny):
    for node in good.graph.node:
        node.input[:] = ["actor_obs" if name == "obs" else name for name in node.input]
    good.graph.input[0].name = "actor_obs"
    with pytest.raises(PolicyError, match=r"expected input obs and output actions, got \['actor_obs'\]"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_noise_without_a_default_is_refused(tiny, save):
    manifest = tiny.manifest()
    weight = np.zeros((manifest.observation_size, tiny.n))
    model = tiny.linear(weight, metadata=manifest.to_metadata(), noise="required")
    with pytest.raises(PolicyError, match=r"expected input obs .* got \['noise', 'obs'\]"):
        OnnxPolicy.load(save(model), tiny.spec)


def test_a_graph_that_cannot_run_on_one_observation_is_refused(tiny, save):
    manifest = tiny.manifest()
    size = manifest.observation_size
    flat = tiny.linear(np.zeros((size, tiny.n)), metadata=manifest.to_metadata(), obs_shape=[size])
    with pytest.raises(PolicyError):
        OnnxPolicy.load(save(flat), tiny.spec)


def test_a_graph_of_another_number_type_is_refused(tiny, save):
    manifest = tiny.manifest()
    size, n = manifest.observation_size, tiny.n
    nodes = [helper.make_node("MatMul", ["obs", "weight"], ["actions"])]
    weight = onnx.numpy_helper.from_array(np.zeros((size, n)), "weight")
    graph = helper.make_graph(
        nodes, "double", [helper.make_tensor_value_info("obs", TensorProto.DOUBLE, [1, size])],
        [helper.make_tensor_value_info("actions", TensorProto.DOUBLE, [1, n])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    tiny.set_metadata(model, manifest.to_metadata())
    with pytest.raises(PolicyError):
        OnnxPolicy.load(save(model), tiny.spec)


def test_a_network_that_answers_with_nan_is_refused_when_it_is_opened(good, save, tiny):
    # (bias − bias)/(bias − bias) with a bias of one: 0/0 from weights that are all finite.
    nodes = good.graph.node
    nodes.pop()
    nodes.append(helper.make_node("Sub", ["mean", "mean"], ["zero"]))
    nodes.append(helper.make_node("Div", ["zero", "zero"], ["actions"]))
    with pytest.raises(PolicyError, match=r"policy\.onnx: policy output is not finite"):
        OnnxPolicy.load(save(good), tiny.spec)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(good, save, tiny, value):
    next(i for i in good.graph.initializer if i.name == "bias").CopyFrom(
        onnx.numpy_helper.from_array(np.full(tiny.n, value, np.float32), "bias")
    )
    with pytest.raises(PolicyError, match="tensor 'bias' holds a number that is not finite"):
        OnnxPolicy.load(save(good), tiny.spec)


def test_a_network_that_overflows_later_is_caught_then(tiny, save):
    manifest = tiny.manifest(observation_high=np.full(tiny.manifest().observation_size, 2.0))
    weight = np.full((manifest.observation_size, tiny.n), 1e30)
    policy = OnnxPolicy.load(save(tiny.linear(weight, metadata=manifest.to_metadata())), tiny.spec)
    with pytest.raises(PolicyError, match="output is not finite"):
        policy(np.full(manifest.observation_size, 1e10, np.float32))


@pytest.mark.parametrize("width", [0, 11, 13])
def test_noise_of_the_wrong_width_is_a_policy_error(good, save, tiny, width):
    policy = OnnxPolicy.load(save(good), tiny.spec)
    with pytest.raises(PolicyError):
        policy(np.zeros(policy.manifest.observation_size, np.float32), np.zeros(width))


def test_the_robot_decides_what_gains_are_too_high(good, save, tiny):
    path = save(good)
    OnnxPolicy.load(path, tiny.spec)
    weak = replace(tiny.spec, max_gains=replace(tiny.spec.max_gains, stiffness=np.full(tiny.n, 25.0)))
    with pytest.raises(PolicyError, match="stiffness of RR_hip_joint is 26.0, the robot allows 25.0"):
        OnnxPolicy.load(path, weak)
