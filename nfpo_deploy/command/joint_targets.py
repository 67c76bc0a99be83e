"""Network output to joint position targets."""

from __future__ import annotations

import numpy as np


def joint_targets(
    action: np.ndarray, default_pose: np.ndarray, scale: np.ndarray, clip: float | None = None
) -> np.ndarray:
    """Position targets q* = default + scale·clip(action), rad.

    Args:
        action: (..., N) raw network output.
        default_pose: (N,) rad.
        scale: (N,) rad per unit of action.
        clip: symmetric bound on the raw action; None for no bound.
    """
    bounded = action if clip is None else np.clip(action, -clip, clip)
    return default_pose + scale * bounded
