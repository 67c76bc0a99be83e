"""Between Unitree's motor slots and the robot spec's joint order; what a message can get wrong ends here."""

from __future__ import annotations

from statistics import median

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE, POS_STOP, VEL_STOP
from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec

QUATERNION_TOLERANCE = 0.05
"""Largest deviation of |quaternion| from 1; beyond it the IMU has no orientation yet or is broken."""
_STEPS_TO_LEARN = 51
_COMMAND_FIELDS = (("q", "q"), ("dq", "dq"), ("kp", "stiffness"), ("kd", "damping"), ("tau", "tau"))


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
        self._motors = spec.motor_index
        self._num_feet = len(spec.feet)

    def accept(self, sample: bytes) -> np.ndarray | None:
        """The decoded record of a good sample; None, counted, for a bad one."""
        try:
            record = GO_LOW_STATE.decode(sample)
        except TransportError:
            self.malformed += 1
            return None
        if GO_LOW_STATE.crc(record) != record["crc"]:
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
        motors = record["motor_state"][self._motors]
        voltage = float(record["power_v"])
        return RobotState(
            tick=int(record["tick"]),
            received_ns=received_ns,
            quat_wxyz=imu["quaternion"].astype(np.float64),
            gyro_b=imu["gyroscope"].astype(np.float64),
            accel_b=imu["accelerometer"].astype(np.float64),
            q=motors["q"].astype(np.float64),
            dq=motors["dq"].astype(np.float64),
            tau_est=motors["tau_est"].astype(np.float64),
            temperature=motors["temperature"].astype(np.float64),
            foot_force=record["foot_force"][: self._num_feet].astype(np.float64),
            battery_soc=float(record["bms_state"]["soc"]),
            voltage=voltage if np.isfinite(voltage) else float("nan"),
            wireless_remote=record["wireless_remote"].tobytes(),
        )

    def _plausible(self, record: np.ndarray) -> bool:
        imu = record["imu_state"]
        # A sum is finite only if every term is; two sums instead of seven isfinite() calls at 500 Hz.
        motors = record["motor_state"][self._motors]
        with np.errstate(over="ignore", invalid="ignore"):
            total = motors["q"].sum() + motors["dq"].sum() + motors["tau_est"].sum()
            total += imu["gyroscope"].sum() + imu["accelerometer"].sum()
            norm = float(np.sqrt(np.square(imu["quaternion"], dtype=np.float64).sum()))
        return bool(np.isfinite(total)) and abs(norm - 1.0) <= QUATERNION_TOLERANCE


class LowCmdEncoder:
    """Fills a LowCmd from a MotorCommand.

    Used motors get the spec's servo mode and exactly the given numbers. Unused slots are off (mode 0) and
    carry Unitree's stop sentinels with zero gains; the sentinels never meet a gain, because VelStopF with kd
    > 0 would ask for a large torque.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._motors = spec.motor_index
        self._shape = (spec.num_joints,)
        self._record = GO_LOW_CMD.new()
        self._record["head"] = (0xFE, 0xEF)
        self._record["level_flag"] = 0xFF
        slots = self._record["motor_cmd"]
        slots["q"] = POS_STOP
        slots["dq"] = VEL_STOP
        slots["mode"][self._motors] = spec.motor_mode

    def encode(self, cmd: MotorCommand) -> bytes:
        """CDR sample with a valid checksum.

        Raises:
            TransportError: an array of the wrong shape, or a value that is not finite as float32.
        """
        slots = self._record["motor_cmd"]
        for field, attribute in _COMMAND_FIELDS:
            values = np.asarray(getattr(cmd, attribute))
            with np.errstate(over="ignore", invalid="ignore"):
                values32 = values.astype(np.float32)
            if values.shape != self._shape or not np.isfinite(values32).all():
                raise TransportError(
                    f"motor command not sent: {attribute} must be finite, of shape {self._shape}; got {values!r}"
                )
            slots[field][self._motors] = values32
        self._record["crc"] = GO_LOW_CMD.crc(self._record)
        return GO_LOW_CMD.encode(self._record)


class LowCmdDecoder:
    """MotorCommand of a LowCmd seen on the wire."""

    def __init__(self, spec: RobotSpec) -> None:
        self._motors = spec.motor_index

    def decode(self, sample: bytes) -> MotorCommand | None:
        """The command, arrays (N,) in joint order; None for a sample that no motor would obey."""
        try:
            record = GO_LOW_CMD.decode(sample)
        except TransportError:
            return None
        if GO_LOW_CMD.crc(record) != record["crc"]:
            return None
        slots = record["motor_cmd"][self._motors]
        fields = {name: slots[field].astype(np.float64) for field, name in _COMMAND_FIELDS}
        if not all(np.isfinite(values).all() for values in fields.values()):
            return None
        return MotorCommand(**fields)
