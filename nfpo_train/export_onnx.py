"""Checkpoint to one self-contained ONNX file, accepted only when ONNX Runtime and torch agree."""

from __future__ import annotations

import contextlib
import copy
import io
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from rsl_rl.models import MLPModel
from torch import nn

from nfpo_deploy.contract.manifest import PolicyManifest
from nfpo_deploy.errors import NfpoError
from nfpo_deploy.observation.builder import TermConfig
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_train.checkpoint import CheckpointError, load_checkpoint
from nfpo_train.config import TrainConfig, config_from_dict
from nfpo_train.envs.go2_velocity import VelocityEnv
from nfpo_train.flow import FlowDistribution
from nfpo_train.ppo import make_algorithm

PARITY_TOLERANCE = 1e-5
OPSET = 18


class ExportError(NfpoError):
    """The exported file does not reproduce the torch policy; nothing is left at the target path."""


class ExportModule(nn.Module):
    """Normaliser, network and flow as one graph: obs (1, D), noise (1, N) → actions (1, N).

    A Gaussian policy is exported in the same form, a = μ + σ·noise, so that both run the same way.
    """

    def __init__(self, actor: MLPModel) -> None:
        super().__init__()
        self.normalizer = copy.deepcopy(actor.obs_normalizer)
        self.mlp = copy.deepcopy(actor.mlp)
        self.distribution = copy.deepcopy(actor.distribution)
        self.is_flow = isinstance(actor.distribution, FlowDistribution)

    def forward(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        output = self.mlp(self.normalizer(obs))
        if self.is_flow:
            return self.distribution.transform_noise(output, noise)
        low, high = self.distribution.log_std_range
        return output + torch.exp(self.distribution.log_std_param.clamp(low, high)) * noise


@dataclass(frozen=True)
class ExportResult:
    """Where the file is and how closely it agrees with torch."""

    path: Path
    max_error: float
    """Largest |ONNX − torch| over all observations, deterministic and sampled."""
    observations: int


def load_policy(checkpoint: Path) -> tuple[TrainConfig, MLPModel, dict[str, Any]]:
    """Rebuild configuration and actor of a checkpoint.

    Raises:
        CheckpointError, ConfigError: the file cannot be used.
    """
    state = load_checkpoint(checkpoint)
    cfg = config_from_dict(state["config"])
    env = VelocityEnv(_with_envs(cfg, 1), cfg.seed)
    with contextlib.redirect_stdout(io.StringIO()):
        alg = make_algorithm(env, cfg)
    try:
        alg.load(state["algorithm"], {"actor": True}, strict=True)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint}: its weights do not fit its configuration: {error}") from error
    alg.eval_mode()
    return cfg, alg.get_policy(), state


def export_policy(checkpoint: Path, target: Path, recorded_steps: int = 300) -> ExportResult:
    """Write `target` from a checkpoint, and prove it.

    Args:
        checkpoint: file written by training.
        target: ONNX file to write; its folder is made.
        recorded_steps: control steps of 64 randomised environments under the policy that record observations for
            the parity test and for the training range in the manifest.

    Raises:
        ExportError: torch and ONNX Runtime differ by more than 1e-5.
    """
    cfg, actor, state = load_policy(checkpoint)
    recorded = record_observations(cfg, actor, recorded_steps)
    module = ExportModule(actor).eval()
    manifest = make_manifest(cfg, state, recorded)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.onnx")
    try:
        _write_onnx(module, partial, manifest)
        error, count = _parity(module, partial, cfg, recorded)
        if error > PARITY_TOLERANCE:
            raise ExportError(f"ONNX Runtime and torch differ by {error:.2e} (allowed {PARITY_TOLERANCE:.0e})")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return ExportResult(target, error, count)


def record_observations(cfg: TrainConfig, actor: MLPModel, steps: int) -> np.ndarray:
    """Observations (steps·64, D) of the deterministic policy in randomised environments at full command range."""
    env = VelocityEnv(_with_envs(cfg, 64), cfg.seed + 1)
    env.commands.level = 1.0
    rows = []
    observations = env.get_observations()
    with torch.inference_mode():
        for _ in range(steps):
            rows.append(observations["policy"].numpy().copy())
            observations, *_ = env.step(actor(observations))
    return np.concatenate(rows)


