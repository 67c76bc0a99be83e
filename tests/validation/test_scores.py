"""Scores of traces whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim2real_checks.validation.scenario import Command, Disturbance, Scenario
from sim2real_checks.validation.scores import BRIDGE_HZ, UNITS, score, smooth, steady
from sim2real_checks.validation.trace import COLUMNS, Trace
from sim2real_checks.validation.training_moments import training_distance

WALK = Scenario("walk", duration=4.0, commands=(Command(1.0, vx=0.5),))


def made(spec, seconds: float = 4.0, **columns: object) -> Trace:
    """A robot that stands, but for what is given: arrays, or functions of time (T,)."""
    sizes = {"N": spec.num_joints, "F": len(spec.feet)}
    t = np.arange(round(seconds * BRIDGE_HZ)) / BRIDGE_HZ
    trace = Trace(spec)
    for name, shape in COLUMNS.items():
        trace.columns[name] = np.zeros((len(t), *(sizes.get(size, size) for size in shape)))
    trace.columns["time"] = t
    trace.columns["quat"][:, 0] = 1.0
    trace.columns["q"][:] = spec.default_pose
    for name, value in columns.items():
        trace.columns[name][:] = value(t) if callable(value) else value
    return trace


def along(axis: int, value):
    def columns(t: np.ndarray) -> np.ndarray:
        result = np.zeros((len(t), 3))
        result[:, axis] = value(t)
        return result

    return columns


def step(at: float, size: float):
    return along(0, lambda t: np.where(t >= at, size, 0.0))


def test_perfect_tracking_has_no_error_and_a_rise_time_of_half_a_stride(spec, policy):
    trace = made(
        spec, asked=step(1.0, 0.5), given=step(1.0, 0.5), lin_vel=step(1.0, 0.5), estimated_velocity=step(1.0, 0.5)
    )
    scores = score(trace, WALK, policy)
    assert set(scores) == set(UNITS)
    # The moving average of 0.4 s sees the step come 0.2 s early and be whole 0.2 s late; 90 % are there after 0.16 s.
    assert scores["rise_time"] == pytest.approx(0.16, abs=0.01)
    assert scores["steady_planar_error"] == pytest.approx(0.0, abs=1e-9) and scores["estimator_error"] == 0.0
    assert scores["survived"] == 1.0 and math.isnan(scores["recovery_time"]) and math.isnan(scores["drift"])


def test_errors_are_those_of_the_heading_frame(spec, policy):
    half = math.sqrt(0.5)
    turned = made(
        spec, asked=along(0, lambda t: 0.5 + 0 * t), given=along(0, lambda t: 0.5 + 0 * t),
        quat=np.array([half, 0.0, 0.0, half]), lin_vel=along(1, lambda t: 0.4 + 0 * t),
        ang_vel=along(2, lambda t: 0.3 + 0 * t),
    )  # fmt: skip
    scores = score(turned, WALK, policy)
    assert scores["planar_error"] == pytest.approx(0.1) and scores["yaw_error"] == pytest.approx(0.3)


def test_what_follows_a_change_or_a_push_is_not_steady(spec):
    trace = made(spec, 6.0, asked=step(1.0, 0.5), given=step(1.0, 0.5))
    pushed = Scenario("p", disturbances=(Disturbance("shove", at=4.0, duration=0.5),))
    settled = trace.time[steady(trace, pushed)]
    assert settled.min() > 1.0 and not np.any((settled > 1.0) & (settled < 2.0)) and 2.1 in settled.round(3)
    assert not np.any((settled >= 4.0) & (settled < 5.5)) and 5.6 in settled.round(3)


def test_recovery_is_counted_from_the_end_of_the_push_to_the_last_large_error(spec, policy):
    pushed = Scenario("p", disturbances=(Disturbance("push", at=1.0),))
    wobble = along(1, lambda t: np.where((t >= 1.0) & (t < 1.8), 0.5, 0.0))
    assert score(made(spec, lin_vel=wobble), pushed, policy)["recovery_time"] == pytest.approx(0.8, abs=0.15)
    never = along(1, lambda t: np.where(t >= 1.0, 0.5, 0.0))
    assert score(made(spec, lin_vel=never), pushed, policy)["recovery_time"] == math.inf


def test_joint_scores(spec, policy):
    torque, speed = np.zeros(12), np.zeros(12)
    torque[2], speed[2] = 0.5 * spec.torque_limit[2], -4.0
    torque[3], speed[3] = 0.2 * spec.torque_limit[3], 5.0
    q = spec.default_pose.copy()
    q[1] = spec.position_upper[1] - 0.05
    scores = score(made(spec, torque=torque, dq=speed, q=q), WALK, policy)
    assert scores["torque_peak"] == pytest.approx(0.5) == scores["torque_rms"]
    # Only what a motor gives counts; the braking one costs nothing.
    assert scores["power_mean"] == pytest.approx(0.2 * spec.torque_limit[3] * 5.0)
    assert scores["limit_margin"] == pytest.approx(-0.05)
    assert scores["heat"] == pytest.approx(60.0 * 0.25)
    assert scores["speed_peak"] == pytest.approx(max(4.0 / spec.velocity_limit[2], 5.0 / spec.velocity_limit[3]))


def test_cost_of_transport_by_hand(spec, policy):
    torque, speed = np.zeros(12), np.zeros(12)
    torque[0], speed[0] = 10.0, 3.0
    forward = along(0, lambda t: 0.5 * t)
    scores = score(made(spec, torque=torque, dq=speed, position=forward), WALK, policy)
    assert scores["cost_of_transport"] == pytest.approx(30.0 / (15.206 * 9.81 * 0.5), rel=1e-3)


def test_a_foot_slips_only_while_it_carries(spec, policy):
    def feet(t):
        position = np.zeros((len(t), 4, 3))
        position[:, 0, 0] = 0.2 * t
        position[:, 1, 0] = 3.0 * t
        return position

    force = np.array([50.0, 0.0, 50.0, 0.0])
    scores = score(made(spec, foot_position=feet, foot_force=force), WALK, policy)
    assert scores["slip"] == pytest.approx(0.1) and scores["impact"] == pytest.approx(50.0)


@pytest.mark.parametrize(("frequency", "high"), [(3.0, False), (20.0, True)])
def test_chatter_is_power_above_ten_hertz(spec, policy, frequency, high):
    trace = made(spec)
    t = np.arange(200) / 50.0
    trace.actions = np.tile(np.sin(2 * np.pi * frequency * t)[:, None], (1, 12))
    scores = score(trace, WALK, policy)
    assert (scores["chatter"] > 0.95) is high and (scores["chatter"] < 0.05) is not high
    steps = np.diff(trace.actions * policy.manifest.action_scale, axis=0)
    assert scores["action_rate"] == pytest.approx(math.sqrt(float((steps**2).mean())))


def test_observations_outside_of_training_are_counted(spec, policy):
    trace = made(spec)
    low, high = policy.manifest.observation_low, policy.manifest.observation_high
    trace.observations = np.tile(0.5 * (low + high), (10, 1))
    trace.observations[:5, 0] = high[0] + 1.0
    assert score(trace, WALK, policy)["out_of_training"] == pytest.approx(0.5 / len(low))


def test_a_robot_that_never_walked_has_no_other_score(spec, policy):
    scores = score(Trace(spec, ended="FAULT: x"), WALK, policy)
    assert scores["survived"] == 0.0 and all(math.isnan(v) for k, v in scores.items() if k != "survived")


def test_moving_average_by_hand():
    values = np.arange(1000.0)[:, None]
    assert smooth(values, 0.04)[500, 0] == pytest.approx(500.0) and smooth(values, 0.04)[0, 0] == pytest.approx(5.0)


def test_training_distance_is_counted_in_deviations_of_training(spec, policy):
    import onnx
    from onnx import numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(policy.path)).graph.initializer}
    mean, deviation = (constants[name].ravel().astype(float) for name in ("normalizer._mean", "onnx::Div_234"))
    assert training_distance(policy, np.tile(mean, (5, 1))) == pytest.approx(0.0, abs=1e-6)
    assert training_distance(policy, mean + np.array([[0.5], [1.5]]) * deviation) == pytest.approx(1.0, abs=1e-6)
    given = mean.copy()
    given[18:23] += 7.0  # velocity command and gait phase
    assert training_distance(policy, given[None]) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(training_distance(policy, np.zeros((0, len(mean)))))
