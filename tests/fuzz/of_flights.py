"""Readers of flights for replay and comparison: their own messages, damaged within whole files."""

from __future__ import annotations

import io
import math
import random
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer
from mcap_ros2._dynamic import serialize_dynamic

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.flight_log.schemas import definition_of_record
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.transport.codec import GO_LOW_CMD
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import ROBOTS_DIR, load_robot
from sim2real_checks.replay.flight import read_flight
from sim2real_checks.replay.gap import measure_gap
from sim2real_checks.replay.operator_input import follow
from sim2real_checks.replay.recording import load_recording
from sim2real_checks.replay.rerun import rerun
from sim2real_checks.robot_sim.recorder import row_dtype
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.parser import Parser

STATE = "uint64 received_ns\nuint32 tick\nuint32 joint_names_crc\nfloat64[4] quat_wxyz\n"
RULE = "=" * 80
HEADER = f"{RULE}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\n{RULE}\nMSG: builtin_interfaces/Time\n"
HEADER += "int32 sec\nuint32 nanosec\n"
FIELDS = {
    "JointCommand": "uint32 seq\nuint32 state_tick\nuint64 state_received_ns\nuint32 joint_names_crc\n"
    "uint64 policy_id\nuint32 step\nfloat64[3] velocity\nfloat32[] observation\nfloat64[] q\nfloat64[] dq\n"
    "float64[] stiffness\nfloat64[] damping\nfloat64[] tau\n",
    "StateEstimate": STATE + "float64[3] ang_vel_b\nfloat64[3] lin_vel_b\nfloat64[3] lin_vel_std\n"
    "float64[3] position_w\nfloat64[] contact\nfloat64[] q\nfloat64[] dq\n",
    "RobotState": "std_msgs/Header header\n" + STATE + "float64[3] gyro_b\nfloat64[3] accel_b\nfloat64[] q\n"
    "float64[] dq\nfloat64[] tau_est\n" + HEADER,
}
"""What is read of these messages."""
TICKS, PERIOD_NS = 40, 10_000_000


def _values(i: int, crc: int) -> dict[str, Any]:
    """Every field of the `i`-th message of any kind."""
    now = 10**18 + i * PERIOD_NS
    joints = {name: [0.1] * 12 for name in ("q", "dq", "tau", "tau_est", "stiffness", "damping")}
    vectors = ("ang_vel_b", "lin_vel_b", "lin_vel_std", "position_w", "gyro_b", "accel_b")
    return {
        "seq": i, "step": i + 1, "policy_id": 1, "observation": [0.0] * 3, "state_tick": i, "tick": i,
        "state_received_ns": 1 + i * PERIOD_NS, "received_ns": 1 + i * PERIOD_NS, "quat_wxyz": [1.0, 0.0, 0.0, 0.0],
        "header": {"stamp": {"sec": now // 10**9, "nanosec": now % 10**9}}, "joint_names_crc": crc,
        "contact": [0.0] * 4, "velocity": [0.1, 0.0, 0.0], **joints, **{name: [0.0] * 3 for name in vectors},
    }  # fmt: skip


@lru_cache
def _flight(chunked: bool) -> bytes:
    """States, estimates, commands of the policy and of the bridge; without checksums, so that damage arrives."""
    spec, stream = load_robot("go2"), io.BytesIO()
    writer = Writer(stream, chunk_size=2000, compression=CompressionType.NONE, use_chunking=chunked, enable_crcs=False)
    writer.start("ros2", "nfpo flight recorder")
    writer.add_metadata("nfpo", {"robot": "go2"})
    low_cmd = LowCmdEncoder(spec).encode(MotorCommand(*(np.full(12, 0.5) for _ in range(5))))
    schema = writer.register_schema("unitree_go/msg/LowCmd", "ros2msg", definition_of_record(GO_LOW_CMD).text.encode())
    wire = writer.register_channel("rt/lowcmd", "cdr", schema, {"publisher": "bridge"})
    kinds = []
    for short, text in FIELDS.items():
        name = f"nfpo_msgs/msg/{short}"
        schema = writer.register_schema(name, "ros2msg", text.encode())
        kinds.append((writer.register_channel(f"/nfpo/{short}", "cdr", schema), serialize_dynamic(name, text)[name]))
    for i in range(TICKS):
        now = 10**18 + i * PERIOD_NS
        writer.add_message(wire, now, low_cmd, now, i)
        for channel, encode in kinds:
            writer.add_message(channel, now, encode(_values(i, spec.joint_names_crc)), now, i)
    writer.finish()
    return stream.getvalue()


def generate_flight(rng: random.Random) -> bytes:
    """A flight, damaged."""
    numbers = [struct.pack("<d", value) for value in (math.nan, 1e308, -1e300, 0.0)]
    texts = [text.encode() for text in FIELDS.values()]
    return mutate_bytes(rng, _flight(rng.random() < 0.5), [*texts, *numbers, struct.pack("<I", 1 << 31), b"\xff" * 8])


@lru_cache
def _policy() -> OnnxPolicy:
    return OnnxPolicy.load(ROBOTS_DIR / "go2/policies/walk/policy.onnx", load_robot("go2"))


def run_replay(data: bytes, scratch: Path) -> None:
    """A flight through the deployed code."""
    (scratch / "log.mcap").write_bytes(data)
    flight, policy = read_flight([scratch / "log.mcap"]), _policy()
    result = rerun(flight, policy)
    assert result.compared + sum(result.skipped.values()) == result.ticks
    follow(flight, policy.manifest)


def run_compare(data: bytes, scratch: Path) -> None:
    """A flight as the arrays of a comparison, and its measures."""
    (scratch / "log.mcap").write_bytes(data)
    recording = load_recording([scratch / "log.mcap"], "log")
    measure_gap(recording, recording)


@lru_cache
def _columns() -> dict[str, Any]:
    rows = np.zeros(TICKS, row_dtype(19, 18, 12, 4))
    rows["time"], rows["command_kp"], rows["qpos"][:, 3] = np.arange(TICKS) * 0.01, 25.0, 1.0
    return {"meta": np.array('{"robot": "go2"}'), **{name: rows[name] for name in rows.dtype.names or ()}}


def _npz(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


def generate_record(rng: random.Random) -> bytes:
    """A record whose columns have other shapes, types or numbers."""
    columns = dict(_columns())
    name = rng.choice([name for name in columns if name != "meta"])
    values = columns[name]
    columns[name] = rng.choice((
        values[:-3], values[..., None], values.astype("U8"), values * np.nan, np.full(values.shape, 1e300),
        values[::-1], np.zeros(0), np.array(1.0), values.astype("<M8[s]") if values.dtype.kind == "i" else -values,
    ))  # fmt: skip
    if rng.random() < 0.1:
        del columns[rng.choice(list(_columns())[1:])]
    return _npz(columns)


def run_record(data: bytes, scratch: Path) -> None:
    """A record as the arrays of a comparison, and its measures."""
    (scratch / "record.npz").write_bytes(data)
    recording = load_recording([scratch / "record.npz"], "record")
    measure_gap(recording, recording)


FLIGHTS = (False, True)
PARSERS = (
    Parser("flight to replay", (), generate_flight, run_replay, (NfpoError,), lambda: [_flight(c) for c in FLIGHTS]),
    Parser("flight to compare", (), generate_flight, run_compare, (NfpoError,), lambda: [_flight(c) for c in FLIGHTS]),
    Parser("record to compare", (), generate_record, run_record, (NfpoError,), lambda: [_npz(_columns())]),
)
