"""Parsers of what comes over a wire or a socket: the robot's messages and services, ROS messages, datagrams."""

from __future__ import annotations

import json
import random
import socket
import struct
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np

from nfpo_deploy.command.remote import decode_remote
from nfpo_deploy.errors import MessageError, TransportError
from nfpo_deploy.guard.link import Report, encode_report, is_dismissal, parse_report
from nfpo_deploy.transport.codec import (
    GO_LOW_CMD,
    GO_LOW_STATE,
    GO_SPORT_MODE_STATE,
    HG_LOW_CMD,
    HG_LOW_STATE,
    MessageCodec,
)  # fmt: skip
from nfpo_deploy.transport.mapping import LowCmdDecoder, LowStateDecoder
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.transport.spdp import SpdpError, parse_announcement
from robots.loader import load_robot
from sim2real_checks.robot_sim.remote import Remote
from tests.fuzz.mutations import FLOATS, NUMBERS, mutate_bytes, mutate_tree
from tests.fuzz.parser import Parser

SPEC = load_robot("go2")


def _low_state() -> np.ndarray:
    record = GO_LOW_STATE.new()
    record["head"] = (0xFE, 0xEF)
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["tick"], record["power_v"] = 1000, 29.0
    record["wireless_remote"] = np.frombuffer(Remote(ly=0.5).to_bytes(), np.uint8)
    return record


