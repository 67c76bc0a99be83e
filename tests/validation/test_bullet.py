"""The body in Bullet against what can be computed without it: by hand, by MuJoCo's mass matrix, by its kinematics."""

from __future__ import annotations

import math
import resource
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import yaml

from nfpo_deploy.errors import NfpoError
from robots.mjcf import build_spec
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.validation import bullet
from sim2real_checks.validation.bodies import MujocoBody, ScenarioRobot
from sim2real_checks.validation.run import run_scenario
from sim2real_checks.validation.scenario import (
    Command,
    Disturbance,
    Physics,
    Scenario,
    ScenarioError,
    Terrain,
    load_set,
    scenario_from,
)
from sim2real_checks.validation.urdf import ROTOR, write_urdf

pytest.importorskip("pybullet", reason="the bullet extra is not installed")

CONFIG = SimConfig(robot="go2", initial_pose="default")
IN_BULLET = Physics(engine="bullet")
G, MASS = 9.81, 15.206408
ALOFT = np.array([0.3, -0.2, 5.0])


def model_of(friction: bool = True) -> mujoco.MjModel:
    model = build_spec("go2", collision="full", cone="elliptic", looks=False).compile()
    if not friction:
        model.dof_frictionloss[:] = 0.0
    return model


@pytest.fixture
def body(spec):
    return bullet.BulletBody(spec, CONFIG, model_of())


@pytest.fixture
def slick(spec):
    """Bodies without dry friction in the joints, in both engines."""
    return tuple(kind(spec, CONFIG, model_of(friction=False)) for kind in (bullet.BulletBody, MujocoBody))


def random_state(spec, rng, speed: float = 1.0) -> SimpleNamespace:
    """Pose and velocity in the air, joints within the middle of their ranges."""
    quat = rng.normal(size=4)
    low, high = spec.position_lower, spec.position_upper
    return SimpleNamespace(
        quat=quat / np.linalg.norm(quat), q=low + (high - low) * rng.uniform(0.25, 0.75, 12),
        lin_vel=speed * rng.normal(0.0, 1.0, 3), ang_vel=speed * rng.normal(0.0, 2.0, 3),
        dq=speed * rng.normal(0.0, 3.0, 12), torque=rng.uniform(-10.0, 10.0, 12),
    )  # fmt: skip


def put(body, state, position=ALOFT) -> None:
    """Give a body of either engine a state; angular velocity in the world."""
    if isinstance(body, bullet.BulletBody):
        body.place(position, state.quat, state.q, state.lin_vel, state.ang_vel, state.dq)
        return
    inverse, local = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, state.quat)
    mujoco.mju_rotVecQuat(local, state.ang_vel, inverse)
    body.data.qpos[:3], body.data.qpos[3:7], body.data.qpos[body._qpos] = position, state.quat, state.q
    body.data.qvel[:3], body.data.qvel[3:6], body.data.qvel[body._qvel] = state.lin_vel, local, state.dq
    body.begin()


def hold(body, spec, seconds: float, pose=None) -> None:
    pose = spec.default_pose if pose is None else pose
    for _ in range(round(seconds / 0.001)):
        body.finish(np.clip(60.0 * (pose - body.q) - 5.0 * body.dq, -spec.torque_limit, spec.torque_limit))
        body.begin()


# --- the model ---


def test_mass_joints_and_ranges_are_the_models(spec, body):
    world, robot, model = body._world, body._robot, model_of()
    links = range(-1, world.getNumJoints(robot))
    assert sum(world.getDynamicsInfo(robot, link)[0] for link in links) == pytest.approx(MASS, abs=1e-9)
    assert model.body_subtreemass[1] == pytest.approx(MASS, abs=1e-6)
    infos = [world.getJointInfo(robot, joint) for joint in body._joints]
    assert tuple(info[1].decode() for info in infos) == spec.joint_names
    assert np.allclose([info[8:10] for info in infos], model.jnt_range[1:], atol=1e-12)
    assert [world.getJointInfo(robot, foot)[12].decode() for foot in body._feet] == [foot.name for foot in spec.feet]


