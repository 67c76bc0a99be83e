"""A policy file opened for inference: ONNX Runtime session plus its validated manifest."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import onnxruntime

from nfpo_deploy.contract.manifest import PolicyManifest, parse_metadata
from nfpo_deploy.contract.onnx_guard import MAX_FILE_BYTES, check_graph
from nfpo_deploy.errors import PolicyError
from robots import RobotSpec
from robots.untrusted import UntrustedError, read_bounded

PROBE_RUNS = 5
"""Runs when a policy is opened; the fastest counts, because a busy computer can only make one look slower."""


class OnnxPolicy:
    """Maps one observation to one action; deterministic unless noise is given."""

    def __init__(
        self, session: onnxruntime.InferenceSession, manifest: PolicyManifest, path: Path, sha256: str
    ) -> None:
        self.session, self.manifest, self.path, self.sha256 = session, manifest, path, sha256
        self.takes_noise = any(i.name == "noise" for i in session.get_overridable_initializers())

    @classmethod
    def load(cls, path: str | Path, spec: RobotSpec) -> OnnxPolicy:
        """Open and validate a policy for a robot.

        The file may come from anybody: it is checked byte for byte (`onnx_guard`) before ONNX Runtime sees it.

        Raises:
            PolicyError: missing or corrupt file, one with operators or sizes that a policy never needs, missing
                metadata, a mismatch with the robot, or too slow for its own rate; nothing is moved.
        """
        path = Path(path)
        raw = _read(path)
        options = onnxruntime.SessionOptions()
        # One small network 50 times a second: a thread pool would only spin and steal from the 500 Hz loops.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises several private types
            raise PolicyError(f"{path} is not a valid ONNX policy: {error}") from error
        try:
            manifest = parse_metadata(session.get_modelmeta().custom_metadata_map)
            manifest.check_robot(spec)
        except PolicyError as error:
            raise PolicyError(f"{path}: {error}") from error
        _check_tensors(session, manifest, path)
        policy = cls(session, manifest, path, hashlib.sha256(raw).hexdigest())
        policy._probe()
        return policy

    def __call__(self, observation: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Action for one observation.

        Args:
            observation: (D,) float32.
            noise: (N,) draw of N(0, I) to sample the policy; None for its deterministic action.

        Returns:
            (N,) float64 raw action in the policy's joint order.

        Raises:
            PolicyError: the network's output is not finite, the input does not fit it, or noise is given to a policy
                that takes none.
        """
        feed = {"obs": observation.reshape(1, -1)}
        if noise is not None:
            if not self.takes_noise:
                raise PolicyError(f"{self.path} has no noise input: it cannot be sampled")
            feed["noise"] = noise.astype(np.float32).reshape(1, -1)
        try:
            action = self.session.run(["actions"], feed)[0][0].astype(np.float64)
        except Exception as error:  # ONNX Runtime raises several private types
            raise PolicyError(f"{self.path} cannot run on this input: {error}") from error
        if not np.all(np.isfinite(action)):
            raise PolicyError(f"{self.path}: policy output is not finite: {action}")
        return action

    def _probe(self) -> None:
        """Run in the middle of the training range: a policy that fails or lags here must not reach a motor."""
        middle = ((self.manifest.observation_low + self.manifest.observation_high) / 2).astype(np.float32)
        fastest = float("inf")
        for _ in range(PROBE_RUNS):
            start = time.perf_counter()
            self(middle)
            fastest = min(fastest, time.perf_counter() - start)
        period = 1.0 / self.manifest.control_rate_hz
        if fastest > period:
            raise PolicyError(
                f"{self.path} takes {fastest * 1e3:.1f} ms for one action on this computer, its control period is "
                f"{period * 1e3:.1f} ms"
            )


def _read(path: Path) -> bytes:
    try:
        raw = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise PolicyError(f"cannot read policy {path}: {error.strerror or error}") from error
    except UntrustedError as error:
        raise PolicyError(f"cannot read policy: {error}") from error
    try:
        check_graph(raw)
    except PolicyError as error:
        raise PolicyError(f"{path} is not a valid ONNX policy: {error}") from error
    return raw


def _check_tensors(session: onnxruntime.InferenceSession, manifest: PolicyManifest, path: Path) -> None:
    inputs = {i.name: i.shape for i in session.get_inputs()}
    outputs = {o.name: o.shape for o in session.get_outputs()}
    types = {t.name: t.type for t in (*session.get_inputs(), *session.get_outputs())}
    n = len(manifest.joint_names)
    if set(inputs) != {"obs"} or "actions" not in outputs:
        raise PolicyError(f"{path}: expected input obs and output actions, got {sorted(inputs)} and {sorted(outputs)}")
    for name in ("obs", "actions"):
        if types[name] != "tensor(float)" or len((inputs | outputs)[name]) != 2:
            raise PolicyError(
                f"{path}: {name} is {types[name]} {(inputs | outputs)[name]}, expected tensor(float) [1, …]"
            )
    if inputs["obs"][-1] != manifest.observation_size:
        raise PolicyError(
            f"{path}: input obs has width {inputs['obs'][-1]}, the metadata's terms make {manifest.observation_size}"
        )
    if outputs["actions"][-1] != n:
        raise PolicyError(f"{path}: output actions has width {outputs['actions'][-1]}, joint_names has {n}")
