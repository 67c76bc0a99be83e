"""Order and lateness of states, on sequences written by hand."""

import numpy as np
import pytest

from nfpo_deploy.safety.arrival import Arrival, ArrivalWatch
from nfpo_deploy.types import Mode

MS = 1_000_000


def feed(watch, n, tick=0, ns=0, step=2, period_ns=2 * MS, delay_ns=0):
    for i in range(n):
        watch.judge(tick + i * step, ns + i * period_ns + delay_ns)
    return tick + n * step, ns + n * period_ns


def test_order():
    watch = ArrivalWatch(0.002)
    assert watch.judge(100, 0) is Arrival.NEW
    assert watch.judge(102, 2 * MS) is Arrival.NEW
    assert watch.judge(102, 4 * MS) is Arrival.SAME
    assert watch.judge(100, 4 * MS) is Arrival.OLD
    assert watch.judge(104, 6 * MS) is Arrival.NEW
    assert watch.judge(10, 8 * MS) is Arrival.OLD  # within a hundred messages
    feed(watch, 1000, tick=106, ns=10 * MS)
    assert watch.judge(3, 3000 * MS) is Arrival.RESTARTED
    assert watch.judge(5, 3002 * MS) is Arrival.NEW


def test_counter_wraps():
    watch = ArrivalWatch(0.002)
    assert watch.judge(2**32 - 1, 0) is Arrival.NEW
    assert watch.judge(1, 2 * MS) is Arrival.NEW
    assert watch.judge(2**32 - 1, 2 * MS) is Arrival.OLD


@pytest.mark.parametrize("step", [1, 2, 2000])
def test_steady_delay_that_begins_is_seen_whatever_the_unit(step):
    watch = ArrivalWatch(0.002)
    tick, ns = feed(watch, 500, step=step)
    assert watch.lag_ns == 0
    # The link holds everything back by 30 ms more; no state is missing in the long run.
    feed(watch, 50, tick, ns, step, delay_ns=30 * MS)
    assert watch.lag_ns == pytest.approx(30 * MS, rel=0.05)


@pytest.mark.parametrize("seen", [2, 3])
def test_a_start_that_misses_states_does_not_make_the_rest_late(seen):
    watch = ArrivalWatch(0.002)
    # Busy with starting, the reader finds only every second or third state.
    tick, ns = feed(watch, 60, step=2 * seen, period_ns=2 * seen * MS)
    tick, ns = feed(watch, 500, tick, ns)
    assert watch.lag_ns == 0
    feed(watch, 50, tick, ns, delay_ns=30 * MS)
    assert watch.lag_ns == pytest.approx(30 * MS, rel=0.05)


def test_states_of_another_rate_for_good_are_late():
    watch = ArrivalWatch(0.002)
    feed(watch, 2000, period_ns=3 * MS)
    assert watch.lag_ns > 40 * MS


def test_lost_states_are_no_lag():
    watch = ArrivalWatch(0.002)
    tick, ns = feed(watch, 500)
    feed(watch, 100, tick + 40, ns + 40 * MS)
    assert watch.lag_ns == pytest.approx(0, abs=0.3 * MS)


@pytest.mark.parametrize("error", [-0.002, 0.002])
def test_clocks_of_different_speed_are_no_lag(error):
    watch = ArrivalWatch(0.002)
    feed(watch, 500 * 120, period_ns=round(2 * MS * (1 + error)))
    assert watch.lag_ns < 0.1 * MS


def test_jitter_is_bounded_by_its_own_size():
    watch = ArrivalWatch(0.002)
    random = np.random.default_rng(0)
    for i in range(5000):
        watch.judge(2 * i, 2 * MS * i + int(random.integers(0, 3 * MS)))
    assert watch.lag_ns < 3.1 * MS


def test_gate_refuses_states_that_creep_later(rig, spec):
    """Each state is new and comes 2.1 ms after the one before: half a second behind after ten seconds."""
    rig.walk()
    late = 0
    for _ in range(3000):
        rig.now += 100_000
        late += 100_000
        rig.step(Mode.WALK)
        if rig.gate.tripped:
            break
    assert "ms late" in rig.gate.reason
    limit = 2 * spec.safety.state_timeout * 1e9
    assert limit < late < 1.2 * limit


def test_gate_ignores_a_state_that_was_overtaken(rig):
    rig.walk()
    old = rig.last_state
    rig.run(Mode.WALK, 0.05)
    q = rig.gate._state.q.copy()
    rig.send_state = False
    rig.last_state = old
    rig.step(Mode.WALK)
    np.testing.assert_array_equal(rig.gate._state.q, q)
    assert not rig.gate.tripped
    # Nothing but old states is as bad as none.
    rig.run(Mode.WALK, 0.05)
    assert rig.gate.tripped and "robot state" in rig.gate.reason


def test_gate_trips_when_the_robot_restarted(rig):
    rig.walk()
    rig.tick = 3
    rig.step(Mode.WALK)
    assert rig.gate.tripped and "restarted" in rig.gate.reason


def test_gate_refuses_another_mode_machine(rig):
    rig.state_changes = {"mode_machine": 5}
    rig.run(Mode.DAMP, 0.1)
    assert "mode_machine 5" in rig.gate.reason
    assert not rig.gate.write