def test_parts_are_as_far_from_the_ground_as_in_mujoco(spec, slick):
    """Shapes, their sizes and places: the gap between each body and the floor, as either engine finds it."""
    body, other = slick
    model, rng, floor = other.model, np.random.default_rng(9), other.model.geom("floor").id
    links, feet = {"base_link": -1, **body._links()}, {foot.name for foot in spec.feet}
    solid = [geom for geom in range(model.ngeom) if geom != floor and model.geom_contype[geom]]
    for _ in range(5):
        state = random_state(spec, rng)
        for one in slick:
            put(one, state)
        gaps: dict[str, float] = {}
        for geom in solid:
            name = model.geom(geom).name
            part = name if name in feet else model.body(int(model.geom_bodyid[geom])).name
            gap = mujoco.mj_geomDistance(model, other.data, geom, floor, 9.0, None)
            gaps[part] = min(gap, gaps.get(part, math.inf))
        assert len(gaps) == 1 + 12 + 4
        for part, gap in gaps.items():
            points = body._world.getClosestPoints(body._robot, body._ground, 9.0, linkIndexA=links[part])
            assert min(point[8] for point in points) == pytest.approx(gap, abs=1e-3), part


def test_parts_slide_on_the_floor_with_the_larger_coefficient(spec, body):
    frictions = {link: body._world.getDynamicsInfo(body._robot, link)[1] for link in (-1, *body._feet)}
    assert frictions == pytest.approx({-1: 0.8, **dict.fromkeys(body._feet, 0.8)})
    body.foot_friction(0.3)
    assert body._world.getDynamicsInfo(body._robot, body._feet[2])[1] == 0.3
    assert body._world.getDynamicsInfo(body._robot, -1)[1] == pytest.approx(0.8)
    assert body._world.getDynamicsInfo(body._ground, -1)[1] == 1.0, "Bullet multiplies them"


def test_no_line_of_the_urdf_is_longer_than_what_bullet_reads_at_once(spec):
    text = write_urdf(model_of(), 1, [foot.name for foot in spec.feet])
    assert max(map(len, text.splitlines())) < 1000
    names = [link.get("name") for link in ElementTree.fromstring(text).findall("link")]
    assert len(names) == len(set(names)) == 1 + 12 + 12 + 4 and sum(name.endswith(ROTOR) for name in names) == 12


def sprung(model: mujoco.MjModel) -> None:
    model.jnt_stiffness[model.joint("FL_hip_joint").id] = 3.0


def sliding(model: mujoco.MjModel) -> None:
    model.jnt_type[model.joint("FL_hip_joint").id] = mujoco.mjtJoint.mjJNT_SLIDE


def beside(model: mujoco.MjModel) -> None:
    model.jnt_pos[model.joint("FL_hip_joint").id] = (0.0, 0.1, 0.0)


def egg(model: mujoco.MjModel) -> None:
    model.geom_type[model.geom("head").id] = mujoco.mjtGeom.mjGEOM_ELLIPSOID


@pytest.mark.parametrize("change", [sprung, sliding, beside, egg])
def test_what_bullet_has_no_equal_for_is_refused(change):
    model = model_of()
    change(model)
    with pytest.raises(ScenarioError, match="body 'FL_hip' are not one hinge|head is a ellipsoid"):
        write_urdf(model, 1, [])


def test_feet_are_where_mujocos_kinematics_put_them(spec, slick):
    rng = np.random.default_rng(0)
    for _ in range(20):
        state = random_state(spec, rng)
        positions = []
        for one in slick:
            put(one, state)
            positions.append(one.foot_positions_w())
        assert np.abs(positions[0] - positions[1]).max() < 1e-6


# --- frames ---


def test_velocities_are_those_with_which_pose_and_orientation_change(spec, slick):
    body, rng = slick[0], np.random.default_rng(1)
    for _ in range(5):
        put(body, random_state(spec, rng))
        before = body.truth()
        body.finish(np.zeros(12))
        after = body.truth()
        assert (after.position_w - before.position_w) / 0.001 == pytest.approx(after.lin_vel_w, abs=0.02)
        turn, rate = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(turn, before.quat_wxyz)
        mujoco.mju_mulQuat(turn, turn.copy(), after.quat_wxyz)
        mujoco.mju_quat2Vel(rate, turn, 0.001)
        assert rate == pytest.approx(after.ang_vel_b, abs=0.02)
        assert (after.q - before.q) / 0.001 == pytest.approx(after.dq, abs=1e-6)
        assert body.imu()[1] == pytest.approx(after.ang_vel_b, abs=1e-12), "the IMU's axes are parallel to base_link"


