"""Our models of H1 and H1-2 against Unitree's: recorded numbers always, the official file where it is at hand.

Theirs hang on the pelvis, ours on the torso. Run as a program, with a robot's name and the path of its official model,
it records the robot's model_reference.json anew:  python tests/robots/test_h1_models.py h1 path/to/h1.xml
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # lets the recording run without installation

mujoco = pytest.importorskip("mujoco")

from nfpo_deploy.state.chain_kinematics import ChainKinematics  # noqa: E402
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

# Unitree's SDK, example/h1/low_level/h1_low_level_example.py and example/h1_2/low_level/h1_2_low_level_example.py:
# motors by the names of the model. Slot 9 of an H1 is not used; the ankles of an H1-2 by their names in mode PR.
LEG = ("hip_yaw", "hip_pitch", "hip_roll", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
MOTORS = {
    "h1": {
        0: "right_hip_roll", 1: "right_hip_pitch", 2: "right_knee", 3: "left_hip_roll", 4: "left_hip_pitch",
        5: "left_knee", 6: "torso", 7: "left_hip_yaw", 8: "right_hip_yaw", 10: "left_ankle", 11: "right_ankle",
        12: "right_shoulder_pitch", 13: "right_shoulder_roll", 14: "right_shoulder_yaw", 15: "right_elbow",
        16: "left_shoulder_pitch", 17: "left_shoulder_roll", 18: "left_shoulder_yaw", 19: "left_elbow",
    },
    "h1_2": dict(enumerate((
        *(f"left_{part}" for part in LEG), *(f"right_{part}" for part in LEG), "torso",
        *(f"left_{part}" for part in ARM), *(f"right_{part}" for part in ARM),
    ))),
}  # fmt: skip
ENDS = {
    "h1": ("left_ankle_joint", "right_ankle_joint", "left_elbow_joint", "right_elbow_joint"),
    "h1_2": ("left_ankle_roll_joint", "right_ankle_roll_joint", "left_wrist_yaw_joint", "right_wrist_yaw_joint"),
}
FAMILY = {"h1": ("unitree_go", 20), "h1_2": ("unitree_hg", 35)}


def joints_of(robot: str) -> tuple[str, ...]:
    """In SDK order."""
    return tuple(f"{name}_joint" for name in MOTORS[robot].values())


def describe(robot: str, model, torso: int, pelvis: int, motor: str = "") -> dict:
    """Numbers of a model that ours has to share, SI units; `motor` is what its motors' names have at the end.

    The joint of the waist is told without direction: which of its two links carries the other is what differs.
    """
    names = joints_of(robot)
    limbs = {name: body_of(model, name) for name in names if name != "torso_joint"}
    bodies = {"torso": torso, "pelvis": pelvis} | limbs
    joints = describe_joints(model, names, motor)
    joints["torso_joint"]["axis"] = np.abs(joints["torso_joint"]["axis"]).tolist()
    mass = sum(float(model.body_mass[body]) for body in bodies.values())
    return {"total_mass": mass, "links": describe_links(model, bodies), "joints": joints}


def describe_ours(robot: str, model) -> dict:
    return describe(robot, model, model.body("base_link").id, model.body("pelvis").id)


def describe_official(robot: str, model) -> dict:
    return describe(robot, model, model.body("torso_link").id, model.body("pelvis").id, "_joint")


def end_positions(robot: str, model, torso: int, poses: np.ndarray) -> np.ndarray:
    """Origins (P, 4, 3) of both feet and both hands in the torso's frame, m, for poses (P, N) in SDK order, rad."""
    data = mujoco.MjData(model)
    addresses = [int(model.joint(name).qposadr[0]) for name in joints_of(robot)]
    ends = [body_of(model, name) for name in ENDS[robot]]
    result = np.empty((len(poses), len(ends), 3))
    for i, pose in enumerate(poses):
        data.qpos[:7] = [0, 0, 0, 1, 0, 0, 0]
        data.qpos[addresses] = pose
        mujoco.mj_kinematics(model, data)
        result[i] = (data.xpos[ends] - data.xpos[torso]) @ data.xmat[torso].reshape(3, 3)
    return result


