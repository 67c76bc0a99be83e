"""Limits, confidence and what decides."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sim2real_checks.validation.judge import Outcome, interval, judge
from sim2real_checks.validation.report import HTML, JSON, Validated, write_report
from sim2real_checks.validation.scenario import Scenario, ScenarioSet
from sim2real_checks.validation.scores import UNITS

SCENARIO = Scenario("walk", limits={"planar_error": 0.2, "recovery_time": 2.0})


def outcome(seed: int = 0, ended: str = "", scenario: Scenario = SCENARIO, **scores: float) -> Outcome:
    return Outcome(scenario, seed, dict.fromkeys(UNITS, math.nan) | scores, ended, 1.0)


def test_the_mean_over_seeds_is_compared():
    assert judge(SCENARIO, [outcome(0, planar_error=0.1), outcome(1, planar_error=0.28)]).passed
    verdict = judge(SCENARIO, [outcome(0, planar_error=0.1), outcome(1, planar_error=0.34)])
    assert verdict.failures == ("planar_error 0.22 above 0.2 m/s",)


def test_an_end_before_time_fails_and_a_score_that_does_not_apply_does_not():
    assert judge(SCENARIO, [outcome()]).passed
    assert judge(SCENARIO, [outcome(3, "fell after 2.0 s")]).failures == ("seed 3: fell after 2.0 s",)


def test_never_recovering_is_above_any_limit():
    assert "recovery_time inf above 2 s" in judge(SCENARIO, [outcome(recovery_time=math.inf)]).failures


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for i in range(200):
        _, low, high = interval(random.normal(1.0, 0.3, 20).tolist(), i)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.98
    assert interval([2.0])[0] == 2.0 and math.isnan(interval([2.0])[1]) and math.isnan(interval([])[0])


@pytest.mark.parametrize("fell", [True, False])
def test_only_what_is_required_decides(tmp_path, fell):
    optional = Scenario("stairs", required=False)
    verdicts = (
        judge(SCENARIO, [outcome(0, "fell after 1.0 s" if fell else "", planar_error=0.1)]),
        judge(optional, [outcome(0, "fell after 3.0 s", optional)]),
    )
    one = Validated("a.onnx", "ab" * 32, verdicts)
    assert one.passed is not fell and one.required == 1
    assert one.headline() == (
        f"{'FAILED' if fell else 'passed'}: {0 if fell else 1} of 1 scenarios held; of 1 that do not decide, 0"
    )
    write_report(tmp_path, [one], ScenarioSet("s", "go2", "d", (SCENARIO, optional), "cd" * 32, tmp_path), {"seed": 0})
    data = json.loads((tmp_path / JSON).read_text())["policies"][0]
    assert data["passed"] is not fell and data["scenarios"][1]["failures"] == ["seed 0: fell after 3.0 s"]
    page = (tmp_path / HTML).read_text()
    assert ("Failures of a.onnx" in page) is fell and "http" not in page
