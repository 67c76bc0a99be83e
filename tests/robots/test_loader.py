"""Robot folders: the Go2 as Unitree's SDK orders it, and every contradiction in a robot.yaml refused by name."""

import copy
import math
import re
import zlib

import numpy as np
import pytest
import yaml

from robots import RobotSpecError, SafetyLimits, available_robots, load_robot, load_robot_file
from robots.loader import ROBOTS_DIR

GO2 = ROBOTS_DIR / "go2" / "robot.yaml"
# Unitree's SDK: legs FR, FL, RR, RL; hip, thigh, calf within each (example/go2/low_level/unitree_legged_const.py).
SDK_MOTORS = {
    "FR_hip": 0, "FR_thigh": 1, "FR_calf": 2, "FL_hip": 3, "FL_thigh": 4, "FL_calf": 5,
    "RR_hip": 6, "RR_thigh": 7, "RR_calf": 8, "RL_hip": 9, "RL_thigh": 10, "RL_calf": 11,
}  # fmt: skip


@pytest.fixture(scope="module")
def go2_data():
    return yaml.safe_load(GO2.read_text())


@pytest.fixture
def load(go2_data, tmp_path):
    """Load the Go2's robot.yaml after `edit` changed it in memory."""
    (tmp_path / "go2.xml").write_text("<mujoco/>")

    def loader(edit=None, text=None):
        path = tmp_path / "robot.yaml"
        if text is None:
            data = copy.deepcopy(go2_data)
            if edit is not None:
                edit(data)
            text = yaml.dump(data, Dumper=yaml.CSafeDumper)
        path.write_text(text)
        return load_robot_file(path)

    return loader


def assign(*keys, value):
    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


def remove(*keys):
    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return edit


# --- the Go2 --------------------------------------------------------------------------------------


def test_joints_stand_in_the_sdks_motor_order():
    spec = load_robot("go2")
    assert spec.joint_names == tuple(f"{name}_joint" for name in SDK_MOTORS)
    assert dict(zip(spec.joint_names, spec.motor_index.tolist(), strict=True)) == {
        f"{name}_joint": motor for name, motor in SDK_MOTORS.items()
    }
    assert (spec.num_joints, spec.num_motor_slots, spec.message_family) == (12, 20, "unitree_go")
    assert spec.motor_mode.tolist() == [1] * 12


def test_feet_stand_in_the_sdks_order_and_know_their_legs():
    spec = load_robot("go2")
    assert [foot.name for foot in spec.feet] == ["FR_foot", "FL_foot", "RR_foot", "RL_foot"]
    assert [foot.joint_indices for foot in spec.feet] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    assert [(foot.end, foot.side) for foot in spec.feet] == [(1, -1), (1, 1), (-1, -1), (-1, 1)]


def test_left_and_right_poses_mirror_each_other():
    spec = load_robot("go2")
    # The y axis of the mirror: hips change sign, thighs and calves do not.
    for pose in (spec.default_pose, spec.crouch_pose):
        legs = pose.reshape(4, 3)
        np.testing.assert_array_equal(legs[[1, 3]], legs[[0, 2]] * [-1, 1, 1])


def test_policies_may_ask_for_no_less_than_standing_needs():
    spec = load_robot("go2")
    assert np.all(spec.max_gains.stiffness >= spec.stand_gains.stiffness)
    assert np.all(spec.max_gains.damping >= spec.stand_gains.damping)
    assert not spec.damp_gains.stiffness.any()


def test_arrays_cannot_be_changed_by_accident():
    spec = load_robot("go2")
    for array in (spec.default_pose, spec.torque_limit, spec.motor_index, spec.stand_gains.stiffness):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_name_check_sum_depends_on_the_order_of_joints(load):
    spec = load_robot("go2")
    assert spec.joint_names_crc == zlib.crc32(",".join(f"{name}_joint" for name in SDK_MOTORS).encode())

    def swap(data):
        data["joints"][0], data["joints"][3] = data["joints"][3], data["joints"][0]
        for pose in data["poses"].values():
            pose[0], pose[3] = pose[3], pose[0]

    assert load(swap).joint_names_crc != spec.joint_names_crc


