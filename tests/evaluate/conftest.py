"""The Go2, its shipped policy, and a policy too weak to carry it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nfpo_deploy.contract.manifest import PolicyManifest
from nfpo_deploy.observation.builder import TermConfig
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots import load_robot


@pytest.fixture(scope="session")
def spec():
    return load_robot("go2")


@pytest.fixture(scope="session")
def shipped(spec):
    return spec.folder / "policies" / "walk" / "policy.onnx"


@pytest.fixture(scope="session")
def policy(spec, shipped):
    return OnnxPolicy.load(shipped, spec)


@pytest.fixture(scope="session")
def holding_policy(spec, tmp_path_factory):
    """Make the file of a policy that asks for the default pose at all times, with a stiffness of choice."""

    def make(stiffness, damping=1.0, name="hold.onnx"):
        n = spec.num_joints
        manifest = PolicyManifest(
            robot="go2", joint_names=spec.joint_names, stiffness=np.full(n, stiffness), damping=np.full(n, damping),
            default_pose=spec.default_pose, action_scale=np.full(n, 0.25), action_clip=1.0,
            terms=(TermConfig("velocity_commands"),), control_rate_hz=50.0,
            command_ranges={"vx": (-0.6, 1.0), "vy": (-0.4, 0.4), "wz": (-1.0, 1.0)}, gait_period_s=None,
            observation_low=np.full(3, -1.0), observation_high=np.full(3, 1.0), robot_model_sha256=spec.model_sha256,
        )  # fmt: skip
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["obs", "zero"], ["actions"])], "hold",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, n])],
            [numpy_helper.from_array(np.zeros((3, n), np.float32), "zero")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        helper.set_model_props(model, manifest.to_metadata())
        path = tmp_path_factory.mktemp("policy") / name
        onnx.save(model, str(path))
        return path

    return make
