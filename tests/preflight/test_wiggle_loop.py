"""Consent, and the loop around the stack when what it stands on breaks."""

import io
from types import SimpleNamespace

import pytest

from nfpo_deploy.errors import SafetyError, TransportError
from nfpo_deploy.guard.link import Report
from sim2real_checks.preflight import command, wiggle
from sim2real_checks.preflight.finding import Finding, Result
from sim2real_checks.preflight.wiggle_stack import WiggleStack

pytest.importorskip("mujoco")
from tests.preflight.wiggle_rig import SPEC, still

ARGS = command.PreflightArgs("lo", wiggle=True)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Time that passes only while the loop waits."""

    now_ns = 10_000_000_000

    def wait(self):
        self.now_ns += 2_000_000
        return self.now_ns

    def monotonic_ns(self):
        return self.now_ns

    def monotonic(self):
        return self.now_ns * 1e-9

    def sleep(self, seconds):
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(wiggle, "time", clock)
    monkeypatch.setattr(wiggle, "RateLoop", lambda rate_hz: clock)
    return clock


class Channel:
    """A robot that stays as it is; reading or writing fails in the given cycles."""

    identity_problem = foreign_publisher = ""
    last_foreign_ns = 0
    statistics = SimpleNamespace(foreign_lowcmd=0)

    def __init__(self, clock, failing=range(0)):
        self.clock, self.failing, self.cycle, self.sent = clock, failing, 0, []

    def read_state(self):
        self.cycle += 1
        if self.cycle in self.failing:
            raise TransportError("reading rt/lowstate failed")
        now_ns = self.clock.now_ns
        return still(tick=now_ns // 1_000_000, received_ns=now_ns)

    def write_command(self, sent):
        self.sent.append(sent)


class Roll:
    dismissed = False

    def poll(self, now_ns):
        pass

    def alive(self, now_ns):
        return [Report(rank, False, 1) for rank in (0, 1)]

    def dismiss(self):
        self.dismissed = True


def loop(channel, roll, received=()):
    stack = WiggleStack(SPEC, SPEC.crouch_pose)
    aside = SimpleNamespace(joint=None, problem="")
    return stack, wiggle._Loop(stack, channel, roll, aside, list(received))


def test_an_exception_ends_in_damping_and_is_raised_and_the_guards_stay(clock):
    channel, roll = Channel(clock, failing=[1100]), Roll()
    stack, running = loop(channel, roll)
    with pytest.raises(TransportError, match="reading rt/lowstate failed"):
        running.run()
    assert channel.sent[1080].stiffness.any(), "it was moving"
    assert stack.over and "internal error: TransportError" in stack.stop.reason
    assert not channel.sent[-1].stiffness.any() and channel.sent[-1].damping.all() and not roll.dismissed


def test_a_channel_that_stays_broken_is_left_to_the_guards(clock):
    channel, roll = Channel(clock, failing=range(1100, 10**9)), Roll()
    _, running = loop(channel, roll)
    with pytest.raises(TransportError):
        running.run()
    assert not roll.dismissed


def test_asked_to_end_it_dismisses_the_guards_after_the_last_command(clock):
    channel, roll = Channel(clock), Roll()
    stack, running = loop(channel, roll, received=["SIGINT received"])
    running.run()
    assert stack.stop.reason == "SIGINT received" and roll.dismissed
    assert not any(sent.stiffness.any() for sent in channel.sent)


def test_no_states_no_motion(clock):
    channel = SimpleNamespace(read_state=lambda: None)
    with pytest.raises(SafetyError, match="0 robot states in 0.5 s, expected 250"):
        wiggle._look(channel)


def test_legs_in_words():
    assert wiggle.leg_of(0, SPEC) == "front right leg" and wiggle.leg_of(11, SPEC) == "rear left leg"


@pytest.mark.parametrize("answer", ["yes\n", "\n", "", "wiggle it\n"])
def test_only_the_word_is_consent(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(command.PreflightError, match="nothing was moved: expected 'wiggle'"):
        command.ask(ARGS)


def test_the_word_and_the_option_are_consent(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", Terminal("wiggle\n"))
    command.ask(ARGS)
    assert "each joint in turn, by 0.1 rad" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO())
    command.ask(command.PreflightArgs("lo", wiggle=True, yes=True))
    with pytest.raises(command.PreflightError, match="on a terminal, or consent with --yes"):
        command.ask(ARGS)


def test_consent_to_nothing_is_a_mistake():
    with pytest.raises(command.PreflightError, match="--yes is consent to --wiggle"):
        command.preflight(["--interface", "lo", "--yes"])


def test_after_a_failed_check_nobody_is_asked_and_nothing_moves(monkeypatch):
    monkeypatch.setattr(command, "ask", lambda args: pytest.fail("asked"))
    good = [Finding(name, Result.PASS, "") for name in ("built-in controller", "accelerometer", "joints at rest")]
    (finding,) = command.move(SPEC, ARGS, [*good, Finding("battery", Result.FAIL, "3 %")])
    assert finding.result is Result.FAIL and "nothing was moved: battery: 3 %" in finding.measured


def test_a_controller_that_came_back_while_consent_was_asked_for_is_refused(monkeypatch):
    participant = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(wiggle, "DdsParticipant", lambda interface, domain_id: participant)
    for active in ("", "normal"):
        client = SimpleNamespace(check_mode=lambda timeout_s, active=active: active)
        monkeypatch.setattr(wiggle, "MotionSwitcherClient", lambda participant, client=client: client)
        if active:
            with pytest.raises(SafetyError, match="'normal' is active"):
                wiggle._refuse_controller("lo", 48)
        else:
            wiggle._refuse_controller("lo", 48)