def test_an_unchanged_copy_loads_like_the_original(load):
    copy, original = load(), load_robot("go2")
    assert copy.joint_names == original.joint_names
    assert copy.safety == original.safety
    np.testing.assert_array_equal(copy.position_lower, original.position_lower)


def test_gains_may_be_one_number_or_one_for_each_joint(load):
    values = [float(i + 1) for i in range(12)]
    spec = load(assign("gains", "stand", "stiffness", value=values))
    np.testing.assert_array_equal(spec.stand_gains.stiffness, values)
    np.testing.assert_array_equal(spec.stand_gains.damping, np.full(12, 5.0))


# --- the G1 ---------------------------------------------------------------------------------------

# Unitree's SDK: example/g1/low_level/g1_low_level_example.py, ankles and waist by their names in mode PR.
G1_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
G1_ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
G1_FIRST = {"left_leg": 0, "right_leg": 6, "waist": 12, "left_arm": 15, "right_arm": 22}


def test_the_g1s_joints_stand_in_the_sdks_motor_order():
    spec = load_robot("g1")
    names = [f"{side}_{part}_joint" for side in ("left", "right") for part in G1_LEG]
    names += ["waist_yaw_joint", "waist_roll_joint", "waist_pitch_joint"]
    assert len(names) == G1_FIRST["left_arm"]
    names += [f"{side}_{part}_joint" for side in ("left", "right") for part in G1_ARM]
    assert list(spec.joint_names) == names and names[G1_FIRST["right_arm"]] == "right_shoulder_pitch_joint"
    assert spec.motor_index.tolist() == list(range(29))
    assert (spec.num_joints, spec.num_motor_slots, spec.message_family) == (29, 35, "unitree_hg")
    assert spec.motor_mode.tolist() == [1] * 29
    assert spec.mode_machines == (5, 2), "29 joints with a free waist; what the simulator reports first"


def test_the_g1_stands_on_two_feet_of_six_joints():
    spec = load_robot("g1")
    assert [(foot.name, foot.end, foot.side) for foot in spec.feet] == [("left_foot", 0, 1), ("right_foot", 0, -1)]
    assert [foot.joint_indices for foot in spec.feet] == [tuple(range(6)), tuple(range(6, 12))]
    assert spec.leg_geometry is None and spec.leg_chain.offset.shape == (6, 3)


def test_the_g1s_gains_differ_by_joint_and_phase():
    spec = load_robot("g1")
    assert np.all(spec.max_gains.stiffness >= spec.stand_gains.stiffness)
    assert np.all(spec.max_gains.damping >= spec.stand_gains.damping)
    assert np.all(spec.max_gains.damping >= spec.damp_gains.damping)
    assert not spec.damp_gains.stiffness.any()
    knee, wrist = spec.joint_names.index("left_knee_joint"), spec.joint_names.index("left_wrist_yaw_joint")
    assert spec.stand_gains.stiffness[knee] > spec.stand_gains.stiffness[wrist]
    assert spec.damp_gains.damping[knee] > spec.damp_gains.damping[wrist]


def test_the_g1_bends_its_knees_with_level_soles():
    spec = load_robot("g1")
    for pose in (spec.default_pose, spec.crouch_pose):
        legs = pose[:12].reshape(2, 6)
        np.testing.assert_allclose(legs[:, [0, 3, 4]].sum(axis=1), 0.0, atol=1e-12)


