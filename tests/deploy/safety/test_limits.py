"""Bounds of joint commands against values computed by hand, and against their promises for anything else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nfpo_deploy.safety import limits

one = np.ones(1)
LIMIT = np.array([20.0])


def v(x: float) -> np.ndarray:
    return np.array([float(x)])


def test_positions_are_clamped_with_margin():
    q = np.array([-2.0, 0.0, 0.95, 2.0])
    expected = [-0.9, 0.0, 0.9, 0.9]
    np.testing.assert_allclose(limits.clamp_positions(q, -np.ones(4), np.ones(4), 0.1), expected)


def test_rate_limit_moves_one_step_at_most():
    np.testing.assert_allclose(limits.limit_rate(np.array([1.0, 0.05, -1.0]), np.zeros(3), 0.1), [0.1, 0.05, -0.1])


def test_pd_torque_by_hand():
    # 2 + 50·(0.3 - 0.1) + 4·(1 - 3) = 4
    assert limits.pd_torque(v(0.1), v(3), v(0.3), v(1), v(50), v(4), v(2))[0] == pytest.approx(4.0)


def test_far_target_moves_toward_the_joint_until_the_torque_fits():
    # 100·(1.0 - 0.0) = 100 N·m; 20 N·m are reached at q* = 0.2.
    q, tau, kd = limits.bound_torque_by_target(v(0), v(0), v(1), v(0), v(100), v(1), v(0), LIMIT)
    assert (q[0], tau[0], kd[0]) == (pytest.approx(0.2), 0.0, 1.0)


def test_damping_counts_and_stays_when_the_target_can_give_way():
    # 100·0.3 - 2·(-5) = 40; the spring gives up 20 of its 30 N·m: q* = 0.1, damper keeps 10.
    q, tau, kd = limits.bound_torque_by_target(v(0), v(-5), v(0.3), v(0), v(100), v(2), v(0), LIMIT)
    assert (q[0], tau[0], kd[0]) == (pytest.approx(0.1), 0.0, 2.0)


def test_feed_forward_shrinks_after_the_spring():
    # spring 10, feed-forward 50: the spring vanishes (q* = q), feed-forward keeps 20.
    q, tau, kd = limits.bound_torque_by_target(v(0), v(0), v(0.1), v(0), v(100), v(1), v(50), LIMIT)
    assert (q[0], tau[0], kd[0]) == (pytest.approx(0.0), pytest.approx(20.0), 1.0)


def test_spring_that_opposes_the_excess_is_not_touched():
    # spring +10, damper -4·10 = -40: total -30. The damper gives up 10: gain 3.
    q, tau, kd = limits.bound_torque_by_target(v(0), v(10), v(0.1), v(0), v(100), v(4), v(0), LIMIT)
    assert (q[0], tau[0], kd[0]) == (pytest.approx(0.1), 0.0, pytest.approx(3.0))


def test_gains_shrink_when_the_target_may_not_move():
    # spring 100, damper 5·2 = 10: the spring keeps 10 of its 100 N·m.
    kp, tau, kd = limits.bound_torque_by_gains(v(0), v(-2), v(1), v(0), v(100), v(5), v(0), LIMIT)
    assert (kp[0], tau[0], kd[0]) == (pytest.approx(10.0), 0.0, 5.0)


def test_pure_damping_of_a_fast_joint_is_bounded():
    # 3·30 = 90 N·m; 20/30 remains.
    kp, _, kd = limits.bound_torque_by_gains(v(0), v(30), v(0), v(0), v(0), v(3), v(0), LIMIT)
    assert (kp[0], kd[0]) == (0.0, pytest.approx(20 / 30))


def test_torque_within_the_limit_changes_nothing():
    args = (v(0), v(1), v(0.1), v(0), v(100), v(2), v(1))
    q, tau, kd = limits.bound_torque_by_target(*args, LIMIT)
    assert q is args[2] and tau is args[6] and kd is args[5]


def test_stiffness_of_almost_zero_does_not_throw_the_target_away():
    q, tau, _ = limits.bound_torque_by_target(v(0), v(0), v(1.5), v(0), v(5e-324), v(0), v(60), LIMIT)
    assert 0.0 <= q[0] <= 1.5 and tau[0] == pytest.approx(20.0)


values = {"allow_nan": False, "allow_infinity": False}
angles = arrays(float, 4, elements=st.floats(-12, 12, **values))
speeds = arrays(float, 4, elements=st.floats(-300, 300, **values))
kps = arrays(float, 4, elements=st.floats(0, 200, **values))
kds = arrays(float, 4, elements=st.floats(0, 20, **values))
taus = arrays(float, 4, elements=st.floats(-100, 100, **values))
FOUR = np.array([5.0, 20.0, 23.7, 45.43])


@given(angles, speeds, angles, speeds, kps, kds, taus)
def test_bounds_hold_and_are_exact_for_any_input(q, dq, qt, dqt, kp, kd, tau):
    asked = limits.pd_torque(q, dq, qt, dqt, kp, kd, tau)
    expected = np.clip(asked, -FOUR, FOUR)
    qt2, tau2, kd2 = limits.bound_torque_by_target(q, dq, qt, dqt, kp, kd, tau, FOUR)
    np.testing.assert_allclose(limits.pd_torque(q, dq, qt2, dqt, kp, kd2, tau2), expected, atol=1e-7)
    assert np.all((qt2 >= np.minimum(q, qt) - 1e-9) & (qt2 <= np.maximum(q, qt) + 1e-9))
    assert np.all(np.abs(tau2) <= np.abs(tau) + 1e-9) and np.all((kd2 >= 0) & (kd2 <= kd))
    kp3, tau3, kd3 = limits.bound_torque_by_gains(q, dq, qt, dqt, kp, kd, tau, FOUR)
    np.testing.assert_allclose(limits.pd_torque(q, dq, qt, dqt, kp3, kd3, tau3), expected, atol=1e-7)
    assert np.all((kp3 >= 0) & (kp3 <= kp)) and np.all((kd3 >= 0) & (kd3 <= kd))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_not_finite_or_absurd_is_found_anywhere(bad):
    for i in range(3):
        x = np.zeros(3)
        assert limits.all_finite(np.ones(2), x)
        x[i] = bad
        assert not limits.all_finite(np.ones(2), x)


@pytest.mark.parametrize(
    ("kp", "kd", "ok"),
    [(0, 0, True), (100, 8, True), (100.1, 1, False), (1, 8.1, False), (-0.1, 1, False), (1, -0.1, False),
     (math.nan, 1, False), (1, math.nan, False)],
)  # fmt: skip
def test_gain_bounds(kp, kd, ok):
    assert limits.gains_allowed(v(kp), v(kd), v(100), v(8)) is ok


@pytest.mark.parametrize(
    ("quat", "angle"),
    [
        ((1, 0, 0, 0), 0.0),
        ((math.cos(0.25), math.sin(0.25), 0, 0), 0.5),  # roll by 0.5
        ((math.cos(0.6), 0, -math.sin(0.6), 0), 1.2),  # pitch by -1.2
        ((math.cos(1.0), 0, 0, math.sin(1.0)), 0.0),  # yaw does not tilt
        ((0, 1, 0, 0), math.pi),  # upside down
        ((1.05, 0, 0, 0), 0.0),
    ],
)
def test_tilt(quat, angle):
    assert limits.tilt_angle(np.array(quat, dtype=float)) == pytest.approx(angle, abs=1e-7)


@pytest.mark.parametrize("quat", [(0, 0, 0, 0), (2, 0, 0, 0), (math.nan, 0, 0, 1)])
def test_tilt_of_what_is_no_rotation_is_nan(quat):
    assert math.isnan(limits.tilt_angle(np.array(quat, dtype=float)))


def test_distance_from_line_by_hand():
    start, end = np.array([0.0, 0.0]), np.array([2.0, 0.0])
    np.testing.assert_allclose(limits.distance_from_line(np.array([1.0, 0.5]), start, end), [0.0, 0.5])
    np.testing.assert_allclose(limits.distance_from_line(np.array([3.0, 0.5]), start, end), [1.0, 0.5])
    np.testing.assert_allclose(limits.distance_from_line(np.array([1.0, -1.0]), start, start), [1.0, 1.0])


def test_smoothstep():
    assert [limits.smoothstep(x) for x in (-1, 0, 0.25, 0.5, 1, 2)] == [0, 0, 0.15625, 0.5, 1, 1]
