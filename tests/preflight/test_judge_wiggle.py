"""Judging strokes made by hand: targets went out by 0.1 rad, so 50 N·m/rad make 5 N·m where nothing moves."""

import numpy as np
import pytest

from sim2real_checks.preflight.finding import Finding, Result, skipped
from sim2real_checks.preflight.judge_wiggle import Stop, judge_joint, judge_start, judge_wiggle, reasons_against
from sim2real_checks.preflight.wiggle_motion import Stroke
from tests.preflight.wiggle_rig import SPEC, still

PASS, WARN, FAIL, SKIP = Result.PASS, Result.WARN, Result.FAIL, Result.SKIP
NAMES = SPEC.joint_names
FR_HIP, FR_THIGH, FR_CALF, FL_THIGH, RL_HIP, RL_THIGH, RL_CALF = 0, 1, 2, 4, 9, 10, 11


def stroke(joint, moved, expected=0.1, torque=0.2, turned=0.001):
    values = np.zeros(12)
    for index, value in moved.items():
        values[index] = value
    return Stroke(joint, expected, values, torque, turned)


@pytest.mark.parametrize(
    ("one", "result", "said"),
    [
        (stroke(FR_HIP, {FR_HIP: 0.098}), PASS, "expected +0.100 rad, seen +0.098"),
        (stroke(FR_HIP, {FR_HIP: -0.07}, expected=-0.1), PASS, "expected -0.100 rad, seen -0.070"),
        (stroke(FR_HIP, {FR_HIP: 0.021}, torque=3.9), PASS, "seen +0.021"),
        (stroke(FR_HIP, {FR_HIP: 0.019}, torque=4.0), FAIL, "the motor pushes and the encoder shows no motion"),
        (stroke(FR_HIP, {FR_HIP: -0.098}), FAIL, "seen -0.098: the other way"),
        (stroke(FR_HIP, {FR_HIP: 0.2}), FAIL, "more than 1.5 times as far"),
        (stroke(FR_HIP, {}, torque=0.1), FAIL, "+0.1 N·m: the motor does not answer"),
        (stroke(FR_HIP, {}, torque=1.2), FAIL, "does not answer"),
        (stroke(FR_HIP, {}, torque=5.0), FAIL, "+5.0 N·m: the motor pushes and the encoder shows no motion"),
        (stroke(FL_THIGH, {RL_CALF: 0.09}), FAIL, "seen +0.000; RL_calf_joint moved instead, by +0.090 rad"),
        # Coupling: 0.02 rad and half of its own 0.08 rad may move with it, 0.06 rad.
        (stroke(FR_HIP, {FR_HIP: 0.08, RL_CALF: 0.059}), PASS, "seen +0.080"),
        (stroke(FR_HIP, {FR_HIP: 0.08, RL_CALF: -0.061}), FAIL, "RL_calf_joint moved as well, by -0.061 rad"),
        (stroke(FR_CALF, {FR_CALF: 0.04, FR_HIP: -0.07}), WARN, "FR_hip_joint of the same leg moved with it"),
        (stroke(FR_CALF, {FR_CALF: 0.04, FR_HIP: -0.101}), FAIL, "FR_hip_joint moved as well"),
        (stroke(FR_HIP, {i: 0.1 for i in range(12)}, turned=0.3), FAIL, "the robot moved as a whole"),
        (stroke(FR_HIP, {}, expected=0.0, torque=5.0), FAIL, "no motion"),
    ],
)  # fmt: skip
def test_one_stroke(one, result, said):
    finding = judge_joint(one.joint, [one], SPEC)
    assert finding.check == f"wiggle {NAMES[one.joint]}" and finding.result is result and said in finding.measured
    assert bool(finding.remedy) == (result is not PASS)


def test_one_good_direction_is_enough():
    blocked = stroke(FR_THIGH, {}, expected=-0.1, torque=-5.0)
    coupled = stroke(FR_THIGH, {FR_THIGH: 0.04, FR_CALF: 0.06})
    good = stroke(FR_THIGH, {FR_THIGH: 0.09})
    assert judge_joint(FR_THIGH, [blocked, good], SPEC).result is PASS
    assert judge_joint(FR_THIGH, [coupled, blocked], SPEC).result is WARN
    better = stroke(FR_THIGH, {FR_THIGH: -0.095}, expected=-0.1)
    assert judge_joint(FR_THIGH, [good, better], SPEC).values["expected"] == -0.1


