"""Judging the robot, with numbers made by hand."""

import numpy as np
import pytest

from robots.loader import load_robot
from sim2real_checks.preflight.finding import Result
from sim2real_checks.preflight.judge_robot import CHECKS, judge_robot, up_in_base
from tests.preflight.conftest import heard, states

SPEC = load_robot("go2")
PASS, WARN, FAIL = Result.PASS, Result.WARN, Result.FAIL
QUARTER = np.sqrt(0.5)


def verdicts(identity_problem="", **columns):
    """Findings by name of a robot with these columns."""
    found = judge_robot(heard(states(**columns), identity_problem=identity_problem), SPEC)
    assert tuple(finding.check for finding in found) == CHECKS
    return {finding.check: finding for finding in found}


def only(name, result, found):
    """This check has that result and all others pass."""
    others = {check: finding.result for check, finding in found.items() if finding.result is not PASS}
    assert others == ({} if result is PASS else {name: result})
    assert bool(found[name].remedy) == (result is not PASS)


def test_a_robot_at_rest_passes():
    only("identity", PASS, verdicts())


def test_identity():
    problem = "this is not a go2: its motors [12] are alive; name the robot"
    found = verdicts(identity_problem=problem)
    only("identity", FAIL, found)
    assert "motors [12]" in found["identity"].measured and found["identity"].remedy == "name the robot"


@pytest.mark.parametrize(
    ("soc", "volts", "result"),
    [
        (80, 30, PASS), (80, 0, PASS), (80, np.nan, PASS), (15, 27, WARN), (5, 26, FAIL), (80, 19, FAIL),
        (80, 58, FAIL), (np.nan, np.nan, WARN),
    ],
)  # fmt: skip
def test_battery(soc, volts, result):
    found = verdicts(battery_soc=soc, voltage=volts)
    only("battery", result, found)
    assert ("not reported" in found["battery"].measured) == (not volts > 1)


@pytest.mark.parametrize(("celsius", "result"), [(69, PASS), (70, WARN), (80, FAIL), (-10, PASS)])
def test_motor_temperatures(celsius, result):
    temperature = np.full(12, min(30.0, celsius))
    temperature[4] = celsius
    found = verdicts(temperature=temperature)
    only("motor temperatures", result, found)
    assert celsius < 0 or "FL_thigh_joint" in found["motor temperatures"].measured


@pytest.mark.parametrize(("gravity", "result"), [(9.4, PASS), (9.2, FAIL), (10.4, FAIL), (0.0, FAIL)])
def test_norm_of_the_accelerometer(gravity, result):
    found = verdicts(accel_b=np.array([0.0, 0.0, gravity]))
    assert found["accelerometer"].result is result


@pytest.mark.parametrize(("roll", "result"), [(0.1, PASS), (0.3, WARN), (1.2, FAIL), (3.1, FAIL)])
def test_level(roll, result):
    # Rolled by +a about x, the world's upward axis is (0, sin a, cos a) in base_link.
    accel = 9.81 * np.array([0.0, np.sin(roll), np.cos(roll)])
    quaternion = np.array([np.cos(roll / 2), np.sin(roll / 2), 0.0, 0.0])
    only("accelerometer", result, verdicts(accel_b=accel, quat_wxyz=quaternion))


@pytest.mark.parametrize(
    ("quaternion", "up"),
    [
        ((1, 0, 0, 0), (0, 0, 1)),
        ((QUARTER, QUARTER, 0, 0), (0, 1, 0)),
        ((QUARTER, 0, QUARTER, 0), (-1, 0, 0)),
        ((QUARTER, 0, 0, QUARTER), (0, 0, 1)),
        ((0, 1, 0, 0), (0, 0, -1)),
    ],
)
def test_up_in_base(quaternion, up):
    assert up_in_base(np.array([quaternion]))[0] == pytest.approx(up, abs=1e-12)


@pytest.mark.parametrize(("pitch", "result"), [(0.03, PASS), (-0.1, WARN), (0.8, FAIL)])
def test_a_quaternion_that_disagrees_with_gravity(pitch, result):
    only("orientation", result, verdicts(quat_wxyz=np.array([np.cos(pitch / 2), 0.0, np.sin(pitch / 2), 0.0])))


def test_a_quaternion_that_is_none():
    only("orientation", FAIL, verdicts(quat_wxyz=np.array([1.03, 0.0, 0.0, 0.0])))


@pytest.mark.parametrize(
    ("bias", "noise", "result"),
    [(0.01, 0.01, PASS), (-0.05, 0.01, WARN), (0.2, 0.01, FAIL), (0.0, 0.2, WARN), (0.0, 0.0, PASS)],
)
def test_gyroscope(bias, noise, result):
    wave = np.where(np.arange(1000) % 2, noise, -noise)
    only("gyroscope", result, verdicts(gyro_b=np.stack([0 * wave, wave + bias, 0 * wave], axis=1)))


def test_an_imu_that_repeats_one_value():
    only("gyroscope", WARN, verdicts(gyro_b=np.zeros(3), accel_b=np.array([0.0, 0.0, 9.81])))


@pytest.mark.parametrize(("beyond", "result"), [(-0.1, PASS), (0.01, PASS), (0.03, FAIL)])
def test_joint_positions(beyond, result):
    q = SPEC.crouch_pose.copy()
    q[5] = SPEC.position_lower[5] - beyond
    found = verdicts(q=q)
    only("joint positions", result, found)
    assert "FL_calf_joint" in found["joint positions"].measured or beyond < 0


def test_moving_joints_are_named_and_excuse_the_gyroscope():
    q = np.tile(SPEC.crouch_pose, (1000, 1))
    q[:, 7] += 0.1 * np.sin(np.arange(1000) * 0.02)
    found = verdicts(q=q)
    assert found["joints at rest"].result is WARN and "RR_thigh_joint" in found["joints at rest"].measured
    assert found["gyroscope"].result is WARN and "moving" in found["gyroscope"].measured
    dq = np.zeros(12)
    dq[7] = 0.2
    assert verdicts(dq=dq)["joints at rest"].result is WARN
