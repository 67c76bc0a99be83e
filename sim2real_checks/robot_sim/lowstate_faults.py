"""What the faults do to LowStates, on their way from the sensors to the network. Pure: bytes in, bytes out.

A LowState passes four places: its sensors (values change, the checksum fits them), the firmware (which may repeat
itself), the wire (bytes change, the checksum does not) and the network (which loses, delays and mixes).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from nfpo_deploy.transport.codec import MessageCodec
from nfpo_deploy.transport.family import family_of
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.battery import cell_voltage, cells
from sim2real_checks.robot_sim.faults import Fault
from sim2real_checks.robot_sim.messages import roll_pitch_yaw

OTHER_ROBOT_VOLTAGE = 58.0
"""V; B2's battery, which a Go2's can never have."""
OTHER_ROBOT_Q = 0.5
"""rad, angle of the motors that the robot does not have."""
_ORDER = ("sensors", "firmware", "wire", "network")
_FIRMWARE = _ORDER.index("firmware")
_LAST_IN_PLACE = ("truncate", "lose")


def nan(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """NaN in one field, of one motor or all."""
    name = values["field"]
    if name in ("quaternion", "gyroscope"):
        record["imu_state"][name] = np.nan
    else:
        joint = values["joint"]
        record["motor_state"][name][spec.motor_index if joint is None else spec.motor_index[joint]] = np.nan


def wrong_robot(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """Every motor slot that the robot leaves unused is alive, and the voltage, if any, is another robot's."""
    slots = record["motor_state"]
    unused = np.setdiff1d(np.arange(len(slots)), spec.motor_index)
    slots["mode"][unused] = spec.motor_mode[0]
    slots["q"][unused] = OTHER_ROBOT_Q
    if "power_v" in (record.dtype.names or ()):
        record["power_v"] = OTHER_ROBOT_VOLTAGE


