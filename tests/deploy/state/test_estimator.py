"""The state estimator against MuJoCo's truth, with noisy sensors, and against bad input."""

from dataclasses import fields, replace

import numpy as np
import pytest

from nfpo_deploy.errors import EstimatorError
from nfpo_deploy.state.estimator import StateEstimator
from robots.loader import load_robot

SPEC = load_robot("go2")
SETTLED = 250  # states after which the filter and the noise's start are over: 0.5 s


def _estimate(states, estimator=None):
    estimator = estimator or StateEstimator(SPEC)
    return [estimator.update(state) for state in states]


def _rms(estimates, run, start=SETTLED):
    error = np.array([e.lin_vel_b for e in estimates]) - run.lin_vel_b
    return np.sqrt(np.mean(error[start:] ** 2, axis=0))


def _all_finite(estimate):
    return all(
        np.isfinite(getattr(estimate, f.name)).all() for f in fields(estimate) if f.name not in ("tick", "received_ns")
    )


def test_standing_is_still_and_does_not_drift(standing):
    estimates = _estimate(standing.states)
    assert np.all(_rms(estimates, standing) < 0.01)
    position = np.array([e.position_w for e in estimates])
    assert np.abs(position[-1] - position[SETTLED])[:2].max() < 0.01
    assert abs(position[-1, 2] - standing.position_w[-1, 2]) < 0.01


@pytest.mark.parametrize("name", ["trotting", "turning", "shoved"])
def test_walking_velocity_is_within_a_tenth(name, request):
    run = request.getfixturevalue(name)
    # The run must really move, or this would test standing.
    assert np.linalg.norm(run.lin_vel_b[1000:, :2], axis=1).mean() > 0.1
    assert np.all(_rms(_estimate(run.states), run) < 0.06)


def test_shove_is_seen_while_it_happens(shoved):
    """The shove changes the true velocity by over 0.2 m/s in 0.1 s; the estimate follows within 0.12 m/s."""
    at = slice(1500, 1600)
    assert np.ptp(shoved.lin_vel_b[at, 1]) > 0.2
    estimates = np.array([e.lin_vel_b for e in _estimate(shoved.states)])
    assert np.abs(estimates[at] - shoved.lin_vel_b[at]).max() < 0.12


def test_reported_deviation_is_honest(trotting, turning):
    """Two standard deviations hold at least 85 % of the errors, and are not so wide that they say nothing."""
    for run in (trotting, turning):
        estimates = _estimate(run.states)
        error = np.array([e.lin_vel_b for e in estimates]) - run.lin_vel_b
        std = np.array([e.lin_vel_std for e in estimates])
        assert np.mean(np.abs(error[SETTLED:]) < 2 * std[SETTLED:]) > 0.85
        assert std[SETTLED:].max() < 0.15


def test_odometry_follows_the_path(trotting):
    position = np.array([e.position_w for e in _estimate(trotting.states)])
    travelled = trotting.position_w[-1, :2] - trotting.position_w[0, :2]
    assert np.linalg.norm(travelled) > 1.0
    drift = position[-1, :2] - position[0, :2] - travelled
    assert np.linalg.norm(drift) < 0.1 * np.linalg.norm(travelled)
    assert np.abs(position[SETTLED:, 2] - trotting.position_w[SETTLED:, 2]).max() < 0.04


def test_accelerometer_bias_is_found_and_removed(standing):
    """A further bias, larger than a Go2's, ends up in the filter's bias and not in the velocity."""
    states = [replace(s, accel_b=s.accel_b + np.array([0.4, -0.3, 0.2])) for s in standing.states]
    estimator = StateEstimator(SPEC)
    estimates = _estimate(states, estimator)
    error = np.array([e.lin_vel_b for e in estimates])[1000:] - standing.lin_vel_b[1000:]
    assert np.abs(error.mean(axis=0)).max() < 0.01
    # Bias of the simulated sensor (SensorErrors) plus what was added.
    np.testing.assert_allclose(estimator.filter.bias_b, [0.15 + 0.4, -0.1 - 0.3, 0.1 + 0.2], atol=0.06)


def test_lost_ticks_are_bridged(trotting):
    """Every message lost with a chance of 30 %, and 40 ms lost at once each second."""
    lost = np.random.default_rng(0).random(len(trotting.states)) < 0.3
    lost[:40] = False
    for start in range(500, len(lost), 500):
        lost[start : start + 20] = True
    keep = np.flatnonzero(~lost)
    estimates = _estimate([trotting.states[i] for i in keep])
    error = np.array([e.lin_vel_b for e in estimates]) - trotting.lin_vel_b[keep]
    assert np.all(np.sqrt(np.mean(error[keep > SETTLED] ** 2, axis=0)) < 0.08)


def test_long_gap_starts_velocity_anew_and_keeps_position(trotting):
    estimator = StateEstimator(SPEC)
    before = _estimate(trotting.states[:2000], estimator)[-1]
    after = estimator.update(trotting.states[2200])
    np.testing.assert_allclose(after.position_w, before.position_w, atol=0.02)
    assert after.lin_vel_std.min() > 0.5 > before.lin_vel_std.max()
    estimates = _estimate(trotting.states[2201:2400], estimator)
    error = np.array([e.lin_vel_b for e in estimates])[100:] - trotting.lin_vel_b[2301:2400]
    assert np.abs(error).max() < 0.1


