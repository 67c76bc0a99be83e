"""From scores to verdicts: confidence over seeds, limits, and what decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim2real_checks.validation.film import Film
from sim2real_checks.validation.scenario import Scenario, ScenarioError
from sim2real_checks.validation.scores import UNITS

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outcome:
    """One run of a scenario."""

    scenario: Scenario
    seed: int
    scores: Mapping[str, float]
    ended: str
    """Why it ended early; empty when it did not."""
    seconds: float
    """CPU time of the run."""
    film: Film = field(default_factory=dict, repr=False)
    """For plots and pictures."""


@dataclass(frozen=True)
class Verdict:
    """A scenario over its seeds."""

    scenario: Scenario
    outcomes: tuple[Outcome, ...]
    failures: tuple[str, ...]
    """What was not good enough, in words; empty when it passed."""

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(scenario: Scenario, outcomes: Sequence[Outcome]) -> Verdict:
    """Compare a scenario's runs with its limits.

    Args:
        scenario: with its limits.
        outcomes: one for each seed.
    """
    failures = [f"seed {outcome.seed}: {outcome.ended}" for outcome in outcomes if outcome.ended]
    for name, limit in scenario.limits.items():
        values = [outcome.scores[name] for outcome in outcomes]
        known = [value for value in values if not math.isnan(value)]
        mean = float(np.mean(known)) if known else math.nan
        if mean > limit:
            failures.append(f"{name} {mean:.3g} above {limit:g} {UNITS[name]}".rstrip())
    return Verdict(scenario, tuple(outcomes), tuple(failures))


def judged(outcomes: Iterable[Outcome]) -> Iterator[Verdict]:
    """Verdict of each scenario as soon as its last seed is there; a scenario's runs come one after the other."""
    runs: list[Outcome] = []
    for outcome in outcomes:
        runs.append(outcome)
        if len(runs) == outcome.scenario.seeds:
            yield judge(outcome.scenario, runs)
            runs = []


def check_limits(scenarios: Sequence[Scenario]) -> None:
    """Every limit is that of a score.

    Raises:
        ScenarioError: one is not; the message lists the scores.
    """
    for scenario in scenarios:
        unknown = sorted(set(scenario.limits) - set(UNITS))
        if unknown:
            raise ScenarioError(
                f"scenario {scenario.name[:80]!r}: limits: {unknown[0][:80]!r} is no score; known: {', '.join(UNITS)}"
            )


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % confidence interval by bootstrap over seeds; the interval is NaN for fewer than two values."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return (float(known.mean()) if len(known) else math.nan, math.nan, math.nan)
    draws = np.random.default_rng(seed).choice(known, (RESAMPLES, len(known))).mean(axis=1)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return float(known.mean()), float(low), float(high)
