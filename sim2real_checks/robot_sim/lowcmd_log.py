"""The log of every LowCmd that reached the robot: when, from whom, what became of it, and what it asked for."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.transport.codec import MOTOR_CMD_FLOATS, motor_floats
from nfpo_deploy.transport.dds import RawReader
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.motors import effective_gains
from sim2real_checks.robot_sim.plant import Plant
from sim2real_checks.robot_sim.rawfile import RawFile

HEARD, IGNORED, LOST, BAD_CRC, MALFORMED = range(5)
"""What became of a LowCmd: obeyed (unless a newer one came before the next step), dropped because a built-in
controller owned the motors, lost by the fault `lowcmd_loss`, dropped for its checksum, or for its size or numbers."""
MAX_WRITERS = 255

ROW = np.dtype([
    ("ns", "<i8"), ("writer", "u1"), ("fate", "u1"), ("kp_sum", "<f4"), ("kd_sum", "<f4"), ("q_err", "<f4"),
    ("tau_max", "<f4"), ("torque_max", "<f4"),
])  # fmt: skip

_UNREADABLE = (np.nan,) * 5


class LowCmdLog:
    """Appends a row for each LowCmd to a raw file.

    Attributes:
        writers: what each writer calls itself in its UserData ("" for most programs), by its small id.
    """

    def __init__(self, raw: RawFile, spec: RobotSpec) -> None:
        self._raw = raw
        self._row = np.zeros(1, dtype=ROW)
        self._slots = spec.motor_index
        self._servo_mode = spec.motor_mode
        self._ids: dict[int, int] = {}
        self.writers: list[str] = []

    def append(
        self, received_ns: int, reader: RawReader, handle: int, fate: int, motor_cmd: np.ndarray | None, plant: Plant
    ) -> None:
        """Log one LowCmd.

        Args:
            received_ns: CLOCK_MONOTONIC.
            reader: where it arrived.
            handle: the publication handle of its writer.
            fate: HEARD, IGNORED, …
            motor_cmd: its `motor_cmd` array; None where it could not be read.
            plant: whose joints it met.
        """
        asked = _UNREADABLE if motor_cmd is None else self._measure(motor_cmd, plant)
        self._row[0] = (received_ns, self._writer(reader, handle), fate, *asked)
        self._raw.append(self._row)

    def _measure(self, motor_cmd: np.ndarray, plant: Plant) -> tuple[float, ...]:
        """The last five columns of a row."""
        asked = motor_floats(motor_cmd, MOTOR_CMD_FLOATS)[self._slots]
        enabled = motor_cmd["mode"][self._slots] == self._servo_mode
        q, dq, tau, kp, kd = asked.T.astype(np.float64) * enabled
        kp, kd = effective_gains(q, dq, kp, kd)
        error = q - plant.q
        torque = tau + kp * error + kd * (dq - plant.dq)
        q_err = np.abs(error * (kp > 0)).max()
        return kp.sum(), kd.sum(), q_err, np.abs(tau).max(), np.abs(torque).max()

    def _writer(self, reader: RawReader, handle: int) -> int:
        known = self._ids.get(handle)
        if known is None:
            known = self._ids[handle] = min(len(self._ids), MAX_WRITERS)
            if known == len(self.writers):
                self.writers.append(reader.publisher(handle).user_data.decode(errors="replace"))
        return known
