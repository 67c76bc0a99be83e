"""What is broken on purpose is broken as it says, and is refused."""

from __future__ import annotations

import numpy as np
import pytest

from nfpo_deploy.errors import PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from sim2real_checks.validation.broken import BREAKAGES, write_broken
from sim2real_checks.validation.run import run_scenario
from sim2real_checks.validation.scenario import Command, Scenario, load_set
from sim2real_checks.validation.teeth import bite

BY_NAME = {breakage.name: breakage for breakage in BREAKAGES}


@pytest.fixture
def broken(spec, policy, tmp_path):
    return lambda name: OnnxPolicy.load(write_broken(BY_NAME[name], policy.path, tmp_path), spec)


@pytest.fixture(scope="module")
def observation(policy):
    low, high = policy.manifest.observation_low, policy.manifest.observation_high
    return np.random.default_rng(0).uniform(low, high).astype(np.float32)


def test_there_are_many_and_each_breaks_one_thing():
    assert len(BREAKAGES) >= 15 and len(BY_NAME) == len(BREAKAGES)
    assert all((breakage.edit is None) != (breakage.tamper is None) for breakage in BREAKAGES)


def test_metadata_is_changed_as_told(broken, policy):
    good = policy.manifest
    names = list(broken("two joints swapped").manifest.joint_names)
    i, j = good.joint_names.index("FL_thigh_joint"), good.joint_names.index("FR_thigh_joint")
    assert names[i] == "FR_thigh_joint" and names[j] == "FL_thigh_joint"
    assert broken("stiff gains").manifest.stiffness == pytest.approx(1.5 * good.stiffness)
    assert broken("large actions").manifest.action_scale == pytest.approx(2.0 * good.action_scale)
    terms = [term.name for term in broken("terms reordered").manifest.terms]
    assert terms[:2] == ["projected_gravity", "base_ang_vel"]


def test_networks_are_changed_as_told(broken, policy, observation):
    good = policy(observation)
    flipped = broken("sign flipped")(observation)
    signs = np.ones(len(good))
    signs[4] = -1.0
    assert flipped == pytest.approx(signs * good, abs=1e-5)
    assert broken("saturated")(observation) == pytest.approx(100.0 * good, rel=1e-4)
    assert not np.allclose(broken("no normaliser")(observation), good, atol=0.05)
    assert not np.allclose(broken("untrained")(observation), good, atol=0.05)


@pytest.mark.parametrize(("name", "words"), [("wrong robot", "h1"), ("half the rate", "control_rate_hz is 25")])
def test_some_are_refused_when_they_are_loaded(broken, name, words):
    with pytest.raises(PolicyError, match=words):
        broken(name)


@pytest.mark.parametrize(("name", "words"), [("not a number", "joint command"), ("degrees", "")])
def test_broken_set_ups_end_the_walk(spec, policy, name, words):
    walk = Scenario("walk", duration=5.0, commands=(Command(0.2, vx=0.6),))
    trace = run_scenario(spec, policy, walk, 0, BY_NAME[name].tamper)
    assert trace.ended and words in trace.ended


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_breakage_is_refused(spec, policy):
    deciding = tuple(scenario for scenario in load_set("go2_quick").scenarios if scenario.required)
    found = [bite(breakage, policy.path, spec, deciding, 0, 2) for breakage in BREAKAGES]
    assert not [one.breakage.name for one in found if not one.refused]
