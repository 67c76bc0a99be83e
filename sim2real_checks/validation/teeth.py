"""Does validation refuse what it must? Every breakage through the scenarios, until something fails."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import load_robot
from sim2real_checks.validation.broken import Breakage, write_broken
from sim2real_checks.validation.campaign import run_all
from sim2real_checks.validation.judge import judge
from sim2real_checks.validation.scenario import ScenarioSet


@dataclass(frozen=True)
class Bite:
    """What became of a breakage."""

    breakage: Breakage
    refused: bool
    where: str
    """Scenario that refused it, or `loading`; empty when nothing did."""
    reason: str


def bite(breakage: Breakage, good: Path, scenario_set: ScenarioSet, seed: int, workers: int) -> Bite:
    """Break a policy and validate it until the first failure.

    Args:
        breakage: what to break.
        good: policy file that passes.
        scenario_set: whose deciding scenarios are run, in their order.
        seed: of the first run of each scenario.
        workers: processes.
    """
    spec = load_robot(scenario_set.robot)
    deciding = tuple(s for s in scenario_set.scenarios if s.required)
    with tempfile.TemporaryDirectory(prefix="nfpo_broken_") as folder:
        path = write_broken(breakage, good, Path(folder))
        try:
            OnnxPolicy.load(path, spec)
        except NfpoError as error:
            return Bite(breakage, True, "loading", str(error))
        for outcome in run_all(path, scenario_set.robot, deciding, seed, workers, breakage.name):
            verdict = judge(outcome.scenario, [outcome])
            if not verdict.passed:
                return Bite(breakage, True, outcome.scenario.name, "; ".join(verdict.failures))
    return Bite(breakage, False, "", "every scenario was passed")
