"""What a policy file says of itself: the shared ONNX metadata convention plus our own keys, validated on load.

The convention (`joint_names`, `joint_stiffness`, …; comma-joined lists) is the one that whole_body_tracking, mjlab
and motion_tracking_controller share. What it lacks stands in one JSON value under `nfpo`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nfpo_deploy.errors import ObservationError, PolicyError
from nfpo_deploy.observation.builder import TermConfig
from nfpo_deploy.observation.terms import term_width
from robots import RobotSpec
from robots.untrusted import load_json

SCHEMA = 1
CONTROL_RATES_HZ = (1.0, 500.0)
"""The bridge's own rate is the most that can reach a motor; slower than 1 Hz nothing balances."""
GAIT_PERIODS_S = (0.05, 60.0)
REQUIRED = (
    "joint_names",
    "joint_stiffness",
    "joint_damping",
    "default_joint_pos",
    "action_scale",
    "observation_names",
    "nfpo",
)

COMMAND_PERIODS = 2
"""Control periods that the robot's command timeout must hold, so that one lost command stops nothing."""


@dataclass(frozen=True)
class PolicyManifest:
    """Contract between a policy and the robot that runs it. Joint arrays (N,), in the policy's `joint_names` order."""

    robot: str
    joint_names: tuple[str, ...]
    stiffness: np.ndarray
    damping: np.ndarray
    default_pose: np.ndarray
    action_scale: np.ndarray
    action_clip: float
    terms: tuple[TermConfig, ...]
    control_rate_hz: float
    command_ranges: dict[str, tuple[float, float]]
    """Trained ranges of vx, vy (m/s) and wz (rad/s)."""
    gait_period_s: float | None
    observation_low: np.ndarray
    observation_high: np.ndarray
    """(D,) range of each observation entry in training; beyond it the policy was never tested."""
    robot_model_sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)
    """Training task, configuration hash, seed, git commit, steps: for people and reports."""

    @property
    def observation_size(self) -> int:
        """D."""
        return sum(term_width(t.name, len(self.joint_names)) * t.history for t in self.terms)

    def to_metadata(self) -> dict[str, str]:
        """Strings for `metadata_props`, numbers with full precision."""
        ours = {
            "schema": SCHEMA,
            "robot": self.robot,
            "action_clip": self.action_clip,
            "control_rate_hz": self.control_rate_hz,
            "command_ranges": {k: list(v) for k, v in self.command_ranges.items()},
            "gait_period_s": self.gait_period_s,
            "observation_clip": [t.clip for t in self.terms],
            "observation_low": self.observation_low.tolist(),
            "observation_high": self.observation_high.tolist(),
            "robot_model_sha256": self.robot_model_sha256,
            "provenance": self.provenance,
        }
        return {
            "joint_names": ",".join(self.joint_names),
            "joint_stiffness": _join(self.stiffness),
            "joint_damping": _join(self.damping),
            "default_joint_pos": _join(self.default_pose),
            "action_scale": _join(self.action_scale),
            "command_names": "twist",
            "observation_names": ",".join(t.name for t in self.terms),
            "observation_terms_scale": _join([t.scale for t in self.terms]),
            "observation_terms_history_length": ",".join(str(t.history) for t in self.terms),
            "nfpo": json.dumps(ours, sort_keys=True),
        }

    def check_robot(self, spec: RobotSpec) -> None:
        """Compare with a robot.

        Raises:
            PolicyError: the first mismatch, with what was found and what the robot needs.
        """
        if self.robot != spec.name:
            raise PolicyError(f"the policy was trained for robot {self.robot!r}, this is {spec.name!r}")
        missing = sorted(set(spec.joint_names) - set(self.joint_names))
        foreign = sorted(set(self.joint_names) - set(spec.joint_names))
        if missing or foreign:
            raise PolicyError(f"joint names differ: the policy lacks {missing} and has unknown {foreign}")
        order = self.joint_order(spec)
        for name, values, limit in (
            ("stiffness", self.stiffness, spec.max_gains.stiffness),
            ("damping", self.damping, spec.max_gains.damping),
        ):
            excess = values[order] > limit
            if np.any(excess):
                i = int(np.argmax(excess))
                raise PolicyError(f"{name} of {spec.joint_names[i]} is {values[order][i]}, the robot allows {limit[i]}")
        pose = self.default_pose[order]
        outside = (pose < spec.position_lower) | (pose > spec.position_upper)
        if np.any(outside):
            i = int(np.argmax(outside))
            raise PolicyError(f"default_joint_pos of {spec.joint_names[i]} is {pose[i]}, outside its range")
        timeout, periods = spec.safety.command_timeout, COMMAND_PERIODS / self.control_rate_hz
        if periods > timeout * (1 + 1e-9):
            raise PolicyError(
                f"control_rate_hz is {self.control_rate_hz:g}: {COMMAND_PERIODS} periods are {periods * 1e3:.0f} ms, "
                f"but the robot stops when a command is older than {timeout * 1e3:g} ms (command_timeout), so a single "
                f"lost one would stop it; the policy needs at least {COMMAND_PERIODS / timeout:.1f} Hz"
            )

    def joint_order(self, spec: RobotSpec) -> np.ndarray:
        """Indices that bring policy-ordered arrays into the robot's joint order."""
        return np.array([self.joint_names.index(name) for name in spec.joint_names])


