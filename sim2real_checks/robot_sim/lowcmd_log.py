"""The log of every LowCmd that reached the robot: when, from whom, what became of it, and what it asked for."""

from __future__ import annotations

import numpy as np

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


class LowCmdLog:
    """Appends a row for each LowCmd to a raw file.

    Attributes:
        writers: what each writer calls itself in its UserData ("" for most programs), by its small id.
    """

    def __init__(self, raw: RawFile, spec: RobotSpec) -> None:
        self._raw = raw
        self._row = np.zeros((), dtype=ROW)
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
        row = self._row
        row["ns"] = received_ns
        row["writer"] = self._writer(reader, handle)
        row["fate"] = fate
        if motor_cmd is None:
            for name in ("kp_sum", "kd_sum", "q_err", "tau_max", "torque_max"):
                row[name] = np.nan
        else:
            self._measure(row, motor_cmd, plant)
        self._raw.append(row)

    def _measure(self, row: np.ndarray, motor_cmd: np.ndarray, plant: Plant) -> None:
        used = motor_cmd[self._slots]
        # The float32 numbers of the struct in one array (N, 5), which NumPy handles faster than five fields.
        numbers = np.stack([used[name] for name in ("q", "dq", "tau", "kp", "kd")], dtype=np.float64)
        q, dq, tau, kp, kd = numbers * (used["mode"] == self._servo_mode)
        kp, kd = effective_gains(q, dq, kp, kd)
        error = q - plant.q
        row["kp_sum"] = kp.sum()
        row["kd_sum"] = kd.sum()
        row["q_err"] = np.abs(error[kp > 0]).max(initial=0.0)
        row["tau_max"] = np.abs(tau).max()
        row["torque_max"] = np.abs(tau + kp * error + kd * (dq - plant.dq)).max()

    def _writer(self, reader: RawReader, handle: int) -> int:
        known = self._ids.get(handle)
        if known is None:
            known = self._ids[handle] = min(len(self._ids), MAX_WRITERS)
            if known == len(self.writers):
                self.writers.append(reader.publisher(handle).user_data.decode(errors="replace"))
        return known
