"""The control tick: observation, memory between ticks, clip, targets, and what it refuses."""

import math

import numpy as np
import pytest

from nfpo_deploy.errors import ObservationError, PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.types import VelocityCommand

STAND, WALK = VelocityCommand(0.0, 0.0, 0.0), VelocityCommand(0.5, -0.1, 0.2)


@pytest.fixture
def make_runner(tiny, save):
    def make(weight=None, bias=None, **changes):
        manifest = tiny.manifest(**changes)
        weight = np.zeros((manifest.observation_size, tiny.n)) if weight is None else weight
        path = save(tiny.linear(weight, bias, manifest.to_metadata()))
        return PolicyRunner(OnnxPolicy.load(path, tiny.spec), tiny.spec)

    return make


def test_three_ticks_by_hand(make_runner, tiny):
    """Observation: joint_pos_rel ×2, velocity_commands, joint_vel_rel·0.05, gait_phase, last_action·0.25 ×2."""
    n, pose = tiny.n, tiny.manifest().default_pose
    runner = make_runner(bias=np.full(n, 2.0))
    offset, angle = np.linspace(-0.3, 0.3, n), 2 * math.pi / 25
    seen = []
    for k in (1, 2, 3):
        estimate = tiny.estimate(q=pose + k * offset, dq=np.full(n, 10.0 * k))
        runner.step(estimate, WALK if k < 3 else STAND)
        seen.append(runner.last_observation)
    zero, two = np.zeros(n), np.full(n, 0.5)
    expected = [
        [*offset, *offset, 0.5, -0.1, 0.2, *[0.5] * n, math.sin(angle), math.cos(angle), *zero, *zero],
        [*offset, *2 * offset, 0.5, -0.1, 0.2, *[1.0] * n, math.sin(2 * angle), math.cos(2 * angle), *zero, *two],
        [*2 * offset, *3 * offset, 0, 0, 0, *[1.5] * n, 0, 0, *two, *two],
    ]
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_joint_command_carries_targets_gains_and_the_state_it_answers(make_runner, tiny):
    manifest = tiny.manifest()
    runner = make_runner(bias=np.arange(tiny.n) * 0.5 - 2.0)
    command = runner.step(tiny.estimate(tick=77, received_ns=123456), WALK)
    # Raw actions −2 … 3.5 lie within the clip of 4.
    expected = manifest.default_pose + manifest.action_scale * (np.arange(12) * 0.5 - 2.0)
    np.testing.assert_allclose(command.q, expected, atol=1e-7)
    np.testing.assert_array_equal(command.stiffness, manifest.stiffness)
    np.testing.assert_array_equal(command.damping, manifest.damping)
    np.testing.assert_array_equal(command.dq, np.zeros(12))
    np.testing.assert_array_equal(command.tau, np.zeros(12))
    assert (command.state_tick, command.state_received_ns) == (77, 123456)
    assert runner.step(tiny.estimate(), WALK).seq == command.seq + 1


def test_actions_are_clipped_before_they_reach_the_joints_and_the_memory(make_runner, tiny):
    manifest = tiny.manifest()
    bias = np.where(np.arange(tiny.n) % 2, 100.0, -3.0)
    runner = make_runner(bias=bias)
    command = runner.step(tiny.estimate(), WALK)
    clipped = np.where(bias > 0.0, 4.0, -3.0)
    assert runner.output_ok
    np.testing.assert_allclose(command.q, manifest.default_pose + manifest.action_scale * clipped, atol=1e-12)
    np.testing.assert_array_equal(runner.last_action, clipped)
    runner.step(tiny.estimate(), WALK)
    np.testing.assert_allclose(runner.last_observation[-tiny.n :], clipped * 0.25)


def test_a_saturated_answer_is_told_and_not_followed(make_runner, tiny):
    manifest = tiny.manifest()
    # All actions grow with the forward velocity that is asked for: 2 at 0.5 m/s, 20 at 5 m/s, beyond the clip of 4.
    weight = np.zeros((manifest.observation_size, tiny.n))
    weight[2 * tiny.n] = 4.0
    runner = make_runner(weight=weight)
    followed = runner.step(tiny.estimate(), WALK)
    np.testing.assert_allclose(followed.q, manifest.default_pose + manifest.action_scale * 2.0, atol=1e-6)
    held = runner.step(tiny.estimate(tick=9), VelocityCommand(5.0, 0.0, 0.0))
    assert not runner.output_ok
    np.testing.assert_array_equal(held.q, followed.q)
    assert (held.seq, held.state_tick) == (followed.seq + 1, 9), "it is a command like others, of this state"
    np.testing.assert_array_equal(runner.last_action, np.full(tiny.n, 4.0))
    again = runner.step(tiny.estimate(), VelocityCommand(-0.25, 0.0, 0.0))
    assert runner.output_ok
    np.testing.assert_allclose(again.q, manifest.default_pose - manifest.action_scale, atol=1e-6)


