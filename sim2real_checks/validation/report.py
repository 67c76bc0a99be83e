"""The validation's report: one HTML file with the verdict on top and the failures first, JSON beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim2real_checks.faults import html
from sim2real_checks.plain_json import without_nan
from sim2real_checks.validation.evidence import FILMS, write_evidence
from sim2real_checks.validation.judge import Verdict, interval
from sim2real_checks.validation.model_file import ModelFile
from sim2real_checks.validation.scenario import ScenarioSet
from sim2real_checks.validation.scores import UNITS

HTML, JSON = "report.html", "report.json"
BESIDE = ("steady_planar_error", "steady_yaw_error", "rise_time", "tilt", "slip", "torque_peak", "torque_rms",
          "power_mean", "action_rate", "estimator_error")  # fmt: skip
"""Scores that are shown beside each other: of runs in process, through the graph, and on another model."""


@dataclass(frozen=True)
class Validated:
    """A policy over a whole set."""

    policy: str
    sha256: str
    verdicts: tuple[Verdict, ...]
    graph: tuple[Verdict, ...] = ()
    """Of scenarios that were walked through the ROS 2 graph, too."""
    on_model: tuple[Verdict, ...] = ()
    """Of scenarios that were run on another model of the robot, too."""
    model_name: str = ""
    """That model's."""

    @property
    def passed(self) -> bool:
        """Every scenario that decides was passed, also through the graph and on another model, and there was one."""
        return self.passed_on_ours and not self.model_failures

    @property
    def passed_on_ours(self) -> bool:
        """As `passed`, with our model of the robot alone: what a clearance speaks of."""
        return bool(self.required) and not self.failures and all(verdict.passed for verdict in self.graph)

    @property
    def model_failures(self) -> list[Verdict]:
        """Scenarios that decide and were not passed on another model."""
        return [verdict for verdict in self.on_model if verdict.scenario.required and not verdict.passed]

    @property
    def failures(self) -> list[Verdict]:
        """Scenarios that decide and were not passed."""
        return [verdict for verdict in self.verdicts if verdict.scenario.required and not verdict.passed]

    @property
    def required(self) -> int:
        """How many scenarios decide."""
        return sum(verdict.scenario.required for verdict in self.verdicts)

    def headline(self) -> str:
        """The verdict in a line."""
        extra = [verdict for verdict in self.verdicts if not verdict.scenario.required]
        more = f"; of {len(extra)} that do not decide, {sum(v.passed for v in extra)}" if extra else ""
        word = "passed" if self.passed else "FAILED" if self.required else "NOTHING DECIDED"
        held = f"{self.required - len(self.failures)} of {self.required} scenarios held"
        graph = (
            f"; through the ROS 2 graph {sum(v.passed for v in self.graph)} of {len(self.graph)}" if self.graph else ""
        )
        deciding = sum(verdict.scenario.required for verdict in self.on_model)
        other = f"; on {self.model_name} {deciding - len(self.model_failures)} of {deciding}" if self.on_model else ""
        return f"{word}: {held}{more}{graph}{other}"

    def summary(self) -> dict[str, tuple[float, float, float]]:
        """Mean and 95 % interval of each score over all runs that decide."""
        runs = [o for v in self.verdicts if v.scenario.required for o in v.outcomes]
        return {name: interval([o.scores[name] for o in runs]) for name in UNITS}


def write_report(
    folder: Path, validated: Sequence[Validated], scenario_set: ScenarioSet, context: Mapping[str, Any],
    model: ModelFile | None = None,
) -> None:  # fmt: skip
    """Write both files.

    Args:
        folder: is made where it does not exist.
        validated: one for each policy.
        scenario_set: that they were run through.
        context: what else describes the run, by name.
        model: the other model of the robot that they were run on, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = without_nan(to_json(validated, scenario_set, context, model))
    html.write_text(folder / JSON, json.dumps(plain, indent=1) + "\n")
    html.write_text(folder / HTML, _page(folder, validated, scenario_set, context, model))


def to_json(
    validated: Sequence[Validated], scenario_set: ScenarioSet, context: Mapping[str, Any],
    model: ModelFile | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that was found, as plain data."""
    return {
        "set": scenario_set.name, "set_sha256": scenario_set.sha256, "robot": scenario_set.robot, **context,
        "model": None if model is None else {"path": str(model.path), "sha256": dict(model.sha256)},
        "policies": [
            {
                "policy": one.policy, "sha256": one.sha256, "passed": one.passed, "verdict": one.headline(),
                "scores": {name: list(values) for name, values in one.summary().items()},
                "scenarios": [_scenario_json(verdict) for verdict in one.verdicts],
                "through_graph": [_scenario_json(verdict) for verdict in one.graph],
                "on_model": [_scenario_json(verdict) for verdict in one.on_model],
            }
            for one in validated
        ],
    }  # fmt: skip


