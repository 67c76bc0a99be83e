"""Our Go2 model against Unitree's: recorded numbers always, the official file where it is at hand.

Run as a program, with the path of the official go2.xml, it records robots/go2/model_reference.json anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))  # lets the recording run without installation

mujoco = pytest.importorskip("mujoco")

from robots import load_robot  # noqa: E402
from robots.mjcf import build_model, build_spec  # noqa: E402

RECORDED = REPO / "robots" / "go2" / "model_reference.json"
REFERENCE_MODELS = os.environ.get("NFPO_REFERENCE_MODELS", REPO.parent / "shared" / "reference_models")
OFFICIAL = Path(REFERENCE_MODELS) / "go2.xml"
LEGS = ("FR", "FL", "RR", "RL")
JOINTS = tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf"))
LINKS = ("base_link", *(joint.removesuffix("_joint") for joint in JOINTS))
GRAVITY = 9.81


# --- describing a model ---------------------------------------------------------------------------


def link_inertia(model, body: int) -> np.ndarray:
    """Inertia (3, 3) about the centre of mass, in the axes of the body's frame, kg·m²."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.body_iquat[body])
    rotation = rotation.reshape(3, 3)
    return rotation @ np.diag(model.body_inertia[body]) @ rotation.T


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
    """Numbers of a Go2 model that ours has to share, SI units, as plain lists."""
    links = {
        name: {
            "mass": float(model.body(name).mass[0]),
            "com": model.body(name).ipos.tolist(),
            "inertia": link_inertia(model, model.body(name).id).tolist(),
            "collision": collision_shapes(model, model.body(name).id),
        }
        for name in LINKS
    }
    joints = {}
    for name in JOINTS:
        joint = model.joint(name)
        body, dof = int(model.jnt_bodyid[joint.id]), int(model.jnt_dofadr[joint.id])
        actuator = model.actuator(name.removesuffix("_joint"))
        assert actuator.trnid[0] == joint.id
        joints[name] = {
            "axis": joint.axis.tolist(),
            "offset": model.body_pos[body].tolist(),
            "range": joint.range.tolist(),
            "armature": float(model.dof_armature[dof]),
            "damping": float(np.ravel(model.dof_damping[dof])[0]),
            "frictionloss": float(model.dof_frictionloss[dof]),
            "torque": actuator.ctrlrange.tolist(),
        }
    return {"total_mass": float(model.body_mass.sum()), "links": links, "joints": joints}


def foot_positions(model, poses: np.ndarray, foot_geoms: dict[str, str]) -> np.ndarray:
    """Foot sphere centres (P, 4, 3) in base_link, m, for joint poses (P, 12) in SDK order, rad."""
    data = mujoco.MjData(model)
    addresses = [int(model.joint(name).qposadr[0]) for name in JOINTS]
    result = np.empty((len(poses), len(LEGS), 3))
    for i, pose in enumerate(poses):
        data.qpos[:7] = [0, 0, 0, 1, 0, 0, 0]
        data.qpos[addresses] = pose
        mujoco.mj_kinematics(model, data)
        result[i] = [data.geom(foot_geoms[leg]).xpos for leg in LEGS]
    return result


