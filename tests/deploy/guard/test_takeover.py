"""When a guard steps in and back: a clock and commands made by hand."""

import numpy as np
import pytest

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.guard.takeover import Heard, Takeover, is_limp, is_passive
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot

SPEC = load_robot("go2")
N = SPEC.num_joints
POLL_S = 0.005
TIMEOUT_POLLS = 10  # guard_timeout 0.05 s in polls of 5 ms


def command(stiffness=60.0, damping=5.0, q=0.3, dq=0.0, tau=0.0):
    return MotorCommand(*(np.full(N, float(value)) for value in (q, dq, stiffness, damping, tau)))


class Clock:
    def __init__(self, rank=0):
        self.guard = Takeover(SPEC, rank, POLL_S)
        self.ns = 7_000_000_000

    def step(self, *heard, after=POLL_S):
        self.ns += round(after * 1e9)
        return self.guard.step(self.ns, list(heard))

    def silence(self, seconds, period=POLL_S):
        return [self.step(after=period) for _ in range(round(seconds / period))]


def test_nothing_is_sent_before_a_bridge_was_heard():
    clock = Clock()
    assert clock.silence(2.0) == [None] * 400
    assert not clock.guard.armed


def test_steps_in_after_the_timeout_and_not_before():
    clock = Clock()
    clock.step(Heard(command()))
    quiet = clock.silence(0.05)
    assert quiet == [None] * TIMEOUT_POLLS and not clock.guard.active
    first = clock.step()
    assert first is not None and clock.guard.active and clock.guard.takeovers == 1
    np.testing.assert_array_equal(first.stiffness, 60.0)  # the ramp begins where the bridge left off


def test_ramp_halfway_then_damping_then_zero_torque_then_silence():
    clock = Clock()
    clock.step(Heard(command(stiffness=60.0, damping=5.0, dq=2.0, tau=4.0)))
    clock.silence(0.05)
    clock.step()
    half = clock.step(after=SPEC.safety.damp_ramp / 2)
    np.testing.assert_allclose(half.stiffness, 30.0)
    np.testing.assert_allclose(half.damping, (5.0 + 3.0) / 2)
    np.testing.assert_allclose(half.tau, 2.0)
    np.testing.assert_allclose(half.dq, 1.0)
    damped = clock.step(after=SPEC.safety.damp_ramp)
    assert is_passive(damped)
    np.testing.assert_allclose(damped.damping, 3.0)
    limp = clock.step(after=SPEC.safety.damp_duration)
    assert is_limp(limp)
    assert clock.step(after=1.0) is None
    assert not clock.guard.active and not clock.guard.armed


def test_stiffness_never_rises_and_targets_never_move():
    clock = Clock()
    clock.step(Heard(command(q=-0.4)))
    sent = [c for c in clock.silence(8.0, 0.002) if c is not None]
    stiffness = np.array([c.stiffness for c in sent])
    assert np.all(np.diff(stiffness, axis=0) <= 0)
    assert all(np.all(c.q == -0.4) for c in sent)
    assert len(sent) > 3000


def test_steps_back_at_the_first_command_of_the_bridge():
    clock = Clock()
    clock.step(Heard(command()))
    clock.silence(0.06)
    assert clock.guard.active
    assert clock.step(Heard(command(stiffness=0.0, damping=3.0))) is None
    assert not clock.guard.active


def test_a_guard_that_was_suspended_does_not_blame_the_bridge():
    clock = Clock()
    clock.step(Heard(command()))
    # Ten seconds of its own absence, then the bridge's commands are there in the queue.
    assert clock.step(Heard(command()), after=10.0) is None
    assert clock.silence(0.05) == [None] * TIMEOUT_POLLS
    # Even with an empty queue a long absence is one poll, not many.
    clock.step(Heard(command()))
    assert clock.step(after=10.0) is None and not clock.guard.active


def test_limp_robot_needs_no_guard():
    clock = Clock()
    clock.step(Heard(command()))
    clock.step(Heard(command(stiffness=0.0, damping=0.0)))
    assert clock.silence(1.0) == [None] * 200


def test_damped_robot_is_damped_on():
    clock = Clock()
    clock.step(Heard(command(stiffness=0.0, damping=3.0)))
    clock.silence(0.05)
    np.testing.assert_allclose(clock.step().damping, 3.0)


def test_second_guard_waits_longer_and_leaves_the_field_to_the_first():
    clock = Clock(rank=1)
    clock.step(Heard(command()))
    assert clock.silence(0.07) == [None] * 14  # 0.05 s and 0.02 s more
    assert clock.step() is not None
    assert clock.step(Heard(command(stiffness=20.0), guard_rank=0)) is None
    assert not clock.guard.active
    # The first guard dies too: from its last command the second goes on.
    clock.silence(0.07)
    np.testing.assert_allclose(clock.step().stiffness, 20.0)


def test_first_guard_ignores_the_second():
    clock = Clock(rank=0)
    clock.step(Heard(command()))
    clock.silence(0.05)
    assert clock.step(Heard(command(), guard_rank=1)) is not None
    assert clock.guard.active


def test_dismissal_counts_only_when_the_last_command_is_passive():
    clock = Clock()
    clock.step(Heard(command()))
    assert not clock.guard.dismiss() and clock.guard.armed
    clock.step(Heard(command(stiffness=0.0, damping=3.0)))
    assert clock.guard.dismiss()
    assert clock.silence(1.0) == [None] * 200
    # A bridge that comes back is guarded again.
    clock.step(Heard(command()))
    clock.silence(0.05)
    assert clock.step() is not None


@pytest.mark.parametrize("arguments", [(2, POLL_S), (-1, POLL_S), (0, 0.0), (0, -1.0), (0, 0.03)])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(SafetyError, match="guard"):
        Takeover(SPEC, *arguments)
