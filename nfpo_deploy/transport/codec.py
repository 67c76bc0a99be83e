"""Unitree's fixed-size messages between DDS bytes (CDR) and NumPy records, in microseconds.

A record has the layout of the C struct in Unitree's SDK: natural alignment, zero padding. The robot's
checksum runs over exactly that image, so one NumPy dtype serves both. On the wire the same fields are packed
as CDR (OMG DDSI-RTPS, XCDR version 1, little endian), which has no padding at the end of a nested struct; an
index table made once from the dtype moves the bytes. The dtypes follow the IDL in unitree_sdk2py; tests
compare both directions with its codec.
"""

from __future__ import annotations

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.crc import crc32

CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
"""Encapsulation header: plain CDR, little endian, no options."""

POS_STOP = 2.146e9
"""Unitree's `PosStopF`: a position target that means "no position loop"."""
VEL_STOP = 16000.0
"""Unitree's `VelStopF`: a velocity target that means "no velocity loop"."""


def _struct(*fields: tuple) -> np.dtype:
    return np.dtype(list(fields), align=True)


def _imu(temperature: str) -> np.dtype:
    return _struct(
        ("quaternion", "<f4", 4), ("gyroscope", "<f4", 3), ("accelerometer", "<f4", 3), ("rpy", "<f4", 3),
        ("temperature", temperature),
    )  # fmt: skip


def _motor_cmd(reserve: tuple) -> np.dtype:
    return _struct(
        ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("tau", "<f4"), ("kp", "<f4"), ("kd", "<f4"), reserve
    )  # fmt: skip


# Temperatures are int8 in Unitree's C++ IDL (frost is below zero) and uint8 in the Python one: the same byte.
_GO_MOTOR_STATE = _struct(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("ddq", "<f4"), ("tau_est", "<f4"),
    ("q_raw", "<f4"), ("dq_raw", "<f4"), ("ddq_raw", "<f4"), ("temperature", "i1"), ("lost", "<u4"),
    ("reserve", "<u4", 2),
)  # fmt: skip
_GO_BMS_STATE = _struct(
    ("version_high", "u1"), ("version_low", "u1"), ("status", "u1"), ("soc", "u1"), ("current", "<i4"),
    ("cycle", "<u2"), ("bq_ntc", "i1", 2), ("mcu_ntc", "i1", 2), ("cell_vol", "<u2", 15),
)  # fmt: skip
_GO_HEAD = (
    ("head", "u1", 2), ("level_flag", "u1"), ("frame_reserve", "u1"), ("sn", "<u4", 2), ("version", "<u4", 2),
    ("bandwidth", "<u2"),
)  # fmt: skip
_GO_LOW_STATE = _struct(
    *_GO_HEAD, ("imu_state", _imu("i1")), ("motor_state", _GO_MOTOR_STATE, 20), ("bms_state", _GO_BMS_STATE),
    ("foot_force", "<i2", 4), ("foot_force_est", "<i2", 4), ("tick", "<u4"), ("wireless_remote", "u1", 40),
    ("bit_flag", "u1"), ("adc_reel", "<f4"), ("temperature_ntc1", "i1"), ("temperature_ntc2", "i1"),
    ("power_v", "<f4"), ("power_a", "<f4"), ("fan_frequency", "<u2", 4), ("reserve", "<u4"), ("crc", "<u4"),
)  # fmt: skip
_GO_LOW_CMD = _struct(
    *_GO_HEAD, ("motor_cmd", _motor_cmd(("reserve", "<u4", 3)), 20),
    ("bms_cmd", _struct(("off", "u1"), ("reserve", "u1", 3))), ("wireless_remote", "u1", 40),
    ("led", "u1", 12), ("fan", "u1", 2), ("gpio", "u1"), ("reserve", "<u4"), ("crc", "<u4"),
)  # fmt: skip
_PATH_POINT = _struct(*((name, "<f4") for name in ("t_from_start", "x", "y", "yaw", "vx", "vy", "vyaw")))
_GO_SPORT_MODE_STATE = _struct(
    ("stamp", _struct(("sec", "<i4"), ("nanosec", "<u4"))), ("error_code", "<u4"), ("imu_state", _imu("i1")),
    ("mode", "u1"), ("progress", "<f4"), ("gait_type", "u1"), ("foot_raise_height", "<f4"),
    ("position", "<f4", 3), ("body_height", "<f4"), ("velocity", "<f4", 3), ("yaw_speed", "<f4"),
    ("range_obstacle", "<f4", 4), ("foot_force", "<i2", 4), ("foot_position_body", "<f4", 12),
    ("foot_speed_body", "<f4", 12), ("path_point", _PATH_POINT, 10),
)  # fmt: skip
_GO_WIRELESS = _struct(("lx", "<f4"), ("ly", "<f4"), ("rx", "<f4"), ("ry", "<f4"), ("keys", "<u2"))
_HG_MOTOR_STATE = _struct(
    ("mode", "u1"), ("q", "<f4"), ("dq", "<f4"), ("ddq", "<f4"), ("tau_est", "<f4"),
    ("temperature", "<i2", 2), ("vol", "<f4"), ("sensor", "<u4", 2), ("motorstate", "<u4"),
    ("reserve", "<u4", 4),
)  # fmt: skip
_HG_LOW_STATE = _struct(
    ("version", "<u4", 2), ("mode_pr", "u1"), ("mode_machine", "u1"), ("tick", "<u4"),
    ("imu_state", _imu("<i2")), ("motor_state", _HG_MOTOR_STATE, 35), ("wireless_remote", "u1", 40),
    ("reserve", "<u4", 4), ("crc", "<u4"),
)  # fmt: skip
_HG_BMS_STATE = _struct(
    ("version_high", "u1"), ("version_low", "u1"), ("fn", "u1"), ("cell_vol", "<u2", 40), ("bmsvoltage", "<u4", 3),
    ("current", "<i4"), ("soc", "u1"), ("soh", "u1"), ("temperature", "<i2", 12), ("cycle", "<u2"),
    ("manufacturer_date", "<u2"), ("bmsstate", "<u4", 5), ("reserve", "<u4", 3),
)  # fmt: skip
_HG_LOW_CMD = _struct(
    ("mode_pr", "u1"), ("mode_machine", "u1"), ("motor_cmd", _motor_cmd(("reserve", "<u4")), 35),
    ("reserve", "<u4", 4), ("crc", "<u4"),
)  # fmt: skip