def test_what_moved_instead_is_what_moved_the_commanded_way():
    pushed = stroke(RL_THIGH, {FL_THIGH: -0.04, RL_HIP: 0.054}, expected=-0.1)
    free = stroke(RL_THIGH, {FL_THIGH: 0.05})
    for strokes in ([pushed], [pushed, free], [free, pushed]):
        finding = judge_joint(RL_THIGH, strokes, SPEC)
        assert "FL_thigh_joint moved instead" in finding.measured and "ground" not in finding.remedy
    caught = judge_joint(FR_CALF, [stroke(FR_CALF, {FR_CALF: 0.01, FR_HIP: -0.03})], SPEC)
    assert "FR_hip_joint moved instead" in caught.measured and "if the ground holds the leg" in caught.remedy


def test_a_joint_without_a_stroke_is_not_measured():
    finding = judge_joint(FR_HIP, [], SPEC)
    assert finding.result is FAIL and "not measured" in finding.measured


def test_swapped_joints_are_both_named():
    strokes = [stroke(i, {i: 0.09}) for i in range(12) if i not in (FR_THIGH, FL_THIGH)]
    strokes += [stroke(FR_THIGH, {FL_THIGH: 0.09}), stroke(FL_THIGH, {FR_THIGH: 0.09})]
    findings = judge_wiggle(strokes, SPEC)
    assert [finding.check for finding in findings] == [f"wiggle {name}" for name in NAMES]
    failed = {finding.check: finding for finding in findings if finding.result is FAIL}
    assert set(failed) == {"wiggle FR_thigh_joint", "wiggle FL_thigh_joint"}
    assert "FL_thigh_joint moved instead" in failed["wiggle FR_thigh_joint"].measured
    assert "swapped" in failed["wiggle FR_thigh_joint"].remedy


def test_a_stop_fails_the_joint_of_the_turn_and_skips_the_rest():
    moved = np.zeros(12)
    findings = judge_wiggle([stroke(0, {0: 0.09})], SPEC, Stop("SIGINT received", FR_THIGH, moved))
    assert [finding.result for finding in findings] == [PASS, FAIL, *[SKIP] * 10]
    assert findings[1].measured == "stopped: SIGINT received"
    assert "stopped for FR_thigh_joint" in findings[2].measured
    moved[RL_CALF] = -0.32
    findings = judge_wiggle([stroke(0, {0: 0.09})], SPEC, Stop("RL_calf_joint: position", FR_THIGH, moved))
    assert [finding.result for finding in findings] == [PASS, *[SKIP] * 10, FAIL]
    assert "ran -0.320 rad away from its rest, in the turn of FR_thigh_joint" in findings[RL_CALF].measured
    assert "its sign or the order of joints" in findings[RL_CALF].remedy


def test_a_joint_that_runs_away_before_the_first_turn_is_named():
    moved = np.zeros(12)
    assert judge_wiggle([], SPEC, Stop("tilt", None, moved))[0].measured == "nothing was moved: tilt"
    moved[FL_THIGH] = 0.31
    findings = judge_wiggle([], SPEC, Stop("velocity", None, moved))
    assert findings[FL_THIGH].result is FAIL and "before the first turn" in findings[FL_THIGH].measured
    assert [finding.result for finding in findings].count(SKIP) == 11


def test_what_speaks_against_moving():
    good = [Finding(name, PASS, "") for name in ("built-in controller", "accelerometer", "joints at rest", "battery")]
    assert reasons_against([*good, Finding("computer", WARN, "slow")]) == []
    assert reasons_against([*good, Finding("battery", FAIL, "5 %")]) == ["battery: 5 %"]
    for name in ("built-in controller", "accelerometer", "joints at rest"):
        assert reasons_against([Finding(name, WARN, "why")]) == [f"{name}: why"]
        assert reasons_against(skipped([name], "none")) == [f"{name}: none"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"quat_wxyz": np.array([np.cos(0.15), np.sin(0.15), 0, 0])}, "tilt 0.30 rad"),
        ({"dq": np.eye(12)[FL_THIGH]}, "FL_thigh_joint moves, 1.00 rad/s"),
        ({"tau_est": 4.0 * np.eye(12)[FR_CALF]}, "FR_calf_joint makes 4.0 N·m"),
    ],
)
def test_the_state_to_start_from(change, said):
    problem = judge_start([still(**change)] * 2, SPEC)
    assert (said in problem) if said else problem == ""


def test_a_joint_that_creeps_is_refused():
    moved = still(q=SPEC.crouch_pose + 0.03 * np.eye(12)[RL_CALF])
    assert "RL_calf_joint moves" in judge_start([still(), moved], SPEC)
