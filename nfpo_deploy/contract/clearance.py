"""Clearance: the record that a policy passed validation, bound to the bytes of policy, robot and scenarios.

Three files lie beside each other: `policy.onnx`, `policy.clearance.json` and `policy.scenarios.yaml`, the copy of what
it was validated with. It guards against mistakes, not against forgery: whoever can write these files can also write a
clearance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfpo_deploy.contract.onnx_guard import MAX_FILE_BYTES
from nfpo_deploy.errors import ClearanceError
from robots.loader import RobotSpec
from robots.untrusted import UntrustedError, load_json, read_bounded

FORMAT = 1
MAX_TEXT = 1000


@dataclass(frozen=True)
class Clearance:
    """What passed, and with what."""

    policy_sha256: str
    robot: str
    robot_sha256: str
    """Of robot.yaml."""
    model_sha256: str
    """Of the robot's MJCF file."""
    set_name: str
    set_sha256: str
    set_path: str
    """Where the scenario file lay, from the folder of the clearance; where it still lies there, it must be the same."""
    scenarios: int
    """How many decided."""
    seed: int
    date: str
    """UTC, ISO 8601."""

    def describe(self) -> str:
        """In one line."""
        return f"cleared by {self.scenarios} scenarios of {self.set_name} on {self.date}"


def clearance_path(policy: Path) -> Path:
    """Where the clearance of a policy lies."""
    return policy.with_suffix(".clearance.json")


def scenarios_path(policy: Path) -> Path:
    """Where the copy of its scenarios lies."""
    return policy.with_suffix(".scenarios.yaml")


def policy_id(sha256: str) -> int:
    """First 8 bytes of a policy's sha256: joint commands carry it."""
    return int(sha256[:16], 16)


def write_clearance(policy: Path, clearance: Clearance, scenarios: bytes) -> Path:
    """Put a clearance beside its policy; an older one is replaced. Returns its path."""
    scenarios_path(policy).write_bytes(scenarios)
    path = clearance_path(policy)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(clearance)}, indent=1) + "\n")
    temporary.replace(path)
    return path


def read_clearance(path: Path) -> Clearance:
    """Read a clearance without comparing it with anything.

    Raises:
        ClearanceError: missing, or not a clearance; says what to do.
    """
    try:
        data = load_json(read_bounded(path))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not a clearance of format {FORMAT}")
        return Clearance(**{field.name: _entry(data, field) for field in dataclasses.fields(Clearance)})
    except FileNotFoundError:
        raise ClearanceError(f"there is no {path}") from None
    except OSError as error:
        raise ClearanceError(f"cannot read {path}: {error.strerror or error}") from error
    except (UntrustedError, ValueError) as error:
        raise ClearanceError(f"{path}: {error}") from error


def _entry(data: dict[str, Any], field: dataclasses.Field) -> Any:
    value, number = data.get(field.name), field.type == "int"
    if type(value) is not (int if number else str) or len(str(value)) > MAX_TEXT:
        raise ValueError(f"{field.name}: expected {'a whole number' if number else 'text'}, got {str(value)[:100]!r}")
    return value


def check_clearance(policy: Path, spec: RobotSpec) -> Clearance:
    """The valid clearance of a policy for a robot.

    Args:
        policy: ONNX file.
        spec: the robot as it is now.

    Raises:
        ClearanceError: there is none, or one of the files that it is bound to has changed; names which, and the remedy.
    """
    remedy = f"run: nfpo validate {policy}"
    try:
        clearance = read_clearance(clearance_path(policy))
        bound = (
            (clearance.policy_sha256, _sha256(policy), f"policy {policy}"),
            (clearance.robot_sha256, spec.sha256, f"robot spec {spec.folder / 'robot.yaml'}"),
            (clearance.model_sha256, spec.model_sha256, f"robot model {spec.model_path}"),
            (clearance.set_sha256, _sha256(scenarios_path(policy)), f"scenario set {scenarios_path(policy)}"),
        )
        for cleared, now, what in bound:
            if cleared != now:
                raise ClearanceError(f"{what} is not what was validated (sha256 {now[:12]}, not {cleared[:12]})")
        original = policy.parent / clearance.set_path
        if original.is_file() and _sha256(original) != clearance.set_sha256:
            raise ClearanceError(f"scenario set {original.resolve()} has changed since the validation")
    except ClearanceError as error:
        raise ClearanceError(f"{policy} is not cleared for hardware: {error}; {remedy}") from None
    return clearance


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_bounded(path, MAX_FILE_BYTES)).hexdigest()
    except OSError as error:
        raise ClearanceError(f"cannot read {path}: {error.strerror or error}") from None
    except UntrustedError as error:
        raise ClearanceError(str(error)) from None
