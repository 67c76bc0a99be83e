"""A bridge that paused, and problems that the gate is told of from outside."""

import numpy as np
import pytest

from nfpo_deploy.types import GatePhase, Mode


def pause(rig, seconds, mode=Mode.WALK):
    """The bridge stands still while state, permit and command go on, as seen by their newest messages."""
    missed = round(seconds * 500)
    rig.now += missed * 2_000_000
    rig.tick += missed
    rig.seq += missed // 10 + 1
    return rig.step(mode)


def test_pause_within_the_timeout_goes_on(rig, spec):
    rig.walk()
    # Everything else is fresh when the bridge comes back.
    rig.now += round(spec.safety.cycle_timeout * 1e9) - 2_000_000 - 2_000_000
    rig.tick += round(spec.safety.cycle_timeout * 500) - 2
    rig.run(Mode.WALK, 0.1)
    assert rig.gate.phase is GatePhase.TRACKING and not rig.gate.tripped


@pytest.mark.parametrize("seconds", [0.042, 0.2, 30.0])
def test_longer_pause_trips_into_damping_without_a_moment_of_stiffness(rig, spec, seconds):
    rig.walk()
    out = pause(rig, seconds)
    assert rig.gate.tripped and "the bridge paused for" in rig.gate.reason
    np.testing.assert_array_equal(out.stiffness, 0.0)
    np.testing.assert_allclose(out.damping, spec.damp_gains.damping)
    for later in rig.run(Mode.WALK, 0.5):
        np.testing.assert_array_equal(later.stiffness, 0.0)


@pytest.mark.parametrize("mode", [Mode.STAND, Mode.READY, Mode.SIT])
def test_pause_trips_in_every_active_mode(rig, mode):
    if mode is Mode.STAND:
        rig.run(Mode.DAMP, 0.2)
        rig.run(Mode.STAND, 1.0)
    else:
        rig.stand()
        rig.run(mode, 0.5)
    out = pause(rig, 0.1, mode)
    assert rig.gate.tripped and not out.stiffness.any()


def test_passive_gate_does_not_mind_a_pause(rig):
    rig.run(Mode.DAMP, 0.5)
    pause(rig, 1.0, Mode.DAMP)
    assert not rig.gate.tripped


def test_problem_from_outside_trips_names_itself_and_forbids_the_next_start(rig):
    rig.walk()
    step = rig.gate.step

    def with_problem(*args):
        return step(*args, problem="another program commands the motors")

    rig.gate.step = with_problem
    rig.step(Mode.WALK)
    assert rig.gate.tripped and rig.gate.reason == "another program commands the motors"
    rig.run(Mode.DAMP, 1.0)
    assert rig.gate.tripped, "cleared while the problem lasts"
    rig.gate.step = step
    rig.run(Mode.DAMP, 0.1)
    assert not rig.gate.tripped
    rig.gate.step = with_problem
    rig.run(Mode.STAND, 0.1)
    assert rig.gate.tripped and rig.gate.phase in (GatePhase.DAMPING, GatePhase.ZERO_TORQUE)
