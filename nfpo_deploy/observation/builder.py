"""Observation vector from terms in the order that the policy names, with scale, clip and history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.errors import ObservationError
from nfpo_deploy.observation.terms import TERMS, ObservationInput, term_width


@dataclass(frozen=True)
class TermConfig:
    """One entry of an observation: value·scale, then clip to ±clip, `history` frames oldest first."""

    name: str
    history: int = 1
    scale: float = 1.0
    clip: float | None = None
    noise: float = 0.0
    """Half-width of the uniform noise that training adds before scaling; unused on the robot."""

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ObservationError(f"{self.name}: history must be at least 1 frame, got {self.history}")
        if not np.isfinite(self.scale) or self.scale == 0:
            raise ObservationError(f"{self.name}: scale must be finite and not zero, got {self.scale}")
        if self.clip is not None and not self.clip > 0:
            raise ObservationError(f"{self.name}: clip must be above zero, got {self.clip}")


class ObservationBuilder:
    """Builds (B, D) observations; keeps the history of B environments (B = 1 on a robot)."""

    def __init__(self, terms: Sequence[TermConfig], num_joints: int, batch: int = 1) -> None:
        if not terms:
            raise ObservationError("an observation needs at least one term")
        self.terms = tuple(terms)
        self.batch = batch
        self.widths = [term_width(term.name, num_joints) for term in self.terms]
        self.size = sum(w * t.history for w, t in zip(self.widths, self.terms, strict=True))
        self._history = [np.zeros((batch, t.history, w)) for w, t in zip(self.widths, self.terms, strict=True)]
        self._fresh = np.ones(batch, dtype=bool)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Forget the history of the masked environments (all by default); their next frame fills it."""
        self._fresh |= True if mask is None else mask

    def build(self, inputs: ObservationInput, noise_rng: np.random.Generator | None = None) -> np.ndarray:
        """One observation for each environment.

        Args:
            inputs: batch of B.
            noise_rng: training passes a generator to add each term's noise.

        Returns:
            (B, D) float32, terms in order, each with its frames oldest first.

        Raises:
            ObservationError: wrong width or a value that is not finite, naming the term.
        """
        # All values are checked before any history moves: a refused observation leaves no trace.
        values = [self._value(t, w, inputs, noise_rng) for t, w in zip(self.terms, self.widths, strict=True)]
        parts = []
        for value, history in zip(values, self._history, strict=True):
            history[:, :-1] = history[:, 1:]
            history[:, -1] = value
            if self._fresh.any():
                history[self._fresh] = value[self._fresh, None, :]
            parts.append(history.reshape(self.batch, -1))
        self._fresh[:] = False
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _value(
        self, term: TermConfig, width: int, inputs: ObservationInput, noise_rng: np.random.Generator | None
    ) -> np.ndarray:
        """One frame (B, width) of a term: checked, with noise, scaled, clipped."""
        value = TERMS[term.name][0](inputs)
        if value.shape != (self.batch, width):
            raise ObservationError(f"{term.name}: expected shape {(self.batch, width)}, got {value.shape}")
        if not np.all(np.isfinite(value)):
            raise ObservationError(f"{term.name}: not finite: {value[~np.isfinite(value).all(axis=1)][0]}")
        if noise_rng is not None and term.noise > 0:
            value = value + noise_rng.uniform(-term.noise, term.noise, value.shape)
        value = value * term.scale
        return value if term.clip is None else np.clip(value, -term.clip, term.clip)

    def layout(self) -> str:
        """Human-readable table of the observation, printed at start-up."""
        rows, start = [], 0
        for term, width in zip(self.terms, self.widths, strict=True):
            end = start + width * term.history
            rows.append(f"  [{start:3d}:{end:3d}] {term.name} ({term.history} x {width}) scale {term.scale:g}")
            start = end
        return "\n".join(rows)
