"""Observation builder: order, scale, clip, history and its resets, noise, and named errors."""

from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.errors import ObservationError
from nfpo_deploy.observation.builder import ObservationBuilder, TermConfig
from nfpo_deploy.observation.terms import ObservationInput

N = 2
POSE = np.array([1.0, -1.0])


def inputs(batch=1, **changes):
    values = dict(
        quat_wxyz=np.tile([1.0, 0.0, 0.0, 0.0], (batch, 1)),
        ang_vel_b=np.zeros((batch, 3)), lin_vel_b=np.zeros((batch, 3)), command=np.zeros((batch, 3)),
        q=np.tile(POSE, (batch, 1)), dq=np.zeros((batch, N)), last_action=np.zeros((batch, N)),
        gait_phase=np.zeros((batch, 2)), default_pose=POSE,
    )  # fmt: skip
    return ObservationInput(**(values | {k: np.asarray(v, float) for k, v in changes.items()}))


def test_terms_come_in_the_order_asked_for_scaled_and_then_clipped():
    terms = [
        TermConfig("joint_vel_rel", scale=0.5, clip=2.0),
        TermConfig("velocity_commands", scale=2.0),
        TermConfig("joint_pos_rel"),
    ]
    builder = ObservationBuilder(terms, N)
    # 6·0.5 = 3 is clipped to 2; had the clip come first, it would be 1.
    observation = builder.build(inputs(dq=[[6.0, -1.0]], command=[[0.1, 0.2, 0.3]], q=[[1.5, -3.0]]))
    np.testing.assert_array_equal(observation, np.float32([[2.0, -0.5, 0.2, 0.4, 0.6, 0.5, -2.0]]))
    assert observation.dtype == np.float32
    assert builder.size == 7
    reverse = ObservationBuilder(terms[::-1], N)
    observation = reverse.build(inputs(dq=[[-6.0, -1.0]], command=[[0.1, 0.2, 0.3]], q=[[1.5, -3.0]]))
    np.testing.assert_array_equal(observation, np.float32([[0.5, -2.0, 0.2, 0.4, 0.6, -2.0, -0.5]]))


def test_history_is_oldest_first_by_term_and_starts_full_of_the_first_frame():
    builder = ObservationBuilder([TermConfig("joint_vel_rel", history=3), TermConfig("last_action", history=2)], N)
    frames = [([[1, 2]], [[10, 20]]), ([[3, 4]], [[30, 40]]), ([[5, 6]], [[50, 60]]), ([[7, 8]], [[70, 80]])]
    seen = [builder.build(inputs(dq=dq, last_action=action))[0].tolist() for dq, action in frames]
    assert seen == [
        [1, 2, 1, 2, 1, 2, 10, 20, 10, 20],
        [1, 2, 1, 2, 3, 4, 10, 20, 30, 40],
        [1, 2, 3, 4, 5, 6, 30, 40, 50, 60],
        [3, 4, 5, 6, 7, 8, 50, 60, 70, 80],
    ]


def test_history_holds_scaled_and_clipped_values():
    builder = ObservationBuilder([TermConfig("joint_vel_rel", history=2, scale=0.1, clip=1.0)], N)
    builder.build(inputs(dq=[[50.0, 5.0]]))
    np.testing.assert_allclose(builder.build(inputs(dq=[[2.0, -30.0]])), [[1.0, 0.5, 0.2, -1.0]], rtol=1e-6)


def test_reset_forgets_only_the_masked_environments():
    builder = ObservationBuilder([TermConfig("joint_vel_rel", history=3)], N, batch=3)
    for value in (1.0, 2.0):
        builder.build(inputs(3, dq=np.full((3, N), value)))
    builder.reset(np.array([False, True, False]))
    rows = builder.build(inputs(3, dq=np.full((3, N), 9.0))).tolist()
    assert rows == [[1, 1, 2, 2, 9, 9], [9, 9, 9, 9, 9, 9], [1, 1, 2, 2, 9, 9]]
    rows = builder.build(inputs(3, dq=np.full((3, N), 4.0))).tolist()
    assert rows == [[2, 2, 9, 9, 4, 4], [9, 9, 9, 9, 4, 4], [2, 2, 9, 9, 4, 4]]
    builder.reset()
    assert builder.build(inputs(3, dq=np.full((3, N), 5.0))).tolist() == [[5] * 6] * 3


def test_the_callers_arrays_are_copied():
    builder = ObservationBuilder([TermConfig("joint_vel_rel", history=2)], N)
    dq = np.array([[1.0, 2.0]])
    first = builder.build(inputs(dq=dq))
    dq[:] = 99.0
    builder.build(inputs(dq=[[3.0, 4.0]]))
    np.testing.assert_array_equal(first, [[1, 2, 1, 2]])
    np.testing.assert_array_equal(builder.build(inputs(dq=[[5.0, 6.0]])), [[3, 4, 5, 6]])


