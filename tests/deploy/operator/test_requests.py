"""The way back to walking, against the real mode machine."""

from __future__ import annotations

import pytest

from nfpo_deploy.operator.requests import STARTS_MOTION, STEPS, Recovery, Request
from nfpo_deploy.safety.mode_machine import ModeMachine
from nfpo_deploy.types import Mode


def test_every_request_is_one_that_the_mode_machine_knows() -> None:
    assert set(STEPS) == set(Request)
    known = {mode.name.lower() for mode in Mode}
    assert all(mode in known or not mode for steps in STEPS.values() for _, mode in steps)
    assert STARTS_MOTION == {Request.STAND, Request.WALK}


class Robot:
    """A mode machine that stands up 2 s after it was asked to, and refuses WALK for the first 0.5 s of READY."""

    def __init__(self) -> None:
        self.machine = ModeMachine()
        self.since = 0.0
        self.asked: list[Request] = []

    def ask(self, request: Request, now: float) -> bool:
        self.asked.append(request)
        mode = self.machine.mode
        if request is Request.RESET:
            accepted = self.machine.reset()[0]
        elif request is Request.STAND:
            accepted = self.machine.arm()[0] and self.machine.request("stand")[0]
        else:
            missing = ["not settled"] if now - self.since < 0.5 else []
            accepted = self.machine.request(request.value, missing)[0]
        if self.machine.mode is not mode:
            self.since = now
        return accepted

    def tick(self, now: float) -> None:
        if self.machine.mode is Mode.STAND and now - self.since > 2.0:
            self.machine._enter(Mode.READY, "stand reached")
            self.machine._settled = True
            self.since = now


def run(robot: Robot, recovery: Recovery, seconds: float) -> None:
    for i in range(round(seconds / 0.05)):
        now = 0.05 * i
        robot.tick(now)
        request = recovery.step(robot.machine.mode, round(now * 1e9))
        if request is not None:
            recovery.answered(request, robot.ask(request, now), round(now * 1e9))


def test_from_a_fault_back_to_walking() -> None:
    robot, recovery = Robot(), Recovery()
    robot.machine.trip("a fault")
    recovery.start(0)
    run(robot, recovery, 6.0)
    assert robot.machine.mode is Mode.WALK and not recovery.running
    assert robot.asked[:2] == [Request.RESET, Request.STAND]
    assert 1 <= robot.asked.count(Request.WALK) <= 4 and len(robot.asked) == 2 + robot.asked.count(Request.WALK)


def test_a_refusal_ends_it() -> None:
    recovery = Recovery()
    recovery.start(0)
    assert recovery.step(Mode.FAULT, 1) is Request.RESET
    recovery.answered(Request.RESET, False, 2)
    assert not recovery.running and recovery.step(Mode.FAULT, 3) is None


@pytest.mark.parametrize("mode", [Mode.STAND, Mode.SIT, None])
def test_it_waits_but_not_for_ever(mode: Mode | None) -> None:
    recovery = Recovery()
    recovery.start(0)
    assert all(recovery.step(mode, round(t * 1e9)) is None for t in range(21))
    assert recovery.running
    assert recovery.step(mode, 21_000_000_000) is None and not recovery.running


def test_a_walk_that_stays_refused_is_given_up() -> None:
    recovery, asked = Recovery(), 0
    recovery.start(0)
    for i in range(400):
        now = i * 25_000_000
        if (request := recovery.step(Mode.READY, now)) is not None:
            asked += 1
            recovery.answered(request, False, now)
    assert not recovery.running and 8 <= asked <= 12