def closed_form_feet(poses: np.ndarray) -> np.ndarray:
    """The same (P, 4, 3) worked out by hand: leg in its plane, then rolled about x by the hip."""
    feet = []
    for leg in range(4):
        roll, thigh, calf = poses[:, 3 * leg : 3 * leg + 3].T
        front, left = (1, -1)[leg // 2], (-1, 1)[leg % 2]
        bend = thigh + calf
        x = -0.213 * np.sin(thigh) - 0.213 * np.sin(bend) - 0.002 * np.cos(bend)
        z = -0.213 * np.cos(thigh) - 0.213 * np.cos(bend) + 0.002 * np.sin(bend)
        y = left * 0.0955
        feet.append([
            front * 0.1934 + x,
            left * 0.0465 + y * np.cos(roll) - z * np.sin(roll),
            y * np.sin(roll) + z * np.cos(roll),
        ])  # fmt: skip
    return np.array(feet).transpose(2, 0, 1)


def record(official: Path) -> None:
    """Write model_reference.json from the official model."""
    model = mujoco.MjModel.from_xml_path(str(official))
    reference = describe(model)
    ranges = np.array([reference["joints"][name]["range"] for name in JOINTS])
    poses = np.random.default_rng(0).uniform(*ranges.T, size=(200, 12)).round(4)
    poses = np.clip(poses, *ranges.T)
    feet = foot_positions(model, poses, {leg: leg for leg in LEGS}).round(6)
    # One line for each list of numbers, so that a diff can be read.
    body = re.sub(r"\s*\n\s+(?=[-\d\]\[])", " ", json.dumps(reference, indent=1))
    rows = ",\n  ".join(
        json.dumps({"q": q.tolist(), "feet": f.ravel().tolist()}) for q, f in zip(poses, feet, strict=True)
    )
    RECORDED.write_text(body[:-2] + f',\n "poses": [\n  {rows}\n ]\n}}\n')


def assert_same(ours: dict, reference: dict) -> None:
    """Compare two descriptions; a failure names the link or joint and the quantity."""
    assert ours["total_mass"] == pytest.approx(reference["total_mass"], abs=1e-6)
    assert set(reference["links"]) == set(LINKS) and set(reference["joints"]) == set(JOINTS)
    for name, link in reference["links"].items():
        mine = ours["links"][name]
        np.testing.assert_allclose(mine["mass"], link["mass"], atol=1e-6, err_msg=f"{name} mass")
        np.testing.assert_allclose(mine["com"], link["com"], atol=1e-7, err_msg=f"{name} com")
        # The official file rounds its principal axes to six digits.
        atol = 3e-6 * np.abs(link["inertia"]).max()
        np.testing.assert_allclose(mine["inertia"], link["inertia"], atol=atol, err_msg=f"{name} inertia")
        np.testing.assert_allclose(mine["collision"], link["collision"], atol=1e-9, err_msg=f"{name} shapes")
    for name, joint in reference["joints"].items():
        for quantity, value in joint.items():
            mine = ours["joints"][name][quantity]
            np.testing.assert_allclose(mine, value, atol=1e-9, err_msg=f"{name} {quantity}")


@pytest.fixture(scope="module")
def model():
    return build_model("go2")


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads(RECORDED.read_text())


@pytest.fixture(scope="module")
def official():
    if not OFFICIAL.is_file():
        pytest.skip(f"official model not at {OFFICIAL}; set NFPO_REFERENCE_MODELS to its folder")
    return mujoco.MjModel.from_xml_path(str(OFFICIAL))


# --- (a) recorded numbers, (b) the official model -------------------------------------------------


def test_every_link_and_joint_matches_the_recorded_numbers(model, recorded):
    assert_same(describe(model), recorded)


def test_feet_are_where_recorded_and_where_closed_form_kinematics_says(model, recorded):
    poses = np.array([row["q"] for row in recorded["poses"]])
    feet = np.array([row["feet"] for row in recorded["poses"]]).reshape(-1, 4, 3)
    assert len(poses) == 200
    ours = foot_positions(model, poses, {leg: f"{leg}_foot" for leg in LEGS})
    np.testing.assert_allclose(ours, feet, atol=1e-5)
    np.testing.assert_allclose(ours, closed_form_feet(poses), atol=1e-9)


def test_foot_sites_are_the_centres_of_the_foot_spheres(model):
    for leg in LEGS:
        site, geom = model.site(f"{leg}_foot"), model.geom(f"{leg}_foot")
        assert site.bodyid[0] == geom.bodyid[0]
        np.testing.assert_array_equal(site.pos, geom.pos)
        assert site.size[0] > geom.size[0]  # so the touch sensor sees every contact


def test_matches_the_official_model(model, official):
    assert_same(describe(model), describe(official))
    ranges = np.array([official.joint(name).range for name in JOINTS])
    poses = np.random.default_rng(1).uniform(*ranges.T, size=(200, 12))
    ours = foot_positions(model, poses, {leg: f"{leg}_foot" for leg in LEGS})
    np.testing.assert_allclose(ours, foot_positions(official, poses, {leg: leg for leg in LEGS}), atol=1e-6)
    np.testing.assert_allclose(model.site("imu").pos, official.site("imu").pos)


def test_full_variant_collides_with_itself_where_the_official_model_does(model, official):
    """Random poses in mid-air. Only the calf shapes differ (capsules), so nearly all poses must agree."""
    ranges = np.array([official.joint(name).range for name in JOINTS])
    poses = np.random.default_rng(2).uniform(*ranges.T, size=(400, 12))
    hits = np.empty((2, len(poses)), dtype=bool)
    for k, candidate in enumerate((model, official)):
        data = mujoco.MjData(candidate)
        addresses = [int(candidate.joint(name).qposadr[0]) for name in JOINTS]
        for i, pose in enumerate(poses):
            data.qpos[:7] = [0, 0, 5, 1, 0, 0, 0]
            data.qpos[addresses] = pose
            mujoco.mj_fwdPosition(candidate, data)
            hits[k, i] = any(contact.dist < 0 for contact in data.contact)
    assert 0.05 < hits[1].mean() < 0.95  # the sample says something
    assert (hits[0] == hits[1]).mean() > 0.95


# --- the model and robot.yaml tell the same story -------------------------------------------------


def test_robot_yaml_agrees_with_the_model(model):
    spec = load_robot("go2")
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
def test_left_and_right_mirror_each_other(height):
    """The mirrored state must have the mirrored acceleration.

    The trunk's products of inertia that break the symmetry (1.2e-4 kg·m²) are set to zero here.
    """
    spec = build_spec("go2", cone="elliptic", impratio=1.0)
    trunk = spec.body("base_link")
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


def named_contacts(model, data) -> set[frozenset[str]]:
    return {frozenset(model.geom(int(g)).name for g in contact.geom) for contact in data.contact}


@pytest.mark.parametrize("actuators", ["torque", "position"])
@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
@pytest.mark.parametrize("timestep", [0.005, 0.001])
@pytest.mark.parametrize("collision", ["simple", "full"])
def test_stands_still_under_pd_control(collision, timestep, cone, actuators):
    gains = {"stiffness": 80.0, "damping": 3.0}
    options = gains if actuators == "position" else {}
    model = build_model("go2", collision=collision, timestep=timestep, cone=cone, actuators=actuators, **options)
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
    assert 0.26 < data.qpos[2] < 0.29
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


def test_lies_on_its_belly_without_sinking_in():
    model = build_model("go2", collision="full")
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


def test_simple_variant_meets_the_floor_with_feet_and_trunk_only():
    model = build_model("go2", collision="simple")
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    names = {model.geom(int(i)).name for i in np.flatnonzero(colliding)}
    assert names == {"floor", "trunk", *(f"{leg}_foot" for leg in LEGS)}
    data = mujoco.MjData(model)
    data.qpos[7:] = np.tile([0, 1.0, -1.5], 4)
    data.qpos[[7, 10, 13, 16]] = [1.0, -1.0, 1.0, -1.0]  # legs crossed: the full variant feels it
    data.qpos[2] = 1.0
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    full = build_model("go2", collision="full")
    crossed = mujoco.MjData(full)
    crossed.qpos[:] = data.qpos
    mujoco.mj_forward(full, crossed)
    assert crossed.ncon > 0


# --- the builder ----------------------------------------------------------------------------------


def test_position_actuators_are_pd_servos_bounded_to_the_motor_torque():
    stiffness, damping = np.arange(20.0, 32.0), np.linspace(0.5, 1.0, 12)
    model = build_model("go2", actuators="position", stiffness=stiffness, damping=damping, floor=False)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(4)
    data.qpos[7:], data.qvel[6:] = rng.normal(size=12), rng.normal(size=12)
    data.ctrl[:] = data.qpos[7:] + rng.normal(size=12) * 2
    mujoco.mj_forward(model, data)
    expected = stiffness * (data.ctrl - data.qpos[7:]) - damping * data.qvel[6:]
    limit = load_robot("go2").torque_limit
    assert np.any(np.abs(expected) > limit)
    np.testing.assert_allclose(data.actuator_force, np.clip(expected, -limit, limit))
    key = model.key("stand")
    np.testing.assert_array_equal(key.ctrl, key.qpos[7:])


def test_options_reach_the_model():
    model = build_model(
        "go2", timestep=0.004, cone="elliptic", integrator="euler", iterations=8, ls_iterations=20,
        foot_friction=0.5, floor_friction=0.7, looks=False, omit_sensors=["imu_acc"],
    )  # fmt: skip
    assert model.opt.timestep == 0.004 and model.opt.iterations == 8 and model.opt.ls_iterations == 20
    assert model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC and model.opt.impratio == 100
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
    assert model.geom("RL_foot").friction[0] == 0.5 and model.geom("floor").friction[0] == 0.7
    assert 2 not in model.geom_group
    names = [model.sensor(i).name for i in range(model.nsensor)]
    assert "imu_acc" not in names and "imu_gyro" in names


@pytest.mark.parametrize(
    ("robot", "options", "error", "message"),
    [
        ("go3", {}, ValueError, "available: .*go2"),
        ("go2", {"colision": "full"}, TypeError, "colision.*known: .*collision"),
        ("go2", {"collision": "half"}, ValueError, "simple.*full.*half"),
        ("go2", {"timestep": 0.0}, ValueError, "timestep.*above zero"),
        ("go2", {"actuators": "position"}, ValueError, "stiffness and damping"),
        ("go2", {"stiffness": 20.0, "damping": 0.5}, ValueError, "actuators='torque'"),
        ("go2", {"actuators": "position", "stiffness": [1.0] * 3, "damping": 1.0}, ValueError, "12"),
        ("go2", {"actuators": "position", "stiffness": float("nan"), "damping": 1.0}, ValueError, "finite"),
        ("go2", {"omit_sensors": ["sonar"]}, ValueError, "sonar.*imu_acc"),
    ],
)
def test_wrong_options_are_named(robot, options, error, message):
    with pytest.raises(error, match=message):
        build_model(robot, **options)


def test_importing_the_builder_does_not_import_mujoco():
    code = "import sys, robots.mjcf; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=60, check=False).returncode == 0


if __name__ == "__main__":
    record(Path(sys.argv[1]))
