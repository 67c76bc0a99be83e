"""The watchdog: each monitor by itself, what it leads to in each mode, and what it asks before anything moves."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety.monitors import MONITORS, Level, Reaction
from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.types import (
    BridgeStatus,
    GatePhase,
    JointCommand,
    Mode,
    RobotState,
    StateEstimate,
    VelocityCommand,
)

NAN = math.nan
PERIOD_NS = 20_000_000
PHASES = {
    Mode.DAMP: GatePhase.DAMPING, Mode.STAND: GatePhase.RAMPING, Mode.READY: GatePhase.HOLDING,
    Mode.WALK: GatePhase.TRACKING, Mode.SIT: GatePhase.RAMPING, Mode.FAULT: GatePhase.DAMPING,
}  # fmt: skip


class Rig:
    """A watchdog at 50 Hz with healthy streams, whose messages a test may change or withhold."""

    def __init__(self, spec):
        self.spec, self.n = spec, spec.num_joints
        self.watchdog = Watchdog(spec)
        self.now, self.k = 7_000_000_000, 0
        self.state, self.estimate, self.command, self.status = {}, {}, {}, {}
        self.observation_ok = True
        self.velocity = VelocityCommand(0.5, 0.0, 0.0)
        self.silent: set[str] = set()
        self.permit = None
        self.messages_per_tick = {"lowstate": 10, "command": 1}
        self.lowstate_count = self.seq = 0

    def tick(self):
        self.now += PERIOD_NS
        self.k += 1
        self.lowstate_count += self.messages_per_tick["lowstate"]
        self.seq += self.messages_per_tick["command"]
        w, n, now = self.watchdog, self.n, self.now
        quat = np.array([1.0, 0.0, 0.0, 0.0])
        q = self.spec.default_pose.copy()
        if "state" not in self.silent:
            state = RobotState(
                10 * self.k, now, quat, np.zeros(3), np.array([0, 0, 9.81]), q, np.zeros(n), np.zeros(n),
                np.full(n, 40.0), np.zeros(4), 80.0, 28.0, bytes(40),
            )  # fmt: skip
            w.observe_state(replace(state, **self.state), now)
        if "estimate" not in self.silent:
            estimate = StateEstimate(
                10 * self.k, now, quat, np.zeros(3), np.zeros(3), np.full(3, 0.05), np.zeros(3), np.ones(4), q,
                np.zeros(n),
            )  # fmt: skip
            w.observe_estimate(replace(estimate, **self.estimate), now)
        if "command" not in self.silent:
            command = JointCommand(
                self.seq, 10 * self.k, now, q, np.zeros(n), np.full(n, 25.0), np.full(n, 0.6), np.zeros(n)
            )
            w.observe_command(replace(command, **self.command), now, self.observation_ok, 1.0)
        if "operator" not in self.silent:
            w.observe_operator(self.velocity, now)
        if "status" not in self.silent:
            mode = self.permit.mode if self.permit else Mode.DAMP
            status = BridgeStatus(
                PHASES[mode], mode, "", False, mode in (Mode.READY, Mode.WALK), False, 0.0, 0.0, 0.0,
                lowstate_count=self.lowstate_count, loop_rate=500.0,
            )  # fmt: skip
            w.observe_bridge_status(replace(status, **self.status), now)
        self.permit = w.tick(now)
        return self.permit

    def run(self, seconds):
        for _ in range(round(seconds * 50)):
            self.tick()
        return self.permit

    def to(self, mode: Mode):
        self.run(0.2)
        if mode is Mode.DAMP:
            return self
        assert self.watchdog.arm(self.now)[0]
        assert self.watchdog.request("STAND", self.now)[0]
        self.run(0.1)
        if mode is Mode.STAND:
            return self
        self.status = {"stand_reached": True}
        self.run(0.04)
        self.status = {}
        self.run(1.1)
        if mode in (Mode.WALK, Mode.SIT):
            assert self.watchdog.request(mode.name, self.now) == (True, mode.name)
        self.run(0.2)
        assert self.watchdog.mode is mode
        return self

    def row(self, name):
        return next(row for row in self.watchdog.diagnostics(self.now) if row.name == name)


@pytest.fixture
def rig(spec):
    return Rig(spec)


def at(index, value, n=12, base=0.0):
    array = np.array(base) * np.ones(n)
    array[index] = value
    return array


def rolled(angle):
    return {"quat_wxyz": np.array([math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0])}


# name of the monitor: how to provoke it, seconds until it must have reacted, words of the reason
FAULTS = {
    "state_age": (lambda r: r.silent.add("state"), 0.06, "robot state stale"),
    "state_values": (lambda r: r.state.update(q=at(3, NAN)), 0.02, "non-finite q"),
    "gate": (lambda r: r.status.update(tripped=True, reason="torque"), 0.02, "gate tripped: torque"),
    "bridge_age": (lambda r: r.silent.add("status"), 0.24, "bridge status stale"),
    "tilt": (lambda r: r.state.update(rolled(1.1)), 0.02, "tilt 1.1 rad exceeds 1"),
    "joint_position": (lambda r: r.state.update(q=at(0, 1.1, base=r.spec.default_pose)), 0.06, "FR_hip_joint"),
    "joint_velocity": (lambda r: r.state.update(dq=at(2, -15.1)), 0.06, "FR_calf_joint: speed, rad/s, -15.10"),
    "joint_torque": (lambda r: r.state.update(tau_est=at(0, 23.8)), 0.54, "FR_hip_joint: torque"),
    "command_age": (lambda r: r.silent.add("command"), 0.1, "joint command stale"),
    "command_values": (lambda r: r.command.update(q=at(1, NAN)), 0.02, "non-finite q"),
    "motor_temperature": (lambda r: r.state.update(temperature=at(4, 81.0, base=40)), 0.02, "FL_thigh_joint 81"),
    "battery": (lambda r: r.state.update(battery_soc=9.0), 0.02, "battery at 9 %"),
    "estimate_age": (lambda r: r.silent.add("estimate"), 0.1, "state estimate stale"),
    "estimate_values": (lambda r: r.estimate.update(lin_vel_std=np.array([0.1, 1.2, 0.1])), 0.02, "velocity std 1.2"),
    "observation": (lambda r: setattr(r, "observation_ok", False), 0.34, "observation outside training"),
    "operator": (lambda r: r.silent.add("operator"), 2.04, "no velocity command"),
    "state_rate": (lambda r: r.messages_per_tick.update(lowstate=4), 1.0, "robot states at"),
    "bridge_rate": (lambda r: r.status.update(loop_rate=240.0), 0.02, "bridge loop at 240 of 500 Hz"),
}  # fmt: skip
AFTER = {Reaction.FAULT: Mode.FAULT, Reaction.STOP_AND_STAND: Mode.READY, Reaction.STOP_AND_SIT: Mode.READY}
ENFORCED = {monitor.name: monitor for monitor in MONITORS}


@pytest.mark.parametrize("name", list(FAULTS))
def test_each_monitor_reacts_while_walking(rig, name):
    provoke, seconds, words = FAULTS[name]
    rig.to(Mode.WALK)
    assert rig.row(name).level is Level.OK
    provoke(rig)
    permit = rig.run(seconds)
    assert permit.mode is AFTER[ENFORCED[name].reaction]
    assert permit.reason.startswith(f"{name}: ") and words in permit.reason
    row = rig.row(name)
    assert row.level >= Level.ERROR or name in ("operator",)
    assert row.values["reaction"] == ENFORCED[name].reaction.value


IMMEDIATE = {"state_values", "gate", "tilt", "battery", "motor_temperature", "command_values", "estimate_values",
             "bridge_rate"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in IMMEDIATE])
def test_timed_monitors_wait_for_their_time(rig, name):
    provoke, seconds, _ = FAULTS[name]
    rig.to(Mode.WALK)
    provoke(rig)
    rig.run(min(seconds - 0.04, 0.5 * seconds))
    assert rig.permit.mode is Mode.WALK


@pytest.mark.parametrize("name", list(FAULTS))
def test_nothing_latches_in_damp(rig, name):
    provoke, seconds, _ = FAULTS[name]
    rig.to(Mode.DAMP)
    provoke(rig)
    permit = rig.run(seconds + 0.5)
    assert permit.mode is Mode.DAMP
    ok, message = rig.watchdog.arm(rig.now)
    assert ok is ("arm" not in ENFORCED[name].needed_for)
    if not ok:
        assert name in message


@pytest.mark.parametrize("name", list(FAULTS))
@pytest.mark.parametrize("mode", [Mode.STAND, Mode.READY, Mode.SIT])
def test_monitors_in_the_other_modes(rig, name, mode):
    provoke, seconds, _ = FAULTS[name]
    monitor = ENFORCED[name]
    rig.to(mode)
    provoke(rig)
    permit = rig.run(seconds)
    if mode not in monitor.enforced:
        assert permit.mode is mode
    elif monitor.reaction is Reaction.FAULT:
        assert permit.mode is Mode.FAULT and permit.reason.startswith(name)
    else:
        assert monitor.reaction is Reaction.STOP_AND_SIT and permit.mode is Mode.SIT


@pytest.mark.parametrize("name", [n for n, m in ENFORCED.items() if "walk" in m.needed_for and n in FAULTS])
def test_walk_is_refused_with_what_is_missing(rig, name):
    provoke, seconds, words = FAULTS[name]
    rig.to(Mode.READY)
    provoke(rig)
    rig.run(max(seconds, 0.02))
    ok, message = rig.watchdog.request("WALK", rig.now)
    assert not ok and (words in message or rig.watchdog.mode is not Mode.READY)


def test_start_with_nothing_received(rig):
    rig.silent = {"state", "estimate", "command", "operator", "status"}
    permit = rig.run(10.0)
    assert (permit.mode, permit.reason) == (Mode.DAMP, "start")
    rows = {row.name: row for row in rig.watchdog.diagnostics(rig.now)}
    for name in ("state_age", "bridge_age", "tilt", "battery", "command_age", "estimate_age"):
        assert rows[name].level is Level.STALE and "received yet" in rows[name].message
    ok, message = rig.watchdog.arm(rig.now)
    assert not ok and "no robot state received yet" in message and "no bridge status received yet" in message
    assert rig.watchdog.machine.first_cause == ""


def test_gate_of_a_stand_that_never_ends(rig, spec):
    rig.to(Mode.STAND)
    limit = (spec.safety.stand_duration + spec.safety.pose_timeout) / spec.safety.rate_stop + 1.0
    assert rig.run(limit - 0.3).mode is Mode.STAND
    permit = rig.run(0.4)
    assert permit.mode is Mode.FAULT and permit.reason.startswith("transition: STAND unfinished")


def test_repeated_messages_are_stale(rig):
    rig.to(Mode.WALK)
    rig.state = {"tick": 10 * rig.k}
    assert rig.run(0.06).mode is Mode.FAULT


def test_low_battery_ends_on_the_belly(rig):
    rig.to(Mode.WALK)
    rig.state = {"battery_soc": 5.0}
    assert rig.run(0.02).mode is Mode.READY
    permit = rig.run(0.06)
    assert permit.mode is Mode.SIT and permit.reason == "battery: battery at 5 %"
    rig.status = {"sit_reached": True, "phase": GatePhase.HOLDING}
    assert rig.run(0.06).mode is Mode.DAMP
    assert not rig.watchdog.arm(rig.now)[0]


def test_unknown_battery_is_no_low_battery(rig):
    rig.state = {"battery_soc": NAN}
    rig.to(Mode.WALK)
    assert rig.row("battery").level is Level.OK


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("motor_temperature", {"temperature": at(0, 72.0, base=40)}),
        ("battery", {"battery_soc": 15.0}),
        ("tilt", rolled(0.8)),
    ],
)
def test_warnings_change_nothing(rig, name, change):
    rig.to(Mode.WALK)
    rig.state = change
    assert rig.run(1.0).mode is Mode.WALK
    assert rig.row(name).level is Level.WARN


def test_operator_warns_before_walking_ends(rig, spec):
    rig.to(Mode.WALK)
    rig.silent = {"operator"}
    rig.run(1.0)
    assert rig.permit.mode is Mode.WALK and rig.row("operator").level is Level.WARN


def test_velocity_command_that_is_not_finite_is_no_operator(rig):
    rig.to(Mode.WALK)
    rig.velocity = VelocityCommand(NAN, 0.0, 0.0)
    assert rig.run(2.1).mode is Mode.READY


def test_walking_may_begin_before_the_operator_speaks(rig):
    rig.silent = {"operator"}
    rig.to(Mode.WALK)
    assert rig.run(1.5).mode is Mode.WALK
    assert rig.run(0.5).mode is Mode.READY


def test_command_rate_that_halves_ends_walking(rig):
    """Every second command is lost: the age stays within its limit, the rate does not."""
    rig.to(Mode.WALK)
    rig.messages_per_tick["command"] = 0
    for k in range(150):
        rig.seq += k % 3 == 0
        rig.tick()
    assert rig.permit.mode is Mode.READY and "joint commands at" in rig.permit.reason


@pytest.mark.parametrize(
    ("name", "status"),
    [("overruns", "loop_overruns"), ("wire_errors", "lowstate_crc_errors"), ("wire_errors", "lowstate_lost")],
)
def test_counters_warn_by_what_was_added_within_a_second(rig, name, status):
    rig.to(Mode.WALK)
    rig.status = {status: 1000}
    rig.run(0.1)
    assert rig.row(name).level is Level.WARN and "1000" in rig.row(name).message
    rig.run(1.1)
    assert rig.row(name).level is Level.OK and rig.permit.mode is Mode.WALK


def test_permit_that_does_not_reach_the_bridge_warns(rig):
    rig.to(Mode.WALK)
    rig.status = {"permit_age": 0.2}
    assert rig.run(0.1).mode is Mode.WALK
    assert rig.row("permit_delivery").level is Level.WARN


def test_own_delay_warns(rig):
    rig.to(Mode.READY)
    rig.now += 150_000_000
    rig.tick()
    assert rig.row("watchdog_rate").level is Level.WARN


def test_gaps_between_estimates_warn(rig):
    rig.to(Mode.READY)
    rig.silent = {"estimate"}
    rig.run(0.08)
    rig.silent = set()
    rig.run(0.1)
    assert rig.row("estimate_rate").level is Level.WARN and rig.permit.mode is Mode.READY


def test_estop_from_walking_and_reset(rig):
    rig.to(Mode.WALK)
    rig.watchdog.estop(rig.now, "remote")
    permit = rig.tick()
    assert (permit.mode, permit.reason) == (Mode.FAULT, "emergency stop by remote")
    rig.state = rolled(1.4)
    rig.run(0.2)
    assert rig.permit.reason == "emergency stop by remote", "the first cause stays"
    assert [c.split(":")[0] for c in rig.watchdog.machine.later_causes] == ["tilt"]
    assert rig.row("mode").values["later_cause_1"].startswith("tilt: tilt 1.4 rad")
    ok, message = rig.watchdog.reset(rig.now)
    assert not ok and "tilt" in message and rig.watchdog.mode is Mode.FAULT
    rig.state = {}
    rig.run(10.0)
    assert rig.permit.mode is Mode.FAULT, "nothing resets itself"
    assert rig.watchdog.reset(rig.now)[0]
    permit = rig.run(0.2)
    assert permit.mode is Mode.DAMP and not rig.watchdog.machine.armed


def test_several_faults_at_once_keep_the_first_and_list_the_rest(rig):
    rig.to(Mode.WALK)
    rig.state = {"dq": at(2, -15.1), **rolled(1.2)}
    rig.status = {"tripped": True, "reason": "tilt"}
    rig.run(0.5)
    assert rig.permit.reason == "gate: gate tripped: tilt"
    assert [c.split(":")[0] for c in rig.watchdog.machine.later_causes] == ["tilt", "joint_velocity"]


def test_fault_found_elsewhere_latches(rig):
    rig.to(Mode.WALK)
    rig.watchdog.trip("policy_inference died", rig.now)
    assert rig.tick().reason == "policy_inference died" and rig.permit.mode is Mode.FAULT


@pytest.mark.parametrize("bad", [{"q": "text"}, {"q": None}, {"q": np.zeros(3)}, {"dq": np.array([[1.0]])}])
def test_malformed_messages_are_faults_not_exceptions(rig, bad):
    rig.to(Mode.READY)
    rig.state = bad
    assert rig.run(0.04).mode is Mode.FAULT
    assert rig.permit.reason.startswith("state_values: robot state:")


def test_permits_are_numbered_in_order(rig):
    seqs = []
    for _ in range(20):
        seqs.append(rig.tick().seq)
    assert seqs == list(range(1, 21))


@pytest.mark.parametrize("rates", [(0.0, 50.0, 500.0), (50.0, -1.0, 500.0), (50.0, 50.0, NAN)])
def test_bad_rates_are_refused(spec, rates):
    with pytest.raises(SafetyError, match="above zero"):
        Watchdog(spec, *rates)


def test_every_fault_monitor_is_provoked_here():
    reacting = {m.name for m in MONITORS if m.reaction is not Reaction.WARN}
    assert reacting - set(FAULTS) == {"transition", "command_rate"}, "each has a test of its own above"
