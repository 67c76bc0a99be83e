"""Elapsed time from ticks of unknown unit."""

import pytest

from nfpo_deploy.state.tick_clock import TickClock, TickEvent

PERIOD = 0.002
WRAP = 1 << 32


def _calibrated(step, start=0):
    clock = TickClock(PERIOD, 0.1)
    for k in range(50):
        clock.advance((start + k * step) % WRAP, k * 2_000_000)
    return clock, (start + 49 * step) % WRAP, 49 * 2_000_000


@pytest.mark.parametrize("step", [1, 2, 2000])
def test_unit_is_learnt(step):
    """A counter of messages, of milliseconds or of microseconds: three periods are 6 ms, whatever the wall clock."""
    clock, tick, now = _calibrated(step)
    assert clock.advance(tick + 3 * step, now + 50_000_000) == (TickEvent.STEP, pytest.approx(0.006))


def test_a_start_that_misses_messages_does_not_falsify_the_unit():
    clock = TickClock(PERIOD, 0.1)
    for k in range(60):
        clock.advance(4 * k, 4_000_000 * k)
    for k in range(120, 200):
        clock.advance(2 * k, 2_000_000 * k)
    assert clock.advance(400, 400_000_000) == (TickEvent.STEP, pytest.approx(PERIOD))


def test_a_sender_that_is_slow_for_good_is_believed():
    """A simulator on a busy computer takes 3 ms for what it calls 2."""
    clock = TickClock(PERIOD, 0.1)
    for k in range(2000):
        clock.advance(2 * k, 3_000_000 * k)
    assert clock.advance(4000, 6_000_000_000) == (TickEvent.STEP, pytest.approx(PERIOD))


def test_before_the_unit_is_known_reception_counts():
    clock = TickClock(PERIOD, 0.1)
    assert clock.advance(7, 0) == (TickEvent.FIRST, 0.0)
    assert clock.advance(9, 2_300_000) == (TickEvent.STEP, pytest.approx(0.002))
    assert clock.advance(13, 6_100_000) == (TickEvent.STEP, pytest.approx(0.004))


def test_wrap_of_the_counter_is_no_restart():
    clock, tick, now = _calibrated(2, start=WRAP - 60)
    assert tick < 60
    assert clock.advance(tick + 2, now + 2_000_000) == (TickEvent.STEP, pytest.approx(PERIOD))


def test_events():
    clock, tick, now = _calibrated(2)
    assert clock.advance(tick, now)[0] is TickEvent.DUPLICATE
    assert clock.advance(tick + 500, now)[0] is TickEvent.GAP
    assert clock.advance(tick + 100, now)[0] is TickEvent.RESTART
    assert clock.advance(tick + 102, now + 2_000_000) == (TickEvent.STEP, pytest.approx(PERIOD))


@pytest.mark.parametrize(("period", "gap"), [(0.0, 0.1), (0.002, 0.0), (-1.0, 0.1), (float("nan"), 0.1)])
def test_period_and_gap_must_be_positive(period, gap):
    with pytest.raises(ValueError, match="above zero"):
        TickClock(period, gap)
