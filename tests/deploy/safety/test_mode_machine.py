"""Every transition of the mode machine, allowed and refused."""

import pytest

from nfpo_deploy.safety.mode_machine import MAX_LATER_CAUSES, ModeMachine
from nfpo_deploy.types import BridgeStatus, GatePhase, Mode


def status(mode: Mode, phase=GatePhase.HOLDING, stand=False, sit=False, tripped=False) -> BridgeStatus:
    return BridgeStatus(phase, mode, "", tripped, stand, sit, 0.0, 0.0, 0.0)


def machine_in(mode: Mode, settled: bool = True) -> ModeMachine:
    """A machine brought there by the operator's own way."""
    machine = ModeMachine()
    if mode is Mode.FAULT:
        machine.trip("first")
        return machine
    if mode is Mode.DAMP:
        return machine
    assert machine.arm() == (True, "armed")
    assert machine.request("STAND")[0]
    if mode is Mode.STAND:
        return machine
    machine.report(status(Mode.STAND, stand=True))
    if mode is Mode.WALK or not settled:
        assert machine.request("WALK")[0]
        if mode is Mode.READY:
            assert machine.request("READY")[0]
    if mode is Mode.SIT:
        assert machine.request("SIT")[0]
    assert machine.mode is mode
    return machine


# B is SIT, on the belly.
# Rows: mode now. Columns: what is requested. A name is the mode that follows; None means refused.
D, S, R, W, B, F = "DAMP", "STAND", "READY", "WALK", "SIT", "FAULT"
TABLE = {
    D: {D: D, S: None, R: None, W: None, B: None, F: None},  # STAND needs arming, tested below
    S: {D: D, S: S, R: None, W: None, B: B, F: None},
    R: {D: D, S: None, R: R, W: W, B: B, F: None},
    W: {D: D, S: None, R: R, W: W, B: R, F: None},  # SIT goes through READY
    B: {D: D, S: None, R: None, W: None, B: B, F: None},
    F: {D: None, S: None, R: None, W: None, B: None, F: None},
}


@pytest.mark.parametrize("now", [D, S, R, W, B, F])
@pytest.mark.parametrize("wanted", [D, S, R, W, B, F])
def test_every_request(now, wanted):
    machine = machine_in(Mode[now])
    expected = TABLE[now][wanted]
    ok, message = machine.request(wanted.lower())
    assert ok is (expected is not None) and message
    assert machine.mode.name == (expected or now)


@pytest.mark.parametrize("mode", list(Mode))
def test_estop_latches_fault_from_any_mode(mode):
    machine = machine_in(mode)
    machine.estop("remote")
    assert machine.mode is Mode.FAULT and not machine.armed
    if mode is not Mode.FAULT:
        assert machine.reason == machine.first_cause == "emergency stop by remote"
    for name in (D, S, R, W, B):
        assert not machine.request(name)[0]
    assert not machine.arm()[0]


@pytest.mark.parametrize("mode", [m for m in Mode if m is not Mode.DAMP])
def test_arm_only_in_damp(mode):
    machine = machine_in(mode)
    ok, message = machine.arm()
    assert not ok and mode.name in message


def test_arm_is_refused_with_the_list_of_what_is_missing():
    machine = ModeMachine()
    ok, message = machine.arm(["no robot state", "no bridge status"])
    assert not ok and message == "arm refused: no robot state; no bridge status"
    assert not machine.armed and not machine.request("STAND")[0]


def test_stand_without_arming_says_so():
    assert ModeMachine().request("STAND") == (False, "STAND refused: not armed: call arm first")


def test_every_stand_up_is_armed_anew():
    machine = machine_in(Mode.SIT)
    machine.report(status(Mode.SIT, sit=True))
    assert machine.mode is Mode.DAMP and not machine.armed
    assert not machine.request("STAND")[0]


@pytest.mark.parametrize("mode", list(Mode))
def test_disarm(mode):
    machine = machine_in(mode)
    active = mode not in (Mode.DAMP, Mode.FAULT)
    assert machine.disarm()[0] is not active
    assert machine.armed is active


def test_missing_blocks_a_request_and_keeps_the_mode():
    machine = machine_in(Mode.READY)
    ok, message = machine.request("WALK", ["joint command stale"])
    assert not ok and "joint command stale" in message and machine.mode is Mode.READY


