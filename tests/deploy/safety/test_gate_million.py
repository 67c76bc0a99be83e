"""A million commands of a real gate under adversarial input: not one may break a bound. And broken gates are caught."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.safety import inputs, limits
from nfpo_deploy.safety.gate import Activity, Gate
from nfpo_deploy.types import GatePhase, Mode, RobotState, SafetyPermit
from tests.deploy.safety.gate_adversary import FAULTS, QUICK, REASONS, Adversary, N, new
from tests.deploy.safety.gate_judge import BoundViolatedError, Judge, Reference

SEEDS, STEPS = 20, 50_000
SEEN: dict[int, Adversary] = {}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_bound_is_violated(seed):
    adversary = Adversary(seed).run(STEPS)
    assert adversary.judge.steps >= STEPS
    adversary.gate = adversary.reference = adversary.judge.out = None
    SEEN[seed] = adversary


def test_the_million_went_everywhere(record_property):
    """It would prove little if the gate had been limp all the time, or had tripped for one reason only."""
    if len(SEEN) < SEEDS:
        pytest.skip("needs the campaign of this file in the same process")
    commands = sum(adversary.judge.steps for adversary in SEEN.values())
    total = {name: sum((getattr(a, name) for a in SEEN.values()), Counter())
             for name in ("phases", "activities", "reasons", "faults")}  # fmt: skip
    record_property("commands", commands)
    print(f"{commands} commands, {sum(total['reasons'].values())} trips: {dict(total['reasons'])}")
    assert commands >= 1_000_000
    assert set(total["phases"]) == set(GatePhase)
    assert set(total["activities"]) == {activity.name for activity in Activity}
    assert min(total["phases"].values()) > 0.05 * commands, total["phases"]
    assert min(total["activities"].values()) > 0.01 * commands, total["activities"]
    assert set(total["reasons"]) == set(REASONS), set(total["reasons"]) ^ set(REASONS)
    assert min(total["reasons"].values()) >= 5, total["reasons"]
    assert set(total["faults"]) == {fault.__name__ for fault in FAULTS}


# --- the judge catches what it is there for ---


def with_safety(**changes):
    """A gate that believes in other limits than the spec's."""

    class Mutant(Gate):
        def __init__(self, spec):
            super().__init__(spec)
            self._safety = replace(spec.safety, **changes)

    return Mutant


def with_parts(change):
    """A gate of which `change` has altered a part."""

    class Mutant(Gate):
        def __init__(self, spec):
            super().__init__(spec)
            change(self, spec)

    return Mutant


class NeverTrips(Gate):
    def _trip(self, problem, now_ns):
        self.reason = problem


class Deaf(Gate):
    def step(self, *inputs):
        return super().step(*inputs[:6])


class ClockBlind(Gate):
    def step(self, now_ns, *rest):
        self._latest = max(getattr(self, "_latest", now_ns), now_ns)
        return super().step(self._latest, *rest)


class StartsElsewhere(Gate):
    def _start_standing(self, now_ns):
        super()._start_standing(now_ns)
        if self._activity is Activity.STANDING:
            for setpoint in (self._sent, self._target, self._ramp.start):
                setpoint.q[:] = self._spec.default_pose


class SendsBeforeItKnows(Gate):
    def _step(self, *inputs):
        self.write = True
        return super()._step(*inputs)


def no_margin(gate, spec):
    gate._lower, gate._upper = spec.position_lower, spec.position_upper


def more_torque(gate, spec):
    gate._torque = 1.1 * gate._torque


def forgetful(name):
    def change(gate, spec):
        getattr(gate, name)._timeout_ns = 10**18

    return with_parts(change)


def fast_commands(gate, spec):
    gate._command._spec = replace(spec, velocity_limit=10.0 * spec.velocity_limit)


MUTANTS = {
    "rate limit removed": (with_safety(command_rate=1e9), "rate"),
    "rate limit a tenth too large": (with_safety(command_rate=44.0), "rate"),
    "margin removed": (with_parts(no_margin), "position"),
    "torque bound a tenth too large": (with_parts(more_torque), "torque"),
    "no speed limit of targets": (with_parts(fast_commands), "target speed"),
    "old states are taken": (forgetful("_state"), "motion needs a state"),
    "old permits are taken": (forgetful("_permit"), "motion needs a permit"),
    "old commands are taken": (forgetful("_command"), "tracking needs a command"),
    "tilt does not matter": (with_safety(tilt=4.0), "motion needs an upright trunk"),
    "any pose will do": (with_safety(start_pose_tolerance=100.0), "starts near the line"),
    "stiff at once": (with_safety(blend_duration=1e-6), "starts without stiffness"),
    "starts from the pose it wants": (StartsElsewhere, "starts at the measured pose"),
    "stiffness fades too slowly": (with_safety(damp_ramp=0.036), "stiffness fades"),
    "damps for ever": (with_safety(damp_duration=1e6), "damping follows the ramp"),
    "pauses do not matter": (with_safety(cycle_timeout=1e9), "motion ends with a pause"),
    "never trips": (NeverTrips, "motion needs"),
    "deaf to the outside": (Deaf, "motion needs peace on the wire"),
    "blind to its clock": (ClockBlind, "(motion needs a clock|stiffness fades|torque)"),
    "sends before the first state": (SendsBeforeItKnows, "first state"),
}


