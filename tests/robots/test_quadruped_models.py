"""Our models of quadrupeds against Unitree's: recorded numbers always, the official file where it is at hand.

Run as a program, with a robot's name and the path of its official model, it records the robot's model_reference.json
anew:  python tests/robots/test_quadruped_models.py go2 path/to/go2.xml
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # lets the recording run without installation

mujoco = pytest.importorskip("mujoco")

from robots import load_robot  # noqa: E402
from robots.mjcf import build_model, build_spec  # noqa: E402
from tests.robots.official_models import (  # noqa: E402
    GRAVITY,
    assert_joints_same,
    assert_links_same,
    describe_joints,
    describe_links,
    named_contacts,
    official_model,
    recorded_numbers,
    write_recorded,
)

LEGS = ("FR", "FL", "RR", "RL")
JOINTS = tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf"))
LINKS = ("base_link", *(joint.removesuffix("_joint") for joint in JOINTS))


@dataclass(frozen=True)
class Facts:
    """What is known of a robot, typed from its sources and not from our files; m, N·m/rad, N·m·s/rad.

    Where the official model is not quite symmetric and ours is, the tolerances say by how much; `odd_links` are those
    that differ visibly there (`ODD_COM` m, `ODD_INERTIA` of the largest entry). `own_shapes` differ on purpose.
    """

    hip: tuple[float, float]
    thigh_aside: float
    thigh: float
    calf: float
    foot_x: float
    foot_radius: float
    gains: tuple[float, float]
    standing: tuple[float, float]
    offset_tolerance: float = 1e-9
    com_tolerance: float = 1e-7
    inertia_tolerance: float = 3e-6  # principal axes are rounded to six digits
    odd_links: tuple[str, ...] = ()
    own_shapes: tuple[str, ...] = ()


ODD_COM, ODD_INERTIA = 0.02, 0.05
FACTS = {
    "go2": Facts(
        hip=(0.1934, 0.0465), thigh_aside=0.0955, thigh=0.213, calf=0.213, foot_x=-0.002, foot_radius=0.022,
        gains=(80.0, 3.0), standing=(0.26, 0.29),
    ),
    "b2": Facts(
        hip=(0.3285, 0.072), thigh_aside=0.11973, thigh=0.35, calf=0.35, foot_x=0.0, foot_radius=0.032,
        gains=(1000.0, 30.0), standing=(0.56, 0.59), offset_tolerance=2e-4, com_tolerance=2e-5,
        inertia_tolerance=2e-4, odd_links=("RR_hip",), own_shapes=("FL_thigh",),
    ),
}  # fmt: skip


# --- describing a model ---------------------------------------------------------------------------


def collision_shapes(model, body: int) -> list[list[float]]:
    """Rows of geom type, sorted sizes and position, m, of what collides; of a calf its foot only."""
    rows = []
    for geom in range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body]):
        kind = int(model.geom_type[geom])
        is_calf = model.body(body).name.endswith("calf")
        if model.geom_contype[geom] and (not is_calf or kind == mujoco.mjtGeom.mjGEOM_SPHERE):
            rows.append([kind, *sorted(model.geom_size[geom].tolist()), *model.geom_pos[geom].tolist()])
    return sorted(rows)


def describe(model) -> dict:
    """Numbers of a model that ours has to share, SI units, as plain lists."""
    bodies = {name: model.body(name).id for name in LINKS}
    links = describe_links(model, bodies)
    for name, body in bodies.items():
        links[name]["collision"] = collision_shapes(model, body)
    return {
        "total_mass": float(model.body_mass.sum()), "links": links, "joints": describe_joints(model, JOINTS),
    }  # fmt: skip


def foot_geom(model, leg: str) -> int:
    """The ball at the end of a leg, which official models do not always name."""
    calf = model.body(f"{leg}_calf").id
    balls = (model.geom_type == mujoco.mjtGeom.mjGEOM_SPHERE) & (model.geom_contype != 0) & (model.geom_bodyid == calf)
    return int(np.flatnonzero(balls)[0])


def foot_positions(model, poses: np.ndarray) -> np.ndarray:
    """Foot sphere centres (P, 4, 3) in base_link, m, for joint poses (P, 12) in SDK order, rad."""
    data = mujoco.MjData(model)
    addresses = [int(model.joint(name).qposadr[0]) for name in JOINTS]
    feet = [foot_geom(model, leg) for leg in LEGS]
    result = np.empty((len(poses), len(LEGS), 3))
    for i, pose in enumerate(poses):
        data.qpos[:7] = [0, 0, 0, 1, 0, 0, 0]
        data.qpos[addresses] = pose
        mujoco.mj_kinematics(model, data)
        result[i] = data.geom_xpos[feet]
    return result


def closed_form_feet(facts: Facts, poses: np.ndarray) -> np.ndarray:
    """The same (P, 4, 3) worked out by hand: leg in its plane, then rolled about x by the hip."""
    feet = []
    for leg in range(4):
        roll, thigh, calf = poses[:, 3 * leg : 3 * leg + 3].T
        front, left = (1, -1)[leg // 2], (-1, 1)[leg % 2]
        bend = thigh + calf
        x = -facts.thigh * np.sin(thigh) - facts.calf * np.sin(bend) + facts.foot_x * np.cos(bend)
        z = -facts.thigh * np.cos(thigh) - facts.calf * np.cos(bend) - facts.foot_x * np.sin(bend)
        y = left * facts.thigh_aside
        feet.append([
            front * facts.hip[0] + x,
            left * facts.hip[1] + y * np.cos(roll) - z * np.sin(roll),
            y * np.sin(roll) + z * np.cos(roll),
        ])  # fmt: skip
    return np.array(feet).transpose(2, 0, 1)


def record(robot: str, official: str) -> None:
    """Write the robot's model_reference.json from its official model."""
    model = mujoco.MjModel.from_xml_path(official)
    reference = describe(model)
    ranges = np.array([reference["joints"][name]["range"] for name in JOINTS])
    poses = np.random.default_rng(0).uniform(*ranges.T, size=(200, 12)).round(4)
    poses = np.clip(poses, *ranges.T)
    feet = foot_positions(model, poses).round(6)
    rows = [{"q": q.tolist(), "feet": f.ravel().tolist()} for q, f in zip(poses, feet, strict=True)]
    write_recorded(robot, reference, rows)


