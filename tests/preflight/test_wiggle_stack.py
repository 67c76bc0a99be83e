"""Gate, monitors and motion of the wiggle against a simulated Go2 that lies or hangs, in simulated time."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from nfpo_deploy.types import GatePhase
from sim2real_checks.preflight import wiggle_motion
from sim2real_checks.preflight.finding import Result
from sim2real_checks.preflight.judge_wiggle import judge_start, judge_wiggle
from sim2real_checks.preflight.wiggle_motion import CORRIDOR, HELD, STIFFNESS, Motion, Turn, cautious, centre_of
from sim2real_checks.robot_sim.remote import Remote
from tests.preflight.wiggle_rig import SPEC, WELL, WiggleRig

PASS, WARN, FAIL = Result.PASS, Result.WARN, Result.FAIL
INDEX = {name: i for i, name in enumerate(SPEC.joint_names)}
CALVES = {name for name in SPEC.joint_names if "calf" in name}


def only(rig, *names):
    """Leave the turns of all other joints out."""
    motion, time, turns = rig.stack.motion, wiggle_motion.LEAD_S, []
    for name in names:
        turns.append(Turn(INDEX[name], time, motion.turns[INDEX[name]].reaches))
        time += turns[-1].length
    motion.turns, motion.duration = turns, time
    return rig


def judged(rig):
    return {f.check.removeprefix("wiggle "): f for f in judge_wiggle(rig.stack.motion.strokes, SPEC, rig.stack.stop)}


def test_a_sound_robot_that_lies_passes_within_narrow_limits(lying):
    rig = WiggleRig(pose=lying)
    assert judge_start([rig.state() for _ in range(50)], SPEC) == ""
    rig.run()
    assert rig.stack.stop is None and rig.stack.over
    results = {name: finding.result for name, finding in judged(rig).items()}
    # Folded calves lie on their stops and can only push against the ground.
    assert {name for name, result in results.items() if result is not PASS} <= CALVES
    assert set(results) == set(SPEC.joint_names) and FAIL not in results.values()
    q, stiffness = (np.array([getattr(c, name) for c in rig.commands[1:]]) for name in ("q", "stiffness"))
    assert stiffness.max() <= STIFFNESS and ((stiffness > HELD + 1e-9).sum(axis=1) <= 1).all()
    stiff = stiffness > 0.0
    assert (np.abs(q - centre_of(SPEC, rig.rest))[stiff]).max() <= wiggle_motion.REACH + 1e-9
    assert np.abs(np.diff(q, axis=0)[stiff[1:] & stiff[:-1]]).max() <= wiggle_motion.MOST_COMMAND_RATE * 0.002 + 1e-9
    assert not rig.commands[-1].stiffness.any() and rig.commands[-1].damping.all()


@pytest.mark.slow
def test_a_sound_robot_that_hangs_passes():
    rig = WiggleRig(hanging=True)
    rig.run()
    assert rig.stack.stop is None
    assert all(finding.result is PASS for finding in judged(rig).values()), judged(rig)


def test_a_dead_motor_and_a_blocked_joint_are_named(lying):
    rig = only(WiggleRig(pose=lying), "FR_hip_joint", "FR_thigh_joint", "FL_thigh_joint")
    rig.motors.factor[INDEX["FR_hip_joint"]] = 0.0
    rig.plant.lock([INDEX["FL_thigh_joint"]])
    rig.run()
    found = judged(rig)
    assert found["FR_hip_joint"].result is FAIL and "does not answer" in found["FR_hip_joint"].measured
    assert found["FR_thigh_joint"].result is PASS
    assert found["FL_thigh_joint"].result is FAIL and "the motor pushes" in found["FL_thigh_joint"].measured


def test_swapped_encoders_are_named_in_both_turns(lying):
    order = np.arange(12)
    order[[4, 10]] = order[[10, 4]]
    rig = only(WiggleRig(report=lambda values: values[order], pose=lying), "FL_thigh_joint", "RL_thigh_joint")
    rig.run()
    found = judged(rig)
    assert "RL_thigh_joint moved instead" in found["FL_thigh_joint"].measured
    assert "FL_thigh_joint moved instead" in found["RL_thigh_joint"].measured


def test_a_flipped_sign_is_named_and_the_joint_is_let_go(lying):
    name = "RR_hip_joint"
    sign = np.ones(12)
    sign[INDEX[name]] = -1.0
    rig = only(WiggleRig(report=lambda values: values * sign, pose=lying), name)
    before = rig.plant.q
    rig.run()
    found = judged(rig)[name]
    assert found.result is FAIL and "sign" in found.remedy, found
    # It was driven to its mirror image, and no farther than the gate's narrow range lets it run.
    assert np.abs(rig.plant.q - before).max() < CORRIDOR + 0.25


def in_turn(rig):
    return lambda: rig.stack.joint is not None and rig.stack.gate.phase is GatePhase.TRACKING


ENDINGS = {
    "emergency stop": ({"wireless_remote": Remote(buttons=frozenset({"L2", "B"})).to_bytes()}, {}, "L2+B held"),
    "tilt": ({"quat_wxyz": np.array([np.cos(0.25), np.sin(0.25), 0.0, 0.0])}, {}, "tilt 0.5"),
    "hot motor": ({"temperature": np.full(12, 90.0)}, {}, "motor_temperature"),
    "battery": ({"battery_soc": 3.0}, {}, "battery at 3 %"),
    "not a number": ({"q": np.full(12, np.nan)}, {}, "non-finite q"),
    "guards gone": ({}, {"guards_alive": 0}, "0 of 2 guards"),
    "a guard damps": ({}, {"guard_active": True}, "a guard damps"),
    "foreign commands": ({}, {"problem": "another program publishes rt/lowcmd"}, "another program"),
    "foreign DDS version": ({}, {"network_problem": "foreign DDS version"}, "foreign DDS version"),
    "operator": ({}, {"stop": "SIGINT received"}, "SIGINT received"),
}


@pytest.fixture(scope="module")
def lying():
    """State of a robot at rest, to start many rigs from."""
    rig = WiggleRig()
    return rig.plant.data.qpos.copy()


@pytest.fixture
def rig(lying):
    return only(WiggleRig(pose=lying), "FR_hip_joint")


@pytest.mark.parametrize("name", ENDINGS)
def test_what_forbids_it_keeps_it_from_starting(rig, name):
    state, around, said = ENDINGS[name]
    rig.run(10.0, around=replace(WELL, **around), **state)
    assert rig.stack.over and said in rig.stack.stop.reason, rig.stack.stop
    assert rig.stack.stop.joint is None and not any(command.stiffness.any() for command in rig.commands)


@pytest.mark.parametrize("name", ENDINGS)
def test_what_forbids_it_ends_it_in_damping(rig, name):
    rig.run(until=in_turn(rig))
    rig.run(0.7)
    assert rig.commands[-1].stiffness[0] > 20.0
    state, around, said = ENDINGS[name]
    begin = len(rig.commands)
    rig.run(3.0, around=replace(WELL, **around), **state)
    assert rig.stack.over and said in rig.stack.stop.reason and rig.stack.stop.joint == 0, rig.stack.stop
    # One permit and one report late at most, then the gate's own ramp.
    limp = begin + round((0.03 + SPEC.safety.damp_ramp) * 500)
    assert not any(command.stiffness.any() for command in rig.commands[limp:])
    assert all(command.damping.all() for command in rig.commands[limp:])


def test_silent_states_end_it_in_damping(rig):
    rig.run(until=in_turn(rig))
    rig.run(3.0, fresh=False)
    assert rig.stack.over and "robot state" in rig.stack.stop.reason and not rig.commands[-1].stiffness.any()


def test_it_waits_for_the_guards_and_gives_up(rig):
    rig.run(10.0, around=replace(WELL, guards_alive=1))
    assert rig.stack.over and "1 of 2 guards alive" in rig.stack.stop.reason


def test_a_robot_that_was_moved_after_it_was_looked_at_is_refused(rig):
    rig.rest = rig.rest + 0.2 * np.eye(12)[0]
    from sim2real_checks.preflight.wiggle_stack import WiggleStack

    rig.stack = WiggleStack(SPEC, rig.rest)
    rig.run(10.0)
    assert "start pose refused: FR_hip_joint" in rig.stack.stop.reason
    assert not any(command.stiffness.any() for command in rig.commands)


def test_no_limit_is_wider_than_the_robots_own():
    spec = cautious(SPEC, SPEC.crouch_pose)
    assert (spec.position_lower >= SPEC.position_lower).all() and (spec.position_upper <= SPEC.position_upper).all()
    assert (spec.velocity_limit <= SPEC.velocity_limit).all() and (spec.torque_limit == SPEC.torque_limit).all()
    assert (spec.max_gains.stiffness <= SPEC.max_gains.stiffness).all()
    assert (spec.max_gains.damping <= SPEC.max_gains.damping).all() and not spec.stand_gains.stiffness.any()
    changed = {n for n, value in vars(spec.safety).items() if value != getattr(SPEC.safety, n)}
    assert changed and all(getattr(spec.safety, name) < getattr(SPEC.safety, name) for name in changed)


def test_the_targets_of_a_joint_against_its_stop():
    rest = SPEC.crouch_pose.copy()
    rest[2] = SPEC.position_lower[2] - 0.01
    motion = Motion(SPEC, rest)
    assert motion.turns[2].reaches == (wiggle_motion.REACH,) and len(motion.turns[0].reaches) == 2
    turn = motion.turns[2]
    apex = turn.begin + wiggle_motion.FADE_S + wiggle_motion.HOLD_S + 0.5 * wiggle_motion.STROKE_S
    q, stiffness, damping = motion.target(apex)
    # 0.02 rad away from the stop, and 0.1 rad on.
    assert q[2] == pytest.approx(-2.7227 + 0.02 + 0.1) and stiffness[2] == 50.0 and damping[2] == 3.0
    assert stiffness[[0, 1, 3]].tolist() == [5.0, 5.0, 10.0] and damping[[0, 1, 3]].tolist() == [1.0, 1.0, 3.0]
    assert not motion.target(0.0)[1].any() and motion.turn_at(motion.duration) is None