def make_manifest(cfg: TrainConfig, state: dict[str, Any], recorded: np.ndarray) -> PolicyManifest:
    """Manifest of a trained policy; `recorded` (M, D) gives the range of each observation entry."""
    from robots import load_robot

    spec = load_robot(cfg.env.robot)
    n = spec.num_joints
    low, high = recorded.min(axis=0), recorded.max(axis=0)
    commands = cfg.env.commands
    return PolicyManifest(
        robot=spec.name,
        joint_names=spec.joint_names,
        stiffness=np.full(n, cfg.env.stiffness),
        damping=np.full(n, cfg.env.damping),
        default_pose=spec.default_pose,
        action_scale=np.full(n, cfg.env.action_scale),
        action_clip=cfg.env.action_clip,
        terms=tuple(TermConfig(t.name, t.history, t.scale) for t in cfg.env.observations),
        control_rate_hz=1.0 / cfg.env.control_dt,
        command_ranges={axis: tuple(getattr(commands, axis)) for axis in ("vx", "vy", "wz")},
        gait_period_s=cfg.env.gait_period_s,
        observation_low=low.astype(np.float64),
        observation_high=high.astype(np.float64),
        robot_model_sha256=spec.model_sha256,
        provenance={
            "task": cfg.task,
            "policy": cfg.policy,
            "seed": cfg.seed,
            "config_sha256": cfg.sha256(),
            "git_commit": git_commit(),
            "iteration": state["iteration"],
            "environment_steps": state["iteration"] * cfg.env.num_envs * cfg.algorithm.steps_per_env,
            "training_seconds": round(state["seconds"], 1),
        },
    )


def git_commit() -> str:
    """Commit of the source tree, with "+dirty" for local changes; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=root, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+dirty" if dirty.strip() else "")


def _with_envs(cfg: TrainConfig, count: int) -> Any:
    from dataclasses import replace

    return replace(cfg.env, num_envs=count, num_threads=1)


def _write_onnx(module: ExportModule, path: Path, manifest: PolicyManifest) -> None:
    n = len(manifest.joint_names)
    example = (torch.zeros(1, manifest.observation_size), torch.zeros(1, n))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor at each call
        torch.onnx.export(
            module, example, str(path), input_names=["obs", "noise"], output_names=["actions"],
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    model = onnx.load(str(path))
    # An input that is an initializer as well is optional: without it the policy is deterministic.
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, n), dtype=np.float32), "noise"))
    for key, value in manifest.to_metadata().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _parity(module: ExportModule, path: Path, cfg: TrainConfig, recorded: np.ndarray) -> tuple[float, int]:
    """Largest difference over recorded observations and as many random ones, each with z = 0 and with a draw."""
    from robots import load_robot

    policy = OnnxPolicy.load(path, load_robot(cfg.env.robot))
    rng = np.random.default_rng(0)
    picked = recorded[rng.choice(len(recorded), min(2000, len(recorded)), replace=False)]
    spread = rng.normal(picked.mean(axis=0), 2.0 * picked.std(axis=0) + 1e-3, picked.shape)
    worst = 0.0
    rows = np.concatenate([picked, spread.astype(np.float32)])
    for row in rows:
        noise = rng.standard_normal(len(policy.manifest.joint_names)).astype(np.float32)
        for z in (None, noise):
            tensor = torch.from_numpy(np.zeros_like(noise) if z is None else z)[None]
            with torch.inference_mode():
                expected = module(torch.from_numpy(row)[None], tensor)[0].numpy()
            # Relative beyond magnitude 1: float32 cannot hold 1e-5 absolute on larger numbers.
            scale = np.maximum(1.0, np.abs(expected))
            worst = max(worst, float((np.abs(policy(row, z) - expected) / scale).max()))
    return worst, len(rows)
