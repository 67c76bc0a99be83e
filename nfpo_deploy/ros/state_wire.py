"""RobotState and StateEstimate to and from the bytes of their ROS messages, without the message objects between.

Building and filling a Python object for each message of these two streams costs more than anything that is done with
it. A robot's number of joints fixes the layout (plain CDR, little-endian), so one NumPy record reads it. Whatever looks
different in one byte of the layout, another sender's frame or length, is decoded by ROS itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg

from nfpo_deploy.ros import conversions
from nfpo_deploy.types import RobotState, StateEstimate
from robots.loader import RobotSpec

_ENCAPSULATION = b"\x00\x01\x00\x00"
"""Plain CDR, little-endian, no options; alignment counts from behind it."""
_NS = 1_000_000_000
_Field = tuple[str, str, int]
"""Name, NumPy type of an element, and how many: 0 for one alone, negative for a sequence, which carries its length."""


class _Layout:
    """Where the fields of one message lie, when every string and sequence has a known length.

    Attributes:
        dtype: record over the whole message.
    """

    def __init__(self, frame_id: str, fields: Sequence[_Field]) -> None:
        self._end = len(_ENCAPSULATION)
        self._constants: list[tuple[int, bytes]] = [(0, _ENCAPSULATION)]
        places: dict[str, tuple[Any, int]] = {}
        places["sec"], places["nanosec"] = self._place(("sec", "<i4", 0)), self._place(("nanosec", "<u4", 0))
        text = frame_id.encode() + b"\x00"
        self._constant(struct.pack("<I", len(text)), 4)
        self._constant(text, 1)
        for field in fields:
            places[field[0]] = self._place(field)
        self.dtype = np.dtype({
            "names": list(places), "formats": [form for form, _ in places.values()],
            "offsets": [offset for _, offset in places.values()], "itemsize": self._end,
        })  # fmt: skip
        self._buffer = bytearray(self._end)
        for offset, value in self._constants:
            self._buffer[offset : offset + len(value)] = value
        self._record: Any = np.frombuffer(self._buffer, self.dtype)[0]

    def _constant(self, value: bytes, alignment: int) -> None:
        self._constants.append((self._reserve(len(value), alignment), value))

    def _place(self, field: _Field) -> tuple[Any, int]:
        name, form, count = field
        if count < 0:
            self._constant(struct.pack("<I", -count), 4)
        element = np.dtype(form)
        offset = self._reserve(element.itemsize * max(1, abs(count)), element.itemsize)
        return (form if count == 0 else (form, (abs(count),))), offset

    def _reserve(self, size: int, alignment: int) -> int:
        behind = self._end - len(_ENCAPSULATION)
        start = self._end + -behind % alignment
        self._end = start + size
        return start

    def write(self, values: dict[str, Any]) -> bytes:
        """A message of these values; every field must be given."""
        record = self._record
        for name, value in values.items():
            record[name] = value
        return bytes(self._buffer)

    def read(self, data: bytes) -> Any | None:
        """Record over a message; None where it is laid out differently."""
        if not self._end <= len(data) < self._end + 4:  # some senders pad to whole words
            return None
        for offset, value in self._constants:
            if data[offset : offset + len(value)] != value:
                return None
        return np.frombuffer(data, self.dtype, 1)[0]


class RobotStateWire:
    """`RobotState` of one robot as bytes of `nfpo_msgs/RobotState`."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        n = -spec.num_joints
        self._layout = _Layout(conversions.BASE_FRAME, [
            ("received_ns", "<u8", 0), ("tick", "<u4", 0), ("joint_names_crc", "<u4", 0), ("quat_wxyz", "<f8", 4),
            ("gyro_b", "<f8", 3), ("accel_b", "<f8", 3), ("q", "<f8", n), ("dq", "<f8", n), ("tau_est", "<f8", n),
            ("temperature", "<f8", n), ("foot_force", "<f8", -len(spec.feet)), ("battery_soc", "<f8", 0),
            ("voltage", "<f8", 0), ("wireless_remote", "u1", 40), ("mode_machine", "u1", 0),
        ])  # fmt: skip

    def encode(self, state: RobotState, stamp_ns: int) -> bytes:
        """The message.

        Args:
            state: arrays of the robot's sizes.
            stamp_ns: ROS time for its header, ns.
        """
        return self._layout.write({
            "sec": stamp_ns // _NS, "nanosec": stamp_ns % _NS, "received_ns": state.received_ns,
            "tick": state.tick & 0xFFFFFFFF, "joint_names_crc": self._spec.joint_names_crc,
            "quat_wxyz": state.quat_wxyz, "gyro_b": state.gyro_b, "accel_b": state.accel_b, "q": state.q,
            "dq": state.dq, "tau_est": state.tau_est, "temperature": state.temperature,
            "foot_force": state.foot_force, "battery_soc": state.battery_soc, "voltage": state.voltage,
            "wireless_remote": np.frombuffer(state.wireless_remote, np.uint8), "mode_machine": state.mode_machine,
        })  # fmt: skip

    def decode(self, data: bytes) -> RobotState:
        """The state.

        Raises:
            MessageError: another robot's, other lengths, or no such message at all.
        """
        record = self._layout.read(data)
        if record is None:
            return conversions.robot_state_from(conversions.decode_bytes(data, RobotStateMsg), self._spec)
        conversions.check_joint_names_crc(int(record["joint_names_crc"]), self._spec, "RobotState")
        return RobotState(
            tick=int(record["tick"]),
            received_ns=int(record["received_ns"]),
            quat_wxyz=record["quat_wxyz"].copy(),
            gyro_b=record["gyro_b"].copy(),
            accel_b=record["accel_b"].copy(),
            q=record["q"].copy(),
            dq=record["dq"].copy(),
            tau_est=record["tau_est"].copy(),
            temperature=record["temperature"].copy(),
            foot_force=record["foot_force"].copy(),
            battery_soc=float(record["battery_soc"]),
            voltage=float(record["voltage"]),
            wireless_remote=record["wireless_remote"].tobytes(),
            mode_machine=int(record["mode_machine"]),
        )


