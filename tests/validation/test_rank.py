"""Validation against evaluation: words, correlation, and one policy through both for real."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sim2real_checks.validation.rank import Row, main, rank_correlation

SHIPPED = Path(__file__).parents[2] / "robots/go2/policies/walk/policy.onnx"
TWO_SCENARIOS = """
version: 1
name: two
robot: go2
description: straight on, and as fast as nobody walks
defaults: {duration: 2.0}
scenarios:
  - {name: straight on, group: commands, commands: [{at: 0.2, vx: 0.3}], limits: {steady_planar_error: 0.2}}
  - {name: to the millimetre, group: commands, commands: [{at: 0.2, vx: 0.3}], limits: {steady_planar_error: 0.0}}
"""


def row(held, alive, missed=()):
    return Row("policy", held, 10, missed, alive, 0.05, 0.05, ())


@pytest.mark.parametrize(
    ("held", "missed", "verdict"),
    [
        (10, (), "both pass"),
        (10, ("wz_error",), "false pass"),
        (9, (), "false alarm"),
        (0, ("no_fall_fraction",), "both refuse"),
    ],
)
def test_verdict(held, missed, verdict):
    assert row(held, 0.9, missed).verdict == verdict


def test_correlation_is_spearmans():
    # By hand: ranks 1 2 3 4 against 1 3 2 4, so 1 - 6·(0 + 1 + 1 + 0)/(4·15).
    rows = [row(1, 0.1), row(4, 0.6), row(5, 0.3), row(9, 0.9)]
    assert rank_correlation(rows) == pytest.approx(0.8)
    assert math.isnan(rank_correlation([row(3, 0.2), row(3, 0.9)]))


def test_shipped_policy_and_a_scenario_that_nobody_holds(tmp_path, capsys):
    (tmp_path / "two.yaml").write_text(TWO_SCENARIOS)
    words = ["--set", str(tmp_path / "two.yaml"), "--episodes", "4", "--workers", "1", "--out", str(tmp_path)]
    assert main([str(SHIPPED), *words]) == 0
    (measured,) = json.loads((tmp_path / "rank.json").read_text())["policies"]
    assert (measured["held"], measured["deciding"], measured["failures"]) == (1, 2, ["to the millimetre"])
    assert measured["no_fall_fraction"] == 1.0 and measured["verdict"] == "false alarm"
    assert (tmp_path / "rank.png").stat().st_size > 5000
    assert "1 of 2" in capsys.readouterr().out


def test_bad_options_are_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert "at least one ONNX file" in capsys.readouterr().err
    assert main([str(tmp_path / "no.onnx"), "--out", str(tmp_path)]) == 2
    assert "no.onnx" in capsys.readouterr().err