@pytest.fixture
def load_g1(tmp_path):
    """Load the G1's robot.yaml after `edit` changed it in memory."""
    (tmp_path / "g1.xml").write_text("<mujoco/>")

    def loader(edit):
        data = yaml.safe_load((ROBOTS_DIR / "g1" / "robot.yaml").read_text())
        edit(data)
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.dump(data, Dumper=yaml.CSafeDumper))
        return load_robot_file(path)

    return loader


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (remove("leg_chain"), "missing entry 'leg_chain'"),
        (remove("leg_chain", "sole"), "missing entry 'sole'"),
        (remove("leg_chain", "links", 3), r"5 links, but feet \['left_foot', 'right_foot'\]"),
        (remove("leg_chain", "links", 3, "offset"), "missing entry 'offset'"),
        (
            assign("leg_chain", "links", 3, "axis", value="w"),
            r"leg_chain.links.axis: .*'w'.* must be of \['x', 'y', 'z'\]",
        ),
        (assign("leg_chain", "links", 3, "turn", value=[1, 1, 0, 0]), "must be unit quaternions, wxyz"),
        (assign("leg_chain", "links", 3, "offset", value=[0.0, 1.0]), "leg_chain.links.offset: expected 3"),
        (assign("leg_chain", "foot_radius", value=-0.01), "leg_chain.foot_radius"),
        (assign("leg_chain", "links", value=[]), "0 links"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradictory_leg_chain_is_refused_by_name(load_g1, edit, message):
    with pytest.raises(RobotSpecError, match=message):
        load_g1(edit)


def test_a_robot_with_a_leg_chain_needs_no_leg_geometry_and_the_reverse(load_g1):
    assert load_g1(lambda data: None).leg_chain.axis.tolist() == [
        [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0]
    ]  # fmt: skip
    assert load_robot("go2").leg_chain is None


# --- names ----------------------------------------------------------------------------------------


def test_robots_with_a_folder_are_available():
    assert {"go2", "g1"} <= set(available_robots())


@pytest.mark.parametrize("name", ["spot", "", "GO2", "go2 ", "robot.yaml"])
def test_an_unknown_robot_is_refused_with_the_known_ones(name):
    with pytest.raises(RobotSpecError, match=rf"unknown robot {name!r}; available: .*go2"):
        load_robot(name)


@pytest.mark.parametrize("name", ["..", ".", "./go2", "go2/", "go2/../go2", "../robots/go2", "sub/go2", "x\0y"])
def test_a_name_is_no_path(name):
    with pytest.raises(RobotSpecError, match=f"unknown robot {re.escape(repr(name))}"):
        load_robot(name)


def test_an_absolute_path_is_no_name():
    with pytest.raises(RobotSpecError, match="unknown robot"):
        load_robot(str(GO2.parent))


def test_a_parent_folder_is_no_robot_even_with_a_robot_file(tmp_path, monkeypatch):
    (tmp_path / "robots").mkdir()
    (tmp_path / "robot.yaml").write_text(GO2.read_text())
    (tmp_path / "go2.xml").write_text("<mujoco/>")
    monkeypatch.setattr("robots.loader.ROBOTS_DIR", tmp_path / "robots")
    with pytest.raises(RobotSpecError, match="unknown robot '..'"):
        load_robot("..")


def test_a_folder_has_to_bear_the_name_of_its_robot(tmp_path, monkeypatch):
    (tmp_path / "go3").mkdir()
    (tmp_path / "go3" / "robot.yaml").write_text(GO2.read_text())
    (tmp_path / "go3" / "go2.xml").write_text("<mujoco/>")
    monkeypatch.setattr("robots.loader.ROBOTS_DIR", tmp_path)
    with pytest.raises(RobotSpecError, match="name.*'go2'.*'go3'"):
        load_robot("go3")


# --- files ----------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RobotSpecError, match=r"nowhere/robot\.yaml"):
        load_robot_file(tmp_path / "nowhere" / "robot.yaml")


def test_a_number_that_no_float_holds_is_refused_with_the_file(load):
    text = re.sub(r"(?m)^(\s*state_timeout:) [\d.]+", r"\1 1" + "0" * 400, GO2.read_text())
    with pytest.raises(RobotSpecError, match=r"robot\.yaml: int too large"):
        load(text=text)


@pytest.mark.parametrize(
    "text", ["joints: [", "a: b: c", "\tname: go2", "'unclosed", "name: !!python/object:os.system x"]
)
def test_bad_yaml_is_refused_with_the_file(load, text):
    with pytest.raises(RobotSpecError, match=r"robot\.yaml: not valid YAML"):
        load(text=text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_bytes(b"\xff\x00\xfe binary")
    with pytest.raises(RobotSpecError, match="not valid YAML"):
        load_robot_file(path)


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- go2", "list"), ("go2", "str"), ("3", "int")])
def test_the_top_has_to_be_a_mapping(load, text, kind):
    with pytest.raises(RobotSpecError, match=f"expected a mapping at the top, got {kind}"):
        load(text=text)


def test_a_missing_model_file_is_named(load):
    with pytest.raises(RobotSpecError, match=r"model file .*gone\.xml does not exist"):
        load(assign("model", value="gone.xml"))


# --- entries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        ("schema",), ("name",), ("message_family",), ("motor_mode",), ("model",), ("joints",), ("joint_dynamics",),
        ("poses",), ("poses", "default"), ("poses", "crouch"), ("gains",), ("gains", "stand"), ("gains", "damp"),
        ("gains", "max"), ("gains", "stand", "damping"), ("imu",), ("imu", "site"), ("imu", "position"), ("feet",),
        ("leg_geometry",), ("leg_geometry", "thigh"), ("body",), ("body", "mass"), ("safety",),
        ("joints", 3, "name"), ("joints", 3, "motor"), ("joints", 3, "position"), ("joints", 3, "torque"),
        ("feet", 1, "joints"), ("feet", 1, "end"),
    ],
    ids=lambda keys: ".".join(map(str, keys)),
)  # fmt: skip
def test_each_missing_entry_is_named(load, keys):
    with pytest.raises(RobotSpecError, match=rf"robot\.yaml: missing entry '{keys[-1]}'"):
        load(remove(*keys))