class StateEstimateWire:
    """`StateEstimate` of one robot as bytes of `nfpo_msgs/StateEstimate`."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        n = -spec.num_joints
        self._layout = _Layout(conversions.ODOM_FRAME, [
            ("received_ns", "<u8", 0), ("tick", "<u4", 0), ("joint_names_crc", "<u4", 0), ("quat_wxyz", "<f8", 4),
            ("ang_vel_b", "<f8", 3), ("lin_vel_b", "<f8", 3), ("lin_vel_std", "<f8", 3), ("position_w", "<f8", 3),
            ("contact", "<f8", -len(spec.feet)), ("q", "<f8", n), ("dq", "<f8", n),
        ])  # fmt: skip

    def encode(self, estimate: StateEstimate, stamp_ns: int) -> bytes:
        """The message; arguments as in `RobotStateWire.encode`."""
        return self._layout.write({
            "sec": stamp_ns // _NS, "nanosec": stamp_ns % _NS, "received_ns": estimate.received_ns,
            "tick": estimate.tick & 0xFFFFFFFF, "joint_names_crc": self._spec.joint_names_crc,
            "quat_wxyz": estimate.quat_wxyz, "ang_vel_b": estimate.ang_vel_b, "lin_vel_b": estimate.lin_vel_b,
            "lin_vel_std": estimate.lin_vel_std, "position_w": estimate.position_w, "contact": estimate.contact,
            "q": estimate.q, "dq": estimate.dq,
        })  # fmt: skip

    def decode(self, data: bytes) -> StateEstimate:
        """The estimate; raises `MessageError` as `RobotStateWire.decode`."""
        record = self._layout.read(data)
        if record is None:
            return conversions.state_estimate_from(conversions.decode_bytes(data, StateEstimateMsg), self._spec)
        conversions.check_joint_names_crc(int(record["joint_names_crc"]), self._spec, "StateEstimate")
        return StateEstimate(
            tick=int(record["tick"]),
            received_ns=int(record["received_ns"]),
            quat_wxyz=record["quat_wxyz"].copy(),
            ang_vel_b=record["ang_vel_b"].copy(),
            lin_vel_b=record["lin_vel_b"].copy(),
            lin_vel_std=record["lin_vel_std"].copy(),
            position_w=record["position_w"].copy(),
            contact=record["contact"].copy(),
            q=record["q"].copy(),
            dq=record["dq"].copy(),
        )
