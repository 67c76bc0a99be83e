"""Does validation refuse what it must? Every breakage through the scenarios, until something fails."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec
from sim2real_checks.validation.broken import Breakage, write_broken
from sim2real_checks.validation.campaign import run_all
from sim2real_checks.validation.judge import judged
from sim2real_checks.validation.scenario import Scenario


@dataclass(frozen=True)
class Bite:
    """What became of a breakage."""

    breakage: Breakage
    refused: bool
    where: str
    """Scenario that refused it, or `loading`; empty when nothing did."""
    reason: str

    def describe(self) -> str:
        """In one line."""
        if not self.refused:
            return f"NOT REFUSED: {self.breakage.name}: {self.breakage.what}"
        return f"{self.breakage.name}, refused by {self.where}: {textwrap.shorten(self.reason, 120)}"


def write_bites(path: Path, policy_sha256: str, bites: Sequence[Bite]) -> None:
    """All bites so far as JSON."""
    rows = [
        {"name": b.breakage.name, "what": b.breakage.what, "refused": b.refused, "where": b.where, "reason": b.reason}
        for b in bites
    ]
    path.write_text(json.dumps({"policy": policy_sha256, "bites": rows}, indent=1) + "\n")


def bite(
    breakage: Breakage, good: Path, spec: RobotSpec, scenarios: tuple[Scenario, ...], seed: int, workers: int
) -> Bite:  # fmt: skip
    """Break a policy and validate it until the first failure.

    Args:
        breakage: what to break.
        good: policy file that passes.
        spec: its robot.
        scenarios: those that decide, in the order in which they are run.
        seed: of the first run of each scenario.
        workers: processes.
    """
    with tempfile.TemporaryDirectory(prefix="nfpo_broken_") as folder:
        path = write_broken(breakage, good, Path(folder))
        try:
            OnnxPolicy.load(path, spec)
        except NfpoError as error:
            return Bite(breakage, True, "loading", str(error))
        for verdict in judged(run_all(path, spec.name, scenarios, seed, workers, breakage.name)):
            if not verdict.passed:
                return Bite(breakage, True, verdict.scenario.name, "; ".join(verdict.failures))
    return Bite(breakage, False, "", "every scenario was passed")
