"""Our G1 model against Unitree's: recorded numbers always, the official file where it is at hand.

Run as a program, with the path of the official g1_29dof.xml, it records robots/g1/model_reference.json anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # lets the recording run without installation

mujoco = pytest.importorskip("mujoco")

from robots import load_robot  # noqa: E402
from robots.mjcf import build_model  # noqa: E402
from tests.robots.official_models import (  # noqa: E402
    GRAVITY,
    assert_joints_same,
    assert_links_same,
    body_of,
    describe_joints,
    describe_links,
    named_contacts,
    official_model,
    recorded_numbers,
    write_recorded,
)

LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
JOINTS = tuple(
    f"{name}_joint"
    for name in (
        *(f"left_{part}" for part in LEG), *(f"right_{part}" for part in LEG), "waist_yaw", "waist_roll", "waist_pitch",
        *(f"left_{part}" for part in ARM), *(f"right_{part}" for part in ARM),
    )
)  # fmt: skip
ENDS = ("left_ankle_roll_joint", "right_ankle_roll_joint", "left_wrist_yaw_joint", "right_wrist_yaw_joint")


# --- describing a model ---------------------------------------------------------------------------


def describe(model) -> dict:
    """Numbers of a G1 model that ours has to share, SI units, as plain lists; links by the joint that moves them."""
    bodies = {"base_link": int(model.jnt_bodyid[0])} | {name: body_of(model, name) for name in JOINTS}
    return {
        "total_mass": float(model.body_mass.sum()),
        "links": describe_links(model, bodies),
        "joints": describe_joints(model, JOINTS),
    }


def end_positions(model, poses: np.ndarray) -> np.ndarray:
    """Origins (P, 4, 3) of both feet and both hands in base_link, m, for joint poses (P, 29) in SDK order, rad."""
    data = mujoco.MjData(model)
    addresses = [int(model.joint(name).qposadr[0]) for name in JOINTS]
    ends = [body_of(model, name) for name in ENDS]
    result = np.empty((len(poses), len(ENDS), 3))
    for i, pose in enumerate(poses):
        data.qpos[:7] = [0, 0, 0, 1, 0, 0, 0]
        data.qpos[addresses] = pose
        mujoco.mj_kinematics(model, data)
        result[i] = data.xpos[ends]
    return result


def random_poses(model, seed: int, count: int) -> np.ndarray:
    ranges = np.array([model.joint(name).range for name in JOINTS])
    return np.random.default_rng(seed).uniform(*ranges.T, size=(count, len(JOINTS)))


def record(official: str) -> None:
    """Write model_reference.json from the official model."""
    model = mujoco.MjModel.from_xml_path(official)
    poses = random_poses(model, 0, 100).round(4)
    ends = end_positions(model, poses).round(6)
    rows = [{"q": q.tolist(), "ends": e.ravel().tolist()} for q, e in zip(poses, ends, strict=True)]
    write_recorded("g1", describe(model), rows)


def assert_same(ours: dict, reference: dict) -> None:
    """Compare two descriptions; a failure names the link or joint and the quantity."""
    assert ours["total_mass"] == pytest.approx(reference["total_mass"], abs=1e-6)
    assert_links_same(ours["links"], reference["links"])
    assert_joints_same(ours["joints"], reference["joints"])


@pytest.fixture(scope="module")
def model():
    return build_model("g1")


@pytest.fixture(scope="module")
def recorded() -> dict:
    return recorded_numbers("g1")


@pytest.fixture(scope="module")
def official():
    return official_model("g1_29dof.xml")


# --- (a) recorded numbers, (b) the official model -------------------------------------------------


def test_every_link_and_joint_matches_the_recorded_numbers(model, recorded):
    assert_same(describe(model), recorded)


def test_feet_and_hands_are_where_recorded(model, recorded):
    poses = np.array([row["q"] for row in recorded["poses"]])
    ends = np.array([row["ends"] for row in recorded["poses"]]).reshape(-1, 4, 3)
    assert len(poses) == 100
    np.testing.assert_allclose(end_positions(model, poses), ends, atol=1e-5)


def test_matches_the_official_model(model, official):
    assert_same(describe(model), describe(official))
    poses = random_poses(official, 1, 100)
    np.testing.assert_allclose(end_positions(model, poses), end_positions(official, poses), atol=1e-6)


def test_the_sole_has_the_corners_of_the_official_foot(model, official):
    """The official foot stands on four balls; ours is the rectangle of their mean width."""
    for side in ("left", "right"):
        body = body_of(official, f"{side}_ankle_roll_joint")
        balls = [g for g in range(official.ngeom) if official.geom_bodyid[g] == body]
        assert len(balls) == 4
        centres, radius = official.geom_pos[balls], official.geom_size[balls[0], 0]
        sole = model.geom(f"{side}_foot")
        assert sole.pos[2] - sole.size[2] == pytest.approx(centres[:, 2].min() - radius)
        heel, toe = sole.pos[0] - sole.size[0], sole.pos[0] + sole.size[0]
        assert [heel, toe] == pytest.approx([centres[:, 0].min(), centres[:, 0].max()])
        assert sole.size[1] == pytest.approx(np.abs(centres[:, 1]).mean())


# --- the model and robot.yaml tell the same story -------------------------------------------------


def test_robot_yaml_agrees_with_the_model(model):
    spec = load_robot("g1")
    assert tuple(model.joint(i + 1).name for i in range(model.njnt - 1)) == spec.joint_names == JOINTS
    assert model.joint(0).name == "root"
    assert [model.actuator(i).name for i in range(model.nu)] == [n.removesuffix("_joint") for n in JOINTS]
    np.testing.assert_array_equal(model.jnt_range[1:, 0], spec.position_lower)
    np.testing.assert_array_equal(model.jnt_range[1:, 1], spec.position_upper)
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 1], spec.torque_limit)
    np.testing.assert_allclose(model.dof_armature[6:], spec.armature)
    np.testing.assert_array_equal(model.site(spec.imu_site).pos, spec.imu_position)
    assert model.body("base_link").subtreemass[0] == pytest.approx(spec.mass, abs=5e-3)
    light = [name.endswith(("wrist_pitch_joint", "wrist_yaw_joint")) for name in JOINTS]
    np.testing.assert_allclose(model.dof_frictionloss[6:], np.where(light, 0.1, spec.joint_friction))
    np.testing.assert_array_equal(model.key("stand").qpos[7:], spec.default_pose)
    assert model.key("stand").qpos[2] == spec.base_height


def test_each_foot_hangs_on_the_chain_that_robot_yaml_names(model):
    spec = load_robot("g1")
    for foot in spec.feet:
        body, chain = int(model.geom(foot.name).bodyid[0]), []
        while body != model.body("base_link").id:
            chain.insert(0, int(model.body_jntadr[body]) - 1)
            body = int(model.body_parentid[body])
        assert tuple(chain) == foot.joint_indices
        assert model.site(foot.name).bodyid[0] == model.geom(foot.name).bodyid[0]
        np.testing.assert_array_equal(model.site(foot.name).pos, model.geom(foot.name).pos)
        assert np.all(model.site(foot.name).size > model.geom(foot.name).size)  # so touch sees every contact


# --- mirror symmetry ------------------------------------------------------------------------------


def mirror(values: np.ndarray) -> np.ndarray:
    """Joint values (29,) seen in the mirror: left and right change places, roll and yaw change sign."""
    other = [JOINTS.index(_other_side(name)) for name in JOINTS]
    sign = np.array([-1.0 if name.endswith(("roll_joint", "yaw_joint")) else 1.0 for name in JOINTS])
    return values[other] * sign


def _other_side(name: str) -> str:
    for here, there in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(here):
            return name.replace(here, there)
    return name


def test_left_and_right_mirror_each_other(model):
    spec = load_robot("g1")
    ends = np.sort([mirror(spec.position_lower), mirror(spec.position_upper)], axis=0)
    np.testing.assert_array_equal(ends, [spec.position_lower, spec.position_upper])
    for pose in (spec.default_pose, spec.crouch_pose):
        np.testing.assert_array_equal(mirror(pose), pose)
    for gains in (spec.stand_gains, spec.damp_gains, spec.max_gains):
        for part in (gains.stiffness, gains.damping):
            np.testing.assert_array_equal(np.abs(mirror(part)), part)
    poses = random_poses(model, 3, 50)
    seen = end_positions(model, np.array([mirror(pose) for pose in poses]))[:, [1, 0, 3, 2]]
    # The shoulders are 0.01 mm apart from symmetry.
    np.testing.assert_allclose(seen * [1, -1, 1], end_positions(model, poses), atol=5e-5)


# --- (c) behaviour --------------------------------------------------------------------------------


# Stiff enough to carry the weight above two ankles, which the gains of robot.yaml are not.
STIFFNESS = np.array([400.0] * 15 + [60.0] * 14)
DAMPING = np.array([10.0] * 15 + [1.0] * 14)


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
@pytest.mark.parametrize(("actuators", "timestep"), [("torque", 0.001), ("position", 0.001), ("position", 0.005)])
@pytest.mark.parametrize("collision", ["simple", "full"])
def test_stands_still_under_stiff_pd_control(collision, actuators, timestep, cone):
    options = {"stiffness": STIFFNESS, "damping": DAMPING} if actuators == "position" else {}
    model = build_model("g1", collision=collision, timestep=timestep, cone=cone, actuators=actuators, **options)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    target = data.qpos[7:].copy()
    start = None
    for step in range(round(2.0 / timestep)):
        if actuators == "torque":
            data.ctrl[:] = STIFFNESS * (target - data.qpos[7:]) - DAMPING * data.qvel[6:]
        mujoco.mj_step(model, data)
        if step == round(1.0 / timestep):
            start = data.qpos[:3].copy()
    mujoco.mj_forward(model, data)
    assert np.linalg.norm(data.qpos[:3] - start) < 0.01  # no drift in the second second
    assert 0.76 < data.qpos[2] < 0.79
    assert np.abs(data.qvel).max() < 0.05
    assert np.all(np.abs(data.sensor("base_quat").data[1:]) < 0.06)
    assert named_contacts(model, data) == {frozenset({"floor", f"{side}_foot"}) for side in ("left", "right")}
    assert min(contact.dist for contact in data.contact) > -0.003
    touch = data.sensor("left_touch").data[0] + data.sensor("right_touch").data[0]
    assert touch == pytest.approx(model.body_mass.sum() * GRAVITY, rel=0.02)
    for imu in ("imu", "secondary_imu"):
        assert np.linalg.norm(data.sensor(f"{imu}_acc").data) == pytest.approx(GRAVITY, abs=0.3)
        np.testing.assert_allclose(data.sensor(f"{imu}_gyro").data, 0, atol=0.05)


def test_the_soles_just_touch_in_the_keyframe(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    mujoco.mj_kinematics(model, data)
    for foot in ("left_foot", "right_foot"):
        assert data.geom(foot).xpos[2] - model.geom(foot).size[2] == pytest.approx(0.0, abs=1e-3)
        np.testing.assert_allclose(data.geom(foot).xmat.reshape(3, 3)[2], [0, 0, 1], atol=1e-4)


@pytest.mark.parametrize("pose", ["default_pose", "crouch_pose", "zero"])
def test_no_part_touches_another_in_the_poses_that_it_is_asked_for(model, pose):
    spec = load_robot("g1")
    data = mujoco.MjData(model)
    data.qpos[2] = 3.0
    data.qpos[7:] = 0.0 if pose == "zero" else getattr(spec, pose)
    mujoco.mj_forward(model, data)
    assert named_contacts(model, data) == set()


def test_the_full_variant_feels_its_own_limbs(model):
    data = mujoco.MjData(model)
    data.qpos[2] = 3.0
    data.qpos[7 + JOINTS.index("left_hip_roll_joint")] = -0.5
    data.qpos[7 + JOINTS.index("right_hip_roll_joint")] = 0.5
    mujoco.mj_forward(model, data)
    assert any(contact.dist < 0 for contact in data.contact)


def test_simple_variant_meets_the_floor_with_feet_and_trunk_only():
    model = build_model("g1", collision="simple")
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    names = {model.geom(int(i)).name for i in np.flatnonzero(colliding)}
    assert names == {"floor", "pelvis", "torso", "left_foot", "right_foot"}


def test_a_gantry_holds_it_above_its_centre_of_mass(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    mujoco.mj_forward(model, data)
    com, hook = data.subtree_com[model.body("base_link").id], data.site("gantry").xpos
    assert hook[2] - com[2] > 0.2 and np.linalg.norm(hook[:2] - com[:2]) < 0.05


if __name__ == "__main__":
    record(sys.argv[1])
