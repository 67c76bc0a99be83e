"""`nfpo evaluate`: floors, exit status, table and JSON."""

import json
import math

import pytest

from nfpo_deploy.errors import PolicyError
from sim2real_checks.evaluate_command import FLOORS, evaluate_command, misses

GOOD = {"no_fall_fraction": 0.99, "planar_error": 0.08, "wz_error": 0.10}


def strict_json(path):
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_floors_are_the_promised_ones():
    assert FLOORS == {"no_fall_fraction": (">=", 0.99), "planar_error": ("<=", 0.08), "wz_error": ("<=", 0.10)}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"no_fall_fraction": 1.0, "planar_error": 0.01, "wz_error": 0.0}, []),
        ({"no_fall_fraction": 0.989}, ["no_fall_fraction"]),
        ({"planar_error": 0.0801}, ["planar_error"]),
        ({"wz_error": 0.1001}, ["wz_error"]),
        ({"planar_error": math.nan}, ["planar_error"]),
        ({"no_fall_fraction": math.nan, "wz_error": math.nan}, ["no_fall_fraction", "wz_error"]),
    ],
)
def test_floors_are_missed_beyond_their_bound_only_and_by_nan(changes, missed):
    assert misses(GOOD | changes) == missed


def test_exit_status_and_report_of_the_shipped_policy_agree(shipped, tmp_path, capsys):
    report = tmp_path / "deep" / "report.json"
    status = evaluate_command([str(shipped), "--episodes", "2", "--workers", "2", "--json", str(report)])
    (result,) = strict_json(report)
    assert status == int(bool(misses(result["summary"])))
    assert [episode["seed"] for episode in result["episodes"]] == [10_000, 10_001]
    assert result["conditions"]["episode_s"] == 20.0
    shown = capsys.readouterr().out
    assert "no_fall_fraction" in shown
    assert ">= 0.99" in shown


def test_a_policy_that_falls_ends_with_status_1_and_a_valid_report(holding_policy, tmp_path):
    report = tmp_path / "report.json"
    limp = holding_policy(0.5, name="limp.onnx")
    assert evaluate_command([str(limp), "--episodes", "2", "--workers", "1", "--json", str(report)]) == 1
    (result,) = strict_json(report)
    assert result["summary"]["falls"] == 2
    assert result["summary"]["no_fall_fraction"] == 0.0
    assert result["summary"]["settled_planar_error"] is None


def test_one_bad_policy_among_several_ends_with_status_1(holding_policy, tmp_path):
    report = tmp_path / "report.json"
    limp, weak = holding_policy(0.5, name="limp.onnx"), holding_policy(0.6, name="weak.onnx")
    argv = [str(limp), str(weak), "--episodes", "1", "--workers", "1", "--seed", "3", "--json", str(report)]
    assert evaluate_command(argv) == 1
    assert [(r["policy"], r["episodes"][0]["seed"]) for r in strict_json(report)] == [
        ("limp.onnx", 3),
        ("weak.onnx", 3),
    ]


def test_standing_has_no_floors(holding_policy, capsys):
    limp = holding_policy(0.5, name="limp.onnx")
    assert evaluate_command([str(limp), "--stand", "--episodes", "1", "--workers", "1"]) == 0
    assert ">= 0.99" not in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--episodes", "0"], ["--episodes", "-3"], ["--workers", "0"]])
def test_numbers_below_one_are_refused(shipped, argv):
    with pytest.raises(PolicyError, match="at least 1"):
        evaluate_command([str(shipped), *argv])


def test_no_policy_is_refused_with_the_shipped_one_named():
    with pytest.raises(PolicyError, match=r"robots/go2/policies/walk/policy\.onnx"):
        evaluate_command([])


def test_a_missing_policy_file_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"gone\.onnx"):
        evaluate_command([str(tmp_path / "gone.onnx"), "--episodes", "1"])


def test_an_unknown_option_ends_with_status_2(shipped, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate_command([str(shipped), "--epsiodes", "1"])
    assert stop.value.code == 2