def test_a_policy_that_is_saturated_from_the_start_holds_the_default_pose(make_runner, tiny):
    runner = make_runner(bias=np.full(tiny.n, -100.0))
    np.testing.assert_array_equal(runner.step(tiny.estimate(), WALK).q, tiny.manifest().default_pose)
    assert not runner.output_ok


def test_steps_count_ticks_since_the_policy_forgot_its_past(make_runner, tiny):
    runner = make_runner()
    assert runner.steps == 0
    for _ in range(2):
        runner.step(tiny.estimate(), WALK)
    with pytest.raises(ObservationError):
        runner.step(tiny.estimate(q=np.full(tiny.n, np.nan)), WALK)
    assert runner.steps == 3
    runner.reset()
    runner.step(tiny.estimate(), WALK)
    assert runner.steps == 1


def test_noise_samples_the_policy(make_runner, tiny):
    manifest = tiny.manifest()
    noise = np.random.default_rng(0).standard_normal(tiny.n)
    command = make_runner().step(tiny.estimate(), STAND, noise)
    np.testing.assert_allclose(command.q, manifest.default_pose + manifest.action_scale * noise, atol=1e-6)


def test_reset_makes_a_run_repeat_itself_exactly(make_runner, tiny):
    rng = np.random.default_rng(0)
    runner = make_runner(rng.normal(0, 0.3, (tiny.manifest().observation_size, tiny.n)))
    states = [tiny.estimate(np.random.default_rng(i)) for i in range(20)]
    first = [runner.step(state, WALK).q for state in states]
    again = [runner.step(state, WALK).q for state in states]
    assert np.abs(np.array(first[0]) - again[0]).max() > 1e-3
    runner.reset()
    np.testing.assert_array_equal([runner.step(state, WALK).q for state in states], first)


def test_observation_ok_allows_a_quarter_of_the_training_range_beyond_it(make_runner, tiny):
    # Range −2 … 2: the margin is a quarter of 4, so that ±3 is the edge. joint_vel_rel is scaled by 0.05.
    runner = make_runner()
    for rate, ok in ((59.9, True), (60.1, False), (-59.9, True), (-60.1, False), (0.0, True)):
        dq = np.zeros(tiny.n)
        dq[5] = rate
        runner.step(tiny.estimate(dq=dq), STAND)
        assert runner.observation_ok is ok, rate


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("field", "term"), [("q", "joint_pos_rel"), ("dq", "joint_vel_rel")])
def test_an_estimate_that_is_not_finite_is_refused_by_name(make_runner, tiny, field, term, bad):
    runner = make_runner()
    broken = getattr(tiny.estimate(), field).copy()
    broken[3] = bad
    with pytest.raises(ObservationError, match=f"{term}: not finite"):
        runner.step(tiny.estimate(**{field: broken}), WALK)
    assert np.all(np.isfinite(runner.step(tiny.estimate(), WALK).q))


def test_a_velocity_command_that_is_not_finite_is_refused(make_runner, tiny):
    with pytest.raises(ObservationError, match="velocity_commands"):
        make_runner().step(tiny.estimate(), VelocityCommand(math.nan, 0.0, 0.0))


def test_a_network_that_overflows_gives_no_command_and_keeps_its_last_action(make_runner, tiny):
    size = tiny.manifest().observation_size
    weight = np.zeros((size, tiny.n))
    weight[2 * tiny.n] = 1e38  # answers to vx
    runner = make_runner(weight)
    runner.step(tiny.estimate(), STAND)
    with pytest.raises(PolicyError, match="output is not finite"):
        runner.step(tiny.estimate(), VelocityCommand(1e5, 0.0, 0.0))
    np.testing.assert_array_equal(runner.last_action, np.zeros(tiny.n))
    assert np.all(np.isfinite(runner.step(tiny.estimate(), STAND).q))


def test_a_policy_without_gait_term_needs_no_period(make_runner, tiny):
    terms = tuple(t for t in tiny.terms if t.name != "gait_phase")
    runner = make_runner(terms=terms, gait_period_s=None)
    command = runner.step(tiny.estimate(), WALK)
    np.testing.assert_array_equal(command.q, tiny.manifest().default_pose)


def test_the_caller_may_reuse_its_arrays(make_runner, tiny):
    runner = make_runner()
    q = runner.manifest.default_pose + 0.1
    estimate = tiny.estimate(q=q)
    runner.step(estimate, WALK)
    q[:] = runner.manifest.default_pose + 0.2
    runner.step(estimate, WALK)
    np.testing.assert_allclose(runner.last_observation[: 2 * tiny.n], [0.1] * tiny.n + [0.2] * tiny.n, atol=1e-6)
