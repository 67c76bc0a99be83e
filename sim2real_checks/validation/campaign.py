"""All scenarios of a set, for one policy, on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec, load_robot
from sim2real_checks.validation.broken import BREAKAGES
from sim2real_checks.validation.film import film_of
from sim2real_checks.validation.judge import Outcome
from sim2real_checks.validation.run import run_scenario
from sim2real_checks.validation.scenario import Scenario
from sim2real_checks.validation.scores import score

_loaded: dict[tuple[str, str], tuple[RobotSpec, OnnxPolicy]] = {}


def run_all(
    policy: Path, robot: str, scenarios: tuple[Scenario, ...], seed: int, workers: int, breakage: str = "",
    model: Path | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """Run every scenario with each of its seeds, the next free core taking the next run; results as they come.

    Args:
        policy: ONNX file.
        robot: folder.
        scenarios: what to run.
        seed: of the first run of each scenario.
        workers: processes.
        breakage: name of what breaks the software on purpose, in every run.
        model: MJCF file of the robot in place of ours.
    """
    jobs = [
        (str(policy), robot, scenario, seed + i, breakage, model)
        for scenario in scenarios for i in range(scenario.seeds)
    ]  # fmt: skip
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(_run, *job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(path: str, robot: str, scenario: Scenario, seed: int, breakage: str, model: Path | None) -> Outcome:
    if (path, robot) not in _loaded:
        spec = load_robot(robot)
        _loaded[path, robot] = (spec, OnnxPolicy.load(Path(path), spec))
    spec, policy = _loaded[path, robot]
    began = time.process_time()
    tamper = next((b.tamper for b in BREAKAGES if b.name == breakage), None)
    trace = run_scenario(spec, policy, scenario, seed, tamper, model)
    scores, film = score(trace, scenario, policy), film_of(trace)
    return Outcome(scenario, seed, scores, trace.ended, time.process_time() - began, film)