@pytest.mark.parametrize("name", ["", "RUN", "walk fast", "3", "FAULT"])
def test_unknown_names_list_the_known_ones(name):
    ok, message = ModeMachine().request(name)
    assert not ok and "DAMP, STAND, READY, WALK, SIT" in message


def test_stand_reached_leads_to_ready_only_for_the_permit_that_asked():
    machine = machine_in(Mode.STAND)
    for wrong in (
        status(Mode.STAND),
        status(Mode.DAMP, stand=True),
        status(Mode.READY, stand=True),
        status(Mode.STAND, stand=True, tripped=True),
    ):
        machine.report(wrong)
        assert machine.mode is Mode.STAND
    machine.report(status(Mode.STAND, stand=True))
    assert machine.mode is Mode.READY


@pytest.mark.parametrize("mode", list(Mode))
def test_reports_move_only_stand_and_sit(mode):
    machine = machine_in(mode)
    machine.report(status(mode, stand=True, sit=True))
    assert machine.mode is {Mode.STAND: Mode.READY, Mode.SIT: Mode.DAMP}.get(mode, mode)


def test_walking_again_waits_until_the_bridge_has_settled():
    machine = machine_in(Mode.READY, settled=False)
    ok, message = machine.request("WALK")
    assert not ok and "does not hold the pose yet" in message
    machine.report(status(Mode.WALK))  # from before the change
    machine.report(status(Mode.READY, GatePhase.RAMPING))
    assert not machine.request("WALK")[0]
    machine.report(status(Mode.READY))
    assert machine.request("WALK")[0]


def test_sit_from_walk_stands_first():
    machine = machine_in(Mode.WALK)
    assert machine.request("SIT") == (True, "standing first, then SIT")
    assert machine.mode is Mode.READY
    machine.report(status(Mode.READY, GatePhase.RAMPING))
    assert machine.mode is Mode.READY
    machine.report(status(Mode.READY))
    assert machine.mode is Mode.SIT


def test_ready_cancels_a_wanted_sit():
    machine = machine_in(Mode.WALK)
    machine.request("SIT")
    machine.request("READY")
    machine.report(status(Mode.READY))
    assert machine.mode is Mode.READY


@pytest.mark.parametrize("mode", list(Mode))
def test_stop_and_stand_only_ends_walking(mode):
    machine = machine_in(mode)
    machine.stop_and_stand("operator lost")
    assert machine.mode is (Mode.READY if mode is Mode.WALK else mode)
    if mode is Mode.WALK:
        assert machine.reason == "operator lost"


@pytest.mark.parametrize("mode", list(Mode))
def test_stop_and_sit_ends_on_the_belly(mode):
    machine = machine_in(mode)
    for _ in range(5):  # the battery stays empty
        machine.stop_and_sit("battery")
        machine.report(status(machine.mode))
    up = mode in (Mode.STAND, Mode.READY, Mode.WALK)
    assert machine.mode is (Mode.SIT if up else mode)


def test_first_cause_is_kept_and_later_ones_listed_once_and_bounded():
    machine = machine_in(Mode.WALK)
    machine.trip("tilt")
    for cause in ("torque", "tilt", "torque", "speed"):
        machine.trip(cause)
    assert (machine.reason, machine.first_cause, machine.later_causes) == ("tilt", "tilt", ["torque", "speed"])
    for i in range(100):
        machine.trip(f"cause {i}")
    assert len(machine.later_causes) == MAX_LATER_CAUSES and machine.later_causes[:2] == ["torque", "speed"]


def test_reset_needs_fault_and_health():
    machine = machine_in(Mode.WALK)
    assert machine.reset() == (False, "nothing to reset, the mode is WALK")
    machine.trip("tilt")
    machine.trip("speed")
    ok, message = machine.reset(["tilt 1.2 rad"])
    assert not ok and message == "reset refused: tilt 1.2 rad" and machine.mode is Mode.FAULT
    assert machine.reset()[0]
    assert (machine.mode, machine.armed, machine.first_cause, machine.later_causes) == (Mode.DAMP, False, "", [])
    assert machine.reason == "reset after: tilt"