def test_the_state_that_was_put_in_is_read_as_in_mujoco(spec, slick):
    rng = np.random.default_rng(2)
    for _ in range(5):
        state, truths = random_state(spec, rng), []
        for one in slick:
            put(one, state)
            truths.append(one.truth())
        for name in ("position_w", "quat_wxyz", "lin_vel_w", "ang_vel_b", "q", "dq"):
            assert getattr(truths[0], name) == pytest.approx(getattr(truths[1], name), abs=1e-9), name


@pytest.mark.parametrize("yaw", [0.0, 2.0])
def test_at_rest_the_accelerometer_reads_gravity_and_feet_carry_the_weight(spec, yaw):
    body = bullet.BulletBody(spec, CONFIG, model_of(), yaw)
    accel = np.zeros(3)
    for _ in range(100):
        hold(body, spec, 0.001)
        accel += body.imu()[2] / 100
    assert accel[2] == pytest.approx(G, abs=0.02) and np.abs(accel[:2]).max() < 0.15
    assert body.foot_force().sum() == pytest.approx(MASS * G, rel=0.01) and body.foot_force().min() > 20.0
    truth = body.truth()
    assert 2 * math.atan2(truth.quat_wxyz[3], truth.quat_wxyz[0]) == pytest.approx(yaw, abs=0.01)
    assert truth.position_w == pytest.approx([0.0, 0.0, spec.base_height], abs=0.01)
    assert body.foot_positions_w()[:, 2] == pytest.approx([spec.leg_geometry.foot_radius] * 4, abs=5e-4)


# --- dynamics ---


def test_free_fall(spec, slick):
    body = slick[0]
    pose = body.q
    body.place(ALOFT, np.array([1.0, 0.0, 0.0, 0.0]), pose)
    hold(body, spec, 0.3, pose)
    # Semi-implicit Euler falls half a step further than g t²/2.
    assert ALOFT[2] - body.truth().position_w[2] == pytest.approx(0.5 * G * 0.3 * 0.301, abs=2e-4)
    assert body.truth().lin_vel_w == pytest.approx([0.0, 0.0, -G * 0.3], abs=2e-3)
    assert np.abs(body.imu()[2]).max() < 0.05 and not body.foot_force().any()


def test_one_step_is_what_mujocos_mass_matrix_says(spec, slick):
    """Armature included: M q̈ = τ - bias + damping, at random states and torques, within 0.2 % of the largest."""
    body, other = slick
    model, data, rng = other.model, other.data, np.random.default_rng(3)
    mass, force, unit = np.zeros((model.nv, model.nv)), np.zeros(model.nv), np.eye(model.nv)
    for _ in range(20):
        state = random_state(spec, rng)
        put(other, state)
        for row, one in zip(mass, unit, strict=True):
            mujoco.mj_mulM(model, data, row, one)
        force[:] = data.qfrc_passive - data.qfrc_bias
        force[other._qvel] += state.torque
        expected = np.linalg.solve(mass, force)
        put(body, state)
        before = body.truth()
        body.finish(state.torque)
        measured = (body.truth().dq - before.dq) / 0.001
        assert np.abs(measured - expected[other._qvel]).max() < 0.002 * np.abs(expected[other._qvel]).max()
        assert (body.truth().lin_vel_w - before.lin_vel_w) / 0.001 == pytest.approx(expected[:3], abs=0.3)


def test_the_accelerometer_reads_what_mujocos_reads(spec, slick):
    """In the air at random states: the IMU's place counts, as the body turns about its centre of mass."""
    rng = np.random.default_rng(10)
    for _ in range(10):
        state, readings = random_state(spec, rng), []
        for one in slick:
            put(one, state)
            one.finish(state.torque)
            one.begin()
            readings.append(one.imu()[2])
        assert readings[0] == pytest.approx(readings[1], abs=0.3)


def test_the_same_torques_move_both_bodies_alike(spec, slick):
    rng, state = np.random.default_rng(4), random_state(spec, np.random.default_rng(5), speed=0.3)
    amplitude, rate, phase = rng.uniform(0.5, 1.5, 12), rng.uniform(2.0, 6.0, 12), rng.uniform(0.0, 6.0, 12)
    for one in slick:
        put(one, state)
    for k in range(300):
        torque = amplitude * np.sin(2 * np.pi * rate * k * 0.001 + phase)
        for one in slick:
            one.finish(torque)
            one.begin()
    ours, theirs = (one.truth() for one in slick)
    travelled = np.abs(theirs.q - state.q).max()
    assert travelled > 0.5 and np.abs(ours.q - theirs.q).max() < 0.02 * travelled
    assert np.abs(ours.position_w - theirs.position_w).max() < 2e-3
    assert np.abs(ours.quat_wxyz - theirs.quat_wxyz).max() < 5e-3


