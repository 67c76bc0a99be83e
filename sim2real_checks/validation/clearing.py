"""Clear a policy that passed, and take its clearance from one that did not."""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import datetime, timezone
from pathlib import Path

from nfpo_deploy.contract.clearance import (
    Clearance,
    check_clearance,
    clearance_path,
    read_clearance,
    write_clearance,
)
from nfpo_deploy.errors import ClearanceError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec
from sim2real_checks.validation.scenario import ScenarioSet


def clear(policy: OnnxPolicy, spec: RobotSpec, scenario_set: ScenarioSet, decided: int, seed: int) -> Path:
    """Write the clearance of a policy, and the copy of its scenarios, beside it; one that is valid stays as it is.

    Args:
        policy: as it was validated.
        spec: its robot, as it was validated.
        scenario_set: what it passed, as it was read.
        decided: how many scenarios decided.
        seed: of each scenario's first run.

    Returns:
        Path of the clearance.

    Raises:
        ClearanceError: policy or scenarios changed while the validation ran, or the folder cannot be written.
    """
    with contextlib.suppress(ClearanceError):
        if check_clearance(policy.path, spec).set_sha256 == scenario_set.sha256:
            return clearance_path(policy.path)
    folder = policy.path.resolve().parent
    try:
        scenarios = scenario_set.path.read_bytes()
        for what, raw, sha256 in (
            (policy.path, policy.path.read_bytes(), policy.sha256),
            (scenario_set.path, scenarios, scenario_set.sha256),
        ):
            if hashlib.sha256(raw).hexdigest() != sha256:
                raise ClearanceError(f"{what} changed while it was validated: validate again")
        clearance = Clearance(
            policy_sha256=policy.sha256, robot=spec.name, robot_sha256=spec.sha256, model_sha256=spec.model_sha256,
            set_name=scenario_set.name, set_sha256=scenario_set.sha256,
            set_path=os.path.relpath(scenario_set.path.resolve(), folder), scenarios=decided, seed=seed,
            date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )  # fmt: skip
        return write_clearance(policy.path, clearance, scenarios)
    except OSError as error:
        raise ClearanceError(f"cannot write the clearance into {folder}: {error.strerror or error}") from error


def unclear(policy: OnnxPolicy, scenario_set: ScenarioSet) -> Path | None:
    """Remove the clearance that a policy got by a set which it now failed; returns what was removed."""
    path = clearance_path(policy.path)
    with contextlib.suppress(ClearanceError, OSError):
        if read_clearance(path).set_name == scenario_set.name:
            path.unlink()
            return path
    return None
