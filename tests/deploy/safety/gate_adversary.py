"""Stories for a gate: plausible days with every kind of bad input at random times, and hours of plain garbage."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.types import GatePhase, JointCommand, Mode, RobotState, SafetyPermit
from robots.loader import load_robot
from tests.deploy.safety.gate_judge import Judge, Reference

GO2 = load_robot("go2")
# Short ramps reach every phase within a few hundred cycles; all bounds stay as they are.
QUICK = replace(
    GO2,
    safety=replace(
        GO2.safety, stand_duration=0.06, sit_duration=0.06, settle_duration=0.04, blend_duration=0.02,
        damp_ramp=0.03, damp_duration=0.1, pose_timeout=0.05, torque_duration=0.1,
    ),
)  # fmt: skip
N = QUICK.num_joints
NAN, INF = float("nan"), float("inf")
NASTY = (
    NAN, INF, -INF, 0.0, -0.0, 5e-324, -1e-310, 2.2e-308, 1e-30, 0.3, -0.7, 1.0, -3.0, 9.0, -14.0, 30.0, -100.0, 1e4,
    -1e9, 1e30, -1e100, 1e160, -1.7e308,
)  # fmt: skip
STATE_FIELDS = ("q", "dq", "tau_est", "quat_wxyz", "gyro_b", "accel_b")
COMMAND_FIELDS = ("q", "dq", "stiffness", "damping", "tau")
REASONS = {
    "no state": re.compile(r"^no robot state received"),
    "state shape": re.compile(r"robot state: .* has shape"),
    "state non-finite": re.compile(r"robot state: non-finite"),
    "quaternion": re.compile(r"not a unit quaternion"),
    "state absurd": re.compile(r"beyond anything"),
    "state future": re.compile(r"robot state comes .* from the future"),
    "state stale": re.compile(r"robot state stale"),
    "state frozen": re.compile(r"robot state frozen"),
    "state late": re.compile(r"states arrive .* late"),
    "robot restarted": re.compile(r"tick fell from"),
    "another robot": re.compile(r"mode_machine"),
    "no permit": re.compile(r"^no permit received"),
    "unknown mode": re.compile(r"unknown mode"),
    "permit future": re.compile(r"permit comes .* from the future"),
    "permit order": re.compile(r"permit out of order"),
    "two permits": re.compile(r"two permits"),
    "permit stale": re.compile(r"permit stale"),
    "permit jump": re.compile(r"permit jumped"),
    "no command": re.compile(r"^no joint command received"),
    "command shape": re.compile(r"command: .* has shape"),
    "command non-finite": re.compile(r"command: non-finite"),
    "gains": re.compile(r"gains outside"),
    "target speed": re.compile(r"target speed beyond"),
    "command future": re.compile(r"command: comes .* from the future"),
    "command order": re.compile(r"command: out of order"),
    "command of an old state": re.compile(r"answers a state that was"),
    "command stale": re.compile(r"command stale"),
    "tilt": re.compile(r"^tilt"),
    "position": re.compile(r": position .* beyond its limit"),
    "velocity": re.compile(r": velocity .* beyond its limit"),
    "torque": re.compile(r"torque saturated"),
    "start pose": re.compile(r"start pose refused"),
    "stand-up": re.compile(r"stand-up failed"),
    "clock": re.compile(r"clock went backwards"),
    "pause": re.compile(r"the bridge paused"),
    "outside": re.compile(r"another program"),
    "internal": re.compile(r"internal error"),
}
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])
PLANS = (
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 6), (Mode.WALK, 150)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 4), (Mode.WALK, 60), (Mode.READY, 26), (Mode.WALK, 60)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 4), (Mode.WALK, 20), (Mode.READY, 26), (Mode.SIT, 45)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.SIT, 45), (Mode.DAMP, 20)),
    ((Mode.DAMP, 18), (Mode.STAND, 130)),
    ((Mode.DAMP, 18), (Mode.STAND, 30), (Mode.SIT, 40), (Mode.FAULT, 90)),
)


def new(cls, **values):
    """A frozen message without the cost of its constructor."""
    message = object.__new__(cls)
    message.__dict__.update(values)
    return message


class Adversary:
    """Steps one gate after the other through stories; every command goes to the judge."""

    def __init__(self, seed, gate_type=Gate, spec=QUICK, block=1000):
        self.random, self.draw = random.Random(seed), np.random.default_rng(seed)
        self.gate_type, self.spec = gate_type, spec
        self.judge = Judge(spec, block)
        self.phases, self.activities, self.reasons, self.faults = Counter(), Counter(), Counter(), Counter()
        self.still, self.gravity = np.zeros(3), np.array([0.0, 0.0, 9.81])
        self.temperature, self.no_torque = np.full(N, 30.0), np.zeros(N)
        self.constants = (UPRIGHT, self.still, self.gravity, self.no_torque)
        self.gains = (np.full(N, 30.0), np.full(N, 1.0))
        self.begin()

    def run(self, steps):
        """At least so many steps; the judge raises `BoundViolatedError`."""
        episodes = 0
        while self.judge.steps + self.judge.i < steps:
            episodes += 1
            if episodes % 40 == 0:
                self.begin()
            self.episode()
        self.judge.check()
        return self

    def begin(self):
        """A new gate, at another time, that may have to wait for its first state."""
        self.gate, self.reference = self.gate_type(self.spec), Reference(self.spec, self.constants)
        self.judge.restart()
        # Near the end of the tick's 32 bits now and then.
        self.now = 10**9 + self.random.randrange(10**12)
        self.tick_offset = self.random.choice((0, 0, 2**32 - 10**6)) - self.now // 10**6
        self.last_now, self.last_trip, self.was_tripped = self.now, "", False
        self.seq, self.tracking_since, self.k = 1, 0, 0
        self.state = self.permit = self.permit_ns = self.command = self.command_ns = None
        self.outside, self.sag = "", None
        self.q, self.dq = self.spec.crouch_pose.copy(), np.zeros(N)
        for _ in range(self.random.randrange(4)):
            self.step()

    def episode(self):
        """One plan with one kind of fault in it, or one of garbage."""
        rng = self.random
        self.q, self.dq = self.start_pose(), np.zeros(N)
        self.wild, self.sag = rng.random() < 0.3, None
        plan = rng.choice(PLANS)
        if rng.random() < 0.1:
            plan = plan[:2] + tuple((rng.choice(list(Mode)), rng.randrange(1, 40)) for _ in range(4))
        fault = rng.choice(FAULTS)
        self.faults[fault.__name__] += 1
        # After the ramp rather than before it: there is more to lose.
        start = rng.randrange(10, 10 + sum(cycles for _, cycles in plan))
        end = start + rng.choice((1, 1, 2, 5, 20, 60))
        cycle = 0
        patience = rng.choice((4, 10, 40, 1000))
        for mode, cycles in plan:
            for _ in range(cycles):
                self.produce(mode)
                if start <= cycle < end:
                    fault(self)
                self.step()
                cycle += 1
                # What follows a trip is damping, whatever is asked: a look at it is enough most of the time.
                patience -= self.gate.tripped and mode is not Mode.DAMP
                if patience < 0:
                    return
        if rng.random() < 0.15:
            self.garbage(rng.randrange(1, 60))

    def start_pose(self):
        """Mostly the crouch; sometimes anything, the mechanical stops and beyond included."""
        rng, spec = self.random, self.spec
        kind = rng.random()
        if kind < 0.9:
            return spec.crouch_pose + self.draw.normal(0.0, 0.02, N)
        if kind < 0.96:
            return self.draw.uniform(spec.position_lower - 0.3, spec.position_upper + 0.3)
        return spec.crouch_pose + self.draw.uniform(-1.2, 1.2, N)

    def produce(self, mode):
        """Plausible inputs of the next cycle."""
        rng = self.random
        self.k += 1
        # What an earlier fault changed in passing is whole again.
        self.outside = ""
        self.now += 2_000_000 if rng.random() < 0.9 else rng.choice((1_500_000, 2_300_000, 3_900_000, 9_000_000))
        self.state = self.make_state()
        if self.k % 5 == 0 or self.permit is None:
            self.seq += 1
            self.permit, self.permit_ns = SafetyPermit(self.seq, mode), self.now
        elif self.permit.mode != mode:
            self.seq += 1
            self.permit, self.permit_ns = SafetyPermit(self.seq, mode), self.now
        if self.k % 5 == 2 or self.command is None:
            self.command, self.command_ns = self.make_command(), self.now

    def make_state(self):
        return new(
            RobotState, tick=(self.now // 10**6 + self.tick_offset) % 2**32, received_ns=self.now - 300_000,
            quat_wxyz=UPRIGHT, gyro_b=self.still, accel_b=self.gravity,
            q=self.q if self.sag is None else self.q + self.sag, dq=self.dq, tau_est=self.no_torque,
            temperature=self.temperature, foot_force=self.still, battery_soc=80.0, voltage=28.0,
            wireless_remote=b"", mode_machine=0,
        )  # fmt: skip

    def make_command(self):
        self.seq += 1
        draw, spec = self.draw, self.spec
        stiffness, damping = self.gains
        q, dq, tau = spec.default_pose, self.no_torque, self.no_torque
        if self.wild:
            q = draw.uniform(-5.0, 5.0, N)
            dq = draw.uniform(-1.0, 1.0, N) * spec.velocity_limit
            stiffness, damping = draw.random(N) * spec.max_gains.stiffness, draw.random(N) * spec.max_gains.damping
            tau = draw.normal(0.0, 60.0, N)
            if self.random.random() < 0.2:
                tiny = NASTY[self.random.randrange(3, 9)]
                tau, stiffness = tau * 1e30, stiffness * abs(tiny)
        elif self.k % 3 == 0:
            q = q + draw.uniform(-0.4, 0.4, N)
        return new(
            JointCommand, seq=self.seq, state_tick=0, state_received_ns=self.now - 2_000_000, q=q, dq=dq,
            stiffness=stiffness, damping=damping, tau=tau,
        )  # fmt: skip

    def garbage(self, cycles):
        """Nothing fits anything: each input from any of the faults, several at once, none of it in order."""
        rng = self.random
        for _ in range(cycles):
            self.produce(rng.choice(list(Mode)))
            for _ in range(rng.randrange(1, 5)):
                rng.choice(FAULTS)(self)
            self.step()

    def step(self):
        """One cycle of the gate, judged."""
        gate, reference, now = self.gate, self.reference, self.now
        tracked = gate.phase is GatePhase.TRACKING
        out = gate.step(now, self.state, self.permit, self.permit_ns, self.command, self.command_ns, self.outside)
        senseless = not (self.state is None or type(self.state) is RobotState)
        usable = not senseless and reference.take_state(now, self.state)
        permitted = reference.take_permit(now, self.permit, self.permit_ns)
        commanded = reference.take_command(now, self.command, self.command_ns)
        if gate.phase is GatePhase.TRACKING:
            if not tracked:
                self.tracking_since = now
            elif not commanded:
                # The first command of a walk may take its time, unless it must not be followed at all.
                waiting = now - self.tracking_since <= self.spec.safety.command_timeout * 1e9 + 4_000_000
                commanded = waiting and (self.command is None or reference.command_valid)
            else:
                commanded = True
            commanded = commanded or not tracked
        self.judge.record(
            now, out, reference, usable, gate, permitted=permitted, commanded=commanded, backwards=now < self.last_now,
            outside=bool(self.outside), senseless=senseless,
        )  # fmt: skip
        self.last_now = now
        self.count()
        self.follow(out)

    def count(self):
        gate = self.gate
        self.phases[gate.phase] += 1
        self.activities[gate._activity.name] += 1
        if gate.tripped and not self.was_tripped:
            for name, pattern in REASONS.items():
                if pattern.search(gate.reason):
                    self.reasons[name] += 1
                    break
            else:
                self.reasons[gate.reason] += 1
        self.was_tripped = gate.tripped

    def follow(self, out):
        """The joints go toward their targets while anything holds them."""
        if self.gate.phase >= GatePhase.RAMPING:
            step = 0.3 * (out.q - self.q)
            self.q = self.q + step
            self.dq = step * 50.0
        else:
            self.dq = self.no_torque


# --- faults: each changes the inputs that `produce` has just made ---


def with_state(adversary, **changes):
    state = adversary.state
    if type(state) is RobotState:
        adversary.state = new(RobotState, **{**state.__dict__, **changes})


def with_command(adversary, fresh=True, **changes):
    if adversary.command is not None:
        if fresh:
            adversary.command = adversary.make_command()
            adversary.command_ns = adversary.now
        adversary.command = new(JointCommand, **{**adversary.command.__dict__, **changes})


def spoiled(adversary, array, value=None):
    """Copy with one, several or all elements replaced; or of another length, shape or type."""
    rng = adversary.random
    value = rng.choice(NASTY) if value is None else value
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim != 1:
        return array
    kind = rng.random()
    result = array.copy()
    if kind < 0.8 and len(array):
        if rng.random() < 0.2:
            result[:] = value
        else:
            result[rng.randrange(len(array))] = value
        return result
    return rng.choice(
        (
            np.append(array, value), array[:-1], array[:, None], np.empty(0), value, None, list(array),
            array.astype(np.float32), array.astype(object), np.array(["x"] * len(array)),
        )
    )  # fmt: skip


def spoil_state(a):
    field = a.random.choice(STATE_FIELDS)
    if type(a.state) is RobotState:
        with_state(a, **{field: spoiled(a, getattr(a.state, field))})


def spoil_command(a):
    field = a.random.choice(COMMAND_FIELDS)
    if a.command is not None:
        with_command(a, **{field: spoiled(a, getattr(a.command, field))})


def no_state(a):
    a.state = None


def silent_state(a):
    a.state = a.reference.state


def frozen_state(a):
    if a.reference.tick is not None:
        with_state(a, tick=a.reference.tick)


def overtaken_state(a):
    with_state(a, tick=(a.state.tick - a.random.randrange(1, 60)) % 2**32 if type(a.state) is RobotState else 0)


def restarted_robot(a):
    """The tick falls by far more than packets overtake each other, once."""
    if type(a.state) is RobotState and a.reference.tick is not None and a.random.random() < 0.2:
        a.tick_offset -= 10**5
        with_state(a, tick=(a.state.tick - 10**5) % 2**32)


def future_state(a):
    with_state(a, received_ns=a.now + a.random.choice((1_000_000, 3_000_000, 10**9, 2**62)))


def late_state(a):
    with_state(a, received_ns=a.now - a.random.choice((5_000_000, 15_000_000, 30_000_000, 10**9, a.now)))


def creeping_state(a):
    """Each state is new, and a little later than the one before."""
    a.tick_offset -= 1


def other_robot(a):
    with_state(a, mode_machine=a.random.choice((1, 5, -1, 255)))


def tilted(a):
    angle = a.random.choice((0.9, 1.01, 1.5, 3.1)) / 2
    with_state(a, quat_wxyz=np.array([np.cos(angle), 0.0, np.sin(angle), 0.0]))


def bad_quaternion(a):
    with_state(a, quat_wxyz=UPRIGHT * a.random.choice((0.0, 0.5, 0.89, 1.2, 1e-320, 1e80)))


def thrown_joints(a):
    """Joints anywhere within and beyond their range, at any speed."""
    spec = a.spec
    a.q = a.draw.uniform(spec.position_lower - 0.3, spec.position_upper + 0.3)
    a.dq = a.draw.uniform(-1.1, 1.1, N) * spec.velocity_limit
    with_state(a, q=a.q, dq=a.dq)


def over_position(a):
    q = a.q.copy()
    q[a.random.randrange(N)] += a.random.choice((-4.0, 4.0))
    with_state(a, q=q)


def over_speed(a):
    dq = a.dq.copy()
    dq[a.random.randrange(N)] = a.random.choice((-1.0, 1.0, 5.0, 20.0)) * 30.0
    with_state(a, dq=dq)


def saturated(a):
    tau = np.zeros(N)
    tau[a.random.randrange(N)] = a.random.choice((-46.0, 46.0, 1e30))
    with_state(a, tau_est=tau)


def blocked(a):
    """The joints stay where they are, whatever is asked."""
    a.q = a.reference.q.copy() if a.reference.received else a.q
    a.dq = np.zeros(N)
    with_state(a, q=a.q, dq=a.dq)


def sagging(a):
    """From now on one joint stays behind by more than it may after a stand-up, and by less than saturates it."""
    if a.sag is None:
        a.sag = np.zeros(N)
        a.sag[a.random.choice((0, 1, 3, 4))] = a.random.choice((-0.37, 0.37))


def senseless_state(a):
    a.state = a.random.choice(("a state", 7, [], {}, object()))


def no_permit(a):
    a.permit = None if a.random.random() < 0.5 else a.permit
    a.permit_ns = None if a.permit is not None else a.permit_ns


def silent_permit(a):
    a.permit, a.permit_ns = a.reference.permit or a.permit, a.reference.permit_fresh or a.permit_ns


def repeated_permit(a):
    if a.reference.permit is not None:
        a.permit, a.permit_ns = SafetyPermit(a.reference.permit_seq, a.reference.permit_mode), a.now


def permit_out_of_order(a):
    mode = a.permit.mode if a.permit is not None else Mode.WALK
    a.permit, a.permit_ns = SafetyPermit(a.seq - a.random.randrange(1, 10**6), mode), a.now


def two_permits(a):
    a.permit, a.permit_ns = SafetyPermit(a.reference.permit_seq, a.random.choice(list(Mode))), a.now


def unknown_mode(a):
    a.permit, a.permit_ns = SafetyPermit(a.seq + 1, a.random.choice((6, 17, -1, 255))), a.now
    a.seq += 1


def future_permit(a):
    a.seq += 1
    a.permit, a.permit_ns = SafetyPermit(a.seq, a.random.choice(list(Mode))), a.now + a.random.choice((10**6, 10**9))


def jumping_permit(a):
    a.seq += a.random.choice((1, 10**6, 2**31))
    a.permit, a.permit_ns = SafetyPermit(a.seq, a.random.choice(list(Mode))), a.now


def no_command(a):
    a.command = None


def silent_command(a):
    a.command, a.command_ns = a.reference.command, a.reference.command_fresh or None


def repeated_command(a):
    with_command(a, fresh=False)
    a.command_ns = a.now


def command_out_of_order(a):
    with_command(a, seq=a.seq - a.random.randrange(1, 1000))


def future_command(a):
    with_command(a, state_received_ns=a.now + a.random.choice((10**6, 10**9)))


def command_of_an_old_state(a):
    with_command(a, state_received_ns=a.now - a.random.choice((50_000_000, 70_000_000, 10**10)))


def gains_beyond(a):
    field = a.random.choice(("stiffness", "damping"))
    value = a.random.choice((-1e-320, -1.0, 101.0, 1e30))
    with_command(a, **{field: spoiled(a, np.ones(N), value)})


def too_fast(a):
    """A little beyond, and otherwise in order, so that nothing else refuses it."""
    dq = np.zeros(N)
    joint = a.k % N
    dq[joint] = a.random.choice((-1.05, 1.05)) * a.spec.velocity_limit[joint]
    with_command(a, dq=dq)


def clock_back(a):
    a.now = a.last_now - a.random.choice((1, 1_000_000, 10**9))


def clock_stops(a):
    a.now = a.last_now + a.random.choice((0, 0, 1, 1000))


def pause(a):
    a.now = a.last_now + a.random.choice((41_000_000, 150_000_000, 10**10))
    a.state = a.make_state()


def pause_within_the_timeout(a):
    a.now = a.last_now + a.random.choice((10_000_000, 30_000_000, 39_000_000))
    a.state = a.make_state()


def company(a):
    a.outside = "another program commands the motors"


def nothing(a):
    """A day without a fault."""


FAULTS = (
    spoil_state, spoil_state, spoil_command, spoil_command, no_state, silent_state, frozen_state, overtaken_state,
    restarted_robot, future_state, late_state, creeping_state, other_robot, tilted, bad_quaternion, thrown_joints,
    over_position, over_speed, saturated, blocked, sagging, senseless_state, no_permit, silent_permit, repeated_permit,
    permit_out_of_order, two_permits, unknown_mode, future_permit, jumping_permit, no_command, silent_command,
    repeated_command, command_out_of_order, future_command, command_of_an_old_state, gains_beyond, too_fast,
    clock_back, clock_stops, pause, pause_within_the_timeout, company, nothing,
)  # fmt: skip
