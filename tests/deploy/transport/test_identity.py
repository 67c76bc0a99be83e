"""Wrong robots and second robots, judged from the records that the real decoder makes of their LowStates."""

import dataclasses
import re

import numpy as np
import pytest

from nfpo_deploy.transport.codec import GO_LOW_STATE, HG_LOW_STATE
from nfpo_deploy.transport.identity import CONSECUTIVE, IdentityCheck, SingleSource
from nfpo_deploy.transport.mapping import LowStateDecoder
from robots.loader import load_robot

SPEC = load_robot("go2")
VOLTAGE = 29.0


def low_state(change=lambda record: None):
    """A Go2's LowState with one change, through the wire and the decoder."""
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["motor_state"]["q"][SPEC.motor_index] = 0.5
    record["motor_state"]["mode"][SPEC.motor_index] = 1
    record["power_v"] = VOLTAGE
    change(record)
    record["crc"] = GO_LOW_STATE.crc(record)
    decoded = LowStateDecoder(SPEC).accept(GO_LOW_STATE.encode(record))
    assert decoded is not None
    return decoded


def thirteenth_motor_moves(record):
    record["motor_state"]["q"][12] = 0.01


def thirteenth_motor_is_on(record):
    record["motor_state"]["mode"][12] = 1


def last_motor_is_not_a_number(record):
    record["motor_state"]["q"][19] = np.nan


def voltage(value):
    def change(record):
        record["power_v"] = value

    return change


def observe(check, record, times=1):
    for _ in range(times):
        check.observe(record)
    return check.problem


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (thirteenth_motor_moves, r"motors \[12\] are alive"),
        (thirteenth_motor_is_on, r"motors \[12\] are alive"),
        (last_motor_is_not_a_number, r"motors \[19\] are alive"),
        (voltage(54.0), r"54.0 V, expected 20.8 to 34.0 V"),
        (voltage(15.0), r"15.0 V"),
    ],
)
def test_wrong_robot_is_named_after_five_states_and_not_before(change, expected):
    check, wrong = IdentityCheck(SPEC), low_state(change)
    assert observe(check, wrong, CONSECUTIVE - 1) == ""
    assert re.search(expected, observe(check, wrong)), check.problem
    assert "not a go2" in check.problem and "interface" in check.problem


@pytest.mark.parametrize("value", [0.0, 0.9, np.nan, np.inf, 20.8, 34.0])
def test_voltage_at_the_edge_or_not_reported_is_fine(value):
    assert observe(IdentityCheck(SPEC), low_state(voltage(value)), 100) == ""


def test_glitches_are_forgiven_and_a_majority_is_not():
    good, wrong = low_state(), low_state(thirteenth_motor_is_on)
    check = IdentityCheck(SPEC)
    for _ in range(200):  # one glitch in four states, for ever
        assert observe(check, wrong) == "" and observe(check, good, 3) == ""
    for _ in range(20):  # every second state
        observe(check, wrong)
        observe(check, good)
    assert check.problem


def test_problem_ends_after_a_second_of_good_states_and_not_earlier():
    check = IdentityCheck(SPEC)
    observe(check, low_state(thirteenth_motor_is_on), 5000)
    assert observe(check, low_state(), 400)
    assert observe(check, low_state(), 200) == ""


def test_mode_machine_counts_where_the_message_carries_it():
    record = HG_LOW_STATE.new()
    spec = dataclasses.replace(SPEC, motor_index=np.arange(35), mode_machines=(5, 6))
    check = IdentityCheck(spec)
    record["mode_machine"] = 5
    assert observe(check, record, 10) == ""
    record["mode_machine"] = 1
    assert "mode_machine is 1, expected one of [5, 6]" in observe(check, record, 10)


class Clock:
    """The clock of `SingleSource`, moved by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("nfpo_deploy.transport.identity.time.monotonic", lambda: self.now)

    def feed(self, source, handles, period=0.002):
        for handle in handles:
            source.observe(handle)
            self.now += period
        return source.problem


def test_two_writers_in_turns_are_found_and_named(monkeypatch):
    clock, source = Clock(monkeypatch), SingleSource(lambda handle: f"robot {handle}")
    assert clock.feed(source, [7] * 1000) == ""
    problem = clock.feed(source, [7, 8] * 10)
    assert "robot 7" in problem and "robot 8" in problem


def test_problem_ends_when_one_writer_stays(monkeypatch):
    clock, source = Clock(monkeypatch), SingleSource(str)
    assert clock.feed(source, [7, 8] * 10)
    assert clock.feed(source, [7] * 400), "the other one was heard 0.8 s ago"
    assert clock.feed(source, [7] * 200) == ""


def test_restarted_robot_is_no_second_robot(monkeypatch):
    clock, source = Clock(monkeypatch), SingleSource(str)
    for start in range(1, 20):  # each takes over once; a straggler of the old one may still come
        assert clock.feed(source, [start] * 600 + [start + 1, start, start + 1]) == ""


def test_unequal_rates_are_found_too(monkeypatch):
    """A robot at 500 Hz and a second one whose states arrive twice a second."""
    clock, source = Clock(monkeypatch), SingleSource(str)
    assert clock.feed(source, ([7] * 249 + [8]) * 10)
