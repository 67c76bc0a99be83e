"""Kinematics of legs with any number of joints, from the chain of links in robot.yaml; and which one a robot has."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nfpo_deploy.errors import EstimatorError
from nfpo_deploy.state.kinematics import LegKinematics, LegState
from robots.loader import RobotSpec

_NEXT, _AFTER = [1, 2, 0], [2, 0, 1]


class Kinematics(Protocol):
    """What state estimation needs to know of a robot's legs."""

    @property
    def chain(self) -> np.ndarray:
        """(F, J) indices into joint order of each leg's joints, from the hip on."""
        ...

    @property
    def foot_radius(self) -> float:
        """From a foot's centre down to the ground under it when level, m."""
        ...

    def forward(self, q: np.ndarray, dq: np.ndarray) -> LegState:
        """Feet, Jacobians and velocities from joint angles `q` and rates `dq`, (N,) rad and rad/s."""
        ...


class ChainKinematics:
    """Forward kinematics of every leg of a robot, as a product of turns about its joints.

    Args:
        spec: robot with a `leg_chain`.

    Raises:
        EstimatorError: it has none.
    """

    def __init__(self, spec: RobotSpec) -> None:
        leg = spec.leg_chain
        if leg is None:
            raise EstimatorError(f"{spec.name}: robot.yaml has no leg_chain; add the links of the left leg")
        side = np.array([foot.side for foot in spec.feet], dtype=np.float64)
        # In the mirror y changes sign, and a turn about x or z changes its sense; the joints' own axes do not.
        mirrored = np.stack([np.ones_like(side), side, np.ones_like(side)], axis=1)
        sense = np.stack([np.ones_like(side), side, np.ones_like(side), side], axis=1)
        self._chain = np.array([foot.joint_indices for foot in spec.feet])
        self._offset = leg.offset * mirrored[:, None]
        self._turn = _rotations(leg.turn * sense[:, None])
        self._sole = leg.sole * mirrored
        self._axis = leg.axis
        self._cross = np.cross(leg.axis[:, None, :], np.eye(3)).transpose(0, 2, 1)
        self._cross_twice = self._cross @ self._cross
        self._radius = leg.foot_radius

    @property
    def chain(self) -> np.ndarray:
        return self._chain

    @property
    def foot_radius(self) -> float:
        return self._radius

    def forward(self, q: np.ndarray, dq: np.ndarray) -> LegState:
        """See `Kinematics`; `calf_rate` is that of the link which carries the foot."""
        angle, rate = q[self._chain], dq[self._chain]
        feet, joints = angle.shape
        sin, versine = np.sin(angle)[..., None, None], 1.0 - np.cos(angle)[..., None, None]
        # Rodrigues: R = 1 + sin K + (1 - cos) K²
        local = self._turn @ (np.eye(3) + sin * self._cross + versine * self._cross_twice)
        rotation = np.empty((feet, joints + 1, 3, 3))
        rotation[:, 0] = np.eye(3)
        for j in range(joints):
            np.matmul(rotation[:, j], local[:, j], out=rotation[:, j + 1])
        origin = np.cumsum((rotation[:, :-1] @ self._offset[..., None])[..., 0], axis=1)
        position = origin[:, -1] + (rotation[:, -1] @ self._sole[..., None])[..., 0]
        axis = (rotation[:, 1:] @ self._axis[None, :, :, None])[..., 0]
        column = _cross(axis, position[:, None] - origin)
        velocity = (column * rate[..., None]).sum(axis=1)
        return LegState(position, column.transpose(0, 2, 1), velocity, (axis * rate[..., None]).sum(axis=1))


def leg_kinematics(spec: RobotSpec) -> Kinematics:
    """Kinematics of a robot: closed form for legs of three joints, by the chain of links for others.

    Raises:
        EstimatorError: robot.yaml describes neither.
    """
    return LegKinematics(spec) if spec.leg_chain is None else ChainKinematics(spec)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (..., 3); `np.cross` costs three times as much on short arrays."""
    return a[..., _NEXT] * b[..., _AFTER] - a[..., _AFTER] * b[..., _NEXT]


def _rotations(quat: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4), wxyz."""
    w, x, y, z = np.moveaxis(quat, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))
