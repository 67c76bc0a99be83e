"""What a simulated robot can be asked to be; validated at once, so that no typing error passes for a test."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from sim2real_checks.robot_sim.remote import RemoteEvent

LOW_STATE_HZ = 500.0
"""Rate of rt/lowstate on the robots, as Unitree's examples say."""
MODE_NAMES = ("normal", "ai", "advanced")
"""Built-in controllers that can be active or selected; the robots' motion switcher knows these names."""
GANTRIES = ("auto", "hold", "free")
MAX_SOCKET_PATH = 107
"""Bytes; the kernel's limit for the name of a Unix socket (unix(7))."""
RECORD_SUFFIXES = (".npz", ".csv")


class SimConfigError(ValueError):
    """A simulator option is out of range; the message names it, its value and what is accepted."""


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviations of white noise, added to each LowState.

    The sizes are chosen to be no better than a Go2's sensors: 15-bit encoders, a consumer MEMS IMU.
    """

    q: float = 0.001
    """rad."""
    dq: float = 0.05
    """rad/s."""
    gyro: float = 0.01
    """rad/s."""
    accel: float = 0.08
    """m/s²."""
    orientation: float = 0.002
    """rad, about a random axis."""
    tau: float = 0.1
    """N·m."""

    @staticmethod
    def none() -> SensorNoise:
        """Perfect sensors."""
        return SensorNoise(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Push:
    """A sudden change of the base's velocity: time s, and vx, vy m/s in the world frame."""

    time: float
    vx: float
    vy: float


@dataclass(frozen=True)
class SimConfig:
    """All options of `RobotSim`; times are simulated seconds since the robot was ready.

    Raises:
        SimConfigError: an option out of its range.
    """

    robot: str = "go2"
    interface: str = "lo"
    domain_id: int = 0
    timestep: float = 0.001
    """Physics step, s; 0.001 or shorter, a divisor of 0.002."""
    real_time: bool = True
    """Pace to the wall clock; without it, run as fast as possible (tests of the physics)."""
    duration: float | None = None
    """Stop after this many seconds; None runs until stopped."""
    initial_pose: str = "crouch"
    """"crouch" lies on the belly, "default" stands (only the built-in controller can keep it standing)."""
    builtin_mode: str = "normal"
    """Built-in controller that is active at start, as on a robot after boot; "" for none."""
    lowcmd_timeout: float | None = None
    """Motors go limp this long after the last LowCmd; None keeps the last command, the worst case."""
    command_latency: float = 0.0
    """s from reception of a LowCmd until the motors follow it."""
    sensor_latency: float = 0.0
    """s by which LowState lags behind the physics."""
    noise: SensorNoise = field(default_factory=SensorNoise)
    seed: int = 0
    foot_friction: float = 0.8
    payload: float = 0.0
    """kg added at the base's centre of mass; may be negative."""
    motor_strength: float = 1.0
    """Torque that the motors make for each N·m that they were asked for."""
    battery_soc: int = 90
    """%, constant."""
    pushes: tuple[Push, ...] = ()
    remote_events: tuple[RemoteEvent, ...] = ()
    sport_state_hz: float = 100.0
    """Rate of rt/sportmodestate, the ground truth."""
    record: Path | None = None
    """Ground-truth log, .npz or .csv."""
    record_hz: float = 200.0
    gantry: str = "auto"
    """"hold": a gantry holds the robot at first; "free": none; "auto": one where the model has a site for it."""
    gantry_release: float | None = None
    """s at which the gantry lets go; None for when it is asked to."""
    mode_machine: int | None = None
    """Variant that LowState names and LowCmd must name, 0 to 255; None for the robot's first. unitree_hg only."""
    control: Path | None = None
    """Unix datagram socket that takes requests for faults while the robot runs; None for none."""

    def __post_init__(self) -> None:
        _require(0 < self.timestep <= 0.001 and _divides(self.timestep, 1 / LOW_STATE_HZ),
                 "timestep", self.timestep, "at most 0.001 s and a divisor of 0.002 s")  # fmt: skip
        for name in ("duration", "lowcmd_timeout"):
            value = getattr(self, name)
            ok = value is None or (math.isfinite(value) and value > 0)
            _require(ok, name, value, "above zero, or left out")
        for name in ("command_latency", "sensor_latency"):
            value = getattr(self, name)
            _require(0 <= value <= 0.2, name, value, "0 to 0.2 s")
        for name in ("foot_friction", "motor_strength", "sport_state_hz", "record_hz"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "finite and above zero")
        for name in ("sport_state_hz", "record_hz"):
            value = getattr(self, name)
            _require(value <= 1 / self.timestep, name, value, "at most the physics rate")
        ok = self.initial_pose in ("crouch", "default")
        _require(ok, "initial_pose", self.initial_pose, "crouch or default")
        ok = self.builtin_mode in ("", *MODE_NAMES)
        _require(ok, "builtin_mode", self.builtin_mode, f"one of {', '.join(MODE_NAMES)}, or empty for none")
        _require(self.gantry in GANTRIES, "gantry", self.gantry, f"one of {', '.join(GANTRIES)}")
        ok = self.gantry_release is None or (math.isfinite(self.gantry_release) and self.gantry_release >= 0)
        _require(ok, "gantry_release", self.gantry_release, "at least 0 s, or left out")
        ok = self.mode_machine is None or 0 <= self.mode_machine <= 255
        _require(ok, "mode_machine", self.mode_machine, "0 to 255, or left out")
        _require(math.isfinite(self.payload), "payload", self.payload, "finite")
        _require(0 <= self.battery_soc <= 100, "battery_soc", self.battery_soc, "0 to 100 %")
        for name, value in vars(self.noise).items():
            _require(math.isfinite(value) and value >= 0, f"noise.{name}", value, "finite and not negative")
        for push in self.pushes:
            _require(all(map(math.isfinite, (push.time, push.vx, push.vy))) and push.time >= 0,
                     "pushes", push, "finite numbers and a time of at least 0")  # fmt: skip
        if self.record is not None:
            ok = self.record.suffix in RECORD_SUFFIXES
            _require(ok, "record", str(self.record), f"a file name that ends with one of {RECORD_SUFFIXES}")
        if self.control is not None:
            ok = 0 < len(os.fsencode(self.control)) <= MAX_SOCKET_PATH
            _require(ok, "control", str(self.control), f"a path of at most {MAX_SOCKET_PATH} bytes, as for any socket")


def _divides(step: float, period: float) -> bool:
    ratio = period / step
    return abs(ratio - round(ratio)) < 1e-6


def _require(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise SimConfigError(f"{name} must be {expected}; got {value!r}")
