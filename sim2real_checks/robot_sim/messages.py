"""Fill Unitree's messages from the simulated body."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from nfpo_deploy.transport.codec import (
    GO_SPORT_MODE_STATE,
    GO_WIRELESS_CONTROLLER,
    HG_IMU_STATE,
    MOTOR_STATE_FLOATS,
    motor_floats,
)
from nfpo_deploy.transport.family import family_of
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.battery import cell_voltage, cells
from sim2real_checks.robot_sim.config import SensorNoise, SimConfig
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant, Truth
from sim2real_checks.robot_sim.remote import Remote

BOOT_TICK_MS = 1000
"""Tick when the simulation starts: a robot has been on for a while, and to some clients 0 means "no data"."""
_IDLE_CURRENT = 1.5
_BOARD_TEMPERATURE = 40


class _Noise:
    """White noise from one generator."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def of(self, deviation: float, n: int) -> np.ndarray:
        """(n,) numbers; zeros without noise."""
        return self._random.normal(0.0, deviation, n) if deviation else np.zeros(n)


class LowStateBuilder:
    """Makes LowState samples of the robot's message family: measured values with noise, delayed by the latency.

    Attributes:
        mode_pr: how ankles and waist were commanded last, which the unitree_hg family reports.
    """

    def __init__(self, spec: RobotSpec, config: SimConfig, plant: Plant, motors: MotorBank) -> None:
        self.mode_pr = 0
        self._codec = family_of(spec).low_state
        self._plant = plant
        self._motors = motors
        self._motor_index = spec.motor_index
        self._noise = config.noise
        self._random = _Noise(config.seed)
        self._delayed: deque[tuple[float, np.ndarray]] = deque()
        self._latency = config.sensor_latency
        self._record = self._codec.new()
        self._record["imu_state"]["temperature"] = _BOARD_TEMPERATURE
        slots = self._record["motor_state"]
        slots["mode"][self._motor_index] = spec.motor_mode
        self._slots = motor_floats(slots, MOTOR_STATE_FLOATS)
        self._measured = np.zeros((len(MOTOR_STATE_FLOATS), spec.num_joints))
        rest = _HgRest if spec.message_family == "unitree_hg" else _GoRest
        self._rest: _GoRest | _HgRest = rest(spec, config, self._record)

    def build(self, remote: Remote) -> bytes | None:
        """CDR sample of what the robot sends now; None while the first one is still under way."""
        self._measure(remote)
        if self._latency == 0.0:
            return self._codec.encode(self._record)
        now = self._plant.time
        self._delayed.append((now, self._record.copy()))
        sample = None
        while self._delayed and self._delayed[0][0] <= now - self._latency + 1e-9:
            sample = self._delayed.popleft()[1]
        return None if sample is None else self._codec.encode(sample)

    def _measure(self, remote: Remote) -> None:
        record, plant, noise = self._record, self._plant, self._noise
        record["tick"] = BOOT_TICK_MS + round(plant.time * 1000)
        _measure_imu(record["imu_state"], plant.imu(), noise, self._random)
        dq = plant.dq
        n = len(dq)
        measured = self._measured
        measured[:] = plant.q, dq, plant.ddq, self._motors.torque
        measured[0] += self._random.of(noise.q, n)
        measured[1] += self._random.of(noise.dq, n)
        measured[3] += self._random.of(noise.tau, n)
        self._slots[self._motor_index] = measured.T
        record["wireless_remote"] = np.frombuffer(remote.to_bytes(), dtype=np.uint8)
        self._rest.measure(plant, self._motors, dq, self.mode_pr)
        record["crc"] = self._codec.crc(record)


class _GoRest:
    """What a unitree_go LowState holds besides IMU, joints and remote: feet, battery, temperatures of one byte."""

    def __init__(self, spec: RobotSpec, config: SimConfig, record: np.ndarray) -> None:
        self._record = record
        self._motor_index = spec.motor_index
        self._num_feet = len(spec.feet)
        record["head"] = (0xFE, 0xEF)
        record["level_flag"] = 0xFF
        cell = cell_voltage(config.battery_soc)
        self._voltage = cells(spec) * cell
        record["power_v"] = self._voltage
        bms = record["bms_state"]
        bms["soc"] = config.battery_soc
        bms["cell_vol"][: cells(spec)] = round(cell * 1000)
        bms["bq_ntc"] = bms["mcu_ntc"] = 30
        record["temperature_ntc1"] = record["temperature_ntc2"] = _BOARD_TEMPERATURE

    def measure(self, plant: Plant, motors: MotorBank, dq: np.ndarray, mode_pr: int) -> None:
        record = self._record
        record["motor_state"]["temperature"][self._motor_index] = motors.temperature
        force = [min(max(newton, 0.0), 32767.0) for newton in plant.foot_force().tolist()]
        record["foot_force"][: self._num_feet] = force
        record["foot_force_est"][: self._num_feet] = force
        current = _IDLE_CURRENT + max(0.0, float(motors.torque @ dq)) / self._voltage
        record["power_a"] = current
        record["bms_state"]["current"] = -round(current * 1000)