def test_dry_friction_holds_a_joint_until_it_gives_way(spec, body):
    """0.2 N·m at each joint, by hand: below it nothing moves; above it what is left accelerates the joint."""
    state = random_state(spec, np.random.default_rng(6), speed=0.0)
    body._world.setGravity(0.0, 0.0, 0.0)
    push = np.zeros(12)
    for torque, moves in ((0.19, False), (0.25, True)):
        put(body, state)
        push[2] = torque
        for _ in range(20):
            body.finish(push)
        assert (abs(body.dq[2]) > 0.02) == moves and np.abs(np.delete(body.dq, 2)).max() < 0.02
    assert np.sign(body.dq[2]) == 1.0


def test_joints_stop_at_their_range(spec, slick):
    body = slick[0]
    put(body, random_state(spec, np.random.default_rng(7), speed=0.0))
    torque = np.zeros(12)
    torque[[0, 5]] = (3.0, -3.0)
    for _ in range(400):
        body.finish(torque)
    assert body.q[0] == pytest.approx(spec.position_upper[0], abs=0.02)
    assert body.q[5] == pytest.approx(spec.position_lower[5], abs=0.02)


def test_a_shove_and_a_push_move_the_body_as_in_mujoco(spec, slick):
    state = random_state(spec, np.random.default_rng(8), speed=0.0)
    for one in slick:
        put(one, state)
        one.shove((40.0, -20.0, 10.0))
        hold(one, spec, 0.1, pose=state.q)
        one.shove(np.zeros(3))
    ours, theirs = (one.truth() for one in slick)
    assert np.linalg.norm(ours.lin_vel_w - theirs.lin_vel_w) < 0.01 * np.linalg.norm(theirs.lin_vel_w)
    assert np.linalg.norm(ours.ang_vel_b - theirs.ang_vel_b) < 0.02 * np.linalg.norm(theirs.ang_vel_b)
    accel = slick[0].imu()[2]
    slick[0].push(0.5, -0.2)
    after = slick[0].truth()
    assert after.lin_vel_w - ours.lin_vel_w == pytest.approx([0.5, -0.2, 0.0], abs=1e-9)
    assert after.dq == pytest.approx(ours.dq, abs=1e-9) and after.ang_vel_b == pytest.approx(ours.ang_vel_b, abs=1e-9)
    assert slick[0].imu()[2] == pytest.approx(accel), "no sensor sees a push"
    hold(slick[0], spec, 0.001, pose=state.q)
    assert np.abs(slick[0].imu()[2]).max() < 5.0, "nor after the next step"


# --- the ground ---


def test_a_slope_carries_and_lets_slide_as_friction_says(spec):
    """On 15° with coefficient 0.1 all feet slide downhill with g (sin - 0.1 cos)."""
    angle = math.radians(15.0)
    scenario = Scenario("s", terrain=Terrain("slope", angle=-15.0, friction=0.8), physics=IN_BULLET)
    body = ScenarioRobot(spec, scenario, 0).plant
    assert body.truth().position_w[:2] == pytest.approx([0.0, 0.0], abs=1e-9)
    before = body.truth().position_w
    hold(body, spec, 0.3)
    assert np.abs(body.truth().position_w - before).max() < 0.02
    assert body.foot_force().sum() == pytest.approx(MASS * G * math.cos(angle), rel=0.02)
    body.foot_friction(0.1)
    speeds = []
    for _ in range(2):
        hold(body, spec, 0.15)
        velocity = body.truth().lin_vel_w
        speeds.append(velocity[0] * math.cos(angle) - velocity[2] * math.sin(angle))
    expected = G * (math.sin(angle) - 0.1 * math.cos(angle))
    assert (speeds[1] - speeds[0]) / 0.15 == pytest.approx(expected, rel=0.1)


