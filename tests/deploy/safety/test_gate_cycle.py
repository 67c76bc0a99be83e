"""The gate's phases in order: what it sends from the first cycle to the last of a healthy day."""

import numpy as np
import pytest

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.types import GatePhase, Mode


def zero(out) -> bool:
    return not any(np.any(x) for x in (out.q, out.dq, out.stiffness, out.damping, out.tau))


def test_nothing_is_written_before_a_state_was_seen(rig):
    rig.send_state = False
    for out in rig.run(Mode.DAMP, 0.1):
        assert zero(out)
    assert not rig.gate.write
    assert (rig.gate.phase, rig.gate.reason) == (GatePhase.ZERO_TORQUE, "no robot state received")
    rig.send_state = True
    rig.step(Mode.DAMP)
    assert rig.gate.write and rig.gate.phase is GatePhase.DAMPING


def test_full_nominal_cycle(rig, spec):
    gate, safety = rig.gate, spec.safety
    rig.run(Mode.DAMP, 0.2)
    assert (gate.phase, gate.reason) == (GatePhase.DAMPING, "mode DAMP")
    outs = rig.run(Mode.STAND, safety.stand_duration / 2)
    assert (gate.phase, gate.reason, gate.stand_reached) == (GatePhase.RAMPING, "", False)
    # Half way in time is half way in pose on a smoothstep, within the few cycles that the permit took.
    middle = (spec.crouch_pose + spec.default_pose) / 2
    np.testing.assert_allclose(outs[-1].q, middle, atol=0.03)
    rig.run(Mode.STAND, safety.stand_duration / 2 + 0.05)
    assert (gate.phase, gate.stand_reached) == (GatePhase.HOLDING, True)
    out = rig.run(Mode.READY, 1.0)[-1]
    np.testing.assert_array_equal(out.q, spec.default_pose)
    np.testing.assert_array_equal(out.stiffness, spec.stand_gains.stiffness)
    np.testing.assert_array_equal(out.damping, spec.stand_gains.damping)
    assert (gate.phase, gate.stand_reached) == (GatePhase.HOLDING, True)
    out = rig.run(Mode.WALK, 1.0, q=spec.default_pose + 0.1)[-1]
    assert gate.phase is GatePhase.TRACKING
    np.testing.assert_allclose(out.q, spec.default_pose + 0.1)
    np.testing.assert_array_equal(out.stiffness, 25.0)
    rig.run(Mode.READY, safety.settle_duration / 2)
    assert gate.phase is GatePhase.RAMPING and not gate.stand_reached
    out = rig.run(Mode.READY, safety.settle_duration)[-1]
    assert (gate.phase, gate.stand_reached) == (GatePhase.HOLDING, True)
    np.testing.assert_array_equal(out.q, spec.default_pose)
    rig.run(Mode.SIT, safety.sit_duration + 0.1)
    assert (gate.phase, gate.sit_reached, gate.stand_reached) == (GatePhase.HOLDING, True, False)
    out = rig.run(Mode.DAMP, safety.damp_ramp + 0.1)[-1]
    assert (gate.phase, gate.sit_reached) == (GatePhase.DAMPING, False)
    assert not out.stiffness.any() and not out.tau.any()
    np.testing.assert_array_equal(out.damping, spec.damp_gains.damping)
    assert zero(rig.run(Mode.DAMP, safety.damp_duration)[-1])
    assert gate.phase is GatePhase.ZERO_TORQUE
    assert not gate.tripped and gate.last_trip == "" and gate.limited_count == 0


def test_stand_starts_at_the_measured_pose_without_stiffness(rig, spec):
    rig.q = spec.crouch_pose + 0.2
    rig.run(Mode.DAMP, 0.2)
    ramp = [out for out in rig.run(Mode.STAND, 0.4) if rig.gate.phase is GatePhase.RAMPING and out.stiffness.any()]
    np.testing.assert_allclose(ramp[0].q, np.minimum(spec.crouch_pose + 0.2, spec.position_upper), atol=1e-3)
    # One cycle of a linear gain ramp over blend_duration.
    assert ramp[0].stiffness[0] == pytest.approx(60.0 * 0.002 / spec.safety.blend_duration)
    steps = np.diff([out.stiffness[0] for out in ramp])
    assert steps.max() <= 60.0 * 0.002 / spec.safety.blend_duration + 1e-9


