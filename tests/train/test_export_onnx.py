"""Export: parity with torch, metadata that the robot accepts, optional noise, refusal of a wrong file."""

import numpy as np
import onnx
import pytest
import torch

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_train import export_onnx
from nfpo_train.config import load_task
from nfpo_train.export_onnx import ExportError, export_policy, load_policy
from nfpo_train.runner import Runner
from robots import load_robot


@pytest.fixture(scope="module", params=["flow", "gaussian"])
def trained(request, tmp_path_factory):
    """A run of two iterations whose flow is then moved away from the identity."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = {"policy": request.param, "env.num_envs": 16, "env.num_threads": 1, "total_steps": 16 * 24 * 2}
    runner = Runner(load_task("go2_walk", settings), folder)
    runner.learn()
    torch.manual_seed(3)
    if request.param == "flow":
        for head in runner.alg.actor.distribution.flow.heads:
            torch.nn.init.normal_(head.weight, std=0.1)
    return request.param, runner.save(), folder


def test_onnx_reproduces_torch_with_and_without_noise(trained, tmp_path):
    kind, checkpoint, _ = trained
    result = export_policy(checkpoint, tmp_path / "p.onnx", recorded_steps=20)
    assert result.max_error < 1e-5 and result.observations >= 2000
    policy = OnnxPolicy.load(result.path, load_robot("go2"))
    _, actor, _ = load_policy(checkpoint)
    rng = np.random.default_rng(1)
    obs = rng.normal(size=(50, policy.manifest.observation_size)).astype(np.float32)
    with torch.inference_mode():
        expected = actor.mlp(actor.obs_normalizer(torch.from_numpy(obs)))
        expected = actor.distribution.deterministic_output(expected).numpy()
    actual = np.array([policy(row) for row in obs])
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-5)
    z = rng.standard_normal(12)
    assert np.abs(policy(obs[0], z) - actual[0]).max() > 0.1
    np.testing.assert_allclose(policy(obs[0], np.zeros(12)), actual[0], atol=1e-6)
    if kind == "gaussian":
        std = actor.distribution.log_std_param.detach().exp().numpy()
        np.testing.assert_allclose(policy(obs[0], z) - actual[0], std * z, atol=1e-4)


def test_manifest_carries_what_the_robot_needs(trained, tmp_path):
    _, checkpoint, _ = trained
    path = export_policy(checkpoint, tmp_path / "p.onnx", recorded_steps=20).path
    spec = load_robot("go2")
    manifest = OnnxPolicy.load(path, spec).manifest
    cfg, _, _ = load_policy(checkpoint)
    assert manifest.joint_names == spec.joint_names
    assert manifest.control_rate_hz == 50.0
    assert [t.name for t in manifest.terms] == [t.name for t in cfg.env.observations]
    assert [t.history for t in manifest.terms] == [t.history for t in cfg.env.observations]
    assert manifest.robot_model_sha256 == spec.model_sha256
    assert manifest.provenance["config_sha256"] == cfg.sha256()
    assert manifest.command_ranges["vx"] == (-0.6, 1.0)
    stored = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert len(stored) == len(onnx.load(str(path)).metadata_props), "a key stands twice"


def test_a_file_that_differs_from_torch_is_not_left_behind(trained, tmp_path, monkeypatch):
    _, checkpoint, _ = trained
    original = export_onnx._write_onnx

    def damaged(module, path, manifest):
        original(module, path, manifest)
        model = onnx.load(str(path))
        bias = next(i for i in model.graph.initializer if i.name == "mlp.0.bias")
        values = onnx.numpy_helper.to_array(bias) + 1e-2
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(export_onnx, "_write_onnx", damaged)
    with pytest.raises(ExportError, match="differ"):
        export_policy(checkpoint, tmp_path / "p.onnx", recorded_steps=5)
    assert not list(tmp_path.iterdir())