MOTOR_CMD_FLOATS = ("q", "dq", "tau", "kp", "kd")
MOTOR_STATE_FLOATS = ("q", "dq", "ddq", "tau_est")


def motor_floats(motors: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(slots, names) float32 view of `motor_cmd` or `motor_state`: all of a motor's numbers at the price of one field.

    `names` is `MOTOR_CMD_FLOATS` or `MOTOR_STATE_FLOATS`: in both message families these follow the `mode`.
    """
    return motors.view("<f4").reshape(len(motors), -1)[:, 1 : 1 + len(names)]


class MessageCodec:
    """Encode and decode one message type.

    Attributes:
        name: "<family>/<message>", for errors.
        dtype: the record's dtype, the C struct's layout.
        wire_size: bytes on the wire, encapsulation header included.
    """

    def __init__(self, name: str, dtype: np.dtype) -> None:
        self.name = name
        self.dtype = dtype
        pairs: list[tuple[int, int]] = []
        end = _place(dtype, 0, 0, pairs)
        header = len(CDR_LITTLE_ENDIAN)
        # Writers pad a sample to whole 32-bit words.
        self.wire_size = header + (end + 3) // 4 * 4
        # Padding in the image copies wire byte 0, which the encapsulation header keeps at zero; padding on
        # the wire copies the zero byte that encode() appends to the image.
        self._to_image = np.zeros(dtype.itemsize, dtype=np.intp)
        self._to_wire = np.full(self.wire_size, dtype.itemsize, dtype=np.intp)
        for image, wire in pairs:
            self._to_image[image] = wire + header
            self._to_wire[wire + header] = image
        content = np.zeros(dtype.itemsize, dtype=np.uint8)
        content[[image for image, _ in pairs]] = 0xFF
        self._content = content.view("<u4")[:-1]

    def new(self) -> np.ndarray:
        """A zeroed record, shape ()."""
        return np.zeros((), dtype=self.dtype)

    def decode(self, wire: bytes) -> np.ndarray:
        """Record, shape (), from a sample as DDS delivers it.

        Raises:
            TransportError: wrong size or encoding.
        """
        if len(wire) != self.wire_size or wire[:2] != CDR_LITTLE_ENDIAN[:2]:
            raise TransportError(
                f"{self.name}: expected {self.wire_size} bytes of little-endian CDR (header 0001), got "
                f"{len(wire)} bytes with header {wire[:2].hex()}; the sender uses another message definition"
            )
        return np.frombuffer(wire, dtype=np.uint8).take(self._to_image).view(self.dtype).reshape(())

    def encode(self, record: np.ndarray) -> bytes:
        """The sample as DDS wants it."""
        image = np.frombuffer(record.tobytes() + b"\x00", dtype=np.uint8)
        wire = image.take(self._to_wire)
        wire[:4] = _HEADER
        return wire.tobytes()

    def crc(self, record: np.ndarray) -> int:
        """The robot's checksum of a record that ends with `crc`, which itself does not count."""
        # NumPy's copies of a record leave padding undefined; the robot has zeros there.
        return crc32(record.reshape(1).view("<u4")[:-1] & self._content)


_HEADER = np.frombuffer(CDR_LITTLE_ENDIAN, dtype=np.uint8)


def _place(dtype: np.dtype, image: int, wire: int, pairs: list[tuple[int, int]]) -> int:
    """Append (image offset, CDR offset) of every byte of `dtype`; return the CDR offset after it."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        for _ in range(int(np.prod(shape))):
            wire = _place(base, image, wire, pairs)
            image += base.itemsize
        return wire
    if dtype.fields is not None:
        for field in dtype.names or ():
            sub, offset = dtype.fields[field][:2]
            wire = _place(sub, image + offset, wire, pairs)
        return wire
    size = dtype.itemsize
    wire = (wire + size - 1) // size * size
    pairs.extend((image + i, wire + i) for i in range(size))
    return wire + size


GO_LOW_STATE = MessageCodec("unitree_go/LowState", _GO_LOW_STATE)
GO_LOW_CMD = MessageCodec("unitree_go/LowCmd", _GO_LOW_CMD)
GO_SPORT_MODE_STATE = MessageCodec("unitree_go/SportModeState", _GO_SPORT_MODE_STATE)
GO_WIRELESS_CONTROLLER = MessageCodec("unitree_go/WirelessController", _GO_WIRELESS)
HG_LOW_STATE = MessageCodec("unitree_hg/LowState", _HG_LOW_STATE)
HG_LOW_CMD = MessageCodec("unitree_hg/LowCmd", _HG_LOW_CMD)
HG_IMU_STATE = MessageCodec("unitree_hg/IMUState", _imu("<i2"))
HG_BMS_STATE = MessageCodec("unitree_hg/BmsState", _HG_BMS_STATE)