def test_stand_from_the_mechanical_stops_is_ramped_not_tripped(rig, spec):
    rig.q = spec.crouch_pose.copy()
    rig.q[2] = spec.position_lower[2] - 0.1
    rig.run(Mode.DAMP, 0.1)
    outs = rig.run(Mode.STAND, spec.safety.stand_duration + 0.1)
    assert rig.gate.stand_reached and not rig.gate.tripped
    assert min(out.q[2] for out in outs if out.stiffness.any()) >= spec.position_lower[2]


def test_walk_blends_in_over_the_blend_duration(rig, spec):
    rig.stand()
    target = spec.default_pose + 0.2
    outs = [o for o in rig.run(Mode.WALK, 0.5, q=target) if rig.gate.phase is GatePhase.TRACKING]
    started = next(i for i, out in enumerate(outs) if out.stiffness[0] != 60.0)
    half = outs[started + round(spec.safety.blend_duration * 250) - 1]
    assert half.stiffness[0] == pytest.approx((60 + 25) / 2, abs=0.2)
    assert half.q[0] == pytest.approx(spec.default_pose[0] + 0.1, abs=0.003)


def test_walk_waits_briefly_for_the_first_command(rig, spec):
    rig.send_command = False
    rig.stand()
    outs = rig.run(Mode.WALK, 0.04)
    assert not rig.gate.tripped and rig.gate.phase is GatePhase.TRACKING
    np.testing.assert_array_equal(outs[-1].q, spec.default_pose)
    rig.send_command = True
    rig.run(Mode.WALK, 0.5)
    assert not rig.gate.tripped and rig.gate.phase is GatePhase.TRACKING


def test_walk_without_any_command_trips(rig, spec):
    rig.send_command = False
    rig.stand()
    rig.run(Mode.WALK, spec.safety.command_timeout + 0.03)
    assert rig.gate.tripped and rig.gate.reason == "no joint command received"


def test_target_steps_are_rate_limited_and_counted(rig, spec):
    rig.walk()
    assert rig.gate.limited_count == 0
    # The joint moves along, so that only the rate can limit: 0.3 rad at 40 rad/s takes four cycles of 0.08 rad.
    before = rig.run(Mode.WALK, 0.02)[-1].q
    rig.seq += 100
    rig.command = rig.make_command(q=spec.default_pose + 0.3)
    rig.command_ns = rig.now
    rig.send_command = False
    targets = np.array([rig.step(Mode.WALK).q for _ in range(5)])
    travelled = targets[:, 0] - before[0]
    np.testing.assert_allclose(travelled, [0.08, 0.16, 0.24, 0.3, 0.3], atol=1e-9)
    assert rig.gate.limited_count == 3


def test_targets_beyond_the_range_are_clamped_and_counted(rig, spec):
    rig.stand()
    out = rig.run(Mode.WALK, 1.0, q=np.full(12, 1e6), stiffness=np.full(12, 1.0))[-1]
    np.testing.assert_allclose(out.q, spec.position_upper - spec.safety.joint_position_margin)
    assert not rig.gate.tripped and rig.gate.limited_count > 300


def test_outputs_are_fresh_arrays(rig):
    rig.run(Mode.DAMP, 0.3)
    a, b = rig.step(Mode.DAMP), rig.step(Mode.DAMP)
    assert not np.shares_memory(a.q, b.q)
    b.damping[:] = 1e9
    assert rig.step(Mode.DAMP).damping[0] == 3.0


@pytest.mark.parametrize("rate", [0.0, -500.0, float("nan"), float("inf")])
def test_bad_rate_is_refused(spec, rate):
    with pytest.raises(SafetyError, match="above zero"):
        Gate(spec, rate_hz=rate)


def test_a_cycle_costs_a_small_part_of_its_period(rig):
    rig.walk()
    rig.costs_ns.clear()
    rig.run(Mode.WALK, 1.0)
    assert rig.gate.phase is GatePhase.TRACKING
    # 32 µs measured on a 2-core machine; the bound leaves room for one that is busy.
    assert np.percentile(rig.costs_ns, 25) < 200_000