QUICK_MUTANTS = [name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(MUTANTS)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", QUICK_MUTANTS)
def test_broken_gate_is_caught(name):
    gate_type, rule = MUTANTS[name]
    with pytest.raises(BoundViolatedError, match=f"^{rule}"):
        for seed in range(6):
            Adversary(seed, gate_type, block=200).run(15_000)


def anything(*arrays):
    return True


PATCHES = {
    "torque bound removed": [
        (limits, "bound_torque_by_gains", lambda q, dq, qt, dqt, kp, kd, tau, limit: (kp, tau, kd))
    ],
    "position limit removed": [(limits, "clamp_positions", lambda q, lower, upper, margin=0.0: q)],
    "gains let through": [(inputs, "gains_allowed", anything)],
    "non-finite numbers let in": [(inputs, "all_finite", anything)],
    "non-finite numbers let in and out": [(inputs, "all_finite", anything), (limits, "all_finite", anything)],
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(PATCHES))
def test_gate_with_a_missing_bound_is_caught(name, monkeypatch):
    for patch in PATCHES[name]:
        monkeypatch.setattr(*patch)
    with pytest.raises(BoundViolatedError):
        for seed in range(6):
            Adversary(seed, block=200).run(15_000)


# --- starts ---


def rolled(angle, axis):
    quat = np.array([np.cos(angle / 2), 0.0, 0.0, 0.0])
    quat[1:] = np.sin(angle / 2) * axis / np.linalg.norm(axis)
    return quat


def draw_start(rng):
    """Pose, speed and attitude, each good or bad; and whether the documented rules allow to start from there."""
    spec, safety = QUICK, QUICK.safety
    kind = rng.random()
    if kind < 0.4:
        q = rng.uniform(spec.position_lower - 0.5, spec.position_upper + 0.5)
    elif kind < 0.7:
        part = rng.uniform(-0.1, 1.1)
        q = spec.crouch_pose + part * (spec.default_pose - spec.crouch_pose) + rng.uniform(-1.1, 1.1, N)
    else:
        q = spec.crouch_pose + rng.normal(0.0, 0.1, N)
    dq = rng.normal(0.0, 1.0, N)
    if rng.random() < 0.2:
        dq[rng.integers(N)] = rng.choice((-1.0, 1.0)) * rng.uniform(0.8, 1.2) * spec.velocity_limit.max()
    angle = rng.uniform(0.0, 3.1) if rng.random() < 0.2 else rng.uniform(0.0, 0.9)
    axis = np.append(rng.normal(size=2), 0.0)
    line = spec.default_pose - spec.crouch_pose
    part = np.clip((q - spec.crouch_pose) @ line / (line @ line), 0.0, 1.0)
    away = np.abs(q - spec.crouch_pose - part * line).max()
    allowed = (
        away <= safety.start_pose_tolerance
        and angle <= safety.tilt
        and bool((np.abs(dq) <= safety.joint_velocity * spec.velocity_limit).all())
    )
    return q, dq, rolled(angle, axis), allowed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_start_from_any_pose_is_ramped_or_refused(seed):
    rng, judge = np.random.default_rng(seed), Judge(QUICK)
    outcomes = Counter()
    for _ in range(500):
        q, dq, quat, allowed = draw_start(rng)
        gate, reference = Gate(QUICK), Reference(QUICK)
        judge.restart()
        still, torque = np.zeros(3), np.zeros(N)
        stiff = []
        for k in range(30):
            now = 10**9 + k * 2_000_000
            mode = Mode.DAMP if k < 18 else Mode.STAND
            state = new(
                RobotState, tick=2 * k, received_ns=now, quat_wxyz=quat, gyro_b=still, accel_b=still, q=q, dq=dq,
                tau_est=torque, mode_machine=0,
            )  # fmt: skip
            permit = SafetyPermit(k, mode)
            out = gate.step(now, state, permit, now, None, None)
            judge.record(
                now, out, reference, reference.take_state(now, state), gate, commanded=True, backwards=False,
                permitted=reference.take_permit(now, permit, now), outside=False, senseless=False,
            )  # fmt: skip
            stiff.append(float(out.stiffness.max()))
        judge.check()
        if allowed:
            assert gate.phase is GatePhase.RAMPING and not gate.tripped, gate.reason
            assert not any(stiff[:18]), "limp until the first cycle of the ramp"
            assert 0.0 < stiff[18] <= QUICK.stand_gains.stiffness.max() * 0.002 / QUICK.safety.blend_duration + 1e-9
        else:
            assert gate.tripped and gate.reason and not any(stiff), gate.reason
        outcomes["ramped" if allowed else gate.reason.split()[0]] += 1
    assert outcomes["ramped"] > 100 and outcomes["start"] > 100 and outcomes["tilt"] > 20, outcomes