@pytest.mark.parametrize("key", sorted(SafetyLimits.__dataclass_fields__))
def test_each_missing_safety_threshold_is_named(load, key):
    with pytest.raises(RobotSpecError, match=f"missing entry '{key}'"):
        load(remove("safety", key))


@pytest.mark.parametrize("key", sorted(SafetyLimits.__dataclass_fields__))
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
def test_no_safety_threshold_can_be_switched_off(load, key, value):
    with pytest.raises(RobotSpecError, match=rf"safety\.{key}: must be a finite number above zero"):
        load(assign("safety", key, value=value))


@pytest.mark.parametrize("value", [None, "soon", [0.1]])
def test_a_safety_threshold_has_to_be_a_number(load, value):
    with pytest.raises(RobotSpecError):
        load(assign("safety", "tilt", value=value))


def test_a_misspelt_safety_entry_is_refused_with_the_known_ones(load):
    with pytest.raises(RobotSpecError, match=r"safety: unknown entries \['tilt_limit'\]; known: .*'tilt'"):
        load(assign("safety", "tilt_limit", value=0.5))


@pytest.mark.parametrize("schema", [0, 2, "one"])
def test_another_schema_is_refused(load, schema):
    with pytest.raises(RobotSpecError, match=f"schema {schema!r} is not supported; this version reads 1"):
        load(assign("schema", value=schema))


def test_an_unknown_message_family_is_refused(load):
    with pytest.raises(RobotSpecError, match="message_family 'unitree_xx' is not one of"):
        load(assign("message_family", value="unitree_xx"))


# --- joints ---------------------------------------------------------------------------------------


def test_duplicate_joint_names_are_refused(load):
    with pytest.raises(RobotSpecError, match="duplicate joint names"):
        load(assign("joints", 1, "name", value="FR_hip_joint"))


@pytest.mark.parametrize("motor", [0, -1, 20, 99])
def test_motor_indices_have_to_be_distinct_slots(load, motor):
    with pytest.raises(RobotSpecError, match=r"motor indices .* must be distinct and in 0\.\.19"):
        load(assign("joints", 5, "motor", value=motor))


@pytest.mark.parametrize("motor", [12.5, "five", None])
def test_a_motor_index_has_to_be_a_whole_number(load, motor):
    with pytest.raises(RobotSpecError, match="motor|int"):
        load(assign("joints", 5, "motor", value=motor))


def test_a_joint_may_have_a_motor_mode_of_its_own(load):
    assert load(assign("joints", 5, "mode", value=10)).motor_mode.tolist() == [1] * 5 + [10] + [1] * 6


@pytest.mark.parametrize("mode", [0, -1, 256, 1.0, "servo", True])
def test_a_motor_mode_has_to_be_a_byte_that_is_not_off(load, mode):
    for place in (("motor_mode",), ("joints", 5, "mode")):
        with pytest.raises(RobotSpecError, match="motor_mode"):
            load(assign(*place, value=mode))


