"""A clearance holds for the bytes that were validated, and for no others."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from nfpo_deploy.contract.clearance import (
    Clearance,
    check_clearance,
    clearance_path,
    policy_id,
    scenarios_path,
    write_clearance,
)
from nfpo_deploy.errors import ClearanceError
from robots import load_robot

SPEC = load_robot("go2")
SET = b"name: mine\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "run" / "policy.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    (tmp_path / "mine.yaml").write_bytes(SET)
    clearance = Clearance(
        sha256(b"weights"), "go2", SPEC.sha256, SPEC.model_sha256, "mine", sha256(SET), "../mine.yaml", 7, 0,
        "2026-11-27T20:00:00Z",
    )  # fmt: skip
    write_clearance(path, clearance, SET)
    return path


def test_valid(policy):
    clearance = check_clearance(policy, SPEC)
    assert clearance.describe() == "cleared by 7 scenarios of mine on 2026-11-27T20:00:00Z"
    assert sorted(path.name for path in policy.parent.iterdir()) == [
        "policy.clearance.json", "policy.onnx", "policy.scenarios.yaml",
    ]  # fmt: skip


def test_the_first_bytes_of_the_hash_are_the_id():
    assert policy_id(sha256(b"weights")) == int.from_bytes(hashlib.sha256(b"weights").digest()[:8], "big")


def test_it_travels_without_the_original_scenarios(policy, tmp_path):
    (tmp_path / "mine.yaml").unlink()
    check_clearance(policy, SPEC)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda policy: policy.write_bytes(b"weightz"), r"policy \S+policy\.onnx is not what was validated"),
        (lambda policy: scenarios_path(policy).write_bytes(SET + b" "), r"set \S+policy\.scenarios\.yaml is not"),
        (lambda policy: scenarios_path(policy).unlink(), r"cannot read \S+policy\.scenarios\.yaml"),
        (lambda policy: (policy.parents[1] / "mine.yaml").write_bytes(b"easier"), r"mine\.yaml has changed since"),
        (lambda policy: clearance_path(policy).unlink(), r"there is no \S+policy\.clearance\.json"),
        (lambda policy: clearance_path(policy).write_text("{"), r"policy\.clearance\.json"),
        (lambda policy: clearance_path(policy).write_text("[]"), "not a clearance of format 1"),
    ],
)  # fmt: skip
def test_any_change_voids_it(policy, change, named):
    change(policy)
    with pytest.raises(ClearanceError, match=f"is not cleared for hardware: .*{named}.*; run: nfpo validate"):
        check_clearance(policy, SPEC)


@pytest.mark.parametrize(("field", "named"), [("sha256", "robot spec"), ("model_path", "robot model")])
def test_another_robot_voids_it(policy, tmp_path, field, named):
    (tmp_path / "other.xml").write_text("<mujoco/>")
    other = {"sha256": "0" * 64, "model_path": tmp_path / "other.xml"}[field]
    with pytest.raises(ClearanceError, match=named):
        check_clearance(policy, dataclasses.replace(SPEC, **{field: other}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("scenarios", "7"), ("scenarios", True), ("policy_sha256", 5), ("date", None), ("robot", "x" * 2000)],
)  # fmt: skip
def test_a_wrong_entry_is_named(policy, field, value):
    data = json.loads(clearance_path(policy).read_text()) | {field: value}
    clearance_path(policy).write_text(json.dumps(data))
    with pytest.raises(ClearanceError, match=f"{field}: expected") as caught:
        check_clearance(policy, SPEC)
    assert len(str(caught.value)) < 700