def random_poses(robot: str, seed: int, count: int) -> np.ndarray:
    spec = load_robot(robot)
    rng = np.random.default_rng(seed)
    return rng.uniform(spec.position_lower, spec.position_upper, size=(count, spec.num_joints))


def record(robot: str, official: str) -> None:
    """Write the robot's model_reference.json from its official model."""
    model = mujoco.MjModel.from_xml_path(official)
    poses = random_poses(robot, 0, 100).round(4)
    ends = end_positions(robot, model, model.body("torso_link").id, poses).round(6)
    rows = [{"q": q.tolist(), "ends": e.ravel().tolist()} for q, e in zip(poses, ends, strict=True)]
    write_recorded(robot, describe_official(robot, model), rows)


def assert_same(ours: dict, reference: dict) -> None:
    """Compare two descriptions; a failure names the link or joint and the quantity."""
    assert ours["total_mass"] == pytest.approx(reference["total_mass"], abs=1e-6)
    assert_links_same(ours["links"], reference["links"])
    assert_joints_same(ours["joints"], reference["joints"])


@pytest.fixture(scope="module", params=sorted(MOTORS))
def robot(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(robot):
    return build_model(robot)


@pytest.fixture(scope="module")
def official(robot):
    return official_model(f"{robot}.xml")


# --- the official model -----------------------------------------------------------------------------


def test_every_link_and_joint_matches_the_recorded_numbers(robot, model):
    assert_same(describe_ours(robot, model), recorded_numbers(robot))


def test_feet_and_hands_are_where_recorded(robot, model):
    rows = recorded_numbers(robot)["poses"]
    poses = np.array([row["q"] for row in rows])
    ends = np.array([row["ends"] for row in rows]).reshape(-1, 4, 3)
    assert len(poses) == 100
    np.testing.assert_allclose(end_positions(robot, model, model.body("base_link").id, poses), ends, atol=1e-5)


def test_matches_the_official_model(robot, model, official):
    assert_same(describe_ours(robot, model), describe_official(robot, official))
    poses = random_poses(robot, 1, 100)
    ours = end_positions(robot, model, model.body("base_link").id, poses)
    theirs = end_positions(robot, official, official.body("torso_link").id, poses)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(model.site("imu").pos, official.site("imu").pos)
    assert official.site("imu").bodyid[0] == official.body("torso_link").id, "the reason why ours hangs on the torso"


# --- the model and robot.yaml tell the same story -------------------------------------------------


def test_robot_yaml_agrees_with_the_sdk_and_the_model(robot, model):
    spec, names, motors = load_robot(robot), joints_of(robot), MOTORS[robot]
    assert spec.joint_names == names and spec.motor_index.tolist() == list(motors)
    weak = range(10, 20) if robot == "h1" else range(35)
    assert spec.motor_mode.tolist() == [0x01 if motor in weak else 0x0A for motor in motors]
    assert (spec.message_family, spec.num_motor_slots) == FAMILY[robot]
    assert [model.actuator(i).name for i in range(model.nu)] == list(motors.values())
    joints = [model.joint(name) for name in names]
    ranges = np.array([joint.range for joint in joints])
    np.testing.assert_array_equal(ranges, np.array([spec.position_lower, spec.position_upper]).T)
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 1], spec.torque_limit)
    np.testing.assert_allclose(model.dof_armature[6:], spec.armature)
    np.testing.assert_allclose(model.dof_frictionloss[6:], spec.joint_friction)
    np.testing.assert_array_equal(model.site(spec.imu_site).pos, spec.imu_position)
    assert model.body("base_link").subtreemass[0] == pytest.approx(spec.mass, abs=5e-3)
    stand = model.key("stand").qpos
    np.testing.assert_array_equal([stand[joint.qposadr[0]] for joint in joints], spec.default_pose)
    assert stand[2] == pytest.approx(spec.base_height, abs=1e-4)