def _scenario_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.scenario.name, "group": verdict.scenario.group, "required": verdict.scenario.required,
        "passed": verdict.passed, "failures": list(verdict.failures),
        "runs": [
            {"seed": o.seed, "ended": o.ended, "cpu_s": o.seconds, "scores": dict(o.scores)} for o in verdict.outcomes
        ],
    }  # fmt: skip


def _page(
    folder: Path, validated: Sequence[Validated], scenario_set: ScenarioSet, context: Mapping[str, Any],
    model: ModelFile | None,
) -> str:  # fmt: skip
    parts = [
        html.paragraph(f"Set {scenario_set.name}: {scenario_set.description}"),
        html.paragraph(", ".join(f"{key} {value}" for key, value in context.items()), "note"),
    ]
    if model is not None:
        parts.append(html.paragraph(f"Run on another model, too, {model.path}; sha256 of its files:", "note"))
        parts.append(html.bullets(f"{name}: {sha256}" for name, sha256 in model.sha256.items()))
    for one in validated:
        parts.append(html.paragraph(f"{one.policy}: {one.headline()}", "good" if one.passed else "bad"))
    for i, one in enumerate(validated):
        parts += _failures(folder / FILMS / str(i), scenario_set.robot, one.policy, one.verdicts)
        where = f"{one.policy} on {one.model_name}"
        parts += _failures(folder / FILMS / f"{i}_on_model", scenario_set.robot, where, one.on_model)
    for one in validated:
        if one.graph:
            parts.append(html.heading(f"{one.policy}: in process → through the ROS 2 graph"))
            parts.append(_table_beside(one, one.graph, "through the graph"))
        if one.on_model:
            parts.append(html.heading(f"{one.policy}: our model → {one.model_name}"))
            parts.append(_table_beside(one, one.on_model, one.model_name))
    parts += [html.heading("Scores over all runs that decide"), _score_table(validated)]
    parts += [html.heading("Scenarios"), _scenario_table(validated)]
    return html.page(f"Validation: {', '.join(one.policy for one in validated)}", parts)


def _failures(folder: Path, robot: str, policy: str, verdicts: Sequence[Verdict]) -> list[str]:
    """What failed and decides, then what failed and does not, each with plots and pictures as far as they go."""
    deciding = [v for v in verdicts if v.scenario.required and not v.passed]
    extra = [v for v in verdicts if not v.scenario.required and not v.passed]
    failed = [*deciding, *extra]
    if not failed:
        return []
    shown, problem = write_evidence(folder, robot, failed)
    count = min(len(deciding), len(shown))
    parts = [html.paragraph(problem, "note")] if problem else []
    if count:
        parts += [html.heading(f"Failures of {policy}"), *shown[:count]]
    if extra:
        parts += [html.heading(f"Not held by {policy}, not deciding"), *shown[count:]]
    rest = failed[len(shown) :]
    return [*parts, html.bullets(f"{v.scenario.name}: {'; '.join(v.failures)}" for v in rest)]


def _score_table(validated: Sequence[Validated]) -> str:
    head = ("score", "unit", *(one.policy for one in validated))
    summaries = [one.summary() for one in validated]
    rows = [(name, UNITS[name], *(_with_interval(s[name]) for s in summaries)) for name in UNITS]
    return html.table(head, rows)


def _table_beside(one: Validated, others: Sequence[Verdict], where: str) -> str:
    """Scores of the same scenarios in process and elsewhere."""
    inside = {verdict.scenario.name: verdict for verdict in one.verdicts}
    rows = []
    for verdict in others:
        both = (inside[verdict.scenario.name].outcomes[0].scores, verdict.outcomes[0].scores)
        cells = [f"{both[0][name]:.3g} → {both[1][name]:.3g}" for name in BESIDE]
        rows.append((verdict.scenario.name, *cells, "; ".join(verdict.failures) or "passed"))
    return html.table(("scenario", *BESIDE, where), rows, [not verdict.passed for verdict in others])


def _with_interval(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    if math.isnan(mean):
        return "–"
    return f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"


def _scenario_table(validated: Sequence[Validated]) -> str:
    head = ("scenario", "group", "decides", *(one.policy for one in validated))
    on_model = zip(*(one.on_model for one in validated), strict=True)
    of_model = {verdicts[0].scenario.name: verdicts for verdicts in on_model}
    rows, bad = [], []
    for verdicts in zip(*(one.verdicts for one in validated), strict=True):
        scenario = verdicts[0].scenario
        variants = [(scenario.name, verdicts)]
        if scenario.name in of_model:
            variants.append((f"{scenario.name}, on {validated[0].model_name}", of_model[scenario.name]))
        for name, variant in variants:
            words = ["passed" if v.passed else "; ".join(v.failures) for v in variant]
            rows.append((name, scenario.group, "yes" if scenario.required else "no", *words))
            bad.append(scenario.required and not all(v.passed for v in variant))
    return html.table(head, rows, bad)
