"""Scenario files: what is commanded, on which ground, with which disturbances and errors, and what counts as a pass.

The schema is the dataclasses below; `load_set` turns a YAML file into a `ScenarioSet` or says which entry is wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from nfpo_deploy.errors import NfpoError
from robots.untrusted import UntrustedError, load_yaml, read_bounded

VERSION = 1
SETS_DIR = Path(__file__).resolve().parent / "sets"
MAX_SCENARIOS = 5000
MAX_SHOWN = 200
STATE_PERIOD_S = 0.002
TERRAINS = ("flat", "slope", "stairs", "rough", "seesaw")
DISTURBANCES = ("push", "shove", "payload", "weak_motor", "friction")
POSES = ("default", "crouch")
ENGINES = ("mujoco", "bullet")
BULLET_TERRAINS = ("flat", "slope")
BULLET_DISTURBANCES = ("push", "shove", "payload", "weak_motor", "friction")
MUJOCO_PHYSICS = ("cone", "integrator", "solver", "iterations")
"""Entries of physics that only MuJoCo has."""


class ScenarioError(NfpoError):
    """A scenario file is missing, malformed or contradicts itself; the message names file, entry and remedy."""


def limited(low: float = -math.inf, high: float = math.inf, default: Any = dataclasses.MISSING, unit: str = "") -> Any:
    """A number from `low` to `high`."""
    metadata = {"low": low, "high": high, "unit": unit}
    return field(metadata=metadata) if default is dataclasses.MISSING else field(default=default, metadata=metadata)


def one_of(choices: Sequence[str], default: Any = dataclasses.MISSING) -> Any:
    """One of some words."""
    metadata = {"choices": tuple(choices)}
    return field(metadata=metadata) if default is dataclasses.MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Command:
    """From `at` s on the operator asks for this velocity in base_link; over `ramp` s from what he asked before."""

    at: float = limited(0.0, 3600.0, unit="s")
    vx: float = limited(-5.0, 5.0, 0.0, "m/s")
    vy: float = limited(-5.0, 5.0, 0.0, "m/s")
    wz: float = limited(-5.0, 5.0, 0.0, "rad/s")
    ramp: float = limited(0.0, 60.0, 0.0, "s")


@dataclass(frozen=True)
class Terrain:
    """The ground. A flat start of `runway` m lies before everything, and the robot looks along +x of the world."""

    kind: str = one_of(TERRAINS, "flat")
    friction: float = limited(0.05, 2.0, 0.8)
    """Sliding coefficient under the feet."""
    angle: float = limited(-35.0, 35.0, 0.0, "degrees")
    """slope: rises along `heading`."""
    heading: float = limited(-180.0, 180.0, 0.0, "degrees")
    """slope: direction in which it rises, from +x; 90 is across, rising to the left."""
    height: float = limited(-0.3, 0.3, 0.05, "m")
    """stairs: of a step, below zero for going down. rough: from lowest to highest. seesaw: of its axis."""
    depth: float = limited(0.1, 2.0, 0.3, "m")
    """stairs: of a step."""
    steps: int = limited(1, 50, 6)
    """stairs: how many."""
    cell: float = limited(0.05, 1.0, 0.15, "m")
    """rough: distance of neighbouring heights."""
    runway: float = limited(0.0, 10.0, 1.0, "m")


@dataclass(frozen=True)
class Disturbance:
    """Something that happens to the body at `at` s, for `duration` s where that has a meaning."""

    kind: str = one_of(DISTURBANCES)
    at: float = limited(0.0, 3600.0, 0.0, "s")
    duration: float = limited(0.0, 3600.0, 0.1, "s")
    """shove, weak_motor and friction; zero means to the end."""
    speed: float = limited(0.0, 3.0, 0.5, "m/s")
    """push: added to the base's velocity at once."""
    force: float = limited(0.0, 500.0, 50.0, "N")
    """shove: at the base's centre of mass."""
    direction: float = limited(-180.0, 180.0, 0.0, "degrees")
    """push and shove: in base_link, 0 to the front, 90 to the left."""
    mass: float = limited(0.01, 20.0, 3.0, "kg")
    """payload: on the base, from the start."""
    x: float = limited(-0.5, 0.5, 0.0, "m")
    y: float = limited(-0.5, 0.5, 0.0, "m")
    z: float = limited(-0.2, 0.5, 0.08, "m")
    """payload: its place in base_link."""
    joint: str = ""
    """weak_motor: its name."""
    factor: float = limited(0.0, 1.5, 0.7)
    """weak_motor: part of its torque that it still makes."""
    friction: float = limited(0.05, 2.0, 0.2)
    """friction: sliding coefficient from then on."""


