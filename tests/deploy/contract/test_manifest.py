"""Policy metadata: full precision, the shared convention's habits, and every mismatch by name."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.contract.manifest import REQUIRED, PolicyManifest, parse_metadata
from nfpo_deploy.errors import PolicyError
from nfpo_deploy.observation.builder import TermConfig
from robots import load_robot

SPEC = load_robot("go2")
N = SPEC.num_joints
TERMS = (TermConfig("base_ang_vel", 3, 0.25), TermConfig("gait_phase"), TermConfig("joint_pos_rel", 2, 1 / 3, 5.0))
D = 3 * 3 + 2 + 2 * N


@pytest.fixture
def manifest():
    # Thirds and irrationals: no short decimal holds them.
    return PolicyManifest(
        robot="go2",
        joint_names=SPEC.joint_names,
        stiffness=np.linspace(20, 30, N) / 3,
        damping=np.linspace(1, 2, N) / 7,
        default_pose=SPEC.default_pose + 1e-9 / 3,
        action_scale=np.full(N, 0.0745123456789),
        action_clip=math.pi,
        terms=TERMS,
        control_rate_hz=100 / 3,
        command_ranges={"vx": (-0.6, 1.0), "vy": (-1 / 3, 1 / 3), "wz": (-1.0, 1.0)},
        gait_period_s=0.1 + 0.2,
        observation_low=-np.sqrt(np.arange(1, D + 1)),
        observation_high=np.sqrt(np.arange(1, D + 1)) / 7,
        robot_model_sha256=SPEC.model_sha256,
        provenance={"seed": 7, "task": "go2_walk"},
    )


@pytest.fixture
def metadata(manifest):
    return manifest.to_metadata()


def ours_changed(metadata, **changes):
    ours = json.loads(metadata["nfpo"])
    ours.update(changes)
    return metadata | {"nfpo": json.dumps(ours)}


def test_every_number_survives_the_round_trip_exactly(manifest, metadata):
    back = parse_metadata(metadata)
    for name in ("stiffness", "damping", "default_pose", "action_scale", "observation_low", "observation_high"):
        np.testing.assert_array_equal(getattr(back, name), getattr(manifest, name), err_msg=name)
    for name in (
        "robot", "joint_names", "action_clip", "control_rate_hz", "command_ranges", "gait_period_s",
        "robot_model_sha256", "provenance",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(manifest, name), name
    assert back.terms == manifest.terms
    assert back.observation_size == D


def test_the_shared_keys_are_what_other_controllers_read(metadata):
    assert metadata["joint_names"].split(",")[:2] == ["FR_hip_joint", "FR_thigh_joint"]
    assert metadata["observation_names"] == "base_ang_vel,gait_phase,joint_pos_rel"
    assert metadata["observation_terms_history_length"] == "3,1,2"
    assert [float(v) for v in metadata["observation_terms_scale"].split(",")] == [0.25, 1.0, 1 / 3]
    assert metadata["command_names"] == "twist"
    assert all(isinstance(value, str) for value in metadata.values())


def test_numbers_as_other_exporters_write_them(metadata):
    back = parse_metadata(
        metadata
        | {
            "observation_terms_history_length": "3.000,0.000,2.000",
            "observation_terms_scale": "0.250,1.000,5",
            "action_scale": "0.5",
            "joint_stiffness": ",".join(["40.179"] * N),
        }
    )
    assert [term.history for term in back.terms] == [3, 1, 2]
    assert [term.scale for term in back.terms] == [0.25, 1.0, 5.0]
    np.testing.assert_array_equal(back.action_scale, np.full(N, 0.5))
    np.testing.assert_array_equal(back.stiffness, np.full(N, 40.179))


def test_scale_and_history_default_to_one(metadata):
    del metadata["observation_terms_scale"], metadata["observation_terms_history_length"]
    size = 3 + 2 + N
    back = parse_metadata(ours_changed(metadata, observation_low=[-1.0] * size, observation_high=[1.0] * size))
    assert [(t.history, t.scale) for t in back.terms] == [(1, 1.0)] * 3
    assert back.observation_size == size


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(metadata, key):
    del metadata[key]
    with pytest.raises(PolicyError, match=rf"lacks \['{key}'\].*nfpo export"):
        parse_metadata(metadata)


def test_all_missing_keys_are_named_at_once():
    with pytest.raises(PolicyError, match="joint_names.*joint_stiffness.*observation_names.*nfpo"):
        parse_metadata({})


@pytest.mark.parametrize(
    "key",
    [
        "schema", "robot", "action_clip", "control_rate_hz", "command_ranges", "gait_period_s", "observation_low",
        "observation_high", "robot_model_sha256", "provenance",
    ],
)  # fmt: skip
def test_a_missing_entry_of_ours_is_named(metadata, key):
    ours = json.loads(metadata["nfpo"])
    del ours[key]
    with pytest.raises(PolicyError, match=key):
        parse_metadata(metadata | {"nfpo": json.dumps(ours)})


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(metadata, schema):
    with pytest.raises(PolicyError, match=rf"schema {schema!r} is not supported; this version reads 1"):
        parse_metadata(ours_changed(metadata, schema=schema))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', "not json"])
def test_our_entry_has_to_be_a_json_object(metadata, text):
    with pytest.raises(PolicyError, match="bad policy metadata"):
        parse_metadata(metadata | {"nfpo": text})


@pytest.mark.parametrize("key", ["joint_stiffness", "joint_damping", "default_joint_pos", "action_scale"])
@pytest.mark.parametrize(
    "text",
    [
        ",".join(["1"] * (N - 1)),
        ",".join(["1"] * (N + 1)),
        ",".join(["1"] * (N - 1) + ["nan"]),
        ",".join(["inf"] + ["1"] * (N - 1)),
        "",
        "one,two",
    ],
    ids=["short", "long", "nan", "inf", "empty", "words"],
)
def test_a_joint_list_of_wrong_length_or_content_is_named(metadata, key, text):
    with pytest.raises(PolicyError, match=rf"{key}: expected"):
        parse_metadata(metadata | {key: text})


@pytest.mark.parametrize("key", ["joint_stiffness", "joint_damping"])
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_gains_have_to_be_above_zero(metadata, key, bad):
    with pytest.raises(PolicyError, match=f"{key}: every value must be above 0"):
        parse_metadata(metadata | {key: ",".join(["1"] * (N - 1) + [str(bad)])})


def test_a_joint_named_twice_is_refused(metadata):
    names = metadata["joint_names"].split(",")
    names[1] = names[0]
    with pytest.raises(PolicyError, match="joint_names repeats a joint"):
        parse_metadata(metadata | {"joint_names": ",".join(names)})


@pytest.mark.parametrize("key", ["action_clip", "control_rate_hz", "gait_period_s"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_our_scalars_have_to_be_above_zero(metadata, key, bad):
    with pytest.raises(PolicyError, match=f"{key} must be finite and above zero"):
        parse_metadata(ours_changed(metadata, **{key: bad}))


@pytest.mark.parametrize(
    "ranges",
    [
        {"vx": [-1, 1], "vy": [-1, 1]},
        {"vx": [-1, 1], "vy": [-1, 1], "wz": [0.5, 1.0]},
        {"vx": [-1, 1], "vy": [-1, 1], "wz": [1.0, -1.0]},
        {"vx": [-1, 1], "vy": [-1, 1], "wz": [math.nan, 1.0]},
        {"vx": [-1, 1], "vy": [-1, 1], "wz": [-1.0]},
        {"vx": [-1, 1], "vy": [-1, 1], "wz": "fast"},
        [[-1, 1]] * 3,
        None,
    ],
    ids=["missing", "without zero", "swapped", "nan", "one number", "word", "list", "null"],
)
def test_command_ranges_that_make_no_sense_are_refused(metadata, ranges):
    with pytest.raises(PolicyError):
        parse_metadata(ours_changed(metadata, command_ranges=ranges))


def test_an_unknown_term_is_a_policy_error_that_names_it(metadata):
    names = metadata["observation_names"].replace("joint_pos_rel", "height_scan")
    with pytest.raises(PolicyError, match="unknown observation term 'height_scan'"):
        parse_metadata(metadata | {"observation_names": names})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_terms_history_length": "3,1"}, "observation_terms_history_length: expected 3"),
        ({"observation_terms_history_length": "3,1,two"}, "observation_terms_history_length"),
        ({"observation_terms_history_length": "3,1,2.5"}, "observation_terms_history_length"),
        ({"observation_terms_history_length": "3,1,-2"}, "observation_terms_history_length"),
        ({"observation_terms_scale": "1,1"}, "observation_terms_scale: expected 3"),
        ({"observation_terms_scale": "1,0,1"}, "gait_phase: scale must be finite and not zero"),
    ],
)
def test_term_settings_that_make_no_sense_are_refused(metadata, changes, message):
    with pytest.raises(PolicyError, match=message):
        parse_metadata(metadata | changes)


@pytest.mark.parametrize("clip", [[None], [None, None, 0.0], [None, None, "wide"], None])
def test_clips_that_make_no_sense_are_refused(metadata, clip):
    with pytest.raises(PolicyError):
        parse_metadata(ours_changed(metadata, observation_clip=clip))


@pytest.mark.parametrize("key", ["observation_low", "observation_high"])
@pytest.mark.parametrize("values", [[0.0] * (D - 1), [0.0] * (D + 1), [math.nan] * D, [[0.0] * D], "x"])
def test_the_training_range_needs_one_finite_number_for_each_entry(metadata, key, values):
    with pytest.raises(PolicyError):
        parse_metadata(ours_changed(metadata, **{key: values}))


def test_a_training_range_upside_down_is_refused(manifest):
    swapped = replace(manifest, observation_low=manifest.observation_high, observation_high=manifest.observation_low)
    with pytest.raises(PolicyError, match="observation_low"):
        parse_metadata(swapped.to_metadata())


def test_a_gait_term_needs_a_period(metadata):
    with pytest.raises(PolicyError, match="gait_phase needs gait_period_s"):
        parse_metadata(ours_changed(metadata, gait_period_s=None))


# --- against the robot ----------------------------------------------------------------------------


def test_a_fitting_policy_passes(manifest):
    manifest.check_robot(SPEC)


def test_another_robot_is_refused_by_name(manifest):
    with pytest.raises(PolicyError, match="trained for robot 'g1', this is 'go2'"):
        replace(manifest, robot="g1").check_robot(SPEC)


def test_joints_that_are_lacking_or_foreign_are_named(manifest):
    names = ("tail_joint", *SPEC.joint_names[1:])
    with pytest.raises(PolicyError, match=r"lacks \['FR_hip_joint'\] and has unknown \['tail_joint'\]"):
        replace(manifest, joint_names=names).check_robot(SPEC)
    with pytest.raises(PolicyError, match=r"lacks \['RL_calf_joint'\] and has unknown \[\]"):
        replace(manifest, joint_names=SPEC.joint_names[:-1]).check_robot(SPEC)


@pytest.mark.parametrize(("field", "limit"), [("stiffness", "100.0"), ("damping", "8.0")])
def test_gains_above_what_the_robot_allows_are_refused_with_joint_and_limit(manifest, field, limit):
    values = getattr(manifest, field).copy()
    values[4] = 150.0
    with pytest.raises(PolicyError, match=f"{field} of FL_thigh_joint is 150.0, the robot allows {limit}"):
        replace(manifest, **{field: values}).check_robot(SPEC)


def test_gains_are_compared_joint_by_joint_when_the_order_differs(manifest):
    limits = SPEC.max_gains.stiffness.copy()
    limits[SPEC.joint_names.index("RL_calf_joint")] = 10.0
    strict = replace(SPEC, max_gains=replace(SPEC.max_gains, stiffness=limits))
    stiffness = np.full(N, 50.0)
    stiffness[0] = 5.0  # the first of the reversed names is RL_calf_joint
    backwards = replace(
        manifest, joint_names=SPEC.joint_names[::-1], stiffness=stiffness, damping=np.full(N, 0.5),
        default_pose=SPEC.default_pose[::-1],
    )  # fmt: skip
    backwards.check_robot(strict)
    with pytest.raises(PolicyError, match="stiffness of RL_calf_joint is 50.0, the robot allows 10.0"):
        replace(backwards, stiffness=np.full(N, 50.0)).check_robot(strict)


def test_a_default_pose_outside_the_joint_range_is_refused(manifest):
    pose = manifest.default_pose.copy()
    pose[2] = -3.0
    with pytest.raises(PolicyError, match="default_joint_pos of FR_calf_joint is -3.0, outside its range"):
        replace(manifest, default_pose=pose).check_robot(SPEC)


@pytest.mark.parametrize(("rate", "fits"), [(50.0, True), (100 / 3, True), (33.0, False), (25.0, False)])
def test_a_rate_at_which_one_lost_command_stops_the_robot_is_refused(manifest, rate, fits):
    assert SPEC.safety.command_timeout == 0.06  # s; two periods of 30 ms
    slow = replace(manifest, control_rate_hz=rate)
    if fits:
        slow.check_robot(SPEC)
        return
    with pytest.raises(PolicyError, match=rf"control_rate_hz is {rate:g}: .*older than 60 ms.*at least 33\.3 Hz"):
        slow.check_robot(SPEC)


def test_joint_order_brings_policy_arrays_into_robot_order(manifest):
    rng = np.random.default_rng(0)
    shuffled = tuple(SPEC.joint_names[i] for i in rng.permutation(N))
    order = replace(manifest, joint_names=shuffled).joint_order(SPEC)
    assert tuple(np.array(shuffled)[order]) == SPEC.joint_names