def test_no_joints_at_all_are_refused(load):
    with pytest.raises(RobotSpecError, match="joint"):
        load(assign("joints", value=[]))


@pytest.mark.parametrize("value", [[0.5, -0.5], [0.5, 0.5]])
def test_an_empty_position_range_is_refused_with_the_joint(load, value):
    with pytest.raises(RobotSpecError, match="position range is empty for FL_hip_joint"):
        load(assign("joints", 3, "position", value=value))


@pytest.mark.parametrize(
    "value", [[], [0.1], [-1.0, 1.0, 2.0], [math.nan, 1.0], [-1.0, math.inf], ["low", "high"], 1.0, None]
)
def test_a_position_range_needs_two_finite_numbers(load, value):
    with pytest.raises(RobotSpecError, match=r"robot\.yaml"):
        load(assign("joints", 3, "position", value=value))


@pytest.mark.parametrize("key", ["velocity", "torque"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "strong"])
def test_velocity_and_torque_limits_have_to_be_above_zero(load, key, value):
    with pytest.raises(RobotSpecError, match=rf"joints\.{key}|could not convert"):
        load(assign("joints", 3, key, value=value))


@pytest.mark.parametrize("key", ["default", "crouch"])
@pytest.mark.parametrize("length", [0, 11, 13])
def test_poses_need_one_angle_for_each_joint(load, key, length):
    with pytest.raises(RobotSpecError, match=rf"poses\.{key}: expected 12 finite numbers"):
        load(assign("poses", key, value=[0.1] * length))


def test_a_pose_outside_the_joint_range_is_refused_with_joint_and_range(load):
    with pytest.raises(
        RobotSpecError, match=r"poses\.crouch: FL_calf_joint = -3\.0 lies outside \[-2\.7227, -0\.83776\]"
    ):
        load(assign("poses", "crouch", 5, value=-3.0))


@pytest.mark.parametrize("phase", ["stand", "damp", "max"])
@pytest.mark.parametrize("part", ["stiffness", "damping"])
@pytest.mark.parametrize("value", [-1.0, math.nan, [1.0] * 11, [1.0] * 11 + [math.inf]])
def test_gains_have_to_be_finite_not_negative_and_as_many_as_joints(load, phase, part, value):
    with pytest.raises(RobotSpecError, match=rf"gains\.{phase}\.{part}"):
        load(assign("gains", phase, part, value=value))


@pytest.mark.parametrize("phase", ["stand", "damp"])
def test_standing_and_damping_need_damping(load, phase):
    with pytest.raises(RobotSpecError, match=rf"gains\.{phase}\.damping: every joint needs damping above zero"):
        load(assign("gains", phase, "damping", value=0.0))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("joint_dynamics", "armature"), math.nan),
        (("joint_dynamics", "armature"), -0.01),
        (("joint_dynamics", "friction"), -0.2),
        (("body", "mass"), 0.0),
        (("body", "mass"), math.nan),
        (("body", "base_height"), -0.3),
        (("leg_geometry", "thigh"), math.nan),
        (("leg_geometry", "calf"), 0.0),
        (("leg_geometry", "hip"), [0.1, 0.2]),
        (("imu", "position"), [0.0, math.nan, 0.0]),
    ],
    ids=str,
)
def test_impossible_dimensions_are_refused_by_name(load, keys, value):
    with pytest.raises(RobotSpecError, match=rf"{keys[0]}\.{keys[1]}"):
        load(assign(*keys, value=value))


# --- feet -----------------------------------------------------------------------------------------


def test_a_foot_on_an_unknown_joint_is_refused(load):
    with pytest.raises(RobotSpecError, match=r"foot 'FL_foot' names unknown joints \['FL_toe_joint'\]"):
        load(assign("feet", 1, "joints", 2, value="FL_toe_joint"))


@pytest.mark.parametrize(("key", "value"), [("end", "left"), ("end", "Front"), ("side", "middle"), ("side", 1)])
def test_a_foot_stands_front_or_rear_left_or_right(load, key, value):
    with pytest.raises(RobotSpecError, match=f"foot 'FL_foot': {key} {value!r} is not one of"):
        load(assign("feet", 1, key, value=value))