@dataclass(frozen=True)
class Sensing:
    """What sensors get wrong."""

    noise: float = limited(0.0, 20.0, 1.0)
    """Multiple of the noise of a Go2's sensors (`SensorErrors`)."""
    bias: float = limited(0.0, 20.0, 1.0)
    """Multiple of the biases of IMU and encoders."""
    delay: float = limited(0.0, 0.1, 0.0, "s")
    dropout: float = limited(0.0, 0.9, 0.0)
    """Part of the LowStates that get lost, at random."""


@dataclass(frozen=True)
class Actuation:
    """What motors and the way to them get wrong."""

    delay: float = limited(0.0, 0.1, 0.002, "s")
    strength: float = limited(0.3, 1.5, 1.0)
    """Torque made, as a multiple of the torque asked for."""
    gain: float = limited(0.3, 2.0, 1.0)
    """Stiffness and damping of the motors' own controllers, as a multiple of what was commanded."""
    torque_speed: bool = False
    """Torque falls with speed as a motor's does."""
    friction: float = limited(0.0, 5.0, 0.0, "N m")
    """Dry friction of each joint beside the model's own."""
    backlash: float = limited(0.0, 0.1, 0.0, "rad")


@dataclass(frozen=True)
class Start:
    """How the robot begins: stood up and held by the gate, as it always does, after it was placed so."""

    pose: str = one_of(POSES, "default")
    yaw: float = limited(-180.0, 180.0, 0.0, "degrees")


@dataclass(frozen=True)
class Physics:
    """The world's laws: engine, integrator, contacts, solver. Bullet has but the timestep of what follows."""

    engine: str = one_of(ENGINES, "mujoco")
    timestep: float = limited(0.0002, 0.001, 0.001, "s")
    """A divisor of the 2 ms between two LowStates."""
    cone: str = one_of(("elliptic", "pyramidal"), "elliptic")
    integrator: str = one_of(("implicitfast", "implicit", "euler", "rk4"), "implicitfast")
    solver: str = one_of(("newton", "cg", "pgs"), "newton")
    iterations: int = limited(1, 1000, 100)


@dataclass(frozen=True)
class Scenario:
    """One situation. `limits` are upper bounds of scores; those of the set hold where the scenario names none."""

    name: str
    group: str = ""
    duration: float = limited(0.5, 600.0, 8.0, "s")
    commands: tuple[Command, ...] = ()
    terrain: Terrain = Terrain()
    disturbances: tuple[Disturbance, ...] = ()
    sensing: Sensing = Sensing()
    actuation: Actuation = Actuation()
    start: Start = Start()
    physics: Physics = Physics()
    limits: Mapping[str, float] = field(default_factory=dict)
    seeds: int = limited(1, 100, 1)
    required: bool = True
    """False for what only shows how far a policy goes: it is run and scored, and does not decide."""


@dataclass(frozen=True)
class ScenarioSet:
    """A file of scenarios, expanded."""

    name: str
    robot: str
    description: str
    scenarios: tuple[Scenario, ...]
    sha256: str
    """Of the file's bytes: what a clearance is bound to."""
    path: Path


