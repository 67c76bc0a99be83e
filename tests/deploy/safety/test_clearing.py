"""Whose commands the bridge follows."""

from __future__ import annotations

import hashlib

import pytest

from nfpo_deploy.contract.clearance import Clearance, policy_id, write_clearance
from nfpo_deploy.safety.clearing import Clearing
from robots import load_robot

SPEC = load_robot("go2")
OWN_SHA256 = hashlib.sha256(b"weights").hexdigest()
OWN = policy_id(OWN_SHA256)


@pytest.fixture
def cleared(tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"weights")
    scenarios = hashlib.sha256(b"set").hexdigest()
    clearance = Clearance(
        OWN_SHA256, "go2", SPEC.sha256, SPEC.model_sha256, "s", scenarios, "gone.yaml", 3, 0, "2026"
    )  # fmt: skip
    write_clearance(path, clearance, b"set")
    return path


def test_a_simulated_robot_takes_any_policy():
    clearing = Clearing(SPEC, None, True, "ignored")
    assert clearing.admits(5, 0) and not clearing.problem(0) and not clearing.override


def test_a_cleared_policy_and_no_other(cleared):
    clearing = Clearing(SPEC, cleared, False, "")
    assert not clearing.missing and clearing.admits(OWN, 10) and not clearing.problem(10)
    assert not clearing.admits(OWN + 1, 10)
    assert f"policy {OWN + 1:016x} sends joint commands, cleared is {OWN:016x}" in clearing.problem(11)
    assert clearing.admits(OWN, 12), "the cleared one goes on"
    assert clearing.problem(1_000_000_010) and not clearing.problem(1_000_000_011)


def test_no_clearance(cleared):
    cleared.write_bytes(b"other")
    clearing = Clearing(SPEC, cleared, False, "  ")
    assert "is not what was validated" in clearing.missing == clearing.problem(0)
    assert "clearance_override:=" in clearing.note
    assert not clearing.admits(0, 0)


def test_override_needs_a_reason_and_says_it(cleared):
    cleared.write_bytes(b"other")
    clearing = Clearing(SPEC, cleared, False, " on the crane ")
    assert clearing.override == "on the crane" and "OVERRIDDEN: on the crane" in clearing.note
    assert clearing.admits(5, 0) and not clearing.problem(0)


def test_without_a_policy_the_robot_stands_and_follows_nobody():
    clearing = Clearing(SPEC, None, False, "")
    assert not clearing.problem(0) and not clearing.admits(5, 1)
    assert "cleared is none" in clearing.problem(2)