class _HgRest:
    """The same of unitree_hg: the robot's variant, and two temperatures for each motor, both the winding's here."""

    def __init__(self, spec: RobotSpec, config: SimConfig, record: np.ndarray) -> None:
        self._record = record
        self._motor_index = spec.motor_index
        record["mode_machine"] = mode_machine_of(spec, config)

    def measure(self, plant: Plant, motors: MotorBank, dq: np.ndarray, mode_pr: int) -> None:
        self._record["mode_pr"] = mode_pr
        self._record["motor_state"]["temperature"][self._motor_index] = motors.temperature[:, None]


class SecondaryImuBuilder:
    """Makes samples of rt/secondary_imu: the torso's IMU with noise of its own, not delayed."""

    def __init__(self, config: SimConfig, plant: Plant) -> None:
        self._plant = plant
        self._noise = config.noise
        self._random = _Noise(config.seed + 1)
        self._record = HG_IMU_STATE.new()
        self._record["temperature"] = _BOARD_TEMPERATURE

    def build(self) -> bytes | None:
        """CDR sample; None for a robot without such an IMU."""
        measured = self._plant.secondary_imu()
        if measured is None:
            return None
        _measure_imu(self._record, measured, self._noise, self._random)
        return HG_IMU_STATE.encode(self._record)


def mode_machine_of(spec: RobotSpec, config: SimConfig) -> int:
    """Variant that a simulated robot says it is."""
    return spec.mode_machines[0] if config.mode_machine is None else config.mode_machine


def _measure_imu(
    imu: np.ndarray, measured: tuple[np.ndarray, np.ndarray, np.ndarray], noise: SensorNoise, random: _Noise
) -> None:
    quat, gyro, acc = measured[0].tolist(), *measured[1:]
    if noise.orientation:
        quat = _small_rotation(quat, random.of(noise.orientation, 3))
    imu["quaternion"] = quat
    imu["gyroscope"] = gyro + random.of(noise.gyro, 3)
    imu["accelerometer"] = acc + random.of(noise.accel, 3)
    imu["rpy"] = roll_pitch_yaw(quat)


class SportStateBuilder:
    """Makes SportModeState samples: the truth, where a robot sends its own estimate."""

    def __init__(self, spec: RobotSpec, plant: Plant) -> None:
        self._plant = plant
        self._legs = 3 * min(4, len(spec.feet))
        self._last_feet: np.ndarray | None = None
        self._last_time = 0.0
        self._record = GO_SPORT_MODE_STATE.new()

    def build(self, truth: Truth, mode: int) -> bytes:
        """CDR sample; `mode` as Unitree numbers them (0 idle, 1 balance stand, 5 lie down, 7 damping)."""
        record = self._record
        seconds = BOOT_TICK_MS / 1000 + truth.time
        record["stamp"]["sec"] = int(seconds)
        record["stamp"]["nanosec"] = round((seconds - int(seconds)) * 1e9)
        record["mode"] = mode
        record["position"] = truth.position_w
        record["velocity"] = truth.lin_vel_w
        record["body_height"] = truth.position_w[2]
        record["yaw_speed"] = _yaw_rate(truth)
        imu = record["imu_state"]
        imu["quaternion"] = truth.quat_wxyz
        imu["gyroscope"] = truth.ang_vel_b
        imu["accelerometer"] = self._plant.imu()[2]
        imu["rpy"] = roll_pitch_yaw(truth.quat_wxyz)
        force = np.clip(self._plant.foot_force(), 0, 32767)[:4]
        record["foot_force"][: len(force)] = force
        self._fill_feet(record, truth.time)
        return GO_SPORT_MODE_STATE.encode(record)

    def _fill_feet(self, record: np.ndarray, time: float) -> None:
        feet = self._plant.foot_positions().ravel()[: self._legs]
        record["foot_position_body"][: self._legs] = feet
        if self._last_feet is not None and time > self._last_time:
            record["foot_speed_body"][: self._legs] = (feet - self._last_feet) / (time - self._last_time)
        self._last_feet, self._last_time = feet, time


def wireless_controller(remote: Remote) -> bytes:
    """CDR sample of rt/wirelesscontroller."""
    record = GO_WIRELESS_CONTROLLER.new()
    for name in ("lx", "ly", "rx", "ry", "keys"):
        record[name] = getattr(remote, name)
    return GO_WIRELESS_CONTROLLER.encode(record)


def roll_pitch_yaw(quat: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Intrinsic z-y'-x'' angles (yaw, pitch, roll applied in this order) of a wxyz quaternion, rad."""
    w, x, y, z = (float(value) for value in quat)
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return roll, pitch, yaw


def _yaw_rate(truth: Truth) -> float:
    """World z component of the angular velocity, rad/s: third row of the rotation matrix times omega."""
    w, x, y, z = (float(value) for value in truth.quat_wxyz)
    row = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    return sum(a * float(b) for a, b in zip(row, truth.ang_vel_b, strict=True))


def _small_rotation(quat: Sequence[float], angle: np.ndarray) -> list[float]:
    """`quat` turned by the small rotation vector `angle` (3,) rad in its own frame, normalised."""
    w, x, y, z = quat
    a, b, c = (0.5 * angle).tolist()
    turned = (w - x * a - y * b - z * c, x + w * a + y * c - z * b,
              y + w * b + z * a - x * c, z + w * c + x * b - y * a)  # fmt: skip
    norm = math.hypot(*turned)
    return [value / norm for value in turned]
