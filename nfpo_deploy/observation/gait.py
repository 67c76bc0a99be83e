"""Gait clock: the phase that tells a walking policy when each foot should swing."""

from __future__ import annotations

import numpy as np

MOVING_THRESHOLD = 0.1
"""Commands with a norm below this (m/s and rad/s together) mean: stand still."""


class GaitClock:
    """Batched phase in cycles, held at zero while the command asks to stand."""

    def __init__(self, period: float, dt: float, batch: int = 1) -> None:
        if not (period > 0 and dt > 0):
            raise ValueError(f"gait period and dt must be above zero, got {period} and {dt}")
        self.increment = dt / period
        self.phase = np.zeros(batch)
        self.moving = np.zeros(batch, dtype=bool)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Set the phase of the masked environments (all by default) to zero."""
        self.phase[slice(None) if mask is None else mask] = 0.0

    def advance(self, command: np.ndarray) -> np.ndarray:
        """Advance by one control step.

        Args:
            command: (B, 3) velocity command.

        Returns:
            (B, 2) sine and cosine of the phase; zeros where the command is to stand.
        """
        self.moving = np.linalg.norm(command, axis=1) > MOVING_THRESHOLD
        self.phase = np.where(self.moving, (self.phase + self.increment) % 1.0, 0.0)
        angle = 2.0 * np.pi * self.phase
        return np.stack([np.sin(angle), np.cos(angle)], axis=1) * self.moving[:, None]
