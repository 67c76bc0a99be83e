"""Ages, rates, gaps and durations of the watchdog's streams, against slow and plain definitions of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpo_deploy.safety.observations import MAX_STEP_NS, Increments, Lasting, Stream

MS = 1_000_000
arrivals = st.lists(st.tuples(st.integers(0, 400), st.sampled_from([1, 1, 1, 1, 3, 0, 0])), min_size=1, max_size=150)


@settings(max_examples=200, deadline=None)
@given(arrivals, st.integers(0, 3000))
def test_age_and_longest_gap_are_those_of_the_new_messages(stream_of, wait):
    stream, now, count, fresh = Stream(), 10**9, 5, []
    for k, (gap, step) in enumerate(stream_of):
        now += gap * MS
        count += step
        stream.observe(now, count)
        if step or k == 0:
            fresh.append(now)
    last = fresh[-1]
    gaps = [b - a for a, b in zip(fresh, fresh[1:], strict=False) if b >= last - 1000 * MS]
    assert stream.longest_gap() == pytest.approx(max(gaps, default=0) * 1e-9)
    assert stream.age(now + wait * MS) == pytest.approx((now + wait * MS - last) * 1e-9)


def test_nothing_received_has_no_age_and_no_rate():
    assert Stream().age(5) == math.inf and Stream().rate() is None and Stream().longest_gap() == 0.0


def test_rate_counts_what_was_sent_not_what_was_seen():
    stream = Stream()
    for k in range(100):
        stream.observe(k * 20 * MS, 10 * k)
    assert stream.rate() == pytest.approx(500.0)


def test_messages_that_overtook_each_other_are_not_new():
    """Two old messages in turn, for ever, are no stream."""
    stream = Stream()
    stream.observe(0, 100)
    stream.observe(1 * MS, 101)
    for k in range(2, 500):
        stream.observe(k * MS, 100 + k % 2)
    assert stream.age(500 * MS) == pytest.approx(0.499)


def test_restarted_sender_is_new():
    stream = Stream()
    stream.observe(0, 100_000)
    stream.observe(5 * MS, 3)
    assert stream.age(5 * MS) == 0.0
    stream.observe(6 * MS, 4)
    assert stream.age(6 * MS) == 0.0


def test_sender_that_restarts_early_is_new_once_it_has_caught_up():
    stream = Stream()
    for k in range(20):
        stream.observe(k * MS, k)
    for k in range(25):
        stream.observe((20 + k) * MS, k)
    assert stream.age(45 * MS) == pytest.approx(0.001)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 250), st.booleans(), st.booleans()), max_size=60))
def test_lasting_counts_from_the_first_sight_and_no_gap_beyond_its_cap(observations):
    lasting, now, held = Lasting(2), 10**9, [-1, -1]
    for k, (gap, *condition) in enumerate(observations):
        now += gap * MS
        step = min(gap * MS, MAX_STEP_NS) if k else 0
        held = [(old + step if old >= 0 else 0) if on else -1 for old, on in zip(held, condition, strict=True)]
        lasting.observe(now, np.array(condition))
        for seconds, ns in zip(lasting.seconds, held, strict=True):
            assert seconds == (pytest.approx(ns * 1e-9) if ns >= 0 else -1.0)


def test_durations_add_up_without_rounding():
    lasting = Lasting(1)
    for k in range(51):
        lasting.observe(k * 10 * MS, np.array([True]))
    assert lasting.seconds[0] == 0.5


def test_increments_of_a_second_and_of_a_counter_that_starts_anew():
    counter = Increments()
    assert counter.last_second() == 0
    counter.observe(0, 1000)
    assert counter.last_second() == 0
    counter.observe(500 * MS, 1007)
    assert counter.last_second() == 7
    counter.observe(1400 * MS, 1007)
    assert counter.last_second() == 0
    counter.observe(1500 * MS, 2)
    assert counter.last_second() == 0
    counter.observe(1600 * MS, 3)
    assert counter.last_second() == 1