def test_kinematics_from_the_torso_down_is_the_models(robot, model):
    spec = load_robot(robot)
    kinematics, data = ChainKinematics(spec), mujoco.MjData(model)
    rng = np.random.default_rng(2)
    for pose in random_poses(robot, 2, 50):
        data.qpos[:7], data.qvel[:6] = [0, 0, 0, 1, 0, 0, 0], 0.0
        rates = rng.normal(size=spec.num_joints)
        for name, q, dq in zip(spec.joint_names, pose, rates, strict=True):
            data.joint(name).qpos[0], data.joint(name).qvel[0] = q, dq
        mujoco.mj_forward(model, data)
        legs = kinematics.forward(pose, rates)
        for i, foot in enumerate(("left_foot", "right_foot")):
            np.testing.assert_allclose(legs.position[i], data.site(foot).xpos, atol=1e-9)
            twist = np.empty(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_SITE, model.site(foot).id, twist, 0)
            np.testing.assert_allclose(legs.velocity[i], twist[3:], atol=1e-9)


# --- behaviour --------------------------------------------------------------------------------------

# Stiff enough to carry the weight above two ankles, which the gains of robot.yaml are not.
STIFFNESS, DAMPING = 1000.0, 20.0


@pytest.mark.parametrize("collision", ["simple", "full"])
@pytest.mark.parametrize("timestep", [0.001, 0.005])
def test_stands_still_under_stiff_pd_control(robot, collision, timestep):
    model = build_model(
        robot, collision=collision, timestep=timestep, actuators="position", stiffness=STIFFNESS, damping=DAMPING
    )
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    start = None
    for step in range(round(2.0 / timestep)):
        mujoco.mj_step(model, data)
        if step == round(1.0 / timestep):
            start = data.qpos[:3].copy()
    assert np.linalg.norm(data.qpos[:3] - start) < 0.01
    assert data.qpos[2] == pytest.approx(load_robot(robot).base_height, abs=0.02)
    assert named_contacts(model, data) == {frozenset({"floor", f"{side}_foot"}) for side in ("left", "right")}
    touch = data.sensor("left_touch").data[0] + data.sensor("right_touch").data[0]
    assert touch == pytest.approx(model.body_mass.sum() * GRAVITY, rel=0.02)


@pytest.mark.parametrize("pose", ["default_pose", "crouch_pose", "zero"])
def test_no_part_touches_another_in_the_poses_that_it_is_asked_for(robot, model, pose):
    spec, data = load_robot(robot), mujoco.MjData(model)
    data.qpos[2] = 3.0
    zero = np.zeros(spec.num_joints)
    for name, q in zip(spec.joint_names, zero if pose == "zero" else getattr(spec, pose), strict=True):
        data.joint(name).qpos[0] = q
    mujoco.mj_forward(model, data)
    assert named_contacts(model, data) == set()


def test_the_soles_just_touch_in_the_keyframe(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    mujoco.mj_kinematics(model, data)
    for foot in ("left_foot", "right_foot"):
        assert data.geom(foot).xpos[2] - model.geom(foot).size[2] == pytest.approx(0.0, abs=1e-3)
        np.testing.assert_allclose(data.geom(foot).xmat.reshape(3, 3)[2], [0, 0, 1], atol=1e-4)


def test_a_gantry_holds_it_above_its_centre_of_mass(model):
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    mujoco.mj_forward(model, data)
    com, hook = data.subtree_com[model.body("base_link").id], data.site("gantry").xpos
    assert hook[2] - com[2] > 0.2 and np.linalg.norm(hook[:2] - com[:2]) < 0.05


if __name__ == "__main__":
    record(*sys.argv[1:])