def test_repeated_tick_changes_nothing(trotting):
    once = _estimate(trotting.states[:300])
    twice = _estimate([s for state in trotting.states[:300] for s in (state, state)])
    assert twice[1] is twice[0]
    np.testing.assert_array_equal(twice[-1].lin_vel_b, once[-1].lin_vel_b)


def test_tick_that_goes_back_starts_afresh(trotting):
    estimator = StateEstimator(SPEC)
    _estimate(trotting.states[:1500], estimator)
    restarted = estimator.update(trotting.states[0])
    fresh = StateEstimator(SPEC).update(trotting.states[0])
    np.testing.assert_array_equal(restarted.position_w, fresh.position_w)
    np.testing.assert_array_equal(restarted.lin_vel_b, fresh.lin_vel_b)
    np.testing.assert_array_equal(estimator.filter.bias_b, np.zeros(3))


def test_start_in_mid_walk_converges(trotting):
    estimates = _estimate(trotting.states[1500:])
    error = np.array([e.lin_vel_b for e in estimates]) - trotting.lin_vel_b[1500:]
    assert np.abs(error[100:]).max() < 0.12


BAD = [
    ("gyro_b", np.array([0.0, np.nan, 0.0])),
    ("accel_b", np.array([0.0, 0.0, np.inf])),
    ("accel_b", np.array([0.0, 0.0, 1e30])),
    ("q", np.full(12, np.nan)),
    ("dq", np.full(12, 1e9)),
    ("dq", np.zeros(11)),
    ("tau_est", np.full(12, -np.inf)),
    ("foot_force", np.full(4, np.nan)),
    ("quat_wxyz", np.zeros(4)),
    ("quat_wxyz", np.array([1.0, np.nan, 0.0, 0.0])),
    ("quat_wxyz", np.array([0.8, 0.0, 0.0, 0.0])),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_is_named_and_leaves_no_trace(name, value, trotting):
    clean, hit = StateEstimator(SPEC), StateEstimator(SPEC)
    _estimate(trotting.states[:600], clean)
    _estimate(trotting.states[:600], hit)
    with pytest.raises(EstimatorError, match=name):
        hit.update(replace(trotting.states[600], **{name: value}))
    clean_after, hit_after = clean.update(trotting.states[601]), hit.update(trotting.states[601])
    np.testing.assert_array_equal(hit_after.lin_vel_b, clean_after.lin_vel_b)
    np.testing.assert_array_equal(hit_after.contact, clean_after.contact)


def test_absurd_but_bounded_values_never_give_non_finite_output(trotting):
    rng = np.random.default_rng(0)
    estimator = StateEstimator(SPEC)
    outputs = []
    for k, state in enumerate(trotting.states[:1000]):
        if k > 200 and rng.random() < 0.2:
            state = replace(
                state,
                accel_b=rng.uniform(-900, 900, 3), gyro_b=rng.uniform(-90, 90, 3), q=rng.uniform(-90, 90, 12),
                dq=rng.uniform(-900, 900, 12), tau_est=rng.uniform(-9000, 9000, 12),
            )  # fmt: skip
        outputs.append(estimator.update(state))
        P = estimator.filter.covariance
        assert np.linalg.eigvalsh(P).min() > 0
        np.testing.assert_array_equal(P, P.transpose(0, 2, 1))
    assert all(_all_finite(e) for e in outputs)


def test_lying_still_without_contact_does_not_drift(standing):
    """Motors off on the belly: torques tell of no contact, and the accelerometer's bias must not run away."""
    silent = replace(standing.states[300], tau_est=np.zeros(12), foot_force=np.zeros(4))
    rng = np.random.default_rng(0)
    estimator = StateEstimator(SPEC)
    for k in range(5000):
        estimate = estimator.update(
            replace(
                silent,
                tick=2 * k, received_ns=2_000_000 * k,
                gyro_b=rng.normal(0, 0.02, 3), dq=rng.normal(0, 0.1, 12),
                accel_b=np.array([0.15, -0.1, 9.91]) + rng.normal(0, 0.2, 3),
            )
        )  # fmt: skip
    assert np.all(estimate.contact < 0.01)
    assert np.abs(estimate.lin_vel_b).max() < 0.03


def test_free_fall_is_bounded_and_says_that_it_does_not_know(standing):
    """With no foot down and no rest the velocity stays finite and the deviation grows well above walking's."""
    state = replace(standing.states[300], tau_est=np.zeros(12), foot_force=np.zeros(4), accel_b=np.zeros(3))
    estimator = StateEstimator(SPEC)
    for k in range(2000):
        estimate = estimator.update(replace(state, tick=2 * k, received_ns=2_000_000 * k))
    assert np.abs(estimate.lin_vel_b).max() < 10.0
    assert estimate.lin_vel_std.min() > 0.5


def test_estimates_do_not_share_memory(trotting):
    estimator = StateEstimator(SPEC)
    first, *_, last = _estimate(trotting.states[:50], estimator)
    for name in ("lin_vel_b", "position_w", "contact", "lin_vel_std"):
        assert not np.shares_memory(getattr(first, name), getattr(last, name)), name
    kept = last.position_w.copy()
    estimator.update(trotting.states[50])
    np.testing.assert_array_equal(last.position_w, kept)