def _fields(dtype: np.dtype, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name in dtype.names or ():
        base = dtype[name].base
        found += _fields(base, (*prefix, name)) if base.names else [(*prefix, name)]
    return found


def damaged_sample(rng: random.Random, codec: MessageCodec, record: np.ndarray) -> bytes:
    """A sample of a fixed-size message: fields set to odd numbers with a valid checksum, or damaged bytes."""
    record = record.copy()
    paths = _fields(codec.dtype)
    for _ in range(rng.randrange(1, 6)):
        target: Any = record.reshape(1)
        path = rng.choice(paths)
        for name in path:
            target = target[name]
        flat = target.reshape(-1)
        odd: Any = (
            rng.choice(FLOATS) if flat.dtype.kind == "f" else rng.choice(NUMBERS) % 2 ** (8 * flat.dtype.itemsize)
        )
        with np.errstate(over="ignore"):
            flat[rng.randrange(len(flat))] = np.array(odd).astype(flat.dtype)
            view = record.reshape(1)
            for name in path[:-1]:
                view = view[name]
            view[path[-1]] = target
    if "crc" in (codec.dtype.names or ()):
        record["crc"] = codec.crc(record)
    sample = codec.encode(record)
    return mutate_bytes(rng, sample) if rng.random() < 0.3 else sample


def run_low_state(data: bytes, scratch: Path) -> None:
    """A LowState from the network: a state with finite joints, or None and a count; never an exception."""
    decoder = LowStateDecoder(SPEC)
    record = decoder.accept(data)
    if record is None:
        assert decoder.crc_errors + decoder.malformed == 1
        return
    state = decoder.to_state(record, 1)
    assert all(np.isfinite(part).all() for part in (state.q, state.dq, state.tau_est, state.gyro_b, state.accel_b))
    decode_remote(state.wireless_remote)


def run_low_cmd(data: bytes, scratch: Path) -> None:
    """A LowCmd seen on the wire."""
    command = LowCmdDecoder(SPEC).decode(data)
    assert command is None or np.isfinite(command.q).all()


def run_codecs(data: bytes, scratch: Path) -> None:
    """Every message type's decoder on the same bytes."""
    refused = 0
    for codec in (GO_LOW_STATE, GO_LOW_CMD, GO_SPORT_MODE_STATE, HG_LOW_STATE, HG_LOW_CMD):
        try:
            codec.crc(codec.decode(data)) if "crc" in (codec.dtype.names or ()) else codec.decode(data)
        except TransportError:
            refused += 1
    if refused == 5:
        raise TransportError("no message of any kind")


def generate_any_sample(rng: random.Random) -> bytes:
    """A sample of any message type."""
    codec = rng.choice((GO_LOW_STATE, GO_LOW_CMD, GO_SPORT_MODE_STATE, HG_LOW_STATE, HG_LOW_CMD))
    return damaged_sample(rng, codec, codec.new())


def run_remote(data: bytes, scratch: Path) -> None:
    """The remote's 40 bytes."""
    remote = decode_remote(data)
    assert remote is None or all(abs(stick) <= 1.01 for stick in (remote.lx, remote.ly, remote.rx, remote.ry))


def _response(identifier: int, data: str) -> bytes:
    from unitree_sdk2py.idl.unitree_api.msg import dds_ as api

    header = api.ResponseHeader_(api.RequestIdentity_(identifier, 1001), api.ResponseStatus_(0))
    return api.Response_(header, data, [1, 2, 3]).serialize()


class _Answers:
    """A participant whose service answers with given bytes; what DDS hands over is not interpreted before us."""

    matched = 1

    def __init__(self, sample: bytes) -> None:
        self._sample = sample
        self._waiting: list[bytes] = []

    def writer(self, *_: Any, **__: Any) -> _Answers:
        return self

    reader = writer

    def write_message(self, request: Any) -> None:
        # The identity is what an attacker on the network reads from the request.
        identity = struct.pack("<q", request.header.identity.id)
        self._waiting = [self._sample[:4] + identity + self._sample[12:]]

    def take(self) -> list[bytes]:
        waiting, self._waiting = self._waiting, []
        return waiting


SWITCHER_ANSWERS = (
    '{"form":"0","name":"normal"}',
    '{"name":""}',
    "{}",
    "[]",
    "",
    '{"name":[1]}',
    "[" * 5000,
    "\ud800x"[1:],
)


def generate_answer(rng: random.Random) -> bytes:
    """A response of the motion switcher."""
    if rng.random() < 0.4:
        return _response(0, json.dumps(mutate_tree(rng, {"form": "0", "name": "normal"})))
    return mutate_bytes(rng, _response(0, rng.choice(SWITCHER_ANSWERS)))


def run_answer(data: bytes, scratch: Path) -> None:
    """CheckMode against a service that answers with `data`."""
    participant: Any = _Answers(data)
    assert isinstance(MotionSwitcherClient(participant).check_mode(0.03), str)


def run_request(data: bytes, scratch: Path) -> None:
    """A request to a service of the simulated robot."""
    from sim2real_checks.robot_sim.services import RpcServer

    participant: Any = SimpleNamespace(
        writer=lambda *_: _Sink(), reader=lambda *_: SimpleNamespace(take=lambda: [data])
    )
    RpcServer(participant, "motion_switcher", "1", {1001: lambda _: (0, "{}")}).poll()


class _Sink:
    matched = 1

    def write_message(self, message: Any) -> None:
        """Nobody listens."""


def generate_request(rng: random.Random) -> bytes:
    """A request of a client."""
    return mutate_bytes(rng, _request())


@lru_cache
def _request() -> bytes:
    from nfpo_deploy.transport.rpc import _request as make

    message: Any = make(5, 1001, '{"name": "ai"}')
    return message.serialize()


def _text(content: str) -> bytes:
    raw = content.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw + b"\0" * (-len(raw) % 4)


@lru_cache
def _announcement() -> bytes:
    """An SPDP announcement as Cyclone DDS writes it (DDSI-RTPS 2.5, 9.4 and 9.6)."""

    def parameter(pid: int, value: bytes) -> bytes:
        return struct.pack("<HH", pid, len(value)) + value

    properties = struct.pack("<I", 2) + _text("__Hostname") + _text("lab") + _text("__Pid") + _text("4711")
    version = struct.pack("<5I", 1, 2, 3, 4, 5) + _text("lab/0.10.2/Linux/Linux")
    locator = struct.pack("<iI", 1, 7410) + bytes(12) + bytes([192, 168, 123, 5])
    content = b"\x00\x03\x00\x00" + parameter(0x50, bytes(range(16))) + parameter(0x59, properties)
    content += parameter(0x8007, version) + parameter(0x31, locator) + parameter(0x32, locator)
    content += parameter(0x62, _text("name")) + struct.pack("<HH", 1, 0)
    body = struct.pack("<HH", 0, 16) + struct.pack(">II", 0, 0x000100C2) + struct.pack("<Q", 1) + content
    return b"RTPS\x02\x01\x01\x10" + bytes(range(12)) + struct.pack("<BBH", 0x15, 5, len(body)) + body


def run_announcement(data: bytes, scratch: Path) -> None:
    """A discovery packet."""
    peer = parse_announcement(data)
    assert peer is None or len(peer.describe()) < 5000


def run_guard_datagram(data: bytes, scratch: Path) -> None:
    """A datagram on the guards' socket."""
    parse_report(data)
    is_dismissal(data)


@lru_cache
def _board() -> Any:
    from robots.mjcf import build_model  # noqa: F401  (MuJoCo must be there)
    from sim2real_checks.robot_sim.config import SimConfig
    from sim2real_checks.robot_sim.inbox import LowCmdInbox
    from sim2real_checks.robot_sim.injection import FaultBoard
    from sim2real_checks.robot_sim.motors import MotorBank
    from sim2real_checks.robot_sim.plant import Plant

    config = SimConfig(domain_id=36)
    plant = Plant(SPEC, config)
    return FaultBoard(SPEC, config, MotorBank(SPEC, config), plant, LowCmdInbox(SPEC, config))


FAULTS = (
    {"fault": "freeze", "duration": 0.5}, {"fault": "hang", "duration": 0.1, "id": 3}, {"fault": "clear"},
    {"fault": "remote", "buttons": "L2+B", "duration": 1}, {"fault": "remote", "connected": False},
    {"fault": "remote", "ly": 0.5, "rx": -1}, {"fault": "push", "vx": 0.5, "vy": 0.0}, {"fault": "crc"},
    {"fault": "delay", "duration": 1.0, "seconds": 0.1},
)  # fmt: skip


def run_control(data: bytes, scratch: Path) -> None:
    """A datagram on the simulator's control socket: it answers, and lives."""
    from sim2real_checks.robot_sim.control import ControlServer

    server = ControlServer(scratch / "control", _board())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(b"")
            client.settimeout(2.0)
            client.connect(str(scratch / "control"))
            client.send(data[:60_000])
            server.poll()
            waiting = bool(server._waiting)
            _board().clear()
            if not waiting:
                assert isinstance(json.loads(client.recv(65536))["ok"], bool)
    finally:
        server.close()


def generate_control(rng: random.Random) -> bytes:
    """A request for a fault."""
    request = json.dumps(mutate_tree(rng, rng.choice(FAULTS))).encode()
    return mutate_bytes(rng, request, (b"[" * 3000, b"1" * 5000, b"NaN")) if rng.random() < 0.4 else request


def run_page(data: bytes, scratch: Path) -> None:
    """A message of a web page over its socket."""
    from nfpo_deploy.web.server import WebServer

    server = WebServer.__new__(WebServer)
    server.requests = SimpleQueue()
    server._link = SimpleNamespace(beat=lambda *_: None)
    assert server._take(1, data.decode(errors="replace")) in (True, False)


def generate_page(rng: random.Random) -> bytes:
    """A heartbeat or a request."""
    seed = rng.choice(({"beat": 1, "velocity": [0.1, 0, 0], "held": True}, {"number": 1, "request": "arm"}))
    text = json.dumps(mutate_tree(rng, seed)).encode()
    return mutate_bytes(rng, text, (b"[" * 3000, b"1" * 5000)) if rng.random() < 0.3 else text


def _ros_messages() -> list[tuple[Any, Any]]:
    from geometry_msgs.msg import Twist
    from nfpo_msgs.msg import BridgeStatus, JointCommand, RobotState, SafetyPermit, StateEstimate

    from nfpo_deploy.ros import conversions as c

    return [
        (RobotState, lambda m: c.robot_state_from(m, SPEC)), (StateEstimate, lambda m: c.state_estimate_from(m, SPEC)),
        (JointCommand, lambda m: c.joint_command_from(m, SPEC)), (SafetyPermit, c.permit_from),
        (BridgeStatus, c.bridge_status_from), (Twist, c.velocity_from),
    ]  # fmt: skip


@lru_cache
def _ros_seeds() -> list[bytes]:
    from rclpy.serialization import serialize_message

    from nfpo_deploy.ros.conversions import BASE_FRAME, ODOM_FRAME

    seeds = []
    for kind, (message_type, _) in enumerate(_ros_messages()):
        message = message_type()
        for name, field_type in message.get_fields_and_field_types().items():
            if field_type == "sequence<double>":
                setattr(message, name, [0.5] * (4 if name in ("foot_force", "contact") else 12))
        if hasattr(message, "joint_names_crc"):
            message.joint_names_crc = SPEC.joint_names_crc
        seeds.append(bytes([kind]) + serialize_message(message))
        if kind < 2:
            message.header.frame_id = (BASE_FRAME, ODOM_FRAME)[kind]
            seeds.append(bytes([kind]) + serialize_message(message))
    return seeds


def generate_ros(rng: random.Random) -> bytes:
    """A serialised ROS message behind the number of its type."""
    seed = rng.choice(_ros_seeds())
    return seed[:1] + mutate_bytes(rng, seed[1:])


@lru_cache
def _state_wires() -> tuple[Any, Any]:
    from nfpo_deploy.ros.state_wire import RobotStateWire, StateEstimateWire

    return RobotStateWire(SPEC), StateEstimateWire(SPEC)


def run_ros(data: bytes, scratch: Path) -> None:
    """A ROS message of a stranger: what the middleware lets through, our conversion accepts or refuses by name."""
    from nfpo_deploy.ros.conversions import decode_bytes

    kind = data[0] % 6 if data else 0
    value = _state_wires()[kind].decode(data[1:]) if kind < 2 else None
    message_type, convert = _ros_messages()[kind]
    message = decode_bytes(data[1:], message_type)
    converted = convert(message)
    if value is not None:
        np.testing.assert_equal(vars(value), vars(converted))


PARSERS = (
    Parser(
        "LowState", ("nfpo_deploy/transport/codec.py",),
        lambda rng: damaged_sample(rng, GO_LOW_STATE, _low_state()), run_low_state, (),
        lambda: [_valid_state()],
    ),
    Parser(
        "LowCmd", ("nfpo_deploy/transport/codec.py",), lambda rng: damaged_sample(rng, GO_LOW_CMD, GO_LOW_CMD.new()),
        run_low_cmd, (), lambda: [GO_LOW_CMD.encode(GO_LOW_CMD.new())],
    ),
    Parser(
        "message codecs", ("nfpo_deploy/transport/codec.py",), generate_any_sample, run_codecs, (TransportError,),
        lambda: [HG_LOW_STATE.encode(HG_LOW_STATE.new())],
    ),
    Parser(
        "wireless remote", ("nfpo_deploy/command/remote.py",),
        lambda rng: mutate_bytes(rng, Remote(ly=0.5, buttons=frozenset({"A"})).to_bytes()), run_remote, (),
        lambda: [Remote(ly=1.0).to_bytes(), bytes(40)],
    ),
    Parser(
        "service answers", ("nfpo_deploy/transport/rpc.py", "nfpo_deploy/transport/motion_switcher.py"),
        generate_answer, run_answer, (TransportError,), lambda: [_response(0, SWITCHER_ANSWERS[0])],
    ),
    Parser(
        "service requests", ("sim2real_checks/robot_sim/services.py",), generate_request, run_request, (),
        lambda: [_request()],
    ),
    Parser(
        "DDS announcements", ("nfpo_deploy/transport/spdp.py",), lambda rng: mutate_bytes(rng, _announcement()),
        run_announcement, (SpdpError,), lambda: [_announcement()],
    ),
    Parser(
        "guard datagrams", ("nfpo_deploy/guard/link.py",),
        lambda rng: mutate_bytes(rng, encode_report(Report(1, True, 4711)), (b"nfpo-end1",)), run_guard_datagram, (),
        lambda: [encode_report(Report(0, False, 1)), b"nfpo-end1"],
    ),
    Parser(
        "control datagrams", ("sim2real_checks/robot_sim/control.py",), generate_control, run_control, (),
        lambda: [json.dumps(FAULTS[0]).encode()],
    ),
    Parser(
        "web page messages", ("nfpo_deploy/web/server.py",), generate_page, run_page, (),
        lambda: [b'{"beat": 1, "velocity": [0, 0, 0], "held": true}'],
    ),
    Parser(
        "ROS messages", ("nfpo_deploy/ros/state_wire.py", "nfpo_deploy/ros/conversions.py"), generate_ros, run_ros,
        (MessageError,), _ros_seeds,
    ),
)  # fmt: skip


def _valid_state() -> bytes:
    record = _low_state()
    record["crc"] = GO_LOW_STATE.crc(record)
    return GO_LOW_STATE.encode(record)
