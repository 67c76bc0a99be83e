"""Rigid bodies of the legs along a recording: inertia and all forces but those of the motors and of friction.

The base is not simulated, it is held to the recorded motion. A leg only feels its base through the base's rotation and
the specific force at its origin, and both are what gyro and accelerometer measure, so no estimate of velocity or height
enters: a model whose base has the recorded angular velocity, angular acceleration and, in place of gravity, the
recorded specific force gives the leg's equation of motion exactly, whether the robot hangs, stands or trots. With the
base's motion given, the legs do not feel each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.signal import savgol_filter

from robots.mjcf import build_model
from sim2real_checks.replay.recording import Recording

STEP_S = 0.002
SMOOTH_S, SMOOTH_ORDER = 0.022, 3
"""Savitzky-Golay filter of joints and gyro: shorter than anything that a joint under a PD controller does."""
SMOOTH_ACCEL_S = 0.012


@dataclass(frozen=True)
class Stretch:
    """One stretch of a recording on an even grid of `STEP_S`. G rows, N joints, F legs of three joints."""

    time: np.ndarray
    q: np.ndarray
    dq: np.ndarray
    """(G, N) smoothed, for initial states."""
    inertia: np.ndarray
    """(G, F, 3, 3) kg·m² of the links, without rotors."""
    bias: np.ndarray
    """(G, F, 3) N·m that it takes to hold the leg at constant joint velocity: weight, centrifugal, base's motion."""
    contact: np.ndarray
    """(G, F) 0 to 1."""


class LegModel:
    """The robot's legs on a base whose motion is given."""

    def __init__(self, recording: Recording) -> None:
        spec = recording.spec
        self._spec, self._accel_at = spec, recording.accel_at
        self._model = build_model(spec.name, collision="simple", floor=False, looks=False)
        self._model.opt.gravity[:] = 0.0
        self._model.dof_armature[:] = 0.0
        self._data = mujoco.MjData(self._model)
        joints = [self._model.joint(name) for name in spec.joint_names]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._qvel = np.array([joint.dofadr[0] for joint in joints])
        self._legs = np.array([foot.joint_indices for foot in spec.feet])

    def along(self, recording: Recording, rows: slice) -> Stretch:
        """Equation of motion along a stretch of a recording."""
        time, q, dq, gyro, accel = _smooth(recording, rows)
        turning = np.gradient(gyro, STEP_S, axis=0)
        # From where it is measured to the base's origin, as on a rigid body.
        arm = np.broadcast_to(self._accel_at, gyro.shape)
        force = accel - np.cross(turning, arm) - np.cross(gyro, np.cross(gyro, arm))
        legs = self._legs
        inertia = np.empty((len(time), len(legs), 3, 3))
        bias = np.empty((len(time), len(legs), 3))
        full, torque = np.zeros((self._model.nv, self._model.nv)), np.zeros(self._model.nv)
        model, data = self._model, self._data
        blocks = self._qvel[legs]
        for k in range(len(time)):
            data.qpos[:7] = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
            data.qpos[self._qpos], data.qvel[self._qvel] = q[k], dq[k]
            data.qvel[:3], data.qvel[3:6] = 0.0, gyro[k]
            mujoco.mj_fwdPosition(model, data)
            mujoco.mj_fwdVelocity(model, data)
            data.qacc[:] = 0.0
            data.qacc[:3], data.qacc[3:6] = force[k], turning[k]
            mujoco.mj_rne(model, data, 1, torque)
            mujoco.mj_fullM(model, data, full)
            inertia[k] = full[blocks[:, :, None], blocks[:, None, :]]
            bias[k] = torque[blocks]
        contact = recording.contact[np.searchsorted(recording.time, time, side="right") - 1]
        return Stretch(time, q, dq, inertia, bias, contact)


def _smooth(recording: Recording, rows: slice) -> tuple[np.ndarray, ...]:
    """Time, q, dq, gyro and acceleration of a stretch on the even grid, smoothed."""
    measured = recording.time[rows]
    time = np.arange(measured[0], measured[-1], STEP_S)
    width, short = (2 * int(seconds / STEP_S / 2) + 1 for seconds in (SMOOTH_S, SMOOTH_ACCEL_S))

    def even(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(time, measured, column) for column in values[rows].T], axis=1)

    # Slow records have few positions between which a straight line would be off; their velocities are known, too.
    q = CubicHermiteSpline(measured, recording.q[rows], recording.dq[rows])(time)
    return (
        time, savgol_filter(q, width, SMOOTH_ORDER, axis=0),
        savgol_filter(even(recording.dq), width, SMOOTH_ORDER, axis=0),
        savgol_filter(even(recording.gyro_b), width, SMOOTH_ORDER, axis=0),
        savgol_filter(even(recording.accel_b), short, 1, axis=0),
    )  # fmt: skip
