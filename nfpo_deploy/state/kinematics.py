"""Closed-form kinematics of quadruped legs with three joints: hip (about x), thigh and calf (about y).

Derivation and sign conventions: docs/state_estimation.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nfpo_deploy.errors import EstimatorError
from robots.loader import RobotSpec


class LegState(NamedTuple):
    """Kinematics of all legs at one instant, in base_link; F legs in the order of the spec's feet."""

    position: np.ndarray
    """(F, 3) m, centre of the foot's sphere."""
    jacobian: np.ndarray
    """(F, 3, J) m/rad, derivative of `position` by the angles of the leg's joints: hip, thigh and calf of three."""
    velocity: np.ndarray
    """(F, 3) m/s of the foot's centre relative to base_link, without the base's own rotation."""
    calf_rate: np.ndarray
    """(F, 3) rad/s, angular velocity of the calf relative to base_link."""


class LegKinematics:
    """Forward and inverse kinematics of every leg of a robot.

    Args:
        spec: robot whose feet all hang on three joints: hip, thigh, calf.

    Attributes:
        geometry: lengths of the legs, m.

    Raises:
        EstimatorError: a foot of the robot has another chain of joints.
    """

    def __init__(self, spec: RobotSpec) -> None:
        for foot in spec.feet:
            if len(foot.joint_indices) != 3:
                raise EstimatorError(
                    f"{spec.name}: foot {foot.name!r} hangs on {len(foot.joint_indices)} joints; legs of "
                    "3 joints (hip, thigh, calf) are supported"
                )
        leg = spec.leg_geometry
        if leg is None:
            raise EstimatorError(f"{spec.name}: robot.yaml has no leg_geometry; add it for legs of three joints")
        self.geometry = leg
        end = np.array([foot.end for foot in spec.feet], dtype=np.float64)
        side = np.array([foot.side for foot in spec.feet], dtype=np.float64)
        self._chain = np.array([foot.joint_indices for foot in spec.feet])
        self._hip = leg.hip * np.stack([end, side, np.ones_like(end)], axis=1)
        self._lateral = side * leg.hip_offset
        self._thigh = leg.thigh
        # Foot centre in the calf's frame: x forward of the calf's axis, and down by the calf's length.
        self._calf = leg.calf
        self._foot_x = leg.foot_offset_x

    @property
    def foot_radius(self) -> float:
        """Radius of the feet, m."""
        return self.geometry.foot_radius

    @property
    def chain(self) -> np.ndarray:
        """(F, 3) indices into joint order of each leg's hip, thigh and calf."""
        return self._chain

    def forward(self, q: np.ndarray, dq: np.ndarray) -> LegState:
        """Feet, Jacobians and velocities from joint angles `q` and rates `dq`, (N,) rad and rad/s."""
        angle = q[self._chain]
        rate = dq[self._chain]
        # The calf's absolute pitch is what enters the formulas.
        angle[:, 2] += angle[:, 1]
        sin, cos = np.sin(angle).T, np.cos(angle).T
        calf_x = self._foot_x * cos[2] - self._calf * sin[2]
        calf_z = -self._foot_x * sin[2] - self._calf * cos[2]
        x = calf_x - self._thigh * sin[1]
        z = calf_z - self._thigh * cos[1]
        y = self._lateral
        s, c = sin[0], cos[0]
        position = np.empty_like(self._hip)
        position[:, 0] = x
        position[:, 1] = c * y - s * z
        position[:, 2] = s * y + c * z
        jacobian = np.empty((len(x), 3, 3))
        jacobian[:, 0, 0] = 0.0
        jacobian[:, 1, 0] = -position[:, 2]
        jacobian[:, 2, 0] = position[:, 1]
        jacobian[:, 0, 1] = z
        jacobian[:, 1, 1] = s * x
        jacobian[:, 2, 1] = -c * x
        jacobian[:, 0, 2] = calf_z
        jacobian[:, 1, 2] = s * calf_x
        jacobian[:, 2, 2] = -c * calf_x
        position += self._hip
        velocity = np.matmul(jacobian, rate[:, :, None])[:, :, 0]
        pitch_rate = rate[:, 1] + rate[:, 2]
        calf_rate = np.empty_like(position)
        calf_rate[:, 0] = rate[:, 0]
        calf_rate[:, 1] = c * pitch_rate
        calf_rate[:, 2] = s * pitch_rate
        return LegState(position, jacobian, velocity, calf_rate)

    def inverse(self, position: np.ndarray) -> np.ndarray:
        """Joint angles (N,) that put the foot centres at `position` (F, 3) m in base_link.

        Knees point back. Joints outside the legs get zero.

        Raises:
            ValueError: a foot is out of reach; the message names the leg and the distance.
        """
        local = np.asarray(position, dtype=np.float64) - self._hip
        reach = local[:, 1] ** 2 + local[:, 2] ** 2 - self._lateral**2
        calf = np.hypot(self._calf, self._foot_x)
        x, z = local[:, 0], -np.sqrt(np.maximum(reach, 0.0))
        cos_knee = (x**2 + z**2 - self._thigh**2 - calf**2) / (2.0 * self._thigh * calf)
        bad = (reach < 0) | (np.abs(cos_knee) > 1)
        if np.any(bad):
            i = int(np.argmax(bad))
            raise ValueError(f"leg {i}: foot at {local[i].round(3)} m from its hip is out of reach")
        # Bend of the line from knee to foot centre; the foot's x offset tilts it against the calf's own axis.
        tilt = np.arctan2(self._foot_x, self._calf)
        bend = -np.arccos(cos_knee)
        pitch = np.arctan2(-x, -z) - np.arctan2(calf * np.sin(bend), self._thigh + calf * np.cos(bend))
        hip = np.arctan2(local[:, 2], local[:, 1]) - np.arctan2(z, self._lateral)
        q = np.zeros(int(self._chain.max()) + 1)
        q[self._chain[:, 0]] = (hip + np.pi) % (2.0 * np.pi) - np.pi
        q[self._chain[:, 1]] = pitch
        q[self._chain[:, 2]] = bend + tilt
        return q
