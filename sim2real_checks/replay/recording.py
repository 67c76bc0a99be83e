"""Flight logs and records of the simulator as the same arrays, so that they can be laid beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfpo_deploy.flight_log.decoding import Decoders
from nfpo_deploy.flight_log.reader import LogMessage
from nfpo_deploy.observation.rotations import rotate_inverse
from nfpo_deploy.transport.mapping import LowCmdDecoder
from nfpo_deploy.types import Mode, MotorCommand
from robots.loader import RobotSpec
from sim2real_checks.replay.flight import ESTIMATE, PERMIT, ReplayError, read_messages, robot_of
from sim2real_checks.robot_sim.recorder import load_record

STATE, LOW_CMD = "nfpo_msgs/msg/RobotState", "unitree_go/msg/LowCmd"
BRIDGE = "bridge"
COMMANDED = ("q", "dq", "kp", "kd", "tau")
MAX_ROWS = 2_000_000
GRAVITY = 9.81
TOUCHING = 1.0
"""N on a foot of the simulator that count as contact."""
NS = 1_000_000_000
LATEST_NS = 1 << 62
"""Of any clock, in ns: the year 2116."""
RECORD_SUFFIXES = (".npz", ".partial")


@dataclass(frozen=True)
class Recording:
    """One run. T states and C commands; joints (N,) in the robot's joint order, SI units, base_link frame."""

    name: str
    spec: RobotSpec
    time: np.ndarray
    """(T,) s from the first state, when it was received; rising."""
    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    """(T, N) what the motors say they make, N·m."""
    quat_wxyz: np.ndarray
    gyro_b: np.ndarray
    accel_b: np.ndarray
    """(T, 3) m/s², gravity included."""
    accel_at: np.ndarray
    """(3,) m, where in base_link the acceleration was measured."""
    contact: np.ndarray
    """(T, F) 0 to 1, whether each foot stands; NaN where the log does not say."""
    command_time: np.ndarray
    """(C,) s on the clock of `time`, when the command was sent; rising."""
    command: dict[str, np.ndarray]
    """(C, N) by the names in `COMMANDED`."""
    active: np.ndarray
    """(T,) whether the row belongs to what is compared: walking, or joints held stiff where no mode is recorded."""
    problems: list[str] = field(default_factory=list)

    def commanded(self, name: str) -> np.ndarray:
        """(T, N) the newest command at each state; the first one before it."""
        index = np.searchsorted(self.command_time, self.time, side="right") - 1
        return self.command[name][np.maximum(index, 0)]

    def part(self, start: float, end: float) -> Recording:
        """The same run with only the rows from `start` to `end` s active.

        Raises:
            ReplayError: nothing of it is.
        """
        chosen = self.active & (self.time >= start) & (self.time <= end)
        if not chosen.any():
            raise ReplayError(
                f"{self.name}: nothing to compare between {start:g} and {end:g} s; it lasts {self.time[-1]:.1f} s and "
                f"joints are commanded in {int(self.active.sum())} of {len(self.time)} rows"
            )
        return Recording(**{**vars(self), "active": chosen})


def load_recording(paths: Sequence[Path], name: str, robot: str = "") -> Recording:
    """Load a record of the simulator, or the files of one flight log in order.

    Args:
        paths: one .npz or .partial file, or .mcap files.
        name: for people.
        robot: name of the robot; empty for the one that the log names.

    Raises:
        ReplayError: no record, nothing in it, or of another robot.
        FlightLogError: a file that is no MCAP file.
    """
    if paths[0].suffix in RECORD_SUFFIXES:
        return _from_record(paths[0], name, robot)
    return _from_flight(paths, name, robot)