def find_set(name: str) -> Path:
    """Path of a set of ours by name, or of a user's file.

    Raises:
        ScenarioError: neither exists; the message lists ours.
    """
    path = Path(name)
    if path.is_file():
        return path
    ours = SETS_DIR / f"{name}.yaml"
    if ours.is_file():
        return ours
    known = ", ".join(sorted(file.stem for file in SETS_DIR.glob("*.yaml")))
    raise ScenarioError(f"scenario set {name!r} is neither a file nor one of ours: {known}")


def load_set(name: str) -> ScenarioSet:
    """Read a scenario file.

    Args:
        name: a set of ours, or a file.

    Raises:
        ScenarioError: what is wrong, where, and what was expected.
    """
    path = find_set(name)
    try:
        content = read_bounded(path)
        data = load_yaml(content.decode())
        if not isinstance(data, dict):
            raise ScenarioError(f"expected a mapping at the top, got {type(data).__name__}")
        return _build_set(data, hashlib.sha256(content).hexdigest(), path)
    except (ScenarioError, UntrustedError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    except OSError as error:
        raise ScenarioError(f"cannot read {path}: {error.strerror or error}") from error


def check_engine(scenario: Scenario) -> None:
    """Raise `ScenarioError` when the scenario asks its engine for what it cannot do; the message says what it can."""
    if scenario.physics.engine != "bullet":
        return
    where, plain = f"scenario {_shown(scenario.name)}: engine bullet", Physics()
    for name in MUJOCO_PHYSICS:
        if getattr(scenario.physics, name) != getattr(plain, name):
            raise ScenarioError(f"{where} has no {name}: leave it out; of physics it takes timestep")
    if scenario.terrain.kind not in BULLET_TERRAINS:
        kinds = ", ".join(BULLET_TERRAINS)
        raise ScenarioError(f"{where} has no terrain {scenario.terrain.kind!r}; it has {kinds}")
    for disturbance in scenario.disturbances:
        if disturbance.kind not in BULLET_DISTURBANCES:
            kinds = ", ".join(BULLET_DISTURBANCES)
            raise ScenarioError(f"{where} has no disturbance {disturbance.kind!r}; it has {kinds}")


def scenario_from(data: Any) -> Scenario:
    """One scenario from a mapping as it stands in a file; raises `ScenarioError` as `load_set`."""
    return _build(Scenario, data, "scenario")


def _build_set(data: Mapping[str, Any], sha256: str, path: Path) -> ScenarioSet:
    _check_keys(data, ("version", "name", "robot", "description", "defaults", "scenarios"), "the file")
    if data.get("version") != VERSION:
        raise ScenarioError(f"version {_shown(data.get('version'))} is not supported; this version reads {VERSION}")
    defaults, entries = data.get("defaults") or {}, data.get("scenarios")
    if not isinstance(defaults, dict):
        raise ScenarioError(f"defaults: expected a mapping, got {_shown(defaults)}")
    if not isinstance(entries, list) or not entries:
        raise ScenarioError("scenarios: expected a list with at least one scenario")
    scenarios: list[Scenario] = []
    for i, entry in enumerate(entries):
        scenarios += _expand(entry, defaults, i)
        if len(scenarios) > MAX_SCENARIOS:
            raise ScenarioError(f"more than {MAX_SCENARIOS} scenarios in a file")
    counts = Counter(scenario.name for scenario in scenarios)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ScenarioError(f"two scenarios have the name {_shown(twice[0])}")
    texts = [data.get(key) for key in ("name", "robot")]
    if not all(isinstance(text, str) and text for text in texts):
        raise ScenarioError(f"name and robot must be words, got {_shown(texts[0])} and {_shown(texts[1])}")
    return ScenarioSet(str(texts[0]), str(texts[1]), str(data.get("description", "")), tuple(scenarios), sha256, path)


def _expand(entry: Any, defaults: Mapping[str, Any], index: int) -> list[Scenario]:
    """All scenarios of an entry: one for each combination of the lists under `vary`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ScenarioError(f"scenarios[{index}]: expected a mapping with a name, got {_shown(entry)}")
    where = f"scenario {_shown(entry['name'])}"
    vary = entry.get("vary") or {}
    if not isinstance(vary, dict) or not all(
        isinstance(path, str) and isinstance(values, list) and values for path, values in vary.items()
    ):
        raise ScenarioError(f"{where}: vary: expected lists by the path of what varies, such as terrain.friction")
    if math.prod(len(values) for values in vary.values()) > MAX_SCENARIOS:
        raise ScenarioError(f"{where}: vary: more than {MAX_SCENARIOS} combinations")
    plain = _merged(defaults, {key: value for key, value in entry.items() if key != "vary"})
    scenarios = []
    for values in itertools.product(*vary.values()):
        one = copy.deepcopy(plain)
        for path, value in zip(vary, values, strict=True):
            _put(one, path, value, where)
        suffix = "".join(
            f" {path.rpartition('.')[2]}={_short(value)}" for path, value in zip(vary, values, strict=True)
        )
        one["name"] = entry["name"] + suffix
        scenarios.append(_build(Scenario, one, f"scenario {_shown(one['name'])}"))
        check_engine(scenarios[-1])
        steps = STATE_PERIOD_S / scenarios[-1].physics.timestep
        if abs(steps - round(steps)) > 1e-6:
            step = scenarios[-1].physics.timestep
            raise ScenarioError(f"{where}: physics: timestep: {STATE_PERIOD_S:g} s is no multiple of {step:g} s")
    return scenarios


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _put(data: Any, path: str, value: Any, where: str) -> None:
    """Set the entry of a nested mapping that a path such as commands.0.vx leads to."""
    *parents, last = path.split(".")
    for key in parents:
        if key.isdigit():
            data = data[int(key)] if isinstance(data, list) and int(key) < len(data) else None
        else:
            data = data.setdefault(key, {}) if isinstance(data, dict) else None
    if not isinstance(data, dict) or last.isdigit():
        raise ScenarioError(f"{where}: vary: {path} leads to nothing that could vary")
    data[last] = value


def _build(kind: type, data: Any, where: str) -> Any:
    """A dataclass of the schema from a mapping."""
    if not isinstance(data, dict):
        raise ScenarioError(f"{where}: expected a mapping, got {_shown(data)}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    _check_keys(data, tuple(fields), where)
    missing = [
        name for name, item in fields.items()
        if name not in data and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise ScenarioError(f"{where}: missing entry {missing[0]!r}")
    hints = get_type_hints(kind)
    values = {name: _value(hints[name], data[name], fields[name].metadata, f"{where}: {name}") for name in data}
    return kind(**values)


def _value(hint: Any, value: Any, limits: Mapping[str, Any], where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ScenarioError(f"{where}: expected a list, got {_shown(value)}")
        return tuple(_build(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(hint) is Mapping:
        if not isinstance(value, dict):
            raise ScenarioError(f"{where}: expected a mapping of numbers, got {_shown(value)}")
        return {str(key): _number(float, number, {}, f"{where}: {key}") for key, number in value.items()}
    if hint is str or hint is bool:
        if not isinstance(value, hint):
            raise ScenarioError(
                f"{where}: expected {'true or false' if hint is bool else 'a word'}, got {_shown(value)}"
            )
        choices = limits.get("choices")
        if choices and value not in choices:
            raise ScenarioError(f"{where}: {_shown(value)} is none of {', '.join(choices)}")
        return value
    return _number(hint, value, limits, where)


def _number(hint: type, value: Any, limits: Mapping[str, Any], where: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (hint is int and value != int(value)):
        raise ScenarioError(f"{where}: expected a {'whole' if hint is int else 'finite'} number, got {_shown(value)}")
    low, high = limits.get("low", -math.inf), limits.get("high", math.inf)
    if not low <= value <= high:
        unit = f" {limits['unit']}" if limits.get("unit") else ""
        raise ScenarioError(f"{where}: {value:g} is not between {low:g} and {high:g}{unit}")
    return hint(value)


def _check_keys(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:50], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ScenarioError(f"{where}: unknown entry {_shown(key)}{hint}")


def _shown(value: Any) -> str:
    """A value in an error's message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
