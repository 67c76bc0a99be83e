"""Registry of observation terms: named, batched NumPy functions that training and robot share.

Every term maps an `ObservationInput` with leading batch dimension B to a (B, d) array. Names follow IsaacLab's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.errors import ObservationError
from nfpo_deploy.observation.rotations import projected_gravity as gravity_in_base


@dataclass(frozen=True)
class ObservationInput:
    """Batch of what terms may read. SI units; joint arrays (B, N) in the policy's joint order."""

    quat_wxyz: np.ndarray
    """(B, 4) base_link to world."""
    ang_vel_b: np.ndarray
    """(B, 3) rad/s."""
    lin_vel_b: np.ndarray
    """(B, 3) m/s."""
    command: np.ndarray
    """(B, 3) vx, vy in m/s, wz in rad/s."""
    q: np.ndarray
    dq: np.ndarray
    last_action: np.ndarray
    """(B, N) the network's previous raw output."""
    gait_phase: np.ndarray
    """(B, 2) sine and cosine of the gait clock, zero while standing."""
    default_pose: np.ndarray
    """(N,) rad."""


Term = Callable[[ObservationInput], np.ndarray]

TERMS: dict[str, tuple[Term, int | None]] = {
    "base_lin_vel": (lambda x: x.lin_vel_b, 3),
    "base_ang_vel": (lambda x: x.ang_vel_b, 3),
    "projected_gravity": (lambda x: gravity_in_base(x.quat_wxyz), 3),
    "velocity_commands": (lambda x: x.command, 3),
    "joint_pos_rel": (lambda x: x.q - x.default_pose, None),
    "joint_vel_rel": (lambda x: x.dq, None),
    "last_action": (lambda x: x.last_action, None),
    "gait_phase": (lambda x: x.gait_phase, 2),
}
"""Term name to function and width; None stands for the number of joints."""


def term_width(name: str, num_joints: int) -> int:
    """Width of one frame of a term.

    Raises:
        ObservationError: the registry has no such term.
    """
    if name not in TERMS:
        raise ObservationError(f"unknown observation term {name!r}; known: {', '.join(sorted(TERMS))}")
    width = TERMS[name][1]
    return num_joints if width is None else width