def test_noise_is_uniform_before_scaling_and_absent_without_a_generator():
    config = TermConfig("joint_vel_rel", scale=0.1, noise=0.5)
    builder = ObservationBuilder([config, TermConfig("last_action")], N, batch=20_000)
    quiet = builder.build(inputs(20_000))
    assert not quiet.any()
    noisy = builder.build(inputs(20_000), np.random.default_rng(0))
    assert not noisy[:, 2:].any()
    drawn = noisy[:, :2] / 0.1
    assert np.abs(drawn).max() <= 0.5 * (1 + 1e-6)
    # A uniform on ±0.5 has deviation 1/√12; 40 000 draws pin both moments to well under a percent.
    assert drawn.std() == pytest.approx(1 / np.sqrt(12), rel=0.01)
    assert abs(drawn.mean()) < 0.01


def test_gravity_comes_from_the_orientation():
    builder = ObservationBuilder([TermConfig("projected_gravity")], N)
    upside_down = inputs(quat_wxyz=[[0.0, 1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(builder.build(upside_down), [[0.0, 0.0, 1.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("term", "field"),
    [
        ("base_ang_vel", "ang_vel_b"), ("base_lin_vel", "lin_vel_b"), ("projected_gravity", "quat_wxyz"),
        ("velocity_commands", "command"), ("joint_pos_rel", "q"), ("joint_vel_rel", "dq"),
        ("last_action", "last_action"), ("gait_phase", "gait_phase"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_value_that_is_not_finite_is_refused_with_the_terms_name(term, field, bad):
    builder = ObservationBuilder([TermConfig("joint_vel_rel"), TermConfig(term, clip=1.0)], N, batch=2)
    good = inputs(2)
    array = getattr(good, field).copy()
    array[1, 1] = bad
    with pytest.raises(ObservationError, match=f"{term}: not finite"):
        builder.build(replace(good, **{field: array}))


def test_an_observation_that_was_refused_leaves_no_trace_in_the_history():
    terms = [TermConfig("last_action", history=2), TermConfig("joint_vel_rel", history=2)]
    builder = ObservationBuilder(terms, N)
    builder.build(inputs(last_action=[[1, 1]], dq=[[2, 2]]))
    with pytest.raises(ObservationError, match="joint_vel_rel"):
        builder.build(inputs(last_action=[[7, 7]], dq=[[np.nan, 0]]))
    np.testing.assert_array_equal(builder.build(inputs(last_action=[[3, 3]], dq=[[4, 4]])), [[1, 1, 3, 3, 2, 2, 4, 4]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": np.zeros((1, 2))}, r"velocity_commands: expected shape \(1, 3\), got \(1, 2\)"),
        ({"command": np.zeros((2, 3))}, r"velocity_commands: expected shape \(1, 3\), got \(2, 3\)"),
        ({"dq": np.zeros((1, 3))}, r"joint_vel_rel: expected shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_a_wrong_shape_is_refused_with_both_shapes(changes, message):
    builder = ObservationBuilder([TermConfig("velocity_commands"), TermConfig("joint_vel_rel")], N)
    with pytest.raises(ObservationError, match=message):
        builder.build(inputs(**changes))


def test_an_unknown_term_is_refused_when_the_builder_is_made():
    with pytest.raises(ObservationError, match="unknown observation term 'heightmap'"):
        ObservationBuilder([TermConfig("heightmap")], N)


def test_an_empty_observation_is_refused():
    with pytest.raises(ObservationError, match="at least one term"):
        ObservationBuilder([], N)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history": 0}, "history must be at least 1 frame, got 0"),
        ({"history": -2}, "history must be at least 1 frame, got -2"),
        ({"scale": 0.0}, "scale must be finite and not zero"),
        ({"scale": float("nan")}, "scale must be finite and not zero, got nan"),
        ({"scale": float("inf")}, "scale must be finite"),
        ({"clip": 0.0}, "clip must be above zero"),
        ({"clip": -1.0}, "clip must be above zero, got -1"),
        ({"clip": float("nan")}, "clip must be above zero, got nan"),
    ],
)
def test_a_term_with_an_impossible_setting_is_refused(changes, message):
    with pytest.raises(ObservationError, match=f"last_action: {message}"):
        TermConfig("last_action", **changes)


def test_layout_names_each_term_and_where_it_stands():
    builder = ObservationBuilder([TermConfig("base_ang_vel", 3, 0.25), TermConfig("joint_pos_rel")], N)
    first, second = builder.layout().splitlines()
    assert "[  0:  9] base_ang_vel (3 x 3) scale 0.25" in first
    assert "[  9: 11] joint_pos_rel (1 x 2)" in second
