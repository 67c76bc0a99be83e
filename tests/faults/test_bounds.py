"""Bounds of LowCmds: a record that keeps them, and records that break exactly one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim2real_checks.faults.bounds import Bounds, check_bounds
from sim2real_checks.robot_sim.lowcmd_log import HEARD, LOST

KINDS = ("nonfinite", "position", "gains", "rate", "torque")


def bounds_of(record: Any, columns: dict[str, np.ndarray] | None = None, **options) -> Bounds:
    return check_bounds(columns or record.columns(), record.spec, record.ns(200), record.ns(1900), **options)


def broken(bounds: Bounds) -> set[str]:
    return {kind for kind in KINDS if getattr(bounds, kind)}


def test_a_sound_record_breaks_nothing(hand_made):
    hand_made.damp(1000.0)
    bounds = bounds_of(hand_made)
    assert bounds.violations == 0 and not bounds.worst
    assert bounds.commands == 851 and bounds.unseen == 0


def test_commands_that_no_row_shows_are_counted(hand_made):
    columns = hand_made.columns()
    columns["lowcmd_count"][hand_made.row(800) :] += 3
    assert bounds_of(hand_made, columns).unseen == 3


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("nonfinite", "command_tau", np.nan),
        ("position", "command_q", -0.80),  # the calf ends at -0.838
        ("gains", "command_kp", 101.0),
        ("gains", "command_kd", 8.5),
        ("gains", "command_kd", -0.1),
    ],
)
def test_one_bad_number_is_found_and_named(hand_made, kind, column, value):
    columns = hand_made.columns()
    rows = slice(hand_made.row(1000), hand_made.row(1002))
    columns[column][rows, 2] = value
    bounds = bounds_of(hand_made, columns)
    assert kind in broken(bounds)
    assert any("first at 1.000 s" in text for text in bounds.worst)


def test_a_bad_number_outside_the_span_is_not_looked_at(hand_made):
    columns = hand_made.columns()
    columns["command_kp"][: hand_made.row(100)] = 500.0
    assert bounds_of(hand_made, columns).violations == 0


def test_a_position_without_stiffness_pulls_nothing(hand_made):
    hand_made.kp[:] = 0.0
    hand_made.command_q[:] = 0.0
    assert bounds_of(hand_made).position == 0


def test_targets_may_move_as_fast_as_command_rate_and_no_faster(hand_made, spec):
    # One step of the gate covers at most two of its periods, 4 ms.
    largest = spec.safety.command_rate * 0.004
    hand_made.command_q[hand_made.row(1000) :, 1] += 0.99 * largest
    assert bounds_of(hand_made).rate == 0
    hand_made.command_q[hand_made.row(1500) :, 1] += 1.02 * largest
    assert bounds_of(hand_made).rate == 1


def test_torque_beyond_the_limit_in_every_state_it_may_have_seen(hand_made, spec):
    # 60 N·m/rad times 0.45 rad is 27 N·m: more than the 23.7 N·m of a hip and all noise together.
    hand_made.joint_offset[hand_made.row(1000) :, 0] = 0.45
    bounds = bounds_of(hand_made)
    # For 20 ms the gate may have seen the state from before.
    assert bounds.torque == pytest.approx((900 - 20) / 2, abs=1)
    assert broken(bounds) == {"torque"}


def test_torque_within_the_limit_for_the_newest_state_that_was_there(hand_made):
    hand_made.joint_offset[hand_made.row(1000) : hand_made.row(1010), 0] = 0.45
    assert bounds_of(hand_made).torque == 0


def test_torque_is_not_judged_once_the_state_lies(hand_made):
    hand_made.joint_offset[hand_made.row(1000) :, 0] = 0.45
    assert bounds_of(hand_made, torque_until_ns=hand_made.ns(990)).torque == 0


def test_another_program_is_not_held_to_our_bounds(hand_made):
    columns = hand_made.columns()
    row = hand_made.row(1000)
    columns["command_kp"][row : row + 2] = 500.0
    columns["lowcmd_writers"] = np.array(["nfpo-bridge 1 1", ""])
    ns = hand_made.wall_ns[hand_made.sent]
    columns["lowcmd_log_ns"] = ns
    columns["lowcmd_log_writer"] = (ns == hand_made.ns(1000)).astype(np.uint8)
    columns["lowcmd_log_fate"] = np.zeros(len(ns), dtype=np.uint8)
    assert bounds_of(hand_made, columns).gains == 0
    columns["lowcmd_log_writer"][:] = 0
    assert bounds_of(hand_made, columns).gains == 1


def test_the_step_back_from_another_programs_target_is_not_ours(hand_made):
    columns = hand_made.columns()
    row = hand_made.row(1000)
    columns["command_q"][row : row + 2, 1] += 0.3
    columns["lowcmd_writers"] = np.array(["nfpo-bridge 1 1", ""])
    ns = hand_made.wall_ns[hand_made.sent]
    columns["lowcmd_log_ns"], columns["lowcmd_log_fate"] = ns, np.zeros(len(ns), dtype=np.uint8)
    columns["lowcmd_log_writer"] = (ns == hand_made.ns(1000)).astype(np.uint8)
    assert bounds_of(hand_made, columns).rate == 0
    columns["lowcmd_log_writer"][:] = 0
    assert bounds_of(hand_made, columns).rate == 2


def test_a_step_is_as_long_as_the_commands_that_were_lost_before_it(hand_made, spec):
    columns = hand_made.columns()
    largest = spec.safety.command_rate * 0.004
    columns["command_q"][hand_made.row(1000) :, 1] += 1.9 * largest
    ns = hand_made.wall_ns[hand_made.sent]
    columns["lowcmd_writers"] = np.array(["nfpo-bridge 1 1"])
    columns["lowcmd_log_ns"] = np.sort(np.append(ns, hand_made.ns(999)))
    columns["lowcmd_log_writer"] = np.zeros(len(ns) + 1, dtype=np.uint8)
    columns["lowcmd_log_fate"] = np.where(columns["lowcmd_log_ns"] == hand_made.ns(999), LOST, HEARD)
    assert bounds_of(hand_made, columns).rate == 0
    there = columns["lowcmd_log_fate"] == HEARD
    columns |= {f"lowcmd_log_{name}": columns[f"lowcmd_log_{name}"][there] for name in ("ns", "writer", "fate")}
    assert bounds_of(hand_made, columns).rate == 1
