"""Between Unitree's motor slots and the robot spec's joint order; what a message can get wrong ends here."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import MOTOR_CMD_FLOATS, MOTOR_STATE_FLOATS, POS_STOP, VEL_STOP, motor_floats
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec

QUATERNION_TOLERANCE = 0.05
"""Largest deviation of |quaternion| from 1; beyond it the IMU has no orientation yet or is broken."""
MODE_PR = 0
"""`mode_pr` of the unitree_hg family: ankles and waist are commanded as pitch and roll, not as motors A and B."""
_STEPS_TO_LEARN = 51
_COMMANDED = ("q", "dq", "tau", "stiffness", "damping")
"""Fields of MotorCommand in the order of `MOTOR_CMD_FLOATS`."""
_USED_STATE = [MOTOR_STATE_FLOATS.index(name) for name in ("q", "dq", "tau_est")]
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class TickGaps:
    """Counts messages that never arrived from gaps in the robot's tick.

    The unit of a real robot's tick is not documented, so the usual step between messages is learnt first.
    """

    def __init__(self) -> None:
        self.total = 0
        self._last: int | None = None
        self._steps: list[int] = []
        self._nominal = 0.0

    def observe(self, tick: int) -> None:
        """Take the tick (uint32) of the next message."""
        step = 0 if self._last is None else (tick - self._last) % 2**32
        self._last = tick
        if not 0 < step < 2**31:  # first message, tick not counting, or the robot restarted
            return
        if self._nominal:
            self.total += max(0, round(step / self._nominal) - 1)
        else:
            self._steps.append(step)
            if len(self._steps) == _STEPS_TO_LEARN:
                self._nominal = median(self._steps)


class LowStateDecoder:
    """Checks LowState samples and maps them to joint order.

    Attributes:
        accepted, crc_errors, malformed: counts of samples by fate.
        lost: counter of samples that never came.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.accepted = 0
        self.crc_errors = 0
        self.malformed = 0
        self.lost = TickGaps()
        self._codec = family_of(spec).low_state
        self._motors = spec.motor_index
        self._num_feet = len(spec.feet)
        self._rest = _rest_of_hg if spec.message_family == "unitree_hg" else _rest_of_go

    def accept(self, sample: bytes) -> np.ndarray | None:
        """The decoded record of a good sample; None, counted, for a bad one."""
        try:
            record = self._codec.decode(sample)
        except TransportError:
            self.malformed += 1
            return None
        if self._codec.crc(record) != record["crc"]:
            self.crc_errors += 1
            return None
        self.lost.observe(int(record["tick"]))
        if not self._plausible(record):
            self.malformed += 1
            return None
        self.accepted += 1
        return record

    def to_state(self, record: np.ndarray, received_ns: int) -> RobotState:
        """RobotState of an accepted record; arrays are float64 copies."""
        imu = record["imu_state"]
        motors = record["motor_state"]
        q, dq, _, tau_est = motor_floats(motors, MOTOR_STATE_FLOATS)[self._motors].T.astype(np.float64, order="C")
        return RobotState(
            tick=int(record["tick"]),
            received_ns=received_ns,
            quat_wxyz=imu["quaternion"].astype(np.float64),
            gyro_b=imu["gyroscope"].astype(np.float64),
            accel_b=imu["accelerometer"].astype(np.float64),
            q=q,
            dq=dq,
            tau_est=tau_est,
            wireless_remote=record["wireless_remote"].tobytes(),
            **self._rest(record, motors["temperature"][self._motors], self._num_feet),
        )

    def _plausible(self, record: np.ndarray) -> bool:
        imu = record["imu_state"]
        measured = motor_floats(record["motor_state"], MOTOR_STATE_FLOATS)[self._motors]
        values = measured[:, _USED_STATE].ravel().tolist() + imu["gyroscope"].tolist() + imu["accelerometer"].tolist()
        # A sum is finite only if every term is, and that of float32 values cannot overflow in double precision.
        return math.isfinite(sum(values)) and abs(math.hypot(*imu["quaternion"].tolist()) - 1.0) <= QUATERNION_TOLERANCE


