"""Velocity commands for training: sampled, resampled at random times, widened by a curriculum."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.observation.gait import MOVING_THRESHOLD
from nfpo_train.config import CommandConfig


class CommandSampler:
    """Commands of B environments, (B, 3) vx, vy in m/s and wz in rad/s."""

    def __init__(self, cfg: CommandConfig, batch: int, dt: float, rng: np.random.Generator) -> None:
        self.cfg, self.dt, self.rng = cfg, dt, rng
        self.level = cfg.initial_level
        self.command = np.zeros((batch, 3))
        self._left = np.zeros(batch)
        self._low = np.array([cfg.vx[0], cfg.vy[0], cfg.wz[0]]) * cfg.margin
        self._high = np.array([cfg.vx[1], cfg.vy[1], cfg.wz[1]]) * cfg.margin

    def resample(self, ids: np.ndarray) -> None:
        """Draw new commands for the environments `ids`."""
        n = len(ids)
        command = self.rng.uniform(self._low * self.level, self._high * self.level, (n, 3))
        kind = self.rng.random(n)
        stand = kind < self.cfg.stand_fraction
        straight = (~stand) & (kind < self.cfg.stand_fraction + self.cfg.straight_fraction)
        keep = self.rng.integers(0, 3, n)
        command = np.where(straight[:, None] & (np.arange(3)[None] != keep[:, None]), 0.0, command)
        command[stand | (np.linalg.norm(command, axis=1) < MOVING_THRESHOLD)] = 0.0
        self.command[ids] = command
        self._left[ids] = self.rng.uniform(*self.cfg.resample_s, n)

    def step(self) -> None:
        """Count down and redraw the commands whose time is over."""
        self._left -= self.dt
        ids = np.flatnonzero(self._left <= 0)
        if len(ids):
            self.resample(ids)

    def update_level(self, tracking: float) -> None:
        """Widen the ranges while tracking (mean of exp(−e²/σ²), 0 to 1) is good, narrow them when it is poor."""
        if tracking > 0.75:
            self.level = min(1.0, self.level + self.cfg.level_step)
        elif tracking < 0.5:
            self.level = max(self.cfg.initial_level, self.level - self.cfg.level_step)
