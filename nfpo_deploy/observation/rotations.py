"""Batched rotations of wxyz quaternions, the only orientation maths the observation needs."""

from __future__ import annotations

import numpy as np


def rotate_inverse(quat_wxyz: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Express a world vector in the body frame.

    Args:
        quat_wxyz: (..., 4) unit quaternion, body to world.
        vector: (..., 3) vector in world.

    Returns:
        (..., 3) the same vector in body, R(q)ᵀ v = v − 2w (u×v) + 2 u×(u×v), u the vector part of q.
    """
    w = quat_wxyz[..., :1]
    u = quat_wxyz[..., 1:]
    cross = np.cross(u, vector)
    return vector - 2.0 * w * cross + 2.0 * np.cross(u, cross)


def projected_gravity(quat_wxyz: np.ndarray) -> np.ndarray:
    """Unit gravity direction in base_link, (..., 3); (0, 0, −1) when level. Third row of −R."""
    w, x, y, z = np.moveaxis(quat_wxyz, -1, 0)
    return np.stack([2.0 * (w * y - x * z), -2.0 * (w * x + y * z), 2.0 * (x * x + y * y) - 1.0], axis=-1)
