"""Operator velocity: bounds, rate, expiry, and input or clocks that make no sense."""

import math

import numpy as np
import pytest

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.errors import SafetyError

RANGES = {"vx": (-0.6, 1.0), "vy": (-0.4, 0.4), "wz": (-1.0, 1.0)}
MS = 1_000_000
FAST = (1e6, 1e6, 1e6)


def limiter(**changes):
    return VelocityCommandLimiter(**({"ranges": RANGES, "timeout_s": 0.5, "acceleration": (2.0, 1.0, 4.0)} | changes))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((5.0, 5.0, 5.0), (1.0, 0.4, 1.0)),
        ((-5.0, -5.0, -5.0), (-0.6, -0.4, -1.0)),
        ((0.3, -0.1, 0.2), (0.3, -0.1, 0.2)),
    ],
)
def test_a_command_is_bounded_to_the_trained_range(asked, given):
    limit = limiter(acceleration=FAST)
    assert limit.receive(*asked, now_ns=0)
    np.testing.assert_allclose(limit.step(MS, 0.02).as_array(), given)


def test_each_axis_changes_no_faster_than_its_acceleration():
    limit = limiter()
    limit.receive(1.0, -0.4, 1.0, now_ns=0)
    seen = [limit.step(k * 20 * MS, 0.02).as_array() for k in range(1, 4)]
    # 2 m/s² · 20 ms = 0.04, 1 · 0.02 = 0.02, 4 · 0.02 = 0.08 for each step.
    np.testing.assert_allclose(seen, [[0.04, -0.02, 0.08], [0.08, -0.04, 0.16], [0.12, -0.06, 0.24]])
    for k in range(4, 200):
        limit.receive(1.0, -0.4, 1.0, now_ns=k * 20 * MS)
        last = limit.step(k * 20 * MS, 0.02).as_array()
    np.testing.assert_allclose(last, [1.0, -0.4, 1.0], atol=1e-12)


def test_braking_is_limited_too_and_ends_at_zero_exactly():
    limit = limiter(acceleration=(2.0, 2.0, 2.0))
    limit.receive(1.0, 0.0, -1.0, now_ns=0)
    np.testing.assert_allclose(limit.step(MS, 0.05).as_array(), [0.1, 0.0, -0.1])
    limit.receive(0.0, 0.0, 0.0, now_ns=0)
    seen = [limit.step(MS, 0.02).as_array().tolist() for _ in range(4)]
    np.testing.assert_allclose(seen[:2], [[0.06, 0, -0.06], [0.02, 0, -0.02]], atol=1e-12)
    assert seen[2] == seen[3] == [0.0, 0.0, 0.0]


def test_silence_beyond_the_timeout_brings_the_target_to_zero():
    limit = limiter(acceleration=FAST)
    limit.receive(0.5, 0.2, -0.3, now_ns=1000 * MS)
    np.testing.assert_allclose(limit.step(1500 * MS, 0.02).as_array(), [0.5, 0.2, -0.3])
    np.testing.assert_array_equal(limit.step(1500 * MS + 1, 0.02).as_array(), [0, 0, 0])
    limit.receive(0.5, 0.2, -0.3, now_ns=3000 * MS)
    np.testing.assert_allclose(limit.step(3001 * MS, 0.02).as_array(), [0.5, 0.2, -0.3])


def test_expiry_brakes_at_the_limited_rate():
    limit = limiter()
    limit.receive(1.0, 0.0, 0.0, now_ns=0)
    for _ in range(5):
        limit.step(MS, 0.02)
    np.testing.assert_allclose(limit.step(2000 * MS, 0.02).as_array(), [0.16, 0, 0])


def test_nothing_received_means_stand():
    limit = limiter()
    assert limit.age_s(123) == math.inf
    np.testing.assert_array_equal(limit.step(0, 0.02).as_array(), [0, 0, 0])


def test_age_counts_from_the_last_accepted_input():
    limit = limiter()
    limit.receive(0.1, 0.0, 0.0, now_ns=100 * MS)
    assert limit.age_s(350 * MS) == pytest.approx(0.25)
    limit.receive(math.nan, 0.0, 0.0, now_ns=340 * MS)
    assert limit.age_s(350 * MS) == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_input_that_is_not_finite_is_dropped_counted_and_does_not_refresh(bad, axis):
    limit = limiter(acceleration=FAST)
    limit.receive(0.5, 0.1, 0.2, now_ns=0)
    raw = [0.9, 0.3, 0.8]
    raw[axis] = bad
    assert limit.receive(*raw, now_ns=400 * MS) is False
    assert limit.rejected == 1
    np.testing.assert_allclose(limit.step(450 * MS, 0.02).as_array(), [0.5, 0.1, 0.2])
    np.testing.assert_array_equal(limit.step(600 * MS, 0.02).as_array(), [0, 0, 0])


def test_a_clock_that_went_back_counts_as_silence():
    limit = limiter(acceleration=FAST)
    limit.receive(0.5, 0.0, 0.0, now_ns=1000 * MS)
    np.testing.assert_array_equal(limit.step(999 * MS, 0.02).as_array(), [0, 0, 0])


@pytest.mark.parametrize("dt", [-0.02, math.nan, math.inf])
def test_a_time_step_that_makes_no_sense_does_not_change_the_command(dt):
    limit = limiter()
    limit.receive(1.0, 0.4, 1.0, now_ns=0)
    before = limit.step(MS, 0.02).as_array()
    np.testing.assert_array_equal(limit.step(2 * MS, dt).as_array(), before)


def test_reset_starts_from_rest():
    limit = limiter(acceleration=FAST)
    limit.receive(0.5, 0.1, 0.2, now_ns=0)
    limit.step(MS, 0.02)
    limit.reset()
    assert limit.age_s(MS) == math.inf
    np.testing.assert_array_equal(limit.step(2 * MS, 0.02).as_array(), [0, 0, 0])


@pytest.mark.parametrize("timeout", [0.0, -0.5, math.nan, math.inf])
def test_a_timeout_that_would_never_or_always_expire_is_refused(timeout):
    with pytest.raises(SafetyError, match="operator timeout must be finite and above zero"):
        limiter(timeout_s=timeout)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_acceleration_that_is_no_limit_is_refused(bad):
    with pytest.raises(SafetyError, match="accelerations must be finite and above zero"):
        limiter(acceleration=(2.0, bad, 4.0))


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (-1.0, math.inf), (0.5, -0.5), (0.2, 1.0)])
def test_a_range_without_zero_or_bounds_is_refused(bad):
    with pytest.raises(SafetyError, match="vy"):
        limiter(ranges=RANGES | {"vy": bad})