def assert_same(facts: Facts, ours: dict, reference: dict) -> None:
    """Compare two descriptions; a failure names the link or joint and the quantity."""
    assert ours["total_mass"] == pytest.approx(reference["total_mass"], abs=1e-6)
    links = {name: (mine, reference["links"][name]) for name, mine in ours["links"].items()}
    for name, (mine, link) in links.items():
        com, inertia = (facts.com_tolerance, facts.inertia_tolerance)
        if name in facts.odd_links:
            com, inertia = ODD_COM, ODD_INERTIA
        assert_links_same({name: mine}, {name: link}, com, inertia)
        if name not in facts.own_shapes:
            atol = facts.offset_tolerance
            np.testing.assert_allclose(mine["collision"], link["collision"], atol=atol, err_msg=f"{name} shapes")
    assert_joints_same(ours["joints"], reference["joints"], {"offset": facts.offset_tolerance})


@pytest.fixture(scope="module", params=sorted(FACTS))
def robot(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def facts(robot) -> Facts:
    return FACTS[robot]


@pytest.fixture(scope="module")
def model(robot):
    return build_model(robot)


@pytest.fixture(scope="module")
def recorded(robot) -> dict:
    return recorded_numbers(robot)


@pytest.fixture(scope="module")
def official(robot):
    return official_model(f"{robot}.xml")


# --- (a) recorded numbers, (b) the official model -------------------------------------------------


def test_every_link_and_joint_matches_the_recorded_numbers(facts, model, recorded):
    assert_same(facts, describe(model), recorded)


def test_feet_are_where_recorded_and_where_closed_form_kinematics_says(facts, model, recorded):
    poses = np.array([row["q"] for row in recorded["poses"]])
    feet = np.array([row["feet"] for row in recorded["poses"]]).reshape(-1, 4, 3)
    assert len(poses) == 200
    ours = foot_positions(model, poses)
    np.testing.assert_allclose(ours, feet, atol=max(1e-5, facts.offset_tolerance))
    np.testing.assert_allclose(ours, closed_form_feet(facts, poses), atol=1e-9)


def test_foot_sites_are_the_centres_of_the_foot_spheres(facts, model):
    for leg in LEGS:
        site, geom = model.site(f"{leg}_foot"), model.geom(f"{leg}_foot")
        assert geom.id == foot_geom(model, leg) and geom.size[0] == facts.foot_radius
        assert site.bodyid[0] == geom.bodyid[0]
        np.testing.assert_array_equal(site.pos, geom.pos)
        assert site.size[0] > geom.size[0]  # so the touch sensor sees every contact


def test_matches_the_official_model(facts, model, official):
    assert_same(facts, describe(model), describe(official))
    ranges = np.array([official.joint(name).range for name in JOINTS])
    poses = np.random.default_rng(1).uniform(*ranges.T, size=(200, 12))
    atol = max(1e-6, facts.offset_tolerance)
    np.testing.assert_allclose(foot_positions(model, poses), foot_positions(official, poses), atol=atol)
    np.testing.assert_allclose(model.site("imu").pos, official.site("imu").pos)


def test_full_variant_collides_with_itself_where_the_official_model_does(facts, model, official):
    """Random poses in mid-air. Calves have other shapes, so nearly all poses must agree; `own_shapes` do not count."""
    ranges = np.array([official.joint(name).range for name in JOINTS])
    poses = np.random.default_rng(2).uniform(*ranges.T, size=(400, 12))
    hits = np.empty((2, len(poses)), dtype=bool)
    for k, candidate in enumerate((model, official)):
        data = mujoco.MjData(candidate)
        addresses = [int(candidate.joint(name).qposadr[0]) for name in JOINTS]
        alike = ~np.isin(candidate.geom_bodyid, [candidate.body(name).id for name in facts.own_shapes])
        for i, pose in enumerate(poses):
            data.qpos[:7] = [0, 0, 5, 1, 0, 0, 0]
            data.qpos[addresses] = pose
            mujoco.mj_fwdPosition(candidate, data)
            hits[k, i] = any(contact.dist < 0 and alike[contact.geom].all() for contact in data.contact)
    assert 0.05 < hits[1].mean() < 0.95  # the sample says something
    assert (hits[0] == hits[1]).mean() > 0.95


# --- the model and robot.yaml tell the same story -------------------------------------------------


def test_robot_yaml_agrees_with_the_model(robot, model):
    spec = load_robot(robot)
    assert tuple(model.joint(i + 1).name for i in range(model.njnt - 1)) == spec.joint_names == JOINTS
    assert model.joint(0).name == "root"
    assert [model.actuator(i).name for i in range(model.nu)] == [n.removesuffix("_joint") for n in JOINTS]
    np.testing.assert_array_equal(model.jnt_range[1:, 0], spec.position_lower)
    np.testing.assert_array_equal(model.jnt_range[1:, 1], spec.position_upper)
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 1], spec.torque_limit)
    np.testing.assert_allclose(model.dof_armature[6:], spec.armature)
    np.testing.assert_allclose(model.dof_frictionloss[6:], spec.joint_friction)
    np.testing.assert_array_equal(model.site(spec.imu_site).pos, spec.imu_position)
    assert model.body("base_link").subtreemass[0] == pytest.approx(spec.mass, abs=5e-3)
    leg = spec.leg_geometry
    np.testing.assert_allclose(np.abs(model.body("FR_hip").pos), leg.hip)
    assert model.body("FL_thigh").pos[1] == leg.hip_offset and model.body("FL_calf").pos[2] == -leg.thigh
    np.testing.assert_allclose(model.geom("FL_foot").pos, [leg.foot_offset_x, 0, -leg.calf])
    assert model.geom("FL_foot").size[0] == leg.foot_radius


