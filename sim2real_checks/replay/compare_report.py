"""Report of a comparison: one HTML file, JSON beside it, and lines for a scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from sim2real_checks.faults import html
from sim2real_checks.plain_json import without_nan
from sim2real_checks.replay import plots
from sim2real_checks.replay.fit import CONFIDENCE, Estimate, Fit
from sim2real_checks.replay.gap import SHAKING_HZ, SIGNALS, Gap
from sim2real_checks.replay.recording import Recording
from sim2real_checks.replay.windows import Windows

HTML, JSON, YAML = "report.html", "report.json", "actuation.yaml"


@dataclass(frozen=True)
class Comparison:
    """Everything that was found."""

    sim: Recording
    real: Recording
    gap: Gap
    fit: Fit | None
    windows: Windows | None
    no_fit: str = ""
    """Why there is no fit."""


def actuation_yaml(fit: Fit, model_friction: float) -> str:
    """Lines for a scenario's `actuation:`; what the log does not determine, or a scenario cannot have, is a comment."""
    found = {one.name: one for one in fit.estimates}
    friction, latency, strength = (found[name] for name in ("friction", "latency", "strength"))
    # A scenario's friction comes beside the model's own.
    entries = {
        "delay": (latency, max(0.0, latency.value), "s"),
        "strength": (strength, strength.value, ""),
        "friction": (friction, max(0.0, friction.value - model_friction), "N m beside the model's own"),
    }
    lines = ["actuation:"]
    for name, (one, value, unit) in entries.items():
        if one.identifiable:
            lines.append(f"  {name}: {value:.4g}" + (f"  # {unit}" if unit else ""))
        else:
            lines.append(f"  # {name}: this log does not determine it ({one.low:.3g} to {one.high:.3g})")
    for name in ("armature", "damping"):
        if name in found:
            one = found[name]
            sure = "" if one.identifiable else ", not determined by this log"
            lines.append(
                f"# {name}: {one.value:.4g} {one.unit}, the model has {one.nominal:.4g}{sure}; no scenario has it"
            )
    return "\n".join(lines) + "\n"


def write_report(folder: Path, found: Comparison, context: Mapping[str, Any]) -> None:
    """Write the page, the JSON and, where there is a fit, the scenario's lines."""
    folder.mkdir(parents=True, exist_ok=True)
    html.write_text(folder / JSON, json.dumps(without_nan(to_json(found, context)), indent=1) + "\n")
    html.write_text(folder / HTML, _page(found, context))
    if found.fit is not None:
        html.write_text(folder / YAML, actuation_yaml(found.fit, found.real.spec.joint_friction))


def to_json(found: Comparison, context: Mapping[str, Any]) -> dict[str, Any]:
    """As plain data; SI units but where a name says otherwise."""
    gap, fit, names = found.gap, found.fit, found.real.spec.joint_names
    return {
        "robot": found.real.spec.name, **context,
        "sim": _described(found.sim), "real": _described(found.real),
        "joints": {
            name: {"sim": asdict(sim), "real": asdict(real), "distance": gap.distance[name]}
            for name, (sim, real) in gap.joints.items()
        },
        "body": {name: dict(zip(("sim", "real", "distance"), v, strict=True)) for name, v in gap.body.items()},
        "no_fit": found.no_fit,
        "fit": None if fit is None else {
            "windows": fit.windows, "confidence": CONFIDENCE,
            "parameters": {
                one.name: {**asdict(one), "differs": one.differs} for one in fit.estimates
            },
            "entangled": [list(pair) for pair in fit.entangled],
            "error_before": list(fit.error_before), "error_after": list(fit.error_after),
            "joints": {
                name: {"before": float(b), "after": float(a), "offset": float(o)}
                for name, (b, a), o in zip(names, fit.joint_errors, fit.offset, strict=True)
            },
        },
    }  # fmt: skip


def _described(recording: Recording) -> dict[str, Any]:
    return {
        "name": recording.name, "seconds": float(recording.time[-1]), "states": len(recording.time),
        "compared": int(recording.active.sum()), "problems": recording.problems,
    }  # fmt: skip


def verdict(one: Estimate) -> str:
    """What a parameter's interval says."""
    if not one.identifiable:
        return "not identifiable from this log"
    return "differs from the simulator" if one.differs else "as in the simulator"


