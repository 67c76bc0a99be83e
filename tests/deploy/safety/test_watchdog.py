"""The watchdog as a whole: what it asks before anything moves, how causes are kept, what no monitor can break."""

import math

import numpy as np
import pytest

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety.monitors import MONITORS, Level
from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.types import GatePhase, Mode, VelocityCommand

NAN = math.nan


def rolled(angle):
    return {"quat_wxyz": np.array([math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0])}


def fast_calf(n=12):
    dq = np.zeros(n)
    dq[2] = -15.1
    return {"dq": dq}


def test_start_with_nothing_received(dog):
    dog.silent = {"state", "estimate", "command", "operator", "status"}
    permit = dog.run(10.0)
    assert (permit.mode, permit.reason) == (Mode.DAMP, "start")
    rows = {row.name: row for row in dog.watchdog.diagnostics(dog.now)}
    for name in ("state_age", "bridge_age", "tilt", "height", "battery", "command_age", "estimate_age", "guards"):
        assert rows[name].level is Level.STALE and "received yet" in rows[name].message
    ok, message = dog.watchdog.arm(dog.now)
    assert not ok and "no robot state received yet" in message and "no bridge status received yet" in message
    assert dog.watchdog.machine.first_cause == ""


def test_requests_before_the_first_tick_are_judged_by_what_is_there(spec):
    ok, message = Watchdog(spec).arm(1)
    assert not ok and "no robot state received yet" in message


def test_repeated_messages_are_stale(dog):
    dog.to(Mode.WALK)
    dog.state = {"tick": 5 * dog.k}
    assert dog.run(0.05).mode is Mode.FAULT


def test_low_battery_ends_on_the_belly(dog):
    dog.to(Mode.WALK)
    dog.state = {"battery_soc": 5.0}
    assert dog.tick().mode is Mode.READY
    permit = dog.run(0.06)
    assert permit.mode is Mode.SIT and permit.reason == "battery: battery at 5 %"
    dog.status = {"sit_reached": True, "phase": GatePhase.HOLDING}
    dog.tick()
    dog.status = {}
    assert dog.run(0.06).mode is Mode.DAMP
    assert not dog.watchdog.arm(dog.now)[0]


def test_unknown_battery_is_no_low_battery(dog):
    dog.state = {"battery_soc": NAN}
    dog.to(Mode.WALK)
    assert dog.row("battery").level is Level.OK


# --- operator ---


def test_operator_warns_before_walking_ends(dog):
    dog.to(Mode.WALK)
    dog.silent = {"operator"}
    dog.run(1.0)
    assert dog.permit.mode is Mode.WALK and dog.row("operator").level is Level.WARN


def test_velocity_command_that_is_not_finite_is_no_operator(dog):
    dog.to(Mode.WALK)
    dog.velocity = VelocityCommand(NAN, 0.0, 0.0)
    assert dog.run(2.1).mode is Mode.READY


def test_walking_may_begin_before_the_operator_speaks(dog):
    dog.silent = {"operator"}
    dog.to(Mode.WALK)
    assert dog.run(1.5).mode is Mode.WALK
    assert dog.run(0.5).mode is Mode.READY


def test_lost_operator_stops_stands_and_then_sits(dog, spec):
    dog.to(Mode.WALK)
    lost = dog.now
    dog.silent = {"operator"}
    seen = {}
    while len(seen) < 3:
        mode = dog.tick().mode
        seen.setdefault(mode, (dog.now - lost) * 1e-9)
        assert dog.now - lost < 20e9
    assert list(seen) == [Mode.WALK, Mode.READY, Mode.SIT]
    assert seen[Mode.READY] == pytest.approx(spec.safety.operator_abandon, abs=0.03)
    assert seen[Mode.SIT] == pytest.approx(spec.safety.operator_sit, abs=0.03)
    assert dog.permit.reason.startswith("operator_gone: no velocity command for")


def test_operator_who_comes_back_is_not_gone(dog):
    dog.to(Mode.WALK)
    dog.silent = {"operator"}
    assert dog.run(9.0).mode is Mode.READY
    dog.silent = set()
    dog.tick()
    dog.silent = {"operator"}
    assert dog.run(9.0).mode is Mode.READY


@pytest.mark.parametrize("walked", [False, True])
def test_who_stands_the_robot_by_service_alone_is_not_missed(dog, walked):
    dog.silent = {"operator"}
    dog.to(Mode.WALK if walked else Mode.READY)
    assert dog.run(30.0).mode is Mode.READY


def test_operator_of_an_earlier_walk_is_not_missed_after_the_next_stand_up(dog):
    dog.to(Mode.WALK)
    assert dog.watchdog.request("DAMP", dog.now)[0]
    dog.silent = {"operator"}
    dog.to(Mode.READY)
    assert dog.run(30.0).mode is Mode.READY


# --- causes, latching, reset ---


