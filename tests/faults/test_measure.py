"""Numbers from records whose answer is known by construction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sim2real_checks.faults.lowcmds import MeasureError, lowcmds_of, window, writer_of
from sim2real_checks.faults.measure import find_reaction, first_row_beyond, measure_motion

FAULT_MS = 1000.0


def reaction_ms(record: Any, fault_ms: float = FAULT_MS) -> dict[str, float | None]:
    found = find_reaction(lowcmds_of(record.columns()), record.ns(fault_ms), record.spec)
    return {
        name: None if ns is None else (ns - record.ns(fault_ms)) * 1e-6
        for name, ns in (("damp", found.damp_ns), ("stand", found.stand_ns), ("sit", found.sit_ns))
    }


def test_a_robot_that_goes_on_has_no_reaction(hand_made):
    assert reaction_ms(hand_made) == {"damp": None, "stand": None, "sit": None}


@pytest.mark.parametrize("late_ms", [4.0, 60.0, 132.0])
def test_the_first_falling_command_is_the_reaction(hand_made, late_ms):
    hand_made.damp(FAULT_MS + late_ms)
    # At the very start of the ramp the stiffness is still whole: the next LowCmd, 2 ms later, is lower.
    assert reaction_ms(hand_made)["damp"] == pytest.approx(late_ms + 2.0)


def test_stiffness_that_ends_in_one_step_counts_from_that_step(hand_made):
    hand_made.kp[hand_made.row(FAULT_MS + 30) :] = 0.0
    assert reaction_ms(hand_made)["damp"] == pytest.approx(30.0)


def test_after_a_silence_the_first_command_of_the_guard_is_the_reaction(hand_made):
    hand_made.silent(FAULT_MS, FAULT_MS + 56)
    hand_made.damp(FAULT_MS + 54)
    assert reaction_ms(hand_made)["damp"] == pytest.approx(56.0)


def test_a_single_bounded_command_is_no_reaction(hand_made):
    hand_made.kp[hand_made.row(FAULT_MS + 10)] = 40.0
    hand_made.damp(FAULT_MS + 80)
    assert reaction_ms(hand_made)["damp"] == pytest.approx(82.0)


def test_a_descent_that_does_not_reach_zero_is_no_damping(hand_made):
    hand_made.damp(FAULT_MS + 10)
    hand_made.kp[hand_made.row(FAULT_MS + 100) :] = 60.0
    assert reaction_ms(hand_made)["damp"] is None


def test_stiffness_that_comes_back_is_counted(hand_made, spec):
    hand_made.damp(FAULT_MS + 10)
    hand_made.kp[hand_made.row(FAULT_MS + 400) : hand_made.row(FAULT_MS + 404)] = 60.0
    found = find_reaction(lowcmds_of(hand_made.columns()), hand_made.ns(FAULT_MS), spec)
    assert found.damp_ns == hand_made.ns(FAULT_MS + 12) and found.stiff_again == 2


def test_a_robot_that_was_sitting_down_already_has_no_reaction_until_it_is_damped(hand_made, spec):
    s = np.clip((hand_made.time * 1000 - 100.0) / 2500.0, 0.0, 1.0)
    hand_made.command_q = spec.default_pose + (3 * s**2 - 2 * s**3)[:, None] * (spec.crouch_pose - spec.default_pose)
    assert reaction_ms(hand_made) == {"damp": None, "stand": None, "sit": None}
    hand_made.damp(FAULT_MS + 20)
    assert reaction_ms(hand_made) == {"damp": pytest.approx(22.0), "stand": None, "sit": None}


def test_the_swing_of_a_walk_is_no_sitting_down(hand_made):
    hand_made.kp[:] = 25.0
    hand_made.command_q += 0.2 * np.sin(2 * np.pi * 2.0 * hand_made.time)[:, None]
    assert reaction_ms(hand_made) == {"damp": None, "stand": None, "sit": None}


def test_a_descent_before_the_fault_is_none_of_its_doing(hand_made):
    hand_made.damp(500.0)
    assert reaction_ms(hand_made)["damp"] is None


def test_walking_that_ends_in_standing(hand_made, spec):
    hand_made.kp[:] = 25.0
    since = np.clip((hand_made.time * 1000 - (FAULT_MS + 90)) / 300.0, 0.0, 1.0)
    hand_made.kp += 35.0 * since
    found = reaction_ms(hand_made)
    assert found["stand"] == pytest.approx(92.0) and found["damp"] is None


def test_standing_and_damping_after_it_are_both_found(hand_made):
    hand_made.kp[:] = 25.0
    hand_made.kp += 35.0 * np.clip((hand_made.time * 1000 - (FAULT_MS + 90)) / 300.0, 0.0, 1.0)
    hand_made.damp(FAULT_MS + 600)
    found = reaction_ms(hand_made)
    assert found["stand"] == pytest.approx(92.0)
    assert found["damp"] == pytest.approx(602.0)


def test_sitting_down_begins_when_the_target_leaves_the_pose(hand_made, spec):
    s = np.clip((hand_made.time * 1000 - (FAULT_MS + 40)) / 2500.0, 0.0, 1.0)
    smooth = (3 * s**2 - 2 * s**3)[:, None]
    hand_made.command_q = spec.default_pose + smooth * (spec.crouch_pose - spec.default_pose)
    found = reaction_ms(hand_made)
    assert found["sit"] == pytest.approx(42.0, abs=2.1)
    assert found["damp"] is None


def test_motion_by_hand(hand_made, spec):
    hand_made.damp(FAULT_MS + 10)
    hand_made.joint_speed[hand_made.row(600), 2] = -3.0
    hand_made.joint_speed[hand_made.row(1200), 4] = -7.5
    hand_made.vertical_speed[hand_made.row(1210)] = -0.9
    hand_made.vertical_speed[hand_made.row(900)] = -1.4
    hand_made.lies_from(1500)
    hand_made.tilt[-1] = 0.3
    columns = hand_made.columns()
    columns["torque"][hand_made.row(1300), 0] = -0.5 * spec.torque_limit[0]
    columns["torque"][hand_made.row(800), 0] = spec.torque_limit[0]
    columns["foot_force"][hand_made.row(1250), 1] = 210.0
    commands = lowcmds_of(columns)
    reaction = find_reaction(commands, hand_made.ns(FAULT_MS), spec)
    motion = measure_motion(columns, commands, hand_made.ns(FAULT_MS), reaction.first_ns, spec)
    assert motion.peak_speed == 7.5 and motion.peak_speed_joint == spec.joint_names[4]
    assert motion.peak_speed_before == 3.0
    assert motion.peak_torque == pytest.approx(0.5)
    assert motion.fall_speed == 0.9
    assert motion.foot_force == 210.0
    assert motion.final_height == 0.08 and motion.final_tilt == pytest.approx(0.3)
    assert motion.final_stiffness == 0.0 and motion.final_joint_speed == 0.0
    assert motion.gap_max == pytest.approx(0.002)


@pytest.mark.parametrize(("moves_at_ms", "expected"), [(1650, 2.3), (1750, 0.0), (1200, 0.0)])
def test_rest_is_looked_for_while_the_motors_still_damp(hand_made, spec, moves_at_ms, expected):
    hand_made.damp(FAULT_MS + 10)
    hand_made.kd[hand_made.row(1700) :] = 0.0
    hand_made.joint_speed[hand_made.row(moves_at_ms), 6] = 2.3
    columns = hand_made.columns()
    motion = measure_motion(columns, lowcmds_of(columns), hand_made.ns(FAULT_MS), hand_made.ns(FAULT_MS + 12), spec)
    assert motion.final_joint_speed == expected and motion.peak_speed == 2.3


def test_silence_is_measured_as_long_as_it_lasts(hand_made, spec):
    hand_made.silent(FAULT_MS + 1, 2000.0)
    columns = hand_made.columns()
    commands = lowcmds_of(columns)
    motion = measure_motion(columns, commands, hand_made.ns(FAULT_MS), None, spec)
    assert motion.gap_max == pytest.approx(0.999)
    assert motion.stiff_gap_max == pytest.approx(0.999)


def test_silence_with_limp_motors_is_no_stiff_silence(hand_made, spec):
    hand_made.damp(FAULT_MS + 10)
    hand_made.silent(FAULT_MS + 300, 2000.0)
    columns = hand_made.columns()
    motion = measure_motion(columns, lowcmds_of(columns), hand_made.ns(FAULT_MS), hand_made.ns(FAULT_MS + 12), spec)
    assert motion.stiff_gap_max == pytest.approx(0.002)


def test_a_late_simulator_is_noticed(hand_made, spec):
    hand_made.wall_ns[hand_made.row(FAULT_MS + 20) :] += 30_000_000
    columns = hand_made.columns()
    motion = measure_motion(columns, lowcmds_of(columns), hand_made.ns(FAULT_MS), hand_made.ns(FAULT_MS + 40), spec)
    assert motion.lag_max == pytest.approx(0.030)


def test_the_moment_a_limit_breaks(hand_made, spec):
    hand_made.tilt[hand_made.row(1234) :] = spec.safety.tilt + 0.01
    columns = hand_made.columns()
    assert first_row_beyond(columns, "tilt", hand_made.ns(FAULT_MS), spec) == hand_made.ns(1234)
    assert first_row_beyond(columns, "joint_speed", hand_made.ns(FAULT_MS), spec) is None


def with_log(record: Any) -> dict[str, np.ndarray]:
    """The same record with a log of LowCmds, in which a foreign program and a guard speak, too."""
    columns = record.columns()
    rows = np.flatnonzero(record.sent)
    columns["lowcmd_writers"] = np.array(["nfpo-bridge 77 1", "", "nfpo-guard 78 1"])
    columns["lowcmd_log_ns"] = record.wall_ns[rows]
    columns["lowcmd_log_writer"] = np.zeros(len(rows), dtype=np.uint8)
    columns["lowcmd_log_fate"] = np.zeros(len(rows), dtype=np.uint8)
    columns["lowcmd_log_kp_sum"] = (12 * record.kp[rows]).astype(np.float32)
    columns["lowcmd_log_kd_sum"] = (12 * record.kd[rows]).astype(np.float32)
    return columns


def test_the_log_names_who_reacted(hand_made, spec):
    hand_made.silent(FAULT_MS, FAULT_MS + 56)
    hand_made.damp(FAULT_MS + 54)
    columns = with_log(hand_made)
    columns["lowcmd_log_writer"][columns["lowcmd_log_ns"] > hand_made.ns(FAULT_MS)] = 2
    found = find_reaction(lowcmds_of(columns), hand_made.ns(FAULT_MS), spec)
    assert found.writer == "guard"
    assert found.damp_ns == hand_made.ns(FAULT_MS + 56)


def test_commands_of_others_and_ignored_ones_do_not_count(hand_made):
    columns = with_log(hand_made)
    columns["lowcmd_log_writer"][10] = 1
    columns["lowcmd_log_fate"][20] = 1
    commands = lowcmds_of(columns)
    assert len(commands) == hand_made.sent.sum() - 2
    assert set(commands.writer) == {"bridge"}


def test_a_window_cuts_rows_and_log_alike(hand_made):
    part = window(with_log(hand_made), hand_made.ns(500), hand_made.ns(600))
    assert part["wall_ns"][0] == hand_made.ns(500) and len(part["wall_ns"]) == 100
    assert len(part["lowcmd_log_ns"]) == 50 and len(part["lowcmd_writers"]) == 3


@pytest.mark.parametrize(
    ("user_data", "role"),
    [("nfpo-bridge 1 2", "bridge"), ("nfpo-guard 1 2", "guard"), ("", "foreign"), ("x", "foreign")],
)
def test_writers_are_known_by_what_they_say(user_data, role):
    assert writer_of(user_data) == role


def test_an_empty_record_is_refused(hand_made):
    with pytest.raises(MeasureError, match="0 rows"):
        lowcmds_of(window(hand_made.columns(), 0, 1))


def test_a_record_that_ends_before_the_fault_is_refused(hand_made, spec):
    columns = hand_made.columns()
    with pytest.raises(MeasureError, match="before the fault"):
        measure_motion(columns, lowcmds_of(columns), hand_made.ns(1e6), None, spec)
    assert math.isclose(hand_made.time[-1], 1.999)
