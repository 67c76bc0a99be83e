"""An open-loop trot for checks that need a walking robot but no policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nfpo_deploy.state.kinematics import LegKinematics
from nfpo_deploy.types import MotorCommand
from robots.loader import RobotSpec


@dataclass(frozen=True)
class TrotGait:
    """Shape of the trot: diagonal pairs swing in turn. Velocities are asked for; slip and sag take a part."""

    vx: float = 0.4
    vy: float = 0.0
    wz: float = 0.0
    period: float = 0.4
    """s."""
    duty: float = 0.55
    """Fraction of the period that a foot stands."""
    lift: float = 0.08
    """m."""
    height: float = 0.28
    """m, base_link above the ground."""
    ramp: float = 1.0
    """s from standing to full strides."""
    stiffness: float = 150.0
    damping: float = 4.0

    def __post_init__(self) -> None:
        if not (self.period > 0 and self.ramp > 0 and 0.5 <= self.duty < 1):
            raise ValueError(f"need period > 0, ramp > 0 and 0.5 <= duty < 1, got {self}")


class ScriptedTrot:
    """Motor commands of a trot as a function of time."""

    def __init__(self, spec: RobotSpec, gait: TrotGait | None = None) -> None:
        self.gait = gait or TrotGait()
        self._spec = spec
        self._legs = LegKinematics(spec)
        leg = self._legs.geometry
        end = np.array([foot.end for foot in spec.feet])
        side = np.array([foot.side for foot in spec.feet])
        # One diagonal has end == side, the other does not.
        self._offset = np.where(end == side, 0.0, 0.5)
        self._home = np.stack(
            [end * leg.hip[0], side * (leg.hip[1] + leg.hip_offset), np.full(len(end), -self.gait.height)],
            axis=1,
        )
        self._home[:, 2] += leg.foot_radius

    def command(self, time: float) -> MotorCommand:
        """Command `time` s after the start."""
        q = self._legs.inverse(self._feet(time))
        step = 1e-3
        dq = (self._legs.inverse(self._feet(time + step)) - q) / step
        n = self._spec.num_joints
        return MotorCommand(q, dq, np.full(n, self.gait.stiffness), np.full(n, self.gait.damping), np.zeros(n))

    def _feet(self, time: float) -> np.ndarray:
        g = self.gait
        strength = min(1.0, time / g.ramp)
        phase = (time / g.period + self._offset) % 1.0
        stands = phase < g.duty
        stance = phase / g.duty
        swing = np.clip((phase - g.duty) / (1.0 - g.duty), 0.0, 1.0)
        # From half a stride ahead to half behind at constant speed, and back along a cosine.
        along = np.where(stands, 0.5 - stance, -0.5 * np.cos(np.pi * swing))
        velocity = np.stack([g.vx - g.wz * self._home[:, 1], g.vy + g.wz * self._home[:, 0]], axis=1)
        feet = self._home.copy()
        feet[:, :2] += strength * velocity * (along * g.duty * g.period)[:, None]
        feet[:, 2] += strength * g.lift * np.where(stands, 0.0, np.sin(np.pi * swing) ** 2)
        return feet


def stand_command(spec: RobotSpec) -> MotorCommand:
    """Hold the default pose with the stand gains."""
    zero = np.zeros(spec.num_joints)
    return MotorCommand(spec.default_pose, zero, spec.stand_gains.stiffness, spec.stand_gains.damping, zero)
