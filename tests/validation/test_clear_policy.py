"""A pass clears, a failure of the same set unclears."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from nfpo_deploy.contract.clearance import check_clearance, clearance_path
from nfpo_deploy.errors import ClearanceError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import ROBOTS_DIR, load_robot
from sim2real_checks.validation.clearing import clear, unclear
from sim2real_checks.validation.command import validate
from sim2real_checks.validation.scenario import load_set
from tests.validation.conftest import SHIPPED

SHORT = """
version: 1
name: short
robot: go2
scenarios:
- {{name: stand, duration: 1.0, required: {required}, limits: {{drift: {drift}}}}}
"""


@pytest.fixture
def mine(tmp_path, spec):
    return OnnxPolicy.load(shutil.copy(SHIPPED, tmp_path / "mine.onnx"), spec)


def write_set(folder, required="true", drift="0.2"):
    path = folder / "short.yaml"
    path.write_text(SHORT.format(required=required, drift=drift))
    return path


def run(mine, scenarios, out, *more):
    return validate([str(mine.path), "--set", str(scenarios), "--workers", "1", "--out", str(out), *more])


def test_pass_then_failure(mine, spec, tmp_path, capsys):
    assert run(mine, write_set(tmp_path), tmp_path / "out") == 0
    assert "cleared for hardware" in capsys.readouterr().out
    clearance = check_clearance(mine.path, spec)
    assert (clearance.set_name, clearance.scenarios, clearance.robot) == ("short", 1, "go2")
    assert run(mine, write_set(tmp_path, drift="0.0"), tmp_path / "out") == 1
    assert not clearance_path(mine.path).exists()


@pytest.mark.parametrize("more", [("--only", "stand"), ("--no-clearance",)])
def test_what_does_not_clear(mine, spec, tmp_path, more):
    assert run(mine, write_set(tmp_path), tmp_path / "out", *more) == 0
    assert not clearance_path(mine.path).exists()


def test_a_set_in_which_nothing_decides_clears_nothing(mine, tmp_path, capsys):
    assert run(mine, write_set(tmp_path, required="false"), tmp_path / "out") == 1
    assert "NOTHING DECIDED" in capsys.readouterr().out
    assert not clearance_path(mine.path).exists()
    assert json.loads((tmp_path / "out/report.json").read_text())["policies"][0]["passed"] is False


def test_files_that_changed_while_it_ran(mine, spec, tmp_path):
    scenarios = load_set(str(write_set(tmp_path)))
    write_set(tmp_path, drift="0.3")
    with pytest.raises(ClearanceError, match=r"short\.yaml changed while it was validated"):
        clear(mine, spec, scenarios, 1, 0)
    mine.path.write_bytes(mine.path.read_bytes() + b"\n")
    with pytest.raises(ClearanceError, match=r"mine\.onnx changed while it was validated"):
        clear(mine, spec, load_set(str(tmp_path / "short.yaml")), 1, 0)


def test_failure_of_another_set_leaves_it(mine, spec, tmp_path):
    scenarios = load_set(str(write_set(tmp_path)))
    path = clear(mine, spec, scenarios, 1, 0)
    before = path.read_bytes()
    assert unclear(mine, dataclasses.replace(scenarios, name="harder")) is None
    assert clear(mine, spec, scenarios, 1, 5).read_bytes() == before, "a valid clearance is not written again"
    assert unclear(mine, scenarios) == path and not path.exists()


def test_folder_that_cannot_be_written(mine, spec, tmp_path):
    scenarios = load_set(str(write_set(tmp_path)))
    (tmp_path / "mine.scenarios.yaml").mkdir()
    with pytest.raises(ClearanceError, match="cannot write the clearance into"):
        clear(mine, spec, scenarios, 1, 0)


@pytest.mark.parametrize("path", sorted(ROBOTS_DIR.glob("*/policies/*/policy.onnx")), ids=lambda path: path.parent.name)
def test_shipped_policies_are_cleared_by_the_full_set(path):
    clearance = check_clearance(path, load_robot(path.parents[2].name))
    assert clearance.set_name == f"{path.parents[2].name}_full"
    assert load_set(clearance.set_name).sha256 == clearance.set_sha256
