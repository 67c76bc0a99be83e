"""`nfpo train`, `nfpo export` and `nfpo plot`; heavy packages load only when a command runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import tyro

from nfpo_train.config import ConfigError, load_task
from robots.untrusted import UntrustedError, load_yaml


@dataclass
class TrainArgs:
    """Train a policy with PPO.

    The run folder holds config.yaml, metrics.jsonl, TensorBoard events, curves.png and checkpoints. Started again
    with the same folder, training goes on from the newest checkpoint.

    Examples:
      nfpo train go2_walk
      nfpo train go2_walk --policy gaussian --seed 2
      nfpo train go2_walk --set algorithm.learning_rate=3e-4 env.num_envs=1024
    """

    task: tyro.conf.Positional[str]
    """Task name, a file in nfpo_train/configs."""
    policy: str | None = None
    """"flow" or "gaussian"; the task's own by default."""
    seed: int | None = None
    """Seed of every random stream."""
    total_steps: int | None = None
    """Environment steps over all environments."""
    out: Path | None = None
    """Run folder; runs/<task>_<policy>_seed<seed> by default."""
    threads: int = 0
    """Threads for simulation and network; 0 means all cores."""
    fresh: bool = False
    """Refuse to continue a folder that already holds checkpoints."""
    set: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """Any entry of the configuration as dotted.name=value (YAML); may be repeated."""


def train(argv: list[str]) -> int:
    """Train a policy; returns the exit status."""
    args = tyro.cli(TrainArgs, args=argv, prog="nfpo train", description=_help(TrainArgs))
    overrides = parse_overrides(args.set)
    for name in ("policy", "seed", "total_steps"):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    threads = args.threads or os.cpu_count() or 1
    overrides["env.num_threads"] = threads
    cfg = load_task(args.task, overrides)
    folder = args.out or Path("runs") / f"{cfg.task}_{cfg.policy}_seed{cfg.seed}"
    # OpenMP reads this when torch loads. Threads that spin while they wait are a little faster on an idle machine,
    # but one busy neighbour makes them wait for each other: measured 8200 against 9900 steps/s, and 5800 against 230.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from nfpo_train.checkpoint import list_checkpoints
    from nfpo_train.plots import plot_run
    from nfpo_train.runner import Runner

    if args.fresh and list_checkpoints(folder / "checkpoints"):
        raise ConfigError(f"{folder} already holds checkpoints; choose another --out or leave out --fresh")
    torch.set_num_threads(threads)
    runner = Runner(cfg, folder)
    print(f"{cfg.task}: {cfg.policy} policy, {cfg.iterations} iterations of "
          f"{cfg.env.num_envs * cfg.algorithm.steps_per_env} steps into {folder}")  # fmt: skip
    print(f"observation ({runner.env.builder.size} numbers):\n{runner.env.builder.layout()}")
    runner.learn()
    print(f"curves: {plot_run(folder)}\nnext: nfpo export {folder}")
    return 0


@dataclass
class ExportArgs:
    """Write a policy as ONNX with its metadata, and prove that ONNX Runtime and torch agree.

    Examples:
      nfpo export runs/go2_walk_flow_seed1
      nfpo export runs/go2_walk_flow_seed1/checkpoints/checkpoint_0001221.pt --out policy.onnx
    """

    source: tyro.conf.Positional[Path]
    """Run folder (its newest checkpoint) or one checkpoint file."""
    out: Path | None = None
    """ONNX file to write; policy.onnx in the run folder by default."""


def export(argv: list[str]) -> int:
    """Export a checkpoint; returns the exit status."""
    args = tyro.cli(ExportArgs, args=argv, prog="nfpo export", description=_help(ExportArgs))
    from nfpo_train.checkpoint import CheckpointError, list_checkpoints
    from nfpo_train.export_onnx import export_policy

    source = args.source
    if source.is_dir():
        found = list_checkpoints(source / "checkpoints")
        if not found:
            raise CheckpointError(f"{source} holds no checkpoints; give a folder that nfpo train made")
        checkpoint, folder = found[-1], source
    else:
        checkpoint, folder = source, source.parent
    result = export_policy(checkpoint, args.out or folder / "policy.onnx")
    print(f"{result.path}: ONNX Runtime and torch agree to {result.max_error:.1e} "
          f"on {result.observations} recorded and random observations, with and without noise")  # fmt: skip
    return 0


@dataclass
class PlotArgs:
    """Draw the learning curves of one or more runs into one picture.

    Example:
      nfpo plot runs/go2_walk_flow_seed1 runs/go2_walk_gaussian_seed1 --out compare.png
    """

    folders: tyro.conf.Positional[list[Path]]
    """Run folders."""
    out: Path | None = None
    """PNG to write; curves.png in the first folder by default."""


def plot(argv: list[str]) -> int:
    """Plot runs; returns the exit status."""
    args = tyro.cli(PlotArgs, args=argv, prog="nfpo plot", description=_help(PlotArgs))
    from nfpo_train.plots import plot_runs

    if not args.folders:
        raise ConfigError("name at least one run folder, such as runs/go2_walk_flow_seed1")

    print(plot_runs(args.folders, args.out or args.folders[0] / "curves.png"))
    return 0


def parse_overrides(entries: list[str]) -> dict[str, Any]:
    """`a.b=value` strings to a dict of dotted names, values read as YAML.

    Raises:
        ConfigError: an entry without "=", or with a value that is no YAML.
    """
    overrides = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {entry!r}: expected dotted.name=value")
        try:
            parsed = load_yaml(value)
        except UntrustedError as error:
            raise ConfigError(f"--set {name}: {error}") from error
        # YAML 1.1 reads 3e-4 as a string, which nobody who types it means.
        if isinstance(parsed, str):
            try:
                parsed = float(parsed)
            except ValueError:
                pass
        overrides[name] = parsed
    return overrides


def _help(cls: type) -> str:
    """Whole docstring of an argument class: tyro alone would drop the examples."""
    return cleandoc(cls.__doc__ or "")
