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
from tests.deploy.safety.gate_faults import FAULTS, NASTY, UPRIGHT, N, new
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
    "permit ahead": re.compile(r"permit ahead of order"),
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
PLANS = (
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 6), (Mode.WALK, 150)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 4), (Mode.WALK, 60), (Mode.READY, 26), (Mode.WALK, 60)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.READY, 4), (Mode.WALK, 20), (Mode.READY, 26), (Mode.SIT, 45)),
    ((Mode.DAMP, 18), (Mode.STAND, 62), (Mode.SIT, 45), (Mode.DAMP, 20)),
    ((Mode.DAMP, 18), (Mode.STAND, 130)),
    ((Mode.DAMP, 18), (Mode.STAND, 30), (Mode.SIT, 40), (Mode.FAULT, 90)),
)


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