def _page(found: Comparison, context: Mapping[str, Any]) -> str:
    sim, real = found.sim, found.real
    lines = [
        f"{what}: {r.name}, {r.time[-1]:.1f} s, {r.active.sum()} of {len(r.time)} states compared"
        for what, r in (("simulated", sim), ("real", real))
    ]
    parts = [html.bullets(lines), html.paragraph(", ".join(f"{k} {v}" for k, v in context.items()), "note")]
    parts += [html.paragraph(f"{r.name}: {problem}", "bad") for r in (sim, real) for problem in r.problems]
    parts += _fit_parts(found)
    parts += [html.heading("The gap, joint by joint"), html.paragraph(_GAP_NOTE, "note"), _joint_table(found.gap)]
    parts += [html.heading("Body"), _body_table(found.gap)]
    parts += [html.heading("One leg"), html.image(plots.excerpt(sim, real), "positions and commands of one leg")]
    parts += [html.heading("Spectra of joint velocities"), html.image(plots.spectra(sim.spec, found.gap), "spectra")]
    parts += [html.heading("Distributions"), html.image(plots.distributions(sim, real), "distributions of signals")]
    return html.page(f"{sim.name} and {real.name}", parts)


_GAP_NOTE = (
    "Tracking is q minus the commanded q. Simulated / real; p95 is the 95th percentile of the size, shaking the RMS of "
    f"dq above {SHAKING_HZ:g} Hz, delay that by which q follows its command best. Distance is the Wasserstein distance "
    "between both distributions, in the signal's unit."
)


def _fit_parts(found: Comparison) -> list[str]:
    fit, spec = found.fit, found.real.spec
    if fit is None or found.windows is None:
        return [html.paragraph(f"No parameters were fitted: {found.no_fit}")]
    rows = [(e.name, e.unit, e.nominal, e.value, f"{e.low:.4g} to {e.high:.4g}", verdict(e)) for e in fit.estimates]
    bad = [one.differs for one in fit.estimates]
    names = spec.joint_names
    joint_rows = [
        (name, 1e3 * float(b), 1e3 * float(a), float(o))
        for name, (b, a), o in zip(names, fit.joint_errors, fit.offset, strict=True)
    ]
    head = ("parameter", "unit", "simulator", "fitted", f"{100 * CONFIDENCE:g} % interval", "")
    parts = [
        html.heading("What would close the gap"),
        html.table(head, rows, bad),
        html.paragraph(_rollout_line(fit)),
    ]
    parts += [
        html.paragraph(f"This log tells {a} from {b} badly: their estimates depend on each other ({r:+.2f})", "note")
        for a, b, r in fit.entangled
    ]
    parts += [
        html.paragraph("For a scenario of nfpo validate:"),
        f"<pre>{escape(actuation_yaml(fit, spec.joint_friction))}</pre>",
    ]
    parts.append(html.image(plots.rollouts(found.windows, spec, fit), "windows rolled out"))
    parts.append(html.table(("joint", "error before, mrad", "after, mrad", "constant torque, N m"), joint_rows))
    return parts


def _rollout_line(fit: Fit) -> str:
    before, after = fit.error_before, fit.error_after
    return (
        f"Over {fit.windows} windows of a leg in the air the simulator is off by {1e3 * before[0]:.2f} mrad and "
        f"{before[1]:.3f} rad/s as it is, and by {1e3 * after[0]:.2f} mrad and {after[1]:.3f} rad/s when fitted."
    )


def _joint_table(gap: Gap) -> str:
    head = ["joint"]
    for name, unit in SIGNALS.items():
        head += [f"{name} RMS, {unit}", "p95", "distance"]
    head += ["shaking, rad/s", "delay, ms"]
    rows = []
    for joint, (sim, real) in gap.joints.items():
        row: list[Any] = [joint]
        for name in SIGNALS:
            row += [f"{sim.rms[name]:.3g} / {real.rms[name]:.3g}", f"{sim.p95[name]:.3g} / {real.p95[name]:.3g}"]
            row.append(gap.distance[joint][name])
        rows.append(
            [*row, f"{sim.shaking:.3g} / {real.shaking:.3g}", f"{sim.delay_ms:.1f} / {real.delay_ms:.1f}"]
        )  # fmt: skip
    return html.table(head, rows)


def _body_table(gap: Gap) -> str:
    head = ("axis", "unit", "standard deviation, simulated", "real", "distance")
    rows = [(name, "rad/s" if name.startswith("gyro") else "m/s²", *values) for name, values in gap.body.items()]
    return html.table(head, rows)
