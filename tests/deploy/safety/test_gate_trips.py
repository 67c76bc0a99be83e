"""Everything that can go wrong in front of the gate: it ends in damping, with its reason, latched."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.types import GatePhase, Mode, SafetyPermit
from robots.loader import load_robot

NAN, INF = math.nan, math.inf
GO2 = load_robot("go2")
# Damping to its end is part of most tests here; its length is not what they are about.
SPEC = replace(GO2, safety=replace(GO2.safety, damp_duration=0.8))


@pytest.fixture
def spec():
    return SPEC


def tilted(angle: float) -> np.ndarray:
    return np.array([math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0])


def with_value(n: int, index: int, value: float, base=0.0) -> np.ndarray:
    array = np.array(base) * np.ones(n)
    array[index] = value
    return array


def assert_damps_and_stays(rig, spec, mode: Mode, reason: str) -> None:
    """Tripped for this reason; damping along the ramp, then zero torque; nothing resumes while `mode` goes on."""
    gate, safety = rig.gate, spec.safety
    assert gate.tripped and reason in gate.reason, gate.reason
    assert gate.phase is GatePhase.DAMPING
    rig.state_changes, rig.send_state, rig.send_permit, rig.send_command = {}, True, True, True
    first = gate.reason
    outs = rig.run(mode, safety.damp_ramp + 0.01)
    stiffness = np.array([out.stiffness[0] for out in outs])
    assert np.all(np.diff(stiffness) <= 1e-12) and stiffness[-1] == 0.0
    assert np.max(-np.diff(stiffness)) <= 1.01 * spec.stand_gains.stiffness[0] * 0.002 / safety.damp_ramp
    assert not outs[-1].tau.any() and not outs[-1].dq.any()
    np.testing.assert_array_equal(outs[-1].damping, spec.damp_gains.damping)
    out = rig.run(mode, safety.damp_duration)[-1]
    assert gate.phase is GatePhase.ZERO_TORQUE and not out.damping.any() and not out.stiffness.any()
    assert gate.tripped and gate.reason == first == gate.last_trip
    # Every motion mode is as useless as the one before, until DAMP was permitted.
    for other in (Mode.WALK, Mode.READY, Mode.SIT, Mode.STAND):
        assert not any(out.stiffness.any() for out in rig.run(other, 0.1))
    assert gate.tripped
    rig.run(Mode.DAMP, 0.05)
    assert not gate.tripped and gate.reason == "mode DAMP"
    rig.run(Mode.STAND, 0.2)
    assert gate.phase is GatePhase.RAMPING


def bad_states(spec):
    n = spec.num_joints
    over_speed = spec.safety.joint_velocity * spec.velocity_limit[2] + 0.1
    return {
        "nan position": ({"q": with_value(n, 3, NAN)}, 0.01, "non-finite q"),
        "infinite speed": ({"dq": with_value(n, 3, INF)}, 0.01, "non-finite dq"),
        "nan torque": ({"tau_est": with_value(n, 0, NAN)}, 0.01, "non-finite tau_est"),
        "nan gyro": ({"gyro_b": np.full(3, NAN)}, 0.01, "non-finite gyro_b"),
        "nan accelerometer": ({"accel_b": np.full(3, NAN)}, 0.01, "non-finite accel_b"),
        "nan quaternion": ({"quat_wxyz": np.full(4, NAN)}, 0.01, "non-finite quat"),
        "zero quaternion": ({"quat_wxyz": np.zeros(4)}, 0.01, "not a unit quaternion"),
        "wrong length": ({"q": np.zeros(n + 1)}, 0.01, "q has shape (13,), expected 12"),
        "scalar": ({"dq": 0.0}, 0.01, "dq has shape float"),
        "absurd position": ({"q": with_value(n, 3, 1e9)}, 0.01, "beyond anything"),
        "tilt": ({"quat_wxyz": tilted(1.05)}, 0.01, "tilt 1.05 rad exceeds 1"),
        "position": ({"q": with_value(n, 0, 1.07, spec.default_pose)}, 0.1, "FR_hip_joint: position 1.07 rad"),
        "speed": ({"dq": with_value(n, 2, -over_speed)}, 0.1, "FR_calf_joint: velocity -15.0"),
        "torque": ({"tau_est": with_value(n, 5, 45.5)}, 0.6, "FL_calf_joint: torque saturated at 45.50"),
    }


@pytest.mark.parametrize("mode", [Mode.READY, Mode.WALK])
@pytest.mark.parametrize("fault", list(bad_states(SPEC)))
def test_bad_state_trips(rig, spec, fault, mode):
    changes, seconds, reason = bad_states(spec)[fault]
    rig.stand() if mode is Mode.READY else rig.walk()
    rig.state_changes = changes
    rig.run(mode, seconds)
    assert_damps_and_stays(rig, spec, mode, reason)


def test_stand_waits_until_stiffness_has_faded(rig, spec):
    rig.stand()
    rig.run(Mode.DAMP, 0.05)
    fading = rig.run(Mode.STAND, spec.safety.damp_ramp - 0.06)
    assert rig.gate.phase is GatePhase.DAMPING and rig.gate.reason == "damping before standing up"
    assert np.all(np.diff([out.stiffness[0] for out in fading]) < 0)
    rig.run(Mode.STAND, 0.1)
    assert rig.gate.phase is GatePhase.RAMPING and rig.gate.reason == ""


@pytest.mark.parametrize("fault", ["position", "speed"])
def test_short_excess_does_not_trip(rig, spec, fault):
    changes, _, _ = bad_states(spec)[fault]
    rig.walk()
    for _ in range(20):
        rig.state_changes = changes
        rig.run(Mode.WALK, 0.016)
        rig.state_changes = {}
        rig.run(Mode.WALK, 0.004)
    assert not rig.gate.tripped


@pytest.mark.parametrize("fault", ["position", "speed", "torque"])
def test_lasting_excess_trips_at_its_time(rig, spec, fault):
    rig.walk()
    rig.state_changes = bad_states(spec)[fault][0]
    safety = spec.safety
    duration = safety.torque_duration if fault == "torque" else safety.joint_trip_duration
    rig.run(Mode.WALK, duration - 0.002)
    assert not rig.gate.tripped
    rig.run(Mode.WALK, 0.006)
    assert rig.gate.tripped


def test_blocked_leg_trips_by_the_torque_that_was_asked(rig, spec):
    """tau_est reads zero (a robot that does not report it), but the target stays out of reach."""
    rig.walk()
    rig.state_changes = {"q": spec.default_pose}
    rig.run(Mode.WALK, 0.7, q=spec.default_pose + 1.2, stiffness=np.full(12, 60.0))
    assert_damps_and_stays(rig, spec, Mode.WALK, "torque saturated")


def test_stale_state_trips_at_its_timeout(rig, spec):
    rig.walk()
    rig.send_state = False
    rig.run(Mode.WALK, spec.safety.state_timeout)
    assert not rig.gate.tripped
    rig.step(Mode.WALK)
    assert_damps_and_stays(rig, spec, Mode.WALK, "robot state stale for 22 ms")


def test_frozen_tick_is_stale_even_when_messages_go_on(rig, spec):
    rig.walk()
    rig.state_changes = {"tick": rig.tick}
    rig.run(Mode.WALK, spec.safety.state_timeout + 0.004)
    assert_damps_and_stays(rig, spec, Mode.WALK, "frozen at tick")


def test_state_from_the_future_trips(rig, spec):
    rig.walk()
    rig.state_changes = {"received_ns": rig.now + 50_000_000}
    rig.step(Mode.WALK)
    assert_damps_and_stays(rig, spec, Mode.WALK, "from the future")


@pytest.mark.parametrize("mode", [Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT])
def test_stale_permit_trips_in_every_motion(rig, spec, mode):
    if mode is Mode.STAND:
        rig.run(Mode.DAMP, 0.1)
        rig.run(Mode.STAND, 1.0)
    else:
        rig.walk() if mode is Mode.WALK else rig.stand()
        rig.run(mode, 0.1)
    rig.send_permit = False
    rig.run(mode, spec.safety.permit_timeout - 0.02)
    assert not rig.gate.tripped
    rig.run(mode, 0.03)
    assert_damps_and_stays(rig, spec, mode, "permit stale")


def test_repeated_permit_is_no_fresh_permit(rig, spec):
    rig.walk()
    rig.send_permit = False
    for _ in range(60):
        rig.permit, rig.permit_ns = SafetyPermit(rig.permit.seq, Mode.WALK), rig.now
        rig.step(Mode.WALK)
    assert_damps_and_stays(rig, spec, Mode.WALK, "permit stale")


@pytest.mark.parametrize(
    ("permit", "reason"),
    [
        (SafetyPermit(1, Mode.WALK), "permit out of order: seq 1"),
        (SafetyPermit(10**6, 17), "unknown mode 17"),
        (None, "no permit received"),
    ],
)
def test_wrong_permit_trips(rig, spec, permit, reason):
    rig.walk()
    rig.send_permit = False
    rig.permit = permit
    rig.step(Mode.WALK)
    rig.seq += 2 * 10**6
    assert_damps_and_stays(rig, spec, Mode.WALK, reason)


def test_two_watchdogs_with_the_same_counter_trip(rig, spec):
    rig.walk()
    rig.permit = SafetyPermit(rig.permit.seq, Mode.READY)
    rig.gate.step(rig.now + 1, rig.last_state, rig.permit, rig.now, rig.command, rig.command_ns)
    assert_damps_and_stays(rig, spec, Mode.WALK, "two permits with seq")


@pytest.mark.parametrize(("mode", "step"), [(Mode.READY, 10**6), (Mode.WALK, 102)])
def test_second_watchdog_that_is_ahead_is_not_obeyed_for_one_cycle(rig, spec, mode, step):
    rig.walk()
    rig.permit = SafetyPermit(rig.permit.seq + step, mode)
    rig.gate.step(rig.now + 1, rig.last_state, rig.permit, rig.now, rig.command, rig.command_ns)
    assert rig.gate.phase is GatePhase.DAMPING
    assert_damps_and_stays(rig, spec, Mode.WALK, "permit ahead of order: seq")


def test_permits_that_were_lost_within_the_timeout_are_not_missed(rig):
    rig.walk()
    # The fastest watchdog sends one a millisecond, and they may be missed for 100 ms.
    rig.seq += 99
    rig.run(Mode.WALK, 0.1)
    assert rig.gate.phase is GatePhase.TRACKING, rig.gate.reason


def test_stopping_permit_is_obeyed_however_far_ahead_and_those_after_it_count_from_there(rig):
    rig.walk()
    rig.seq += 10**6
    rig.run(Mode.DAMP, 0.1)
    assert rig.gate.phase is GatePhase.DAMPING and not rig.gate.tripped
    rig.run(Mode.STAND, 0.1)
    assert rig.gate.phase is GatePhase.RAMPING


def test_restarted_watchdog_counts_from_zero_in_damp(rig, spec):
    rig.walk()
    rig.seq = 0
    rig.run(Mode.DAMP, 0.1)
    assert rig.gate.phase is GatePhase.DAMPING and rig.gate.reason == "mode DAMP" and not rig.gate.tripped
    rig.run(Mode.STAND, 0.1)
    assert rig.gate.phase is GatePhase.RAMPING


def test_late_command_trips_at_its_timeout(rig, spec):
    rig.walk()
    rig.send_command = False
    age = (rig.now - rig.command_ns) * 1e-9
    rig.run(Mode.WALK, spec.safety.command_timeout - age)
    assert not rig.gate.tripped
    rig.step(Mode.WALK)
    assert_damps_and_stays(rig, spec, Mode.WALK, "joint command stale for 62 ms")


def bad_commands(now, spec):
    n = spec.num_joints
    return {
        "nan target": ({"q": with_value(n, 1, NAN)}, "non-finite q"),
        "nan speed": ({"dq": np.full(n, NAN)}, "non-finite dq"),
        "infinite torque": ({"tau": np.full(n, INF)}, "non-finite tau"),
        "nan stiffness": ({"stiffness": np.full(n, NAN)}, "non-finite stiffness"),
        "too stiff": ({"stiffness": with_value(n, 0, 100.5, 25.0)}, "gains outside"),
        "negative damping": ({"damping": with_value(n, 0, -0.1, 0.6)}, "gains outside"),
        "too fast": ({"dq": with_value(n, 2, 16.0)}, "target speed beyond"),
        "short": ({"q": np.zeros(n - 1)}, "q has shape (11,), expected 12"),
        "matrix": ({"tau": np.zeros((n, 1))}, "tau has shape (12, 1)"),
        "list": ({"q": [0.0] * n}, "q has shape list"),
        "text": ({"q": np.array(["a"] * n)}, "q has shape (12,), expected 12 numbers"),
        "out of order": ({"seq": 1}, "out of order: seq 1 after"),
        "future": ({"state_received_ns": now + 10**9}, "from the future"),
        "old state": ({"state_received_ns": now - 10**8}, "answers a state that was 100 ms old"),
    }


@pytest.mark.parametrize("fault", list(bad_commands(0, SPEC)))
def test_bad_command_is_refused_at_once(rig, spec, fault):
    rig.walk()
    changes, reason = bad_commands(rig.now, spec)[fault]
    rig.seq += 1
    rig.command, rig.command_ns = rig.make_command(**changes), rig.now
    rig.send_command = False
    rig.step(Mode.WALK)
    rig.seq += 10
    assert_damps_and_stays(rig, spec, Mode.WALK, reason)


def test_bad_command_does_not_matter_before_walking(rig):
    rig.stand()
    rig.run(Mode.READY, 0.2, q=np.full(12, NAN))
    assert rig.gate.phase is GatePhase.HOLDING and not rig.gate.tripped


def test_repeated_command_ages(rig, spec):
    rig.walk()
    rig.send_command = False
    for _ in range(40):
        rig.command, rig.command_ns = replace(rig.command), rig.now
        rig.step(Mode.WALK)
    assert_damps_and_stays(rig, spec, Mode.WALK, "joint command stale")


JUMPS = [
    ([], Mode.READY), ([], Mode.WALK), ([], Mode.SIT),
    ([(Mode.STAND, 1.0)], Mode.WALK),
    ([(Mode.STAND, 2.8), (Mode.READY, 0.1), (Mode.WALK, 0.1)], Mode.STAND),
    ([(Mode.STAND, 2.8), (Mode.READY, 0.1), (Mode.WALK, 0.1)], Mode.SIT),
    ([(Mode.STAND, 2.8), (Mode.SIT, 1.0)], Mode.WALK),
    ([(Mode.STAND, 2.8), (Mode.SIT, 1.0)], Mode.READY),
    ([(Mode.STAND, 2.8), (Mode.SIT, 1.0)], Mode.STAND),
    ([(Mode.STAND, 2.8), (Mode.SIT, 2.8)], Mode.STAND),
]  # fmt: skip


@pytest.mark.parametrize(("before", "jump"), JUMPS)
def test_permit_that_jumps_trips(rig, before, jump):
    rig.run(Mode.DAMP, 0.2)
    for mode, seconds in before:
        rig.run(mode, seconds)
    assert not rig.gate.tripped
    outs = rig.run(jump, 0.3)
    assert rig.gate.tripped and f"permit jumped to {jump.name}" in rig.gate.reason
    assert rig.gate.phase is GatePhase.DAMPING and not outs[-1].stiffness.any()


def test_trip_does_not_clear_while_the_robot_is_not_well(rig):
    rig.stand()
    rig.state_changes = {"quat_wxyz": tilted(1.5)}
    rig.run(Mode.READY, 0.01)
    for mode in (Mode.FAULT, Mode.DAMP):
        rig.run(mode, 0.2)
        assert rig.gate.tripped and "tilt" in rig.gate.reason
    rig.send_state = False
    rig.run(Mode.DAMP, 0.2)
    assert rig.gate.tripped and "tilt" in rig.gate.reason, "the first cause stays"
    rig.send_state, rig.state_changes = True, {}
    rig.run(Mode.DAMP, 0.05)
    assert not rig.gate.tripped and "tilt" in rig.gate.last_trip


@pytest.mark.parametrize("mode", [Mode.DAMP, Mode.FAULT])
def test_damp_and_fault_permits_damp_without_a_trip(rig, mode):
    rig.walk()
    outs = rig.run(mode, 0.3)
    assert rig.gate.phase is GatePhase.DAMPING and not rig.gate.tripped
    assert rig.gate.reason == f"mode {mode.name}" and not outs[-1].stiffness.any()


def test_start_pose_is_checked(rig, spec):
    rig.q = (spec.crouch_pose + spec.default_pose) / 2
    rig.q[0] += 1.05
    rig.run(Mode.DAMP, 0.1)
    outs = rig.run(Mode.STAND, 0.2)
    assert rig.gate.tripped and "start pose refused: FR_hip_joint is 1.0" in rig.gate.reason
    assert not any(out.stiffness.any() for out in outs)


@pytest.mark.parametrize("changes", [{"quat_wxyz": tilted(1.2)}, {"dq": np.full(12, 20.0)}, {"q": np.full(12, NAN)}])
def test_stand_is_refused_while_the_robot_is_not_well(rig, changes):
    rig.run(Mode.DAMP, 0.1)
    rig.state_changes = changes
    outs = rig.run(Mode.STAND, 0.2)
    assert rig.gate.tripped and not any(out.stiffness.any() for out in outs)


def test_stand_that_does_not_get_there_trips(rig, spec):
    rig.run(Mode.DAMP, 0.1)
    held = spec.crouch_pose.copy()
    rig.state_changes = {"q": held}
    # Weak enough not to saturate: the pose itself must be noticed.
    held[:] = spec.default_pose
    held[4] += 0.36
    rig.run(Mode.STAND, spec.safety.stand_duration + spec.safety.pose_timeout + 0.1)
    assert rig.gate.tripped and "stand-up failed: FL_thigh_joint is 0.36 rad away" in rig.gate.reason
    assert not rig.gate.stand_reached


def test_damping_after_loss_of_everything_follows_the_clock(rig, spec):
    rig.walk()
    for k in range(1, 40):
        out = rig.gate.step(rig.now + k * 10_000_000, None, None, None, None, None)
        assert rig.gate.phase is GatePhase.DAMPING
        if k * 0.01 > spec.safety.damp_ramp + 0.02:
            assert not out.stiffness.any() and out.damping.all()
    end = rig.now + round((spec.safety.damp_ramp + spec.safety.damp_duration + 0.1) * 1e9)
    assert not rig.gate.step(end, None, None, None, None, None).damping.any()


def test_clock_that_goes_back_trips(rig, spec):
    rig.walk()
    rig.gate.step(rig.now - 10**7, rig.last_state, rig.permit, rig.permit_ns, rig.command, rig.command_ns)
    assert rig.gate.tripped and "clock went backwards" in rig.gate.reason


def test_inputs_of_a_wrong_type_damp_instead_of_raising(rig, spec):
    rig.walk()
    out = rig.gate.step(rig.now + 2_000_000, "a state", rig.permit, rig.permit_ns, rig.command, rig.command_ns)
    assert "internal error" in rig.gate.reason and not out.stiffness.any()
    np.testing.assert_array_equal(out.damping, spec.damp_gains.damping)
    assert not rig.step(Mode.WALK).stiffness.any(), "stiffness must not come back"
    assert_damps_and_stays(rig, spec, Mode.WALK, "internal error")


def test_permit_to_stand_without_any_state_moves_nothing(rig):
    rig.send_state = False
    for out in rig.run(Mode.STAND, 0.2):
        assert not any(np.any(x) for x in (out.q, out.dq, out.stiffness, out.damping, out.tau))
    assert rig.gate.tripped and not rig.gate.write
