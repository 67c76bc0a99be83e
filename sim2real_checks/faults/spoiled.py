"""Policies that are well until they walk fast: the shipped network with one thing wrong behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nfpo_deploy.errors import PolicyError
from nfpo_deploy.observation.builder import ObservationBuilder
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec

THRESHOLD = 0.8
"""m/s forward in the observation beyond which the policy goes wrong."""
KINDS = ("nan", "saturated")


def spoiled_policy(source: Path, kind: str, out: Path, spec: RobotSpec) -> Path:
    """Write a spoiled copy of a policy.

    Args:
        source: the policy.
        kind: "nan" (its answers are no numbers) or "saturated" (they are huge).
        out: file to write.
        spec: the robot.

    Returns:
        `out`.

    Raises:
        PolicyError: an unknown kind, or a policy that knows no velocity command.
    """
    if kind not in KINDS:
        raise PolicyError(f"no such spoiled policy: {kind!r}; known: {', '.join(KINDS)}")
    index, scale = _forward_velocity(OnnxPolicy.load(source, spec), spec)
    model = onnx.load(source)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["sound_actions" if name == "actions" else name for name in node.output]
    constants = {
        "spoil_start": np.array([index]), "spoil_end": np.array([index + 1]), "spoil_axis": np.array([1]),
        "spoil_threshold": np.array([THRESHOLD * scale], dtype=np.float32),
        "spoil_one": np.array([1.0], dtype=np.float32), "spoil_zero": np.array([0.0], dtype=np.float32),
        "spoil_huge": np.array([1e5], dtype=np.float32),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    node = helper.make_node
    graph.node.append(node("Slice", ["obs", "spoil_start", "spoil_end", "spoil_axis"], ["spoil_velocity"]))
    if kind == "nan":
        # The root of a negative number is NaN, and NaN times zero is NaN; below the threshold nothing is added.
        graph.node.extend([
            node("Sub", ["spoil_threshold", "spoil_velocity"], ["spoil_left"]),
            node("Sqrt", ["spoil_left"], ["spoil_root"]),
            node("Mul", ["spoil_root", "spoil_zero"], ["spoil_nothing"]),
            node("Add", ["sound_actions", "spoil_nothing"], ["actions"]),
        ])  # fmt: skip
    else:
        graph.node.extend([
            node("Sub", ["spoil_velocity", "spoil_threshold"], ["spoil_beyond"]),
            node("Relu", ["spoil_beyond"], ["spoil_part"]),
            node("Mul", ["spoil_part", "spoil_huge"], ["spoil_more"]),
            node("Add", ["spoil_more", "spoil_one"], ["spoil_gain"]),
            node("Mul", ["sound_actions", "spoil_gain"], ["actions"]),
        ])  # fmt: skip
    onnx.save(model, out)
    return out


def _forward_velocity(policy: OnnxPolicy, spec: RobotSpec) -> tuple[int, float]:
    """Where the newest forward velocity command stands in the observation, and its scale."""
    builder = ObservationBuilder(policy.manifest.terms, spec.num_joints)
    start = 0
    for term, width in zip(builder.terms, builder.widths, strict=True):
        if term.name == "velocity_commands":
            return start + width * (term.history - 1), term.scale
        start += width * term.history
    raise PolicyError(f"{policy.path} has no observation velocity_commands: it cannot be asked to walk fast")