def _rest_of_go(record: np.ndarray, temperature: np.ndarray, num_feet: int) -> dict[str, Any]:
    """What a unitree_go LowState says besides IMU and joints, as fields of RobotState."""
    voltage = float(record["power_v"])
    return {
        "temperature": temperature.astype(np.float64),
        "foot_force": record["foot_force"][:num_feet].astype(np.float64),
        "battery_soc": float(record["bms_state"]["soc"]),
        "voltage": voltage if np.isfinite(voltage) else float("nan"),
    }


def _rest_of_hg(record: np.ndarray, temperature: np.ndarray, num_feet: int) -> dict[str, Any]:
    """The same of a unitree_hg LowState, which knows neither feet nor battery."""
    return {
        # Sources disagree which of the two sensors is the winding and which the casing; the hotter one counts.
        "temperature": temperature.max(axis=1).astype(np.float64),
        "foot_force": np.zeros(num_feet),
        "battery_soc": float("nan"),
        "voltage": float("nan"),
        "mode_machine": int(record["mode_machine"]),
    }


class LowCmdEncoder:
    """Fills a LowCmd from a MotorCommand.

    Used motors get the spec's servo mode and exactly the given numbers. Unused slots are off (mode 0): zeros in the
    unitree_hg family, Unitree's stop sentinels with zero gains in unitree_go. The sentinels never meet a gain, because
    VelStopF with kd > 0 would ask for a large torque.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._codec = family_of(spec).low_cmd
        self._motors = spec.motor_index
        self._shape = (len(_COMMANDED), spec.num_joints)
        self._record = self._codec.new()
        slots = self._record["motor_cmd"]
        self._echoes = spec.message_family == "unitree_hg"
        if self._echoes:
            self._record["mode_pr"] = MODE_PR
            self._record["mode_machine"] = spec.mode_machines[0]
        else:
            self._record["head"] = (0xFE, 0xEF)
            self._record["level_flag"] = 0xFF
            slots["q"] = POS_STOP
            slots["dq"] = VEL_STOP
        slots["mode"][self._motors] = spec.motor_mode
        self._slots = motor_floats(slots, MOTOR_CMD_FLOATS)

    def echo(self, mode_machine: int) -> None:
        """Give every command from now on the `mode_machine` of the robot, 0 to 255; nothing where none has it.

        A robot of the unitree_hg family obeys only commands that name its own variant. Before the first echo it is
        the first one of the spec.
        """
        if self._echoes:
            self._record["mode_machine"] = mode_machine

    def encode(self, cmd: MotorCommand) -> bytes:
        """CDR sample with a valid checksum.

        Raises:
            TransportError: an array of the wrong shape, or a value that is not finite as float32.
        """
        try:
            values = np.array([getattr(cmd, name) for name in _COMMANDED], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        # A comparison with NaN is false, and what is no larger than this stays finite as float32.
        if values.shape != self._shape or not np.abs(values).max() <= _FLOAT32_MAX:
            raise self._blame(cmd)
        self._slots[self._motors] = values.T
        self._record["crc"] = self._codec.crc(self._record)
        return self._codec.encode(self._record)

    def _blame(self, cmd: MotorCommand) -> TransportError:
        shape = self._shape[1:]
        for attribute in _COMMANDED:
            values = getattr(cmd, attribute)
            if np.shape(values) != shape or not (np.abs(values) <= _FLOAT32_MAX).all():
                return TransportError(
                    f"motor command not sent: {attribute} must be finite, of shape {shape}; got {values!r}"
                )
        return TransportError(f"motor command not sent: {cmd!r}")


class LowCmdDecoder:
    """MotorCommand of a LowCmd seen on the wire.

    Attributes:
        mode_machine: of the last command decoded; before the first, the first one of the spec.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._codec = family_of(spec).low_cmd
        self._motors = spec.motor_index
        self._echoes = spec.message_family == "unitree_hg"
        self.mode_machine = spec.mode_machines[0]

    def decode(self, sample: bytes) -> MotorCommand | None:
        """The command, arrays (N,) in joint order; None for a sample that no motor would obey."""
        try:
            record = self._codec.decode(sample)
        except TransportError:
            return None
        if self._codec.crc(record) != record["crc"]:
            return None
        slots = motor_floats(record["motor_cmd"], MOTOR_CMD_FLOATS)[self._motors]
        if not np.isfinite(slots).all():
            return None
        fields = dict(zip(_COMMANDED, slots.T.astype(np.float64, order="C"), strict=True))
        if self._echoes:
            self.mode_machine = int(record["mode_machine"])
        return MotorCommand(**fields)
