"""How far what a policy sees lies from what it saw in training, by the normaliser at the beginning of its network."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from nfpo_deploy.contract.manifest import PolicyManifest
from nfpo_deploy.observation.terms import term_width
from nfpo_deploy.policy.onnx_policy import OnnxPolicy

GIVEN_TERMS = ("velocity_commands", "gait_phase")
"""They are what the scenario makes them, whatever is wrong with policy or robot."""


def training_distance(policy: OnnxPolicy, observations: np.ndarray) -> float:
    """Distance of the mean observation from that of training, in training's standard deviations; RMS over the entries.

    The standard deviations are those of training with all its commands, pushes and randomised robots; a policy on the
    robot that it was made for stays well within one.

    Args:
        policy: its network begins with (observation - mean) / deviation, as those of rsl_rl and of ours do.
        observations: (K, D) of a run.

    Returns:
        NaN for a network without such a beginning.
    """
    moments = _moments(policy.path, policy.sha256)
    if moments is None or not len(observations):
        return math.nan
    mean, deviation = moments
    measured = _measured(policy.manifest)
    z = (observations.mean(axis=0) - mean)[measured] / deviation[measured]
    return float(np.sqrt(np.square(z).mean()))


@lru_cache(maxsize=8)
def _moments(path: Path, sha256: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation (D,) from the two nodes at the network's beginning."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = list(graph.node[:2])
    if [node.op_type for node in nodes] != ["Sub", "Div"] or nodes[0].input[0] != graph.input[0].name:
        return None
    if nodes[1].input[0] != nodes[0].output[0] or not all(node.input[1] in constants for node in nodes):
        return None
    mean, deviation = (constants[node.input[1]].astype(np.float64).ravel() for node in nodes)
    return mean, deviation


def _measured(manifest: PolicyManifest) -> np.ndarray:
    """(D,) bool: entries that are measured and not given."""
    n = len(manifest.joint_names)
    return np.concatenate(
        [np.full(term_width(t.name, n) * t.history, t.name not in GIVEN_TERMS) for t in manifest.terms]
    )