def parse_metadata(metadata: Mapping[str, str]) -> PolicyManifest:
    """Read and check `metadata_props`.

    Raises:
        PolicyError: a missing key, a wrong length, a value that is not finite, an unknown term.
    """
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise PolicyError(f"the ONNX metadata lacks {missing}; export the policy with `nfpo export`")
    names = tuple(metadata["joint_names"].split(","))
    n = len(names)
    if len(set(names)) != n:
        raise PolicyError(f"joint_names repeats a joint: {names}")
    try:
        ours = load_json(metadata["nfpo"])
        if ours["schema"] != SCHEMA:
            raise PolicyError(f"metadata schema {ours['schema']!r} is not supported; this version reads {SCHEMA}")
        manifest = PolicyManifest(
            robot=str(ours["robot"]),
            joint_names=names,
            stiffness=_numbers(metadata, "joint_stiffness", n, minimum=0.0),
            damping=_numbers(metadata, "joint_damping", n, minimum=0.0),
            default_pose=_numbers(metadata, "default_joint_pos", n),
            action_scale=_numbers(metadata, "action_scale", n),
            action_clip=_positive(ours, "action_clip"),
            terms=_terms(metadata, ours),
            control_rate_hz=_between(ours, "control_rate_hz", *CONTROL_RATES_HZ),
            command_ranges=_ranges(ours["command_ranges"]),
            gait_period_s=None if ours["gait_period_s"] is None else _between(ours, "gait_period_s", *GAIT_PERIODS_S),
            observation_low=np.array(ours["observation_low"], dtype=np.float64),
            observation_high=np.array(ours["observation_high"], dtype=np.float64),
            robot_model_sha256=str(ours["robot_model_sha256"]),
            provenance=dict(ours["provenance"]),
        )
        _check_terms(manifest)
    except (KeyError, TypeError, ValueError, OverflowError, ObservationError) as error:
        raise PolicyError(f"bad policy metadata: {type(error).__name__}: {error}") from error
    return manifest


def _check_terms(manifest: PolicyManifest) -> None:
    size = manifest.observation_size
    for name, array in (("low", manifest.observation_low), ("high", manifest.observation_high)):
        if array.shape != (size,) or not np.all(np.isfinite(array)):
            raise PolicyError(f"observation_{name} needs {size} finite numbers, got shape {array.shape}")
    if np.any(manifest.observation_low > manifest.observation_high):
        i = int(np.argmax(manifest.observation_low > manifest.observation_high))
        raise PolicyError(f"observation_low is above observation_high at entry {i}")
    uses_gait = any(term.name == "gait_phase" for term in manifest.terms)
    if uses_gait and manifest.gait_period_s is None:
        raise PolicyError("observation term gait_phase needs gait_period_s in the metadata")


def _join(values: Any) -> str:
    return ",".join(repr(float(v)) for v in values)


def _numbers(metadata: Mapping[str, str], key: str, n: int, minimum: float | None = None) -> np.ndarray:
    try:
        array = np.array([float(part) for part in metadata[key].split(",")])
    except ValueError as error:
        raise PolicyError(f"{key}: expected comma-separated numbers, got {metadata[key]!r}") from error
    if array.shape == (1,):
        array = np.repeat(array, n)
    if array.shape != (n,) or not np.all(np.isfinite(array)):
        raise PolicyError(f"{key}: expected {n} finite numbers, got {metadata[key]!r}")
    if minimum is not None and np.any(array <= minimum):
        raise PolicyError(f"{key}: every value must be above {minimum}, got {metadata[key]!r}")
    return array


def _positive(data: Mapping[str, Any], key: str) -> float:
    value = float(data[key])
    if not (np.isfinite(value) and value > 0):
        raise PolicyError(f"{key} must be finite and above zero, got {value}")
    return value


def _between(data: Mapping[str, Any], key: str, lower: float, upper: float) -> float:
    value = _positive(data, key)
    if not lower <= value <= upper:
        raise PolicyError(f"{key} must be between {lower} and {upper}, got {value}")
    return value


def _ranges(data: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    ranges = {}
    for axis in ("vx", "vy", "wz"):
        low, high = (float(v) for v in data[axis])
        if not (np.isfinite(low) and np.isfinite(high) and low <= 0.0 <= high):
            raise PolicyError(f"command_ranges.{axis} must be finite and contain zero, got [{low}, {high}]")
        ranges[axis] = (low, high)
    return ranges


def _terms(metadata: Mapping[str, str], ours: Mapping[str, Any]) -> tuple[TermConfig, ...]:
    names = metadata["observation_names"].split(",")
    n = len(names)
    scales = _numbers(metadata, "observation_terms_scale", n) if "observation_terms_scale" in metadata else np.ones(n)
    key = "observation_terms_history_length"
    # Exporters that follow the convention write integers as "5.000" and use 0 for "no history".
    histories = _numbers(metadata, key, n) if key in metadata else np.ones(n)
    if np.any((histories < 0) | (histories != np.round(histories))):
        raise PolicyError(f"{key}: expected whole numbers of frames, got {metadata[key]!r}")
    clips = ours.get("observation_clip", [None] * n)
    if len(clips) != n:
        raise PolicyError(f"observation_clip needs {n} entries, got {len(clips)}")
    return tuple(
        TermConfig(name, max(1, int(history)), float(scale), clip)
        for name, history, scale, clip in zip(names, histories, scales, clips, strict=True)
    )
