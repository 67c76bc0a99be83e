"""Gait clock: period, rest while standing, per-environment reset."""

import math

import numpy as np
import pytest

from nfpo_deploy.observation.gait import MOVING_THRESHOLD, GaitClock

WALK, STAND = [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]


def test_one_cycle_takes_one_period():
    clock = GaitClock(period=0.5, dt=0.02)
    signals = np.array([clock.advance(np.array([WALK]))[0] for _ in range(100)])
    expected = [[math.sin(2 * math.pi * k / 25), math.cos(2 * math.pi * k / 25)] for k in range(1, 101)]
    np.testing.assert_allclose(signals, expected, atol=1e-12)
    # 300 steps of 0.02 s are ten periods of 0.6 s.
    uneven = GaitClock(period=0.6, dt=0.02)
    for _ in range(300):
        uneven.advance(np.array([WALK]))
    assert min(uneven.phase[0], 1 - uneven.phase[0]) == pytest.approx(0.0, abs=1e-9)


def test_standing_holds_zero_and_walking_starts_from_phase_zero():
    clock = GaitClock(0.5, 0.02)
    for _ in range(7):
        clock.advance(np.array([WALK]))
    for _ in range(3):
        np.testing.assert_array_equal(clock.advance(np.array([STAND])), [[0.0, 0.0]])
    assert clock.phase[0] == 0.0
    assert not clock.moving[0]
    first = clock.advance(np.array([WALK]))[0]
    np.testing.assert_allclose(first, [math.sin(2 * math.pi / 25), math.cos(2 * math.pi / 25)], atol=1e-12)
    assert clock.moving[0]


@pytest.mark.parametrize(
    ("command", "moves"),
    [
        ([0.0, 0.0, 0.0], False),
        ([0.09, 0.0, 0.0], False),
        ([0.0, 0.0, -0.11], True),
        ([-0.11, 0.0, 0.0], True),
        # The norm counts: each component is below the threshold, together they are above it.
        ([0.07, 0.07, 0.07], True),
        ([0.05, 0.05, 0.05], False),
    ],
)
def test_a_small_command_means_stand(command, moves):
    assert MOVING_THRESHOLD == 0.1
    clock = GaitClock(0.5, 0.02)
    signal = clock.advance(np.array([command]))
    assert bool(clock.moving[0]) is moves
    assert bool(signal.any()) is moves


def test_environments_keep_their_own_phase():
    clock = GaitClock(0.5, 0.02, batch=3)
    commands = np.array([WALK, STAND, WALK])
    for _ in range(5):
        clock.advance(commands)
    clock.reset(np.array([0]))
    signal = clock.advance(commands)
    angle = 2 * math.pi / 25
    np.testing.assert_allclose(signal[0], [math.sin(angle), math.cos(angle)], atol=1e-12)
    np.testing.assert_array_equal(signal[1], [0.0, 0.0])
    np.testing.assert_allclose(signal[2], [math.sin(6 * angle), math.cos(6 * angle)], atol=1e-12)
    clock.reset(np.array([False, False, True]))
    np.testing.assert_allclose(clock.phase, [1 / 25, 0.0, 0.0], atol=1e-12)
    clock.reset()
    np.testing.assert_array_equal(clock.phase, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(("period", "dt"), [(0.0, 0.02), (-0.5, 0.02), (0.5, 0.0), (0.5, -1.0), (math.nan, 0.02)])
def test_a_period_or_step_that_is_not_above_zero_is_refused(period, dt):
    with pytest.raises(ValueError, match="must be above zero"):
        GaitClock(period, dt)