def test_estop_from_walking_and_reset(dog):
    dog.to(Mode.WALK)
    dog.watchdog.estop(dog.now, "web page")
    permit = dog.tick()
    assert (permit.mode, permit.reason) == (Mode.FAULT, "emergency stop by web page")
    dog.state = rolled(1.4)
    dog.run(0.2)
    assert dog.permit.reason == "emergency stop by web page", "the first cause stays"
    assert [c.split(":")[0] for c in dog.watchdog.machine.later_causes] == ["tilt"]
    assert dog.row("mode").values["later_cause_1"].startswith("tilt: tilt 1.4 rad")
    ok, message = dog.watchdog.reset(dog.now)
    assert not ok and "tilt" in message and dog.watchdog.mode is Mode.FAULT
    dog.state = {}
    dog.run(10.0)
    assert dog.permit.mode is Mode.FAULT, "nothing resets itself"
    assert dog.watchdog.reset(dog.now)[0]
    permit = dog.run(0.2)
    assert permit.mode is Mode.DAMP and not dog.watchdog.machine.armed


def test_several_faults_at_once_keep_the_first_and_list_the_rest(dog):
    dog.to(Mode.WALK)
    dog.state = {**fast_calf(), **rolled(1.2)}
    dog.status = {"tripped": True, "reason": "tilt"}
    dog.run(0.5)
    assert dog.permit.reason == "gate: gate tripped: tilt"
    assert [c.split(":")[0] for c in dog.watchdog.machine.later_causes] == ["tilt", "joint_velocity"]


def test_fault_found_elsewhere_latches(dog):
    dog.to(Mode.WALK)
    dog.watchdog.trip("policy_inference died", dog.now)
    assert dog.tick().reason == "policy_inference died" and dog.permit.mode is Mode.FAULT


@pytest.mark.parametrize("bad", [{"q": "text"}, {"q": None}, {"q": np.zeros(3)}, {"dq": np.array([[1.0]])}])
def test_malformed_messages_are_faults_not_exceptions(dog, bad):
    dog.to(Mode.READY)
    dog.state = bad
    assert dog.run(0.04).mode is Mode.FAULT
    assert dog.permit.reason.startswith("state_values: robot state:")


def test_diagnostics_show_what_the_tick_decided_on(dog):
    dog.to(Mode.WALK)
    dog.silent = {"operator"}
    while dog.tick().mode is Mode.WALK:
        pass
    row = dog.row("operator")
    assert row.level is Level.ERROR and row.message in dog.permit.reason
    assert len(dog.watchdog.diagnostics(dog.now)) == len(MONITORS) + 1


def test_permits_are_numbered_in_order(dog):
    assert [dog.tick().seq for _ in range(20)] == list(range(1, 21))


@pytest.mark.parametrize("rates", [(0.0, 50.0, 500.0), (50.0, -1.0, 500.0), (50.0, 50.0, NAN)])
def test_bad_rates_are_refused(spec, rates):
    with pytest.raises(SafetyError, match="above zero"):
        Watchdog(spec, *rates)


# --- what breaks a monitor does not break the watchdog ---


class Explosive:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(f"boom in {name}")


INJECTIONS = {
    "state": "tilt", "status": "gate", "estimate": "estimate_values", "tick_stream": "watchdog_rate",
    "over_torque": "joint_torque", "foreign_lowcmd": "foreign_lowcmd", "command_stream": "command_age",
}  # fmt: skip


@pytest.mark.parametrize("mode", [Mode.DAMP, Mode.READY, Mode.WALK])
@pytest.mark.parametrize("name", [monitor.name for monitor in MONITORS])
def test_exception_inside_any_monitor_ends_in_fault_with_its_name(dog, monkeypatch, name, mode):
    dog.to(mode)

    def broken(context):
        raise ZeroDivisionError("on purpose")

    monitor = next(m for m in MONITORS if m.name == name)
    check = monitor.check
    object.__setattr__(monitor, "check", broken)
    try:
        permit = dog.tick()
        assert permit.mode is Mode.FAULT
        assert permit.reason == f"{name}: internal error: ZeroDivisionError('on purpose')"
        assert dog.row(name).level is Level.ERROR
        assert dog.run(1.0).seq > permit.seq, "the watchdog goes on"
        ok, message = dog.watchdog.reset(dog.now)
        assert not ok and name in message
    finally:
        object.__setattr__(monitor, "check", check)
    dog.tick()
    assert dog.watchdog.reset(dog.now)[0], "a cured monitor lets go"


@pytest.mark.parametrize("stream", ["state", "estimate", "command", "bridge_status", "operator"])
@pytest.mark.parametrize("mode", [Mode.DAMP, Mode.WALK])
def test_message_that_raises_ends_in_fault_with_its_name(dog, stream, mode):
    dog.to(mode)
    getattr(dog.watchdog, f"observe_{stream}")(Explosive(), dog.now)
    permit = dog.tick()
    assert permit.mode is Mode.FAULT and "internal error: RuntimeError('boom in" in permit.reason
    assert permit.reason.split(":")[0] in {
        "robot state", "state estimate", "joint command", "bridge status", "velocity command"
    }  # fmt: skip


@pytest.mark.parametrize("attribute", list(INJECTIONS))
def test_object_that_raises_inside_the_observations_ends_in_fault(dog, attribute):
    dog.to(Mode.WALK)
    # Nothing may replace it before the tick.
    dog.silent = {"state", "status", "estimate", "command", "operator"}
    setattr(dog.watchdog._seen, attribute, Explosive())
    permit = dog.tick()
    assert permit.mode is Mode.FAULT and "internal error: RuntimeError('boom in" in permit.reason
    assert not dog.watchdog.reset(dog.now)[0]
    assert dog.tick().seq > permit.seq
