"""The velocity limiter for any input sequence: size, rate and expiry hold, whatever an operator or a clock does."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpo_deploy.command.velocity import VelocityCommandLimiter

LOW, HIGH = np.array([-0.6, -0.4, -1.0]), np.array([1.0, 0.4, 1.0])
RANGES = {axis: (low, high) for axis, low, high in zip(("vx", "vy", "wz"), LOW, HIGH, strict=True)}
ACCELERATION = np.array([2.0, 1.0, 4.0])
TIMEOUT_NS = 500_000_000

anything = st.floats(allow_nan=True, allow_infinity=True, width=64)
speed = st.one_of(st.floats(-2.0, 2.0), anything)
# Nanoseconds from one event to the next: mostly a tick, sometimes long, sometimes backwards.
gap = st.one_of(st.integers(0, 40_000_000), st.integers(0, 2 * 10**9), st.integers(-(10**9), 0))
receive = st.tuples(st.just("receive"), st.tuples(speed, speed, speed), gap)
step = st.tuples(st.just("step"), st.one_of(st.floats(0.0, 0.05), anything), gap)
reset = st.tuples(st.just("reset"), st.none(), gap)
events = st.lists(st.one_of(receive, receive, step, step, step, reset), max_size=60)


def limiter():
    return VelocityCommandLimiter(RANGES, TIMEOUT_NS * 1e-9, tuple(ACCELERATION))


class Expected:
    """What the limiter must be aiming at, by its documentation."""

    def __init__(self):
        self.target, self.received_ns = np.zeros(3), None

    def receive(self, raw, now_ns):
        if all(math.isfinite(value) for value in raw):
            self.target, self.received_ns = np.clip(raw, LOW, HIGH), now_ns

    def goal(self, now_ns):
        fresh = self.received_ns is not None and 0 <= now_ns - self.received_ns <= TIMEOUT_NS
        return self.target if fresh else np.zeros(3)


@settings(max_examples=400, deadline=None)
@given(events)
def test_size_rate_and_expiry_hold_for_any_sequence(sequence):
    limit, expected, now, before = limiter(), Expected(), 10**9, np.zeros(3)
    for kind, value, wait in sequence:
        now += wait
        if kind == "receive":
            accepted = limit.receive(*value, now_ns=now)
            assert accepted is all(math.isfinite(v) for v in value)
            expected.receive(value, now)
        elif kind == "reset":
            limit.reset()
            expected, before = Expected(), np.zeros(3)
        else:
            given_ = limit.step(now, value).as_array()
            dt = value if math.isfinite(value) and value > 0.0 else 0.0
            assert np.isfinite(given_).all()
            assert (given_ >= LOW).all() and (given_ <= HIGH).all()
            assert (np.abs(given_ - before) <= ACCELERATION * min(dt, 1e300) + 1e-12).all(), "rate"
            # Never away from the goal, never past it.
            goal = expected.goal(now)
            assert (np.abs(given_ - goal) <= np.abs(before - goal) + 1e-12).all()
            assert ((given_ - goal) * np.sign(before - goal) >= -1e-12).all()
            before = given_


@settings(max_examples=200, deadline=None)
@given(st.tuples(speed, speed, speed), st.integers(TIMEOUT_NS + 1, 10**12))
def test_after_the_timeout_it_stands_within_the_time_that_braking_takes(raw, silence):
    limit = limiter()
    limit.receive(*raw, now_ns=0)
    for k in range(1, 26):
        limit.step(k * 20_000_000, 0.02)
    longest = float((np.maximum(-LOW, HIGH) / ACCELERATION).max())
    for _ in range(math.ceil(longest / 0.02) + 1):
        last = limit.step(silence, 0.02).as_array()
    np.testing.assert_array_equal(last, np.zeros(3))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(speed, speed, speed), min_size=1, max_size=20))
def test_input_that_is_not_finite_never_keeps_a_walk_alive(stream):
    """A sender that sends nothing but garbage is silent."""
    limit = limiter()
    limit.receive(0.5, 0.0, 0.0, now_ns=0)
    for k, raw in enumerate(stream):
        limit.receive(math.nan, *raw[1:], now_ns=TIMEOUT_NS + k)
    assert limit.rejected == len(stream)
    for _ in range(100):
        last = limit.step(TIMEOUT_NS + 1, 0.02).as_array()
    np.testing.assert_array_equal(last, np.zeros(3))
