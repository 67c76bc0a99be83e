"""The shipped policy and its robot."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots import load_robot

SHIPPED = Path(__file__).parents[2] / "robots/go2/policies/walk/policy.onnx"


@pytest.fixture(scope="session")
def spec():
    return load_robot("go2")


@pytest.fixture(scope="session")
def policy(spec):
    return OnnxPolicy.load(SHIPPED, spec)
