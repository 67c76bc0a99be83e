"""Scenarios happen as they are written, with the deployed modules, and again in the same way."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from nfpo_deploy.types import VelocityCommand
from robots.mjcf import build_spec
from sim2real_checks.validation.bodies import FlawedMotors, ScenarioRobot
from sim2real_checks.validation.run import operator_command, run_scenario
from sim2real_checks.validation.scenario import (
    Actuation,
    Command,
    Disturbance,
    Scenario,
    ScenarioError,
    Sensing,
    Terrain,
)
from sim2real_checks.validation.terrain import add_terrain, ground_height, slope_normal

WALK = Scenario("walk", duration=2.5, commands=(Command(0.2, vx=0.6),))


def test_commands_hold_and_ramp():
    commands = (Command(1.0, vx=0.4), Command(3.0, vx=-0.4, wz=1.0, ramp=2.0))
    at = {t: operator_command(commands, t) for t in (0.9, 1.0, 2.9, 4.0, 9.0)}
    assert at[0.9] == VelocityCommand(0, 0, 0) and at[1.0] == VelocityCommand(0.4, 0, 0) == at[2.9]
    assert at[4.0] == VelocityCommand(0.0, 0, 0.5) and at[9.0] == VelocityCommand(-0.4, 0, 1.0)


def test_the_shipped_policy_walks_and_does_so_again(spec, policy):
    traces = [run_scenario(spec, policy, WALK, seed) for seed in (3, 3, 4)]
    assert [trace.ended for trace in traces] == ["", "", ""] and traces[0].mode == "WALK"
    assert traces[0].position[-1, 0] - traces[0].position[0, 0] == pytest.approx(0.6 * 2.3, abs=0.35)
    for name, column in traces[0].columns.items():
        assert np.array_equal(column, traces[1].columns[name]), name
    assert not np.array_equal(traces[0].q, traces[2].q)
    assert len(traces[0].actions) == pytest.approx(2.5 * 50, abs=2) and traces[0].limited[-1] < 0.3 * len(
        traces[0].time
    )


def test_what_the_deployed_software_refuses_ends_the_run(spec, policy):
    """A motor that has lost nearly all its strength brings the robot down; the run ends there and says so."""
    limp = Disturbance("weak_motor", at=0.5, duration=0.0, joint="FL_calf_joint", factor=0.0)
    trace = run_scenario(spec, policy, Scenario("limp", duration=3.0, commands=WALK.commands, disturbances=(limp,)), 0)
    assert trace.ended and len(trace.time) < 3.0 * 500


def test_joints_that_do_not_exist_are_named(spec, policy):
    wrong = Scenario("x", disturbances=(Disturbance("weak_motor", joint="knee"),))
    with pytest.raises(ScenarioError, match="go2 has no joint 'knee'; it has FR_hip_joint"):
        run_scenario(spec, policy, wrong, 0)


@pytest.mark.parametrize(("direction", "expected"), [(0.0, (0.5, 0.0)), (90.0, (0.0, 0.5)), (-90.0, (0.0, -0.5))])
def test_pushes_come_once_from_where_they_should(spec, direction, expected):
    push = Disturbance("push", at=0.01, speed=0.5, direction=direction)
    robot = ScenarioRobot(spec, Scenario("p", disturbances=(push,)), 0)
    before = robot.plant.truth().lin_vel_w
    for k in range(5):
        robot.disturb(k * 0.002)
    assert np.array_equal(robot.plant.truth().lin_vel_w, before)
    for k in (5, 6, 7):
        robot.disturb(k * 0.002)
    assert robot.plant.truth().lin_vel_w[:2] - before[:2] == pytest.approx(expected, abs=1e-4)


def test_payload_weighs_where_it_lies(spec):
    plants = [
        ScenarioRobot(spec, Scenario("p", disturbances=load), 0).plant
        for load in ((), (Disturbance("payload", mass=2.0, y=0.1),))
    ]
    masses = [plant.model.body_mass.sum() for plant in plants]
    assert masses[1] - masses[0] == pytest.approx(2.0)
    moments = []
    for plant in plants:
        plant.data.qpos[:7] = (0, 0, 1, 1, 0, 0, 0)
        mujoco.mj_forward(plant.model, plant.data)
        moments.append(plant.model.body_mass.sum() * plant.data.subtree_com[1, 1])
    assert moments[1] - moments[0] == pytest.approx(0.2, abs=0.01)


def test_states_come_late_or_not_at_all(spec, hold):
    late = ScenarioRobot(spec, Scenario("s", sensing=Sensing(delay=0.006)), 0)
    states = [late.advance(hold) for _ in range(10)]
    assert states[:3] == [None] * 3 and states[3].tick == states[4].tick - 2
    assert round(late.plant.time * 1000) + 1000 - states[-1].tick == 6
    lossy = ScenarioRobot(spec, Scenario("s", sensing=Sensing(dropout=0.3)), 0)
    assert 0.2 < np.mean([lossy.advance(hold) is None for _ in range(400)]) < 0.4


@pytest.fixture
def hold(spec):
    from sim2real_checks.scripted_trot import stand_command

    return stand_command(spec)


def test_motor_flaws_by_hand(spec):
    n, zero = spec.num_joints, np.zeros(spec.num_joints)
    ask = {"q": np.full(n, 0.1), "dq": zero, "kp": np.full(n, 40.0), "kd": np.full(n, 1.0), "tau": zero}

    def torque(dq: float = 0.0, error: float = 0.1, **flaws: object) -> float:
        motors = FlawedMotors(spec, Actuation(**flaws))
        motors.command(**{**ask, "q": np.full(n, error)})
        return float(motors.step(zero, np.full(n, dq))[0])

    assert torque() == pytest.approx(4.0) and torque(gain=0.5) == pytest.approx(2.0)
    assert torque(strength=0.9) == pytest.approx(3.6)
    assert torque(backlash=0.04) == pytest.approx(40.0 * 0.08) and torque(error=0.02, backlash=0.05) == 0.0
    fast, limit, speed = 0.85, float(spec.torque_limit[0]), float(spec.velocity_limit[0])
    # Half way between the corner at 60 % and the no-load speed at 110 % of the speed limit, half of the torque is left.
    assert torque(dq=fast * speed, error=9.0, torque_speed=True) == pytest.approx(0.5 * limit)
    assert torque(dq=-fast * speed, error=9.0, torque_speed=True) == pytest.approx(limit), "braking is not weakened"


@pytest.mark.parametrize(
    ("terrain", "at", "height"),
    [
        (Terrain("stairs", height=0.1, steps=3), 1.15, 0.1), (Terrain("stairs", height=0.1, steps=3), 5.0, 0.3),
        (Terrain("stairs", height=-0.05, steps=4), 1.45, -0.1), (Terrain("stairs", height=-0.05, steps=4), 0.5, 0.0),
        (Terrain(), 3.0, 0.0),
    ],
)  # fmt: skip
def test_the_ground_is_where_it_is_said_to_be(terrain, at, height):
    assert ground_height(terrain, at) == pytest.approx(height)
    assert ground_of(terrain, at) == pytest.approx(height, abs=1e-6)


def ground_of(terrain: Terrain, x: float, y: float = 0.0) -> float:
    """Height that a ray from above meets, the robot left out."""
    world = build_spec("go2")
    add_terrain(world, terrain, 0)
    model = world.compile()
    data = mujoco.MjData(model)
    data.qpos[:3] = (0.0, 50.0, 1.0)
    mujoco.mj_forward(model, data)
    hit = np.zeros(1, dtype=np.int32)
    distance = mujoco.mj_ray(model, data, np.array([x, y, 5.0]), np.array([0.0, 0.0, -1.0]), None, 1, -1, hit)
    return 5.0 - distance


@pytest.mark.parametrize(("heading", "x", "y"), [(0.0, 1.0, 0.0), (90.0, 0.0, 1.0), (180.0, -1.0, 0.0)])
def test_slopes_rise_where_they_head(heading, x, y):
    terrain = Terrain("slope", angle=15.0, heading=heading)
    assert ground_of(terrain, x, y) == pytest.approx(math.tan(math.radians(15.0)), abs=1e-6)
    assert slope_normal(terrain) @ (x, y, math.tan(math.radians(15.0))) == pytest.approx(0.0, abs=1e-9)


def test_rough_ground_is_rough_around_a_level_start():
    terrain = Terrain("rough", height=0.06, runway=1.0)
    assert ground_of(terrain, 0.1) == pytest.approx(0.0, abs=1e-4)
    heights = [ground_of(terrain, x) for x in np.arange(1.5, 4.0, 0.25)]
    assert max(np.abs(heights)) <= 0.03 + 1e-9 and np.std(heights) > 0.005


def test_the_seesaw_lies_on_the_ground_until_it_tips():
    terrain = Terrain("seesaw", height=0.08)
    assert ground_of(terrain, 1.05) < 0.04 < 0.1 < ground_of(terrain, 2.1)