def _from_record(path: Path, name: str, robot: str) -> Recording:
    try:
        columns, meta = load_record(path)
        spec = robot_of({"robot": str(meta.get("robot", ""))}, robot)
        n, feet, rows = spec.num_joints, len(spec.feet), len(columns["time"])
        for column, shape in {
            "time": (), "qpos": (7 + n,), "qvel": (6 + n,), "torque": (n,), "foot_force": (feet,),
            **{f"command_{field}": (n,) for field in COMMANDED},
        }.items():  # fmt: skip
            if columns[column].shape != (rows, *shape) or columns[column].dtype.kind not in "fiu":
                raise ValueError(f"{column} has shape {columns[column].shape}, expected {(rows, *shape)}")
        time = np.asarray(columns["time"], dtype=np.float64)
        wide = {key: np.asarray(columns[key], dtype=np.float64) for key in ("qpos", "qvel", "torque", "foot_force")}
        command = {field: np.asarray(columns[f"command_{field}"], dtype=np.float64) for field in COMMANDED}
    except (KeyError, AttributeError, TypeError) as error:
        raise ReplayError(f"{path} is not a whole record of the simulator: {error!r}") from error
    except (OSError, ValueError) as error:
        raise ReplayError(str(error)) from error
    quat = wide["qpos"][:, 3:7]
    with np.errstate(all="ignore"):
        steps = np.gradient(time) if len(time) > 1 else np.ones(1)
        accel_w = np.gradient(wide["qvel"][:, :3], axis=0) / steps[:, None] if len(time) > 1 else np.zeros((rows, 3))
        accel_b = rotate_inverse(quat, accel_w + (0.0, 0.0, GRAVITY))
    return _checked(
        Recording(
            name=name, spec=spec, time=time, q=wide["qpos"][:, 7:], dq=wide["qvel"][:, 6:], tau=wide["torque"],
            quat_wxyz=quat, gyro_b=wide["qvel"][:, 3:6], accel_b=accel_b, accel_at=np.zeros(3),
            contact=(wide["foot_force"] > TOUCHING).astype(np.float64),
            # The command in force at a row began at some time since the row before.
            command_time=time - 0.5 * float(np.median(steps)) if rows else time, command=command,
            active=np.all(command["kp"] > 0.0, axis=1) if rows else np.zeros(0, dtype=bool),
        )
    )  # fmt: skip


def _from_flight(paths: Sequence[Path], name: str, robot: str) -> Recording:
    problems: list[str] = []
    reader: _FlightReader | None = None
    for message, metadata in read_messages(paths, problems):
        if reader is None:
            reader = _FlightReader(robot_of(metadata, robot))
        reader.take(message)
    if reader is None:
        raise ReplayError(f"{paths[0]} holds no message" + (f": {problems[0]}" if problems else ""))
    return _checked(reader.recording(name, problems))