def voltage(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """Another power_v."""
    record["power_v"] = values["volts"]


def spike(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """One joint angle is off."""
    record["motor_state"]["q"][spec.motor_index[values["joint"]]] += values["offset"]


def swap_joints(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """Two joints have changed places."""
    one, other = spec.motor_index[values["joint"]], spec.motor_index[values["other"]]
    record["motor_state"][[one, other]] = record["motor_state"][[other, one]]


def flip_joint(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """One joint has the opposite sign."""
    for name in ("q", "dq", "tau_est"):
        record["motor_state"][name][spec.motor_index[values["joint"]]] *= -1.0


def clock_jump(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """The tick is off; it wraps at 32 bits as a robot's does."""
    record["tick"] = (int(record["tick"]) + values["n"]) % 2**32


def tilt_lie(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """The quaternion is turned about an axis of the body; rpy follows it."""
    half = values["angle"] / 2
    w, x, y, z = (float(value) for value in record["imu_state"]["quaternion"])
    c, s = math.cos(half), math.sin(half)
    if values["axis"] == "roll":
        turned = (w * c - x * s, x * c + w * s, y * c + z * s, z * c - y * s)
    else:
        turned = (w * c - y * s, x * c - z * s, y * c + w * s, z * c + x * s)
    record["imu_state"]["quaternion"] = turned
    record["imu_state"]["rpy"] = roll_pitch_yaw(turned)


def gyro_bias(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """The gyroscope is off."""
    record["imu_state"]["gyroscope"] += np.array([values[axis] for axis in ("x", "y", "z")], dtype=np.float32)


def heat(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """One motor's temperature."""
    record["motor_state"]["temperature"][spec.motor_index[values["joint"]]] = values["temperature"]


def battery(record: np.ndarray, values: Mapping[str, Any], spec: RobotSpec) -> None:
    """Charge, and the voltages that go with it."""
    cell = cell_voltage(values["soc"])
    record["bms_state"]["soc"] = values["soc"]
    record["bms_state"]["cell_vol"][: cells(spec)] = round(cell * 1000)
    record["power_v"] = cells(spec) * cell


SENSORS: dict[str, Callable[[np.ndarray, Mapping[str, Any], RobotSpec], None]] = {
    function.__name__: function
    for function in (
        nan,
        wrong_robot,
        voltage,
        spike,
        swap_joints,
        flip_joint,
        clock_jump,
        tilt_lie,
        gyro_bias,
        heat,
        battery,
    )
}


class Stage(Protocol):
    """Something that LowStates pass: at every period it takes those that come and gives those that leave."""

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        """Samples that leave at `now` (s)."""

    def drain(self, samples: list[bytes]) -> list[bytes]:
        """The same in the period in which the fault ends: whatever was held back leaves as well."""


class _PerSample:
    """Changes every sample in the same way and holds nothing back."""

    def __init__(self, change: Callable[[bytes], list[bytes]]) -> None:
        self._change = change

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        return [changed for sample in samples for changed in self._change(sample)]

    def drain(self, samples: list[bytes]) -> list[bytes]:
        return samples


class _Sensor:
    """Values change before the checksum is made."""

    def __init__(self, name: str, values: Mapping[str, Any], spec: RobotSpec) -> None:
        self._effect, self._values, self._spec = SENSORS[name], values, spec
        self._codec = family_of(spec).low_state

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        return [self._changed(sample) for sample in samples]

    def drain(self, samples: list[bytes]) -> list[bytes]:
        return samples

    def _changed(self, sample: bytes) -> bytes:
        record = self._codec.decode(sample)
        self._effect(record, self._values, self._spec)
        record["crc"] = self._codec.crc(record)
        return self._codec.encode(record)


class _Freeze:
    """Repeats one sample in the place of every one that comes."""

    def __init__(self, last: bytes | None) -> None:
        self._kept = last

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        if self._kept is None and samples:
            self._kept = samples[0]
        return [self._kept for _ in samples if self._kept is not None]

    def drain(self, samples: list[bytes]) -> list[bytes]:
        return samples


class _Delay:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: deque[tuple[float, bytes]] = deque()

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        self._held.extend((now + self._seconds, sample) for sample in samples)
        due = []
        while self._held and self._held[0][0] <= now + 1e-9:
            due.append(self._held.popleft()[1])
        return due

    def drain(self, samples: list[bytes]) -> list[bytes]:
        return [*(sample for _, sample in self._held), *samples]


class _Reorder:
    """Collects `window` samples and lets them go in another order, one each period; groups follow without a gap."""

    def __init__(self, window: int, seed: int) -> None:
        self._window = window
        self._random = np.random.default_rng(seed)
        self._group: list[bytes] = []
        self._leaving: deque[bytes] = deque()

    def process(self, samples: list[bytes], now: float) -> list[bytes]:
        left = []
        for sample in samples:
            self._group.append(sample)
            if len(self._group) == self._window:
                self._leaving.extend(self._group[i] for i in self._wrong_order())
                self._group = []
            if self._leaving:
                left.append(self._leaving.popleft())
        return left

    def drain(self, samples: list[bytes]) -> list[bytes]:
        return [*self._leaving, *self._group, *samples]

    def _wrong_order(self) -> np.ndarray:
        right = np.arange(self._window)
        while np.array_equal(order := self._random.permutation(self._window), right):
            pass
        return order


class LowStateStream:
    """Turns each LowState that the robot makes into those that leave it. Without faults it costs nothing."""

    def __init__(self, spec: RobotSpec) -> None:
        self._spec = spec
        self._stages: list[tuple[int, Any, Stage]] = []
        self._ended: list[Stage] = []
        self._made: bytes | None = None

    def add(self, fault: Fault) -> None:
        """Let a fault of one of the four places begin; it replaces the one with the same key."""
        self.remove(fault.key)
        self._stages.append((_ORDER.index(fault.kind.place), fault.key, self._stage(fault)))
        # A stable sort: within one place, in the order of their beginning.
        self._stages.sort(key=lambda entry: (entry[0], entry[1][0] in _LAST_IN_PLACE))

    def remove(self, key: Any) -> None:
        """Let a fault end at the next `process`."""
        self._ended += [stage for _, other, stage in self._stages if other == key]

    def process(self, sample: bytes | None, now: float) -> list[bytes]:
        """CDR samples that leave at `now` (s), given the one that was made; None where none was."""
        samples = [] if sample is None else [sample]
        samples = self._pass(samples, now, [stage for place, _, stage in self._stages if place <= _FIRMWARE])
        if samples:
            self._made = samples[-1]
        samples = self._pass(samples, now, [stage for place, _, stage in self._stages if place > _FIRMWARE])
        if self._ended:
            self._stages = [entry for entry in self._stages if entry[2] not in self._ended]
            self._ended.clear()
        return samples

    def _pass(self, samples: list[bytes], now: float, stages: list[Stage]) -> list[bytes]:
        for stage in stages:
            samples = stage.drain(samples) if stage in self._ended else stage.process(samples, now)
        return samples

    def _stage(self, fault: Fault) -> Stage:
        values = fault.values
        if fault.kind.place == "sensors":
            return _Sensor(fault.name, values, self._spec)
        if fault.name == "freeze":
            return _Freeze(self._made)
        if fault.name == "delay":
            return _Delay(values["seconds"])
        if fault.name == "reorder":
            return _Reorder(values["window"], values["seed"])
        return _PerSample(_change_of(fault, family_of(self._spec).low_state))


def _change_of(fault: Fault, codec: MessageCodec) -> Callable[[bytes], list[bytes]]:
    values = fault.values
    if fault.name in ("lose_some", "corrupt"):
        random = np.random.default_rng(values["seed"])
        if fault.name == "corrupt":
            return lambda sample: [_flipped(sample, values["bits"], random, codec)]
        return lambda sample: [] if random.random() < values["p"] else [sample]
    changes: dict[str, Callable[[bytes], list[bytes]]] = {
        "lose": lambda sample: [],
        "duplicate": lambda sample: [sample, sample],
        "bad_crc": lambda sample: [_with_bad_crc(sample, codec)],
        "truncate": lambda sample: [sample[: values["bytes"]]],
    }
    return changes[fault.name]


def _with_bad_crc(sample: bytes, codec: MessageCodec) -> bytes:
    record = codec.decode(sample)
    record["crc"] ^= 0xFFFFFFFF
    return codec.encode(record)


def _flipped(sample: bytes, bits: int, random: np.random.Generator, codec: MessageCodec) -> bytes:
    """`sample` with that many different bits flipped behind the encapsulation header, and a wrong checksum."""
    start = 8 * 4
    while True:
        content = np.unpackbits(np.frombuffer(sample, dtype=np.uint8))
        content[start + random.choice(len(content) - start, bits, replace=False)] ^= 1
        damaged = np.packbits(content).tobytes()
        record = codec.decode(damaged)
        # All flips can have hit padding, which no receiver looks at.
        if codec.crc(record) != record["crc"]:
            return damaged
