"""Whatever comes in, what goes out is finite and within position, rate, gain and torque limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.safety.limits import pd_torque
from nfpo_deploy.types import GatePhase, JointCommand, Mode, RobotState, SafetyPermit
from robots.loader import load_robot

GO2 = load_robot("go2")
# Short ramps reach every phase within a few hundred cycles; all limits stay as they are.
QUICK = replace(
    GO2,
    safety=replace(
        GO2.safety, stand_duration=0.06, sit_duration=0.06, settle_duration=0.04, blend_duration=0.02,
        damp_ramp=0.03, damp_duration=0.2, pose_timeout=0.1, torque_duration=0.1,
    ),
)  # fmt: skip
N = QUICK.num_joints
STATE_FIELDS = ("q", "dq", "tau_est", "quat_wxyz", "gyro_b", "accel_b")
COMMAND_FIELDS = ("q", "dq", "stiffness", "damping", "tau")
NASTY = [
    math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -1e-310, 1e-30, 0.3, -0.7, 1.0, -3.0, 9.0, -14.0, 30.0,
    -100.0, 1e4, -1e9, 1e30, 1e160, -1.7e308,
]  # fmt: skip


class Bounds:
    """Steps a gate and checks every command that it returns."""

    def __init__(self) -> None:
        self.gate = Gate(QUICK)
        self.now = 10**9
        self.previous = None
        self.good_q, self.good_dq = np.zeros(N), np.zeros(N)
        self.phases: set[GatePhase] = set()
        self.steps = 0

    def step(self, now, state, permit, permit_ns, command, command_ns):
        out = self.gate.step(now, state, permit, permit_ns, command, command_ns)
        self.check(out, now, state)
        self.previous, self.now = out, now
        self.phases.add(self.gate.phase)
        self.steps += 1
        return out

    def check(self, out, now, state) -> None:
        gate, limit = self.gate, QUICK.safety.torque_fraction * QUICK.torque_limit
        for name in COMMAND_FIELDS:
            array = getattr(out, name)
            assert array.shape == (N,) and np.isfinite(array).all(), (name, array)
        assert np.all((out.stiffness >= 0) & (out.stiffness <= QUICK.max_gains.stiffness))
        assert np.all((out.damping >= 0) & (out.damping <= QUICK.max_gains.damping))
        assert np.all(np.abs(out.dq) <= QUICK.velocity_limit) and np.all(np.abs(out.tau) <= limit + 1e-9)
        moving = out.stiffness > 0
        assert np.all(out.q[moving] >= QUICK.position_lower[moving])
        assert np.all(out.q[moving] <= QUICK.position_upper[moving])
        # Before the first valid state, and from one that is unusable, no torque can be predicted.
        if self.gate.write and not gate._state.update(now, state):
            torque = pd_torque(state.q, state.dq, out.q, out.dq, out.stiffness, out.damping, out.tau)
            assert np.all(np.abs(torque) <= limit * (1 + 1e-6)), torque
        if gate.phase in (GatePhase.ZERO_TORQUE,):
            assert not out.stiffness.any() and not out.damping.any() and not out.tau.any()
        if gate.tripped:
            assert gate.phase in (GatePhase.DAMPING, GatePhase.ZERO_TORQUE) and gate.reason
        active = (GatePhase.RAMPING, GatePhase.HOLDING, GatePhase.TRACKING)
        if gate.phase in active and self.previous is not None and self.previous.stiffness.any():
            dt = min(max(now - self.now, 0) * 1e-9, 2 / 500)
            step = np.abs(out.q - self.previous.q).max()
            assert step <= QUICK.safety.command_rate * dt + 1e-9, step


class Story:
    """Feeds a gate plausible inputs with drawn perturbations; the joints follow loosely."""

    def __init__(self) -> None:
        self.bounds = Bounds()
        self.now, self.tick, self.seq = 10**9, 0, 0
        self.q, self.dq = QUICK.crouch_pose.copy(), np.zeros(N)
        self.permit = self.permit_ns = self.command = self.command_ns = self.state = None

    def step(self, mode, dt_ns=2_000_000, state_changes=(), command_changes=(), times=(0, 0, 0), seq_jump=0):
        self.now += dt_ns
        self.tick += 1
        self.seq += 1 + seq_jump
        self.state = perturbed(self.make_state(times[0]), state_changes)
        self.permit, self.permit_ns = SafetyPermit(self.seq, mode), self.now + times[1]
        if self.tick % 5 == 0 or command_changes:
            self.command = perturbed(self.make_command(times[2]), command_changes)
            self.command_ns = self.now
        out = self.bounds.step(self.now, self.state, self.permit, self.permit_ns, self.command, self.command_ns)
        if out.stiffness.any():
            self.dq = np.clip(0.3 * (out.q - self.q) / 0.002, -10, 10)
            self.q = self.q + 0.002 * self.dq

    def make_state(self, shift_ns):
        return RobotState(
            self.tick, self.now + shift_ns, np.array([1.0, 0, 0, 0]), np.zeros(3), np.array([0, 0, 9.81]),
            self.q.copy(), self.dq.copy(), np.zeros(N), np.full(N, 30.0), np.zeros(4), 80.0, 28.0, bytes(40),
        )  # fmt: skip

    def make_command(self, shift_ns):
        q = QUICK.default_pose + 0.3 * np.sin(self.tick * 0.1 + np.arange(N))
        return JointCommand(
            self.seq, self.tick, self.now + shift_ns, q, np.zeros(N), np.full(N, 30.0), np.full(N, 1.0), np.zeros(N)
        )

    def walk(self):
        for mode, cycles in ((Mode.DAMP, 5), (Mode.STAND, 90), (Mode.READY, 3), (Mode.WALK, 15)):
            for _ in range(cycles):
                self.step(mode)


def perturbed(message, changes):
    """Copy with some elements replaced; index -1 means all of them, -2 one element more, -3 no array at all."""
    for name, index, value in changes:
        old = getattr(message, name)
        if index == -3:
            new = value
        elif index == -2:
            new = np.append(old, value)
        else:
            new = old.copy()
            new[slice(None) if index == -1 else index % len(old)] = value
        message = replace(message, **{name: new})
    return message


def changes(fields):
    change = st.tuples(st.sampled_from(fields), st.integers(-3, N - 1), st.sampled_from(NASTY))
    # Two changes at most, and of different fields: the second would find the first one's ruins.
    return st.one_of(st.just(()), st.tuples(change))


shifts = st.sampled_from([0, 0, 0, 1_000_000, -1_000_000, 10**9, -(10**9), -15_000_000, 3_000_000])
events = st.tuples(
    st.sampled_from(list(Mode)),
    st.integers(1, 12),
    st.sampled_from([2_000_000, 2_000_000, 2_000_000, 0, 1, 500_000, 9_000_000, 150_000_000, -1_000_000]),
    changes(STATE_FIELDS),
    changes(COMMAND_FIELDS),
    st.tuples(shifts, shifts, shifts),
    st.sampled_from([0, 0, 0, -1, -5, 1000]),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=12))
def test_bounds_hold_for_any_story_from_walking_on(story_events):
    story = Story()
    story.walk()
    assert story.bounds.gate.phase is GatePhase.TRACKING
    for mode, cycles, dt, state_changes, command_changes, times, jump in story_events:
        for _ in range(cycles):
            story.step(mode, dt, state_changes, command_changes, times, jump)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(COMMAND_FIELDS), st.integers(-3, N - 1),
    st.one_of(st.sampled_from(NASTY), st.floats(width=64)), st.integers(1, 5),
)  # fmt: skip
def test_bounds_hold_for_any_number_in_a_command(name, index, value, cycles):
    story = Story()
    story.walk()
    for _ in range(cycles):
        story.step(Mode.WALK, command_changes=((name, index, value),))
    for _ in range(5):
        story.step(Mode.WALK)


@pytest.mark.parametrize("seed", range(4))
def test_wild_but_valid_commands_stay_bounded_while_tracking(seed):
    """Random targets, gains up to the maximum and torques far beyond: followed within bounds, without a trip."""
    rng, story = np.random.default_rng(seed), Story()
    story.bounds.gate._safety = replace(QUICK.safety, torque_duration=1e9, joint_trip_duration=1e9)
    story.walk()
    for _ in range(1500):
        story.seq += 1
        story.command = replace(
            story.make_command(0), q=rng.uniform(-5, 5, N), dq=rng.uniform(-1, 1, N) * QUICK.velocity_limit,
            stiffness=rng.uniform(0, 100, N), damping=rng.uniform(0, 8, N), tau=rng.normal(0, 60, N),
        )  # fmt: skip
        story.command_ns = story.now
        # The joints are thrown about as well.
        story.q = rng.uniform(QUICK.position_lower - 0.3, QUICK.position_upper + 0.3)
        story.dq = rng.uniform(-1, 1, N) * QUICK.velocity_limit
        story.step(Mode.WALK)
    assert story.bounds.gate.phase is GatePhase.TRACKING, story.bounds.gate.reason
    assert story.bounds.gate.limited_count > 1400


def test_long_random_campaign_covers_every_phase():
    """Faults at random times, recovered through DAMP each time: 20 000 cycles, every one checked."""
    rng, story = np.random.default_rng(7), Story()
    while story.bounds.steps < 20_000:
        story.state = None
        for _ in range(60):
            story.step(Mode.DAMP)
        story.walk()
        if rng.random() < 0.5:
            for mode, cycles in ((Mode.READY, 60), (Mode.SIT, 60)):
                for _ in range(cycles):
                    story.step(mode)
        for _ in range(int(rng.integers(1, 150))):
            wild = rng.random()
            fields = STATE_FIELDS if wild < 0.02 else COMMAND_FIELDS
            change = ((str(rng.choice(fields)), int(rng.integers(-3, N)), NASTY[rng.integers(len(NASTY))]),)
            story.step(
                Mode(int(rng.integers(6))) if wild > 0.99 else Mode.WALK,
                int(rng.choice([2_000_000, 2_100_000, 1_500_000, 4_500_000])),
                state_changes=change if wild < 0.02 else (),
                command_changes=change if 0.02 <= wild < 0.04 else (),
            )
        story.q, story.dq = QUICK.crouch_pose.copy(), np.zeros(N)
    assert story.bounds.phases == set(GatePhase)
