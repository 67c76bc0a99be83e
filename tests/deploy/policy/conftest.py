"""Small policies made on the spot, and the state of a robot to run them on."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nfpo_deploy.contract.manifest import PolicyManifest
from nfpo_deploy.observation.builder import TermConfig
from nfpo_deploy.types import StateEstimate
from robots import load_robot

SPEC = load_robot("go2")
N = SPEC.num_joints
TERMS = (
    TermConfig("joint_pos_rel", 2), TermConfig("velocity_commands"), TermConfig("joint_vel_rel", 1, 0.05),
    TermConfig("gait_phase"), TermConfig("last_action", 2, 0.25),
)  # fmt: skip


def make_manifest(terms=TERMS, **changes) -> PolicyManifest:
    """A manifest whose joints all differ in gains, pose and scale, so that no mix-up can hide."""
    size = sum({"velocity_commands": 3, "gait_phase": 2, "base_ang_vel": 3}.get(t.name, N) * t.history for t in terms)
    values = dict(
        robot="go2", joint_names=SPEC.joint_names, stiffness=20.0 + np.arange(N), damping=0.5 + 0.1 * np.arange(N),
        default_pose=SPEC.default_pose + 0.001 * np.arange(N), action_scale=0.2 + 0.01 * np.arange(N), action_clip=4.0,
        terms=terms, control_rate_hz=50.0, command_ranges={"vx": (-0.6, 1.0), "vy": (-0.4, 0.4), "wz": (-1.0, 1.0)},
        gait_period_s=0.5, observation_low=np.full(size, -2.0), observation_high=np.full(size, 2.0),
        robot_model_sha256=SPEC.model_sha256, provenance={"task": "test"},
    )  # fmt: skip
    return PolicyManifest(**(values | changes))


def linear_model(weight, bias=None, metadata=None, noise_gain=1.0, obs_shape=None, noise="optional") -> onnx.ModelProto:
    """actions = obs·weight + bias + noise_gain·noise, weight (D, N)."""
    weight = np.asarray(weight, np.float32)
    size, n = weight.shape
    arrays = {"weight": weight, "bias": np.zeros(n) if bias is None else bias, "gain": np.array([noise_gain])}
    inputs = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, obs_shape or [1, size])]
    nodes = [helper.make_node("MatMul", ["obs", "weight"], ["product"])]
    if noise == "none":
        nodes.append(helper.make_node("Add", ["product", "bias"], ["actions"]))
    else:
        inputs.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, n]))
        nodes += [
            helper.make_node("Add", ["product", "bias"], ["mean"]),
            helper.make_node("Mul", ["noise", "gain"], ["scaled"]),
            helper.make_node("Add", ["mean", "scaled"], ["actions"]),
        ]
        if noise == "optional":
            arrays["noise"] = np.zeros((1, n))
    output = helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, n])
    initializers = [numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    set_metadata(model, metadata or {})
    return model


def set_metadata(model: onnx.ModelProto, metadata: dict) -> None:
    """Replace all metadata."""
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)


def joint_index(manifest: PolicyManifest, permutation: np.ndarray) -> np.ndarray:
    """(D,) where each observation entry stands once joint terms follow `permutation` (new joint i = old p[i])."""
    blocks, start = [], 0
    for term in manifest.terms:
        width = {"velocity_commands": 3, "base_ang_vel": 3, "base_lin_vel": 3, "projected_gravity": 3}.get(term.name)
        width = 2 if term.name == "gait_phase" else width
        order = np.asarray(permutation) if width is None else np.arange(width)
        for _ in range(term.history):
            blocks.append(start + order)
            start += len(order)
    return np.concatenate(blocks)


def permuted_metadata(metadata: dict, manifest: PolicyManifest, permutation: np.ndarray) -> dict:
    """Metadata of the same policy with its joints in another order."""
    result = dict(metadata)
    for key in ("joint_names", "joint_stiffness", "joint_damping", "default_joint_pos", "action_scale"):
        values = metadata[key].split(",")
        result[key] = ",".join(values[i] for i in permutation)
    ours = json.loads(metadata["nfpo"])
    for key in ("observation_low", "observation_high"):
        ours[key] = [ours[key][i] for i in joint_index(manifest, permutation)]
    result["nfpo"] = json.dumps(ours)
    return result


def make_estimate(rng: np.random.Generator | None = None, **changes) -> StateEstimate:
    """Standing in the default pose, or anything random but possible."""
    values = dict(
        tick=1, received_ns=2, quat_wxyz=np.array([1.0, 0, 0, 0]), ang_vel_b=np.zeros(3), lin_vel_b=np.zeros(3),
        lin_vel_std=np.zeros(3), position_w=np.zeros(3), contact=np.ones(4), q=SPEC.default_pose.copy(),
        dq=np.zeros(N),
    )  # fmt: skip
    if rng is not None:
        quat = rng.normal(size=4)
        values |= dict(
            quat_wxyz=quat / np.linalg.norm(quat), ang_vel_b=rng.normal(size=3), lin_vel_b=rng.normal(size=3),
            q=SPEC.default_pose + rng.normal(0, 0.2, N), dq=rng.normal(0, 3, N),
        )  # fmt: skip
    return StateEstimate(**(values | changes))


@pytest.fixture(scope="session")
def tiny():
    """The helpers of this file: pytest imports test files by path, so they cannot import each other."""
    return SimpleNamespace(
        spec=SPEC, n=N, terms=TERMS, manifest=make_manifest, linear=linear_model, set_metadata=set_metadata,
        joint_index=joint_index, permuted_metadata=permuted_metadata, estimate=make_estimate,
    )  # fmt: skip


@pytest.fixture
def save(tmp_path):
    """Write a model, return its path."""

    def write(model: onnx.ModelProto, name: str = "policy.onnx"):
        path = tmp_path / name
        onnx.save(model, str(path))
        return path

    return write