class _FlightReader:
    """Collects states, commands on the wire, contacts and modes. Times in ns since 1970 until the end."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        self._decoders = Decoders()
        self._low_cmds = LowCmdDecoder(spec)
        self._states: list[tuple] = []
        self._commands: list[tuple[int, MotorCommand]] = []
        self._contacts: dict[tuple[int, int], np.ndarray] = {}
        self._modes: list[tuple[int, Mode]] = []
        self._delay_ns: int | None = None
        self._misfits = 0

    def take(self, message: LogMessage) -> None:
        name = message.schema.name if message.schema is not None else ""
        if name == LOW_CMD:
            self._low_cmd(message)
        elif name in (STATE, ESTIMATE, PERMIT):
            decoded = self._decoders.decode(message)
            handler = {STATE: self._state, ESTIMATE: self._estimate, PERMIT: self._permit}[name]
            try:
                if decoded is not None:
                    handler(message, decoded)
            except (AttributeError, TypeError, ValueError, OverflowError):
                # The definition in the file has the name of ours, but other fields or lengths.
                self._misfits += 1
        if max(len(self._states), len(self._commands), len(self._contacts)) > MAX_ROWS:
            raise ReplayError(f"more than {MAX_ROWS} states or commands; name a shorter part of the log")

    def _low_cmd(self, message: LogMessage) -> None:
        if message.channel.metadata.get("publisher") != BRIDGE:
            return
        command = self._low_cmds.decode(message.data)
        sent_ns = message.publish_ns or message.log_ns
        if command is not None and sent_ns < LATEST_NS:
            self._commands.append((sent_ns, command))

    def _state(self, message: LogMessage, state: Any) -> None:
        spec = self._spec
        if state.joint_names_crc != spec.joint_names_crc:
            raise ReplayError(f"the log is of another robot or joint order than {spec.name!r}; name it with --robot")
        rows = [np.array(getattr(state, f), dtype=np.float64) for f in ("q", "dq", "tau_est")]
        body = [np.array(getattr(state, f), dtype=np.float64) for f in ("quat_wxyz", "gyro_b", "accel_b")]
        if any(row.shape != (spec.num_joints,) for row in rows):
            raise ValueError("another number of joints")
        received_ns = int(state.received_ns)
        if received_ns >= LATEST_NS:
            raise ValueError("received later than any clock can show")
        # The stamp is taken a little after the state was received; the shortest such delay is next to none.
        delay_ns = state.header.stamp.sec * NS + state.header.stamp.nanosec - received_ns
        self._delay_ns = delay_ns if self._delay_ns is None else min(self._delay_ns, delay_ns)
        self._states.append((received_ns, int(state.tick), *rows, *body))

    def _estimate(self, message: LogMessage, estimate: Any) -> None:
        contact = np.array(estimate.contact, dtype=np.float64)
        if contact.shape == (len(self._spec.feet),):
            self._contacts[int(estimate.tick), int(estimate.received_ns)] = contact

    def _permit(self, message: LogMessage, permit: Any) -> None:
        mode = Mode(permit.mode)
        if message.log_ns < LATEST_NS and (not self._modes or self._modes[-1][1] is not mode):
            self._modes.append((message.log_ns, mode))

    def recording(self, name: str, problems: list[str]) -> Recording:
        """The arrays of what was taken.

        Raises:
            ReplayError: no states, or no commands.
        """
        if not self._states or not self._commands:
            what = "states of the robot" if not self._states else f"commands of the {BRIDGE} on the wire"
            raise ReplayError(f"{name} holds no {what}" + (f"; {problems[0]}" if problems else ""))
        if self._decoders.failures + self._misfits:
            problems.append(f"{self._decoders.failures + self._misfits} messages do not fit their own definition")
        self._states.sort(key=lambda state: state[0])
        self._commands.sort(key=lambda command: command[0])
        states = _rising(self._states)
        keys = [(state[1], state[0]) for state in states]
        received = np.array([state[0] for state in states], dtype=np.int64)
        utc = received + (self._delay_ns or 0)
        columns = [np.array([state[i] for state in states]) for i in range(2, 8)]
        commands = _rising(self._commands)
        command = {
            ours: np.array([getattr(one[1], theirs) for one in commands])
            for ours, theirs in zip(COMMANDED, ("q", "dq", "stiffness", "damping", "tau"), strict=True)
        }
        command_time = np.array([one[0] for one in commands], dtype=np.int64) - utc[0]
        q, dq, tau, quat, gyro, accel = columns
        recording = Recording(
            name=name, spec=self._spec, time=(utc - utc[0]) * 1e-9, q=q, dq=dq, tau=tau, quat_wxyz=quat, gyro_b=gyro,
            accel_b=accel, accel_at=self._spec.imu_position, contact=self._contact(keys),
            command_time=command_time * 1e-9, command=command, active=np.zeros(len(states), dtype=bool),
            problems=problems,
        )  # fmt: skip
        return Recording(**{**vars(recording), "active": self._active(recording, utc)})

    def _contact(self, keys: list[tuple[int, int]]) -> np.ndarray:
        """(T, F) contact at each state: that of the estimate that answers it, else the last one before."""
        contact, rows = np.full(len(self._spec.feet), math.nan), []
        for key in keys:
            contact = self._contacts.get(key, contact)
            rows.append(contact)
        return np.array(rows)

    def _active(self, recording: Recording, utc: np.ndarray) -> np.ndarray:
        walking = [mode is Mode.WALK for _, mode in self._modes]
        if any(walking):
            index = np.searchsorted([time_ns for time_ns, _ in self._modes], utc, side="right") - 1
            return np.where(index >= 0, np.array(walking)[np.maximum(index, 0)], False)
        return np.all(recording.commanded("kp") > 0.0, axis=1)


def _rising(rows: list) -> list:
    """Rows sorted by their first element, without those whose time repeats."""
    return [row for i, row in enumerate(rows) if i == 0 or row[0] > rows[i - 1][0]]


def _checked(recording: Recording) -> Recording:
    """The recording, if its numbers can be computed with.

    Raises:
        ReplayError: too short, times that do not rise, values that are not finite, or joints that are never stiff.
    """
    name, time = recording.name, recording.time
    if len(time) < 2 or not (np.isfinite(time).all() and np.all(np.diff(time) > 0.0)):
        raise ReplayError(f"{name}: expected at least two states whose times rise, got {len(time)}")
    arrays = {"q": recording.q, "dq": recording.dq, "torque": recording.tau, "quaternion": recording.quat_wxyz,
              "gyro": recording.gyro_b, "acceleration": recording.accel_b,
              **{f"commanded {field}": values for field, values in recording.command.items()}}  # fmt: skip
    for what, values in arrays.items():
        if not (np.isfinite(values).all() and np.abs(values).max(initial=0.0) < 1e10):
            raise ReplayError(f"{name}: {what} holds numbers that are not finite or absurdly large")
    if not recording.active.any():
        raise ReplayError(f"{name}: the joints are never held stiff, so there is nothing to compare")
    return recording
