"""Frozen, typed configuration of a training run; YAML files in `nfpo_train/configs` hold the tasks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nfpo_deploy.errors import NfpoError
from robots.untrusted import UntrustedError, read_yaml

CONFIG_DIR = Path(__file__).resolve().parent / "configs"
POLICIES = ("flow", "gaussian")
SCHEDULES = ("linear", "fixed", "adaptive")

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "total_steps": (1, 1e12),
    "checkpoint_interval": (1, 1e9),
    "env.num_envs": (1, 1e5),
    "env.num_threads": (0, 1024),
    "env.physics_dt": (1e-4, 0.02),
    "env.control_dt": (1e-3, 1.0),
    "env.episode_s": (0.1, 1e4),
    "env.gait_period_s": (0.05, 60.0),
    "flow.num_layers": (1, 64),
    "flow.hidden_dim": (1, 4096),
    "flow.context_dim": (1, 4096),
    "algorithm.steps_per_env": (1, 1e4),
    "algorithm.epochs": (1, 1000),
    "algorithm.mini_batches": (1, 1e4),
}
"""What a run can be asked for; a configuration may come with somebody else's checkpoint."""
MAX_LAYER, MAX_LAYERS, MAX_HISTORY = 4096, 8, 100


class ConfigError(NfpoError):
    """A training configuration is malformed; the message names the entry and what was expected."""


@dataclass(frozen=True)
class TermSetting:
    """An observation term of the actor; `noise` is the half-width of training's uniform noise."""

    name: str
    history: int = 1
    scale: float = 1.0
    noise: float = 0.0


@dataclass(frozen=True)
class CommandConfig:
    """Velocity commands, m/s and rad/s. Training samples the ranges times the curriculum level."""

    vx: tuple[float, float] = (-0.6, 1.0)
    vy: tuple[float, float] = (-0.4, 0.4)
    wz: tuple[float, float] = (-1.0, 1.0)
    margin: float = 1.15
    """Training samples this much beyond the ranges so that their edges are well learnt."""
    stand_fraction: float = 0.12
    straight_fraction: float = 0.25
    """Part of the commands with only one axis not zero."""
    resample_s: tuple[float, float] = (3.0, 8.0)
    initial_level: float = 0.4
    level_step: float = 0.005


@dataclass(frozen=True)
class RandomizationConfig:
    """Ranges, uniform unless said otherwise. `scale` entries multiply the nominal value."""

    friction: tuple[float, float] = (0.3, 1.3)
    payload_kg: tuple[float, float] = (-1.2, 3.3)
    com_offset_m: tuple[float, float, float] = (0.04, 0.02, 0.03)
    """Half-widths along x, y, z."""
    motor_strength_scale: tuple[float, float] = (0.88, 1.12)
    gain_scale: tuple[float, float] = (0.9, 1.1)
    joint_friction_nm: tuple[float, float] = (0.0, 0.4)
    armature_scale: tuple[float, float] = (0.8, 1.2)
    latency_s: tuple[float, float] = (0.0, 0.02)
    encoder_bias_rad: float = 0.015
    push_speed: tuple[float, float] = (0.6, 1.0)
    """Largest horizontal velocity step, m/s, in the first and in the second half of the run: strong pushes make a
    robot that cannot walk yet brace itself instead of learning to step."""
    push_interval_s: tuple[float, float] = (3.5, 6.5)


@dataclass(frozen=True)
class EnvConfig:
    """Go2 velocity task on MuJoCo C."""

    robot: str = "go2"
    num_envs: int = 512
    num_threads: int = 0
    """Simulation threads; 0 means one for each core."""
    physics_dt: float = 0.005
    control_dt: float = 0.02
    episode_s: float = 20.0
    action_scale: float = 0.25
    action_clip: float = 8.0
    stiffness: float = 25.0
    damping: float = 0.6
    gait_period_s: float = 0.5
    swing_height: float = 0.07
    observations: tuple[TermSetting, ...] = (
        TermSetting("base_ang_vel", 3, 0.25, 0.15),
        TermSetting("projected_gravity", 3, 1.0, 0.03),
        TermSetting("velocity_commands", 1, 1.0, 0.0),
        TermSetting("gait_phase", 1, 1.0, 0.0),
        TermSetting("joint_pos_rel", 3, 1.0, 0.01),
        TermSetting("joint_vel_rel", 3, 0.05, 0.5),
        TermSetting("last_action", 2, 0.25, 0.0),
    )
    commands: CommandConfig = field(default_factory=CommandConfig)
    randomization: RandomizationConfig = field(default_factory=RandomizationConfig)
    rewards: dict[str, float] = field(default_factory=dict)
    """Weights by name of a function in `nfpo_train.envs.rewards`, per second."""


@dataclass(frozen=True)
class FlowConfig:
    """Couplings of the flow policy; see `FlowDistribution`."""

    num_layers: int = 4
    hidden_dim: int = 64
    context_dim: int = 32
    transform: str = "volume_preserving"
    scale_bound: float = 1.0


