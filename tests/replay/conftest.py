"""The shipped policy, its robot, and one flight that every test damages in its own copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots import load_robot
from sim2real_checks.validation.scenario import Command, Scenario

from .flights import Flight, fly

SHIPPED = Path(__file__).parents[2] / "robots/go2/policies/walk/policy.onnx"
WALK = Scenario("walk", duration=2.5, commands=(Command(0.2, vx=0.5), Command(1.4, vx=0.3, wz=0.5)))


@pytest.fixture(scope="session")
def spec():
    return load_robot("go2")


@pytest.fixture(scope="session")
def policy(spec):
    return OnnxPolicy.load(SHIPPED, spec)


@pytest.fixture(scope="session")
def recorded(spec, policy):
    return fly(spec, policy, WALK)


@pytest.fixture
def flight(recorded):
    return Flight(recorded.spec, recorded.policy, list(recorded.rows))
