"""Training loop: rollouts, updates, progress, metrics and checkpoints of one run folder."""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rsl_rl.utils import check_nan
from torch.utils.tensorboard import SummaryWriter

from nfpo_train.checkpoint import CheckpointError, load_newest, save_checkpoint
from nfpo_train.config import TrainConfig
from nfpo_train.envs.go2_velocity import VelocityEnv
from nfpo_train.ppo import make_algorithm, set_learning_rate
from nfpo_train.progress import Progress


class Runner:
    """One run: `config.yaml`, `metrics.jsonl`, TensorBoard events and checkpoints in `folder`."""

    def __init__(self, cfg: TrainConfig, folder: Path, resume: bool = True) -> None:
        """Create the environment and the algorithm; continue from the newest checkpoint when `resume`."""
        self.cfg, self.folder = cfg, folder
        folder.mkdir(parents=True, exist_ok=True)
        _seed_everything(cfg.seed)
        self.env = VelocityEnv(cfg.env, cfg.seed)
        with contextlib.redirect_stdout(io.StringIO()):  # rsl_rl prints the networks
            self.alg = make_algorithm(self.env, cfg)
        self.iteration = 0
        self.seconds = 0.0
        self.returns: deque[float] = deque(maxlen=200)
        self.lengths: deque[float] = deque(maxlen=200)
        self._return = torch.zeros(cfg.env.num_envs)
        self._length = torch.zeros(cfg.env.num_envs)
        found = load_newest(folder / "checkpoints") if resume else None
        if found:
            self._restore(*found)
        (folder / "config.yaml").write_text(yaml.safe_dump(cfg.to_dict(), sort_keys=False))

    def learn(self) -> None:
        """Train until the configured number of steps; Ctrl-C saves a checkpoint and re-raises."""
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.iteration)
        self.alg.train_mode()
        metrics_file = (self.folder / "metrics.jsonl").open("a")
        try:
            with Progress(self.cfg, self.iteration) as progress:
                while self.iteration < self.cfg.iterations:
                    metrics = self._iterate()
                    for name, value in metrics.items():
                        writer.add_scalar(name, value, self.iteration)
                    metrics_file.write(json.dumps(metrics) + "\n")
                    metrics_file.flush()
                    progress.update(self.iteration, metrics)
                    if self.iteration % self.cfg.checkpoint_interval == 0:
                        self.save()
        finally:
            self.save()
            metrics_file.close()
            writer.close()

    def save(self) -> Path:
        """Write a checkpoint of everything that the run needs to go on."""
        state = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "config": self.cfg.to_dict(),
            "algorithm": self.alg.save(),
            "learning_rate": self.alg.learning_rate,
            "environment": {"command_level": self.env.commands.level},
            "rng": torch.get_rng_state(),
        }
        return save_checkpoint(self.folder / "checkpoints", self.iteration, state)

    def _restore(self, path: Path, state: dict[str, Any]) -> None:
        try:
            self.alg.load(state["algorithm"], None, strict=True)
            self.alg.learning_rate = float(state["learning_rate"])
            self.iteration, self.seconds = state["iteration"], float(state["seconds"])
            self.env.commands.level = float(state["environment"]["command_level"])
            torch.set_rng_state(state["rng"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} does not fit this configuration: {error}; start another --out") from error
        # The environments start afresh, so their stream must differ from the one already used.
        self.env.rng.bit_generator.advance(self.iteration * 1_000_003)  # type: ignore[attr-defined]
        print(f"resuming {self.folder} from {path.name} (iteration {self.iteration})")

    def _iterate(self) -> dict[str, float]:
        start = time.perf_counter()
        set_learning_rate(self.alg, self.cfg, self.iteration)
        self.env.progress = self.iteration / self.cfg.iterations
        logs = self._collect()
        collected = time.perf_counter()
        losses = self.alg.update()
        end = time.perf_counter()
        self.iteration += 1
        self.seconds += end - start
        batch = self.cfg.env.num_envs * self.cfg.algorithm.steps_per_env
        metrics = {
            "iteration": self.iteration,
            "steps": self.iteration * batch,
            "seconds": self.seconds,
            "Perf/steps_per_s": batch / (end - start),
            "Perf/collect_s": collected - start,
            "Perf/update_s": end - collected,
            "Policy/learning_rate": self.alg.learning_rate,
            "Policy/std": float(self.alg.actor.output_std.detach().mean()),
            **{f"Loss/{name}": float(value) for name, value in losses.items()},
            **{name: float(np.mean(values)) for name, values in logs.items()},
        }
        if self.returns:
            metrics["Episode/return"] = float(np.mean(self.returns))
            metrics["Episode/length_s"] = float(np.mean(self.lengths)) * self.cfg.env.control_dt
        return metrics

    def _collect(self) -> dict[str, list[float]]:
        logs: dict[str, list[float]] = {}
        observations = self.env.get_observations()
        with torch.inference_mode():
            for _ in range(self.cfg.algorithm.steps_per_env):
                actions = self.alg.act(observations)
                observations, rewards, dones, extras = self.env.step(actions)
                check_nan(observations, rewards, dones)
                self.alg.process_env_step(observations, rewards, dones, extras)
                self._count(rewards, dones)
                for name, value in extras["log"].items():
                    logs.setdefault(name, []).append(value)
            self.alg.compute_returns(observations)
        return logs

    def _count(self, rewards: torch.Tensor, dones: torch.Tensor) -> None:
        self._return += rewards
        self._length += 1
        ended = dones.nonzero().squeeze(-1)
        self.returns.extend(self._return[ended].tolist())
        self.lengths.extend(self._length[ended].tolist())
        self._return[ended] = 0
        self._length[ended] = 0


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