# --- mirror symmetry ------------------------------------------------------------------------------


def mirror_joints(values: np.ndarray) -> np.ndarray:
    """Joint values (12,) seen in the mirror: left and right change places, roll changes sign."""
    swapped = values.reshape(4, 3)[[1, 0, 3, 2]]
    return (swapped * [-1, 1, 1]).ravel()


@pytest.mark.parametrize("height", [2.0, 0.2], ids=["flying", "on the ground"])
def test_left_and_right_mirror_each_other(robot, height):
    """The mirrored state must have the mirrored acceleration.

    What breaks the symmetry of the trunk (products of inertia, centre of mass) is set to zero here.
    """
    spec = build_spec(robot, cone="elliptic", impratio=1.0)
    trunk = spec.body("base_link")
    trunk.ipos = np.array(trunk.ipos) * [1, 0, 1]
    trunk.fullinertia = np.array(trunk.fullinertia) * [1, 1, 1, 0, 1, 0]
    model = spec.compile()
    model.opt.tolerance = 1e-12
    rng = np.random.default_rng(3)
    data, mirrored = mujoco.MjData(model), mujoco.MjData(model)
    contacts = 0
    for _ in range(30):
        mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[2] = height
        data.qpos[3:7] += 0.1 * rng.standard_normal(4)
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qpos[7:] += 0.4 * rng.standard_normal(12)
        data.qvel[:] = rng.standard_normal(18)
        data.ctrl[:] = 10 * rng.standard_normal(12)
        mirrored.qpos[:7] = data.qpos[:7] * [1, -1, 1, 1, -1, 1, -1]
        mirrored.qvel[:6] = data.qvel[:6] * [1, -1, 1, -1, 1, -1]
        mirrored.qpos[7:], mirrored.qvel[6:] = mirror_joints(data.qpos[7:]), mirror_joints(data.qvel[6:])
        mirrored.ctrl[:] = mirror_joints(data.ctrl)
        mujoco.mj_forward(model, data)
        mujoco.mj_forward(model, mirrored)
        contacts += data.ncon
        expected = np.concatenate([data.qacc[:6] * [1, -1, 1, -1, 1, -1], mirror_joints(data.qacc[6:])])
        np.testing.assert_allclose(mirrored.qacc, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert (contacts > 30) == (height < 1)


# --- (c) behaviour --------------------------------------------------------------------------------


@pytest.mark.parametrize("actuators", ["torque", "position"])
@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
@pytest.mark.parametrize("timestep", [0.005, 0.001])
@pytest.mark.parametrize("collision", ["simple", "full"])
def test_stands_still_under_pd_control(robot, facts, collision, timestep, cone, actuators):
    gains = dict(zip(("stiffness", "damping"), facts.gains, strict=True))
    options = gains if actuators == "position" else {}
    model = build_model(robot, collision=collision, timestep=timestep, cone=cone, actuators=actuators, **options)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    target = data.qpos[7:].copy()
    start = None
    for step in range(round(2.0 / timestep)):
        if actuators == "torque":
            data.ctrl[:] = gains["stiffness"] * (target - data.qpos[7:]) - gains["damping"] * data.qvel[6:]
        mujoco.mj_step(model, data)
        if step == round(1.0 / timestep):
            start = data.qpos[:3].copy()
    mujoco.mj_forward(model, data)
    assert np.linalg.norm(data.qpos[:3] - start) < 0.01  # no drift in the second second
    assert facts.standing[0] < data.qpos[2] < facts.standing[1]
    assert np.abs(data.qvel).max() < 0.05
    assert np.all(np.abs(data.sensor("base_quat").data[1:]) < 0.03)
    assert named_contacts(model, data) == {frozenset({"floor", f"{leg}_foot"}) for leg in LEGS}
    assert min(contact.dist for contact in data.contact) > -0.003
    touch = sum(data.sensor(f"{leg}_touch").data[0] for leg in LEGS)
    assert touch == pytest.approx(model.body_mass.sum() * GRAVITY, rel=0.02)
    np.testing.assert_allclose(data.sensor("imu_acc").data, [0, 0, GRAVITY], atol=0.5)
    np.testing.assert_allclose(data.sensor("imu_gyro").data, 0, atol=0.05)


def test_keyframes_touch_the_ground_within_joint_limits(model):
    data = mujoco.MjData(model)
    for name in ("stand", "lie"):
        mujoco.mj_resetDataKeyframe(model, data, model.key(name).id)
        lower, upper = model.jnt_range[1:].T
        assert np.all((lower <= data.qpos[7:]) & (data.qpos[7:] <= upper))
        mujoco.mj_kinematics(model, data)
        lowest = min(data.geom(f"{leg}_foot").xpos[2] for leg in LEGS) - model.geom("FR_foot").size[0]
        assert abs(lowest) < 1e-3


def test_lies_on_its_belly_without_sinking_in(robot):
    model = build_model(robot, collision="full")
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("lie").id)
    start = data.qpos.copy()
    mujoco.mj_forward(model, data)
    assert min(contact.dist for contact in data.contact) > -1e-3
    for _ in range(2000):
        data.ctrl[:] = -3.0 * data.qvel[6:]
        mujoco.mj_step(model, data)
        assert all(contact.dist > -2e-3 for contact in data.contact)
    np.testing.assert_allclose(data.qpos, start, atol=0.01)
    assert frozenset({"floor", "trunk"}) in named_contacts(model, data)
    assert np.abs(data.qvel).max() < 0.01


def test_simple_variant_meets_the_floor_with_feet_and_trunk_only(robot):
    model = build_model(robot, collision="simple")
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    names = {model.geom(int(i)).name for i in np.flatnonzero(colliding)}
    assert names == {"floor", "trunk", *(f"{leg}_foot" for leg in LEGS)}
    data = mujoco.MjData(model)
    data.qpos[7:] = np.tile([0, 1.0, -1.5], 4)
    data.qpos[[7, 10, 13, 16]] = [1.0, -1.0, 1.0, -1.0]  # legs crossed: the full variant feels it
    data.qpos[2] = 1.0
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    full = build_model(robot, collision="full")
    crossed = mujoco.MjData(full)
    crossed.qpos[:] = data.qpos
    mujoco.mj_forward(full, crossed)
    assert crossed.ncon > 0


if __name__ == "__main__":
    record(*sys.argv[1:])
