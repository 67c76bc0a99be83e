"""The emergency stop of the robot's own remote: in every mode, in any state, never by accident."""

import numpy as np
import pytest

from nfpo_deploy.safety.monitors import Level
from nfpo_deploy.types import Mode
from sim2real_checks.robot_sim.remote import Remote

PRESSED = Remote(buttons=frozenset({"L2", "B"})).to_bytes()
RELEASED = Remote(ly=0.5).to_bytes()


@pytest.mark.parametrize("mode", list(Mode))
def test_stops_in_every_mode(dog, mode):
    dog.to(mode)
    before = dog.permit.reason
    dog.state = {"wireless_remote": PRESSED}
    permit = dog.tick()
    assert permit.mode is Mode.FAULT
    if mode is Mode.FAULT:
        assert permit.reason == before == "emergency stop by operator", "the first cause stays"
        assert dog.watchdog.machine.later_causes == ["emergency stop by remote"]
    else:
        assert permit.reason == "emergency stop by remote"


def test_arm_and_reset_are_refused_while_it_is_held(dog):
    dog.to(Mode.DAMP)
    dog.state = {"wireless_remote": PRESSED}
    dog.run(1.0)
    ok, message = dog.watchdog.reset(dog.now)
    assert not ok and "remote_estop: L2+B held on the remote" in message
    assert dog.row("remote_estop").level is Level.ERROR
    dog.state = {"wireless_remote": RELEASED}
    dog.tick()
    assert dog.watchdog.mode is Mode.FAULT, "letting go resets nothing"
    assert dog.watchdog.reset(dog.now)[0]
    assert dog.watchdog.arm(dog.now)[0]


def test_press_between_two_ticks_counts(dog):
    dog.to(Mode.WALK)
    dog.watchdog.observe_state(dog.make_state(wireless_remote=PRESSED), dog.now)
    dog.watchdog.observe_state(dog.make_state(wireless_remote=RELEASED), dog.now)
    permit = dog.tick()
    assert (permit.mode, permit.reason) == (Mode.FAULT, "emergency stop by remote")


@pytest.mark.parametrize("bad", [{"q": np.full(12, np.nan)}, {"quat_wxyz": np.zeros(4)}, {"dq": np.zeros(3)}])
def test_press_counts_in_a_state_that_is_unusable_otherwise(dog, bad):
    dog.to(Mode.DAMP)
    dog.state = {"wireless_remote": PRESSED, **bad}
    assert dog.tick().reason == "emergency stop by remote"


def test_press_in_a_repeated_state_counts(dog):
    dog.to(Mode.READY)
    dog.state = {"wireless_remote": PRESSED, "tick": 5 * dog.k}
    assert dog.tick().reason == "emergency stop by remote"


def garbage():
    def frame(**at):
        data = bytearray(PRESSED)
        for offset, value in at.items():
            data[int(offset[1:]) : int(offset[1:]) + len(value)] = value
        return bytes(data)

    return {
        "nan stick": frame(_4=np.float32(np.nan).tobytes()),
        "infinite stick": frame(_8=np.float32(np.inf).tobytes()),
        "stick out of range": frame(_12=np.float32(1.5).tobytes()),
        "huge stick": frame(_20=np.float32(-1e30).tobytes()),
        "all ones": b"\xff" * 40,
        "empty": b"",
        "short": PRESSED[:39],
        "long": PRESSED + b"\0",
        "nothing connected": bytes(40),
    }


@pytest.mark.parametrize("name", list(garbage()))
def test_garbage_stops_nothing(dog, name):
    dog.to(Mode.WALK)
    dog.state = {"wireless_remote": garbage()[name]}
    assert dog.run(0.5).mode is Mode.WALK
    assert dog.row("remote_estop").level is Level.OK


def test_remote_that_is_not_bytes_is_a_fault_not_an_exception(dog):
    dog.to(Mode.READY)
    dog.state = {"wireless_remote": None}
    permit = dog.tick()
    assert permit.mode is Mode.FAULT and permit.reason.startswith("robot state: internal error")