@dataclass(frozen=True)
class AlgorithmConfig:
    """PPO's hyper-parameters, the same for flow and Gaussian."""

    steps_per_env: int = 24
    epochs: int = 5
    mini_batches: int = 4
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    entropy_coef: float = 0.005
    learning_rate: float = 4e-4
    schedule: str = "linear"
    """"linear" falls to `final_learning_rate` over the run; "fixed"; "adaptive" follows `desired_kl` as rsl_rl does."""
    final_learning_rate: float = 4e-5
    desired_kl: float = 0.01
    max_grad_norm: float = 1.0
    value_loss_coef: float = 1.0
    init_std: float = 1.0
    std_range: tuple[float, float] = (0.1, 2.0)
    actor_hidden: tuple[int, ...] = (256, 128, 64)
    critic_hidden: tuple[int, ...] = (256, 128, 64)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    task: str = "go2_walk"
    policy: str = "flow"
    seed: int = 1
    total_steps: int = 15_000_000
    """Environment steps summed over all environments."""
    checkpoint_interval: int = 25
    env: EnvConfig = field(default_factory=EnvConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy {self.policy!r} is not one of {POLICIES}")
        if self.algorithm.schedule not in SCHEDULES:
            raise ConfigError(f"schedule {self.algorithm.schedule!r} is not one of {SCHEDULES}")
        for name, (lower, upper) in RANGES.items():
            value: Any = functools.reduce(getattr, name.split("."), self)
            if not lower <= value <= upper:
                raise ConfigError(f"{name} must be between {lower:g} and {upper:g}, got {value}")
        for name in ("actor_hidden", "critic_hidden"):
            sizes = getattr(self.algorithm, name)
            if not 1 <= len(sizes) <= MAX_LAYERS or not all(1 <= size <= MAX_LAYER for size in sizes):
                raise ConfigError(f"algorithm.{name}: expected up to {MAX_LAYERS} sizes from 1 to {MAX_LAYER}")
        if not all(1 <= term.history <= MAX_HISTORY for term in self.env.observations):
            raise ConfigError(f"env.observations: history must be 1 to {MAX_HISTORY} frames")
        ratio = self.env.control_dt / self.env.physics_dt
        if abs(ratio - round(ratio)) > 1e-9:
            raise ConfigError(f"control_dt {self.env.control_dt} is not a multiple of physics_dt {self.env.physics_dt}")

    @property
    def iterations(self) -> int:
        """PPO iterations that cover `total_steps`."""
        return -(-self.total_steps // (self.env.num_envs * self.algorithm.steps_per_env))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, fit for YAML and JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def sha256(self) -> str:
        """Hash of the canonical JSON of the configuration, without the number of threads, which changes no result."""
        data = self.to_dict()
        del data["env"]["num_threads"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def available_tasks() -> list[str]:
    """Names of the task files."""
    return sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def load_task(name: str, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Read `configs/<name>.yaml` and apply overrides given as dotted names.

    Raises:
        ConfigError: unknown task, unknown entry or a value of the wrong type.
    """
    path = CONFIG_DIR / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"unknown task {name!r}; available: {', '.join(available_tasks())}")
    try:
        data = read_yaml(path)
    except (OSError, UntrustedError) as error:
        raise ConfigError(f"cannot read task {name!r}: {error}") from error
    for dotted, value in (overrides or {}).items():
        _assign(data, dotted.split("."), value)
    return config_from_dict(data)


def config_from_dict(data: dict[str, Any]) -> TrainConfig:
    """Build a configuration from a nested dict; same errors as `load_task`."""
    return _build(TrainConfig, data, "config")


def _assign(data: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(data, dict):
            break
        data = data.setdefault(key, {})
    if not isinstance(data, dict):
        raise ConfigError(f"{'.'.join(keys)}: there is a value where this name expects a mapping")
    data[keys[-1]] = value


_NESTED: dict[str, type] = {
    "env": EnvConfig,
    "flow": FlowConfig,
    "algorithm": AlgorithmConfig,
    "commands": CommandConfig,
    "randomization": RandomizationConfig,
}


def _build(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a mapping, got {reprlib.repr(data)}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        raise ConfigError(f"{where}: unknown entries {reprlib.repr(sorted(unknown))}; known: {sorted(known)}")
    values = {}
    for key, value in data.items():
        if key in _NESTED:
            values[key] = _build(_NESTED[key], value, f"{where}.{key}")
        elif key == "observations":
            terms = _list(value, f"{where}.{key}")
            values[key] = tuple(_build(TermSetting, term, f"{where}.{key}") for term in terms)
        else:
            values[key] = _coerce(value, known[key], f"{where}.{key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _list(value: Any, where: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, got {reprlib.repr(value)}")
    return tuple(value)


def _coerce(value: Any, spec: dataclasses.Field, where: str) -> Any:
    kind = str(spec.type)
    if kind.startswith("tuple"):
        parts = kind[len("tuple[") : -1].split(", ")
        items = _list(value, where)
        if parts[-1] != "..." and len(items) != len(parts):
            raise ConfigError(f"{where}: expected {len(parts)} numbers, got {reprlib.repr(value)}")
        return tuple(_scalar(item, parts[0], where) for item in items)
    if kind == "dict[str, float]":
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a mapping, got {reprlib.repr(value)}")
        return {str(k): _scalar(v, "float", f"{where}.{k}") for k, v in value.items()}
    return _scalar(value, kind, where)


def _scalar(value: Any, kind: str, where: str) -> Any:
    """A value checked against the name of its type."""
    known: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    if not isinstance(value, known[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{where}: expected {kind}, got {reprlib.repr(value)}")
    if kind != "float":
        return value
    try:
        number = float(cast(float, value))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where}: expected a finite number, got {reprlib.repr(value)}")
    return number