def test_a_payload_weighs_and_tilts_as_in_mujoco(spec):
    load = (Disturbance("payload", mass=3.0, x=0.1, y=0.08),)
    standing = {}
    for engine in ("mujoco", "bullet"):
        plant = ScenarioRobot(spec, Scenario("p", disturbances=load, physics=Physics(engine=engine)), 0).plant
        hold(plant, spec, 0.5)
        standing[engine] = plant.foot_force()
        assert standing[engine].sum() == pytest.approx((MASS + 3.0) * G, rel=0.01)
    assert standing["bullet"] == pytest.approx(standing["mujoco"], rel=0.05)


# --- scenarios ---


def test_the_shipped_policy_walks_and_does_so_again_to_the_last_bit(spec, policy):
    walk = Scenario("walk", duration=2.0, commands=(Command(0.2, vx=0.6),), physics=IN_BULLET)
    traces = [run_scenario(spec, policy, walk, 3) for _ in range(2)]
    assert [trace.ended for trace in traces] == ["", ""]
    assert traces[0].position[-1, 0] - traces[0].position[0, 0] == pytest.approx(0.6 * 1.8, abs=0.3)
    for name, column in traces[0].columns.items():
        assert np.array_equal(column, traces[1].columns[name]), name


def test_worlds_end_with_their_robots(spec, monkeypatch):
    import pybullet

    monkeypatch.setattr(bullet, "SETTLE_S", 0.005)

    def open_and_drop(count: int) -> tuple[int, int]:
        for _ in range(count):
            ScenarioRobot(spec, Scenario("s", physics=IN_BULLET), 0)
        client = pybullet.connect(pybullet.DIRECT)
        pybullet.disconnect(client)
        return client, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first, memory = open_and_drop(3)
    again, grown = open_and_drop(50)
    assert again == first and grown - memory < 30_000, "kB"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"terrain": {"kind": "stairs"}}, "'x': engine bullet has no terrain 'stairs'; it has flat, slope"),
        ({"terrain": {"kind": "rough"}}, "no terrain 'rough'"),
        ({"physics": {"cone": "pyramidal"}}, "engine bullet has no cone: leave it out; of physics it takes timestep"),
        ({"physics": {"integrator": "euler"}}, "has no integrator"),
        ({"physics": {"solver": "cg"}}, "has no solver"),
        ({"physics": {"iterations": 5}}, "has no iterations"),
        ({"physics": {"engine": "ode"}}, "'ode' is none of mujoco, bullet"),
    ],
)  # fmt: skip
def test_what_bullet_does_not_do_is_refused_when_a_file_is_read(tmp_path, entry, words):
    scenario = {"name": "x", **entry, "physics": {"engine": "bullet", **entry.get("physics", {})}}
    path = tmp_path / "set.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "name": "s", "robot": "go2", "scenarios": [scenario]}))
    with pytest.raises(ScenarioError, match=words):
        load_set(str(path))


def test_and_when_a_scenario_is_run(spec):
    with pytest.raises(ScenarioError, match="no terrain 'seesaw'"):
        ScenarioRobot(spec, Scenario("x", terrain=Terrain("seesaw"), physics=IN_BULLET), 0)
    assert scenario_from({"name": "x", "physics": {"engine": "bullet", "timestep": 0.0005}}).physics.timestep == 0.0005


def test_without_pybullet_the_remedy_is_named(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(NfpoError, match=r'needs PyBullet: pip install "nfpo\[bullet\]"'):
        ScenarioRobot(spec, Scenario("x", physics=IN_BULLET), 0)


@pytest.mark.parametrize("timestep", [0.001, 0.0005])
def test_the_timestep_is_the_scenarios(spec, timestep):
    plant = ScenarioRobot(spec, Scenario("x", physics=Physics("bullet", timestep)), 0).plant
    assert plant.time == 0.0
    plant.finish(np.zeros(12))
    assert plant.time == timestep


def test_a_friction_that_ends_is_the_terrains_again(spec):
    slip = Disturbance("friction", at=0.0, duration=0.01, friction=0.2)
    robot = ScenarioRobot(spec, Scenario("x", disturbances=(slip,), physics=IN_BULLET), 0)
    found = []
    for k in (0, 4, 6):
        robot.disturb(k * 0.002)
        found.append(robot.plant._world.getDynamicsInfo(robot.plant._robot, robot.plant._feet[0])[1])
    assert found == pytest.approx([0.2, 0.2, 0.8])
