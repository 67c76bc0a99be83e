"""Frozen values that pass between the stages: sensor, state, command, permit, motor.

Units are SI. Joint arrays have shape (N,) in the robot spec's joint order (SDK motor order). Quaternions
are wxyz and rotate vectors from base_link to world. Suffix `_b` means expressed in base_link (x forward,
y left, z up), `_w` in the world. Times `*_ns` are CLOCK_MONOTONIC nanoseconds of this host.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Mode(IntEnum):
    """Modes of the robot. The watchdog owns the mode; the permit carries it to the bridge."""

    DAMP = 0
    """Joints damped, then free. The mode at start and after a stop."""
    STAND = 1
    """The bridge ramps from the measured pose to the default pose with stand gains."""
    READY = 2
    """The bridge holds the default pose; the policy runs in the shadow so that its output can be checked."""
    WALK = 3
    """The bridge follows the policy's joint commands."""
    SIT = 4
    """The bridge ramps to the crouch pose, then the mode falls to DAMP."""
    FAULT = 5
    """Latched: damping until an operator resets it."""


class GatePhase(IntEnum):
    """What the gate is doing now."""

    ZERO_TORQUE = 0
    DAMPING = 1
    RAMPING = 2
    HOLDING = 3
    TRACKING = 4


@dataclass(frozen=True)
class RobotState:
    """One LowState, decoded and mapped to joint order."""

    tick: int
    received_ns: int
    quat_wxyz: np.ndarray
    """(4,) unit quaternion, base_link to world."""
    gyro_b: np.ndarray
    """(3,) rad/s."""
    accel_b: np.ndarray
    """(3,) m/s², gravity included (about +9.81 on z at rest)."""
    q: np.ndarray
    dq: np.ndarray
    tau_est: np.ndarray
    temperature: np.ndarray
    """(N,) °C."""
    foot_force: np.ndarray
    """(F,) raw units, order of the spec's feet."""
    battery_soc: float
    """0 to 100 %, NaN where the message family has none."""
    voltage: float
    """V, NaN where unknown."""
    wireless_remote: bytes
    """The remote's 40 bytes."""
    mode_machine: int = 0


@dataclass(frozen=True)
class StateEstimate:
    """State estimator's output for one tick."""

    tick: int
    received_ns: int
    quat_wxyz: np.ndarray
    ang_vel_b: np.ndarray
    lin_vel_b: np.ndarray
    """(3,) m/s."""
    lin_vel_std: np.ndarray
    """(3,) m/s, one standard deviation as the filter believes it."""
    position_w: np.ndarray
    """(3,) m in odom; drifts."""
    contact: np.ndarray
    """(F,) probability of stance, 0 to 1."""
    q: np.ndarray
    dq: np.ndarray


@dataclass(frozen=True)
class VelocityCommand:
    """Operator's command in base_link: vx, vy in m/s, wz in rad/s."""

    vx: float
    vy: float
    wz: float

    def as_array(self) -> np.ndarray:
        """(3,) array vx, vy, wz."""
        return np.array([self.vx, self.vy, self.wz])


@dataclass(frozen=True)
class JointCommand:
    """What the policy asks of the joints; the gate decides what reaches the motors."""

    seq: int
    state_tick: int
    state_received_ns: int
    q: np.ndarray
    dq: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray
    tau: np.ndarray
    """Feed-forward, N·m."""


@dataclass(frozen=True)
class SafetyPermit:
    """The watchdog's permission to move. Without a fresh one the gate damps."""

    seq: int
    mode: Mode
    reason: str = ""


@dataclass(frozen=True)
class MotorCommand:
    """What is written to the motors, in joint order; made by the gate, or faded to damping by a guard."""

    q: np.ndarray
    dq: np.ndarray
    stiffness: np.ndarray
    damping: np.ndarray
    tau: np.ndarray


@dataclass(frozen=True)
class BridgeStatus:
    """What the bridge and its gate report, 50 Hz; mirrors nfpo_msgs/BridgeStatus. Ages in s, inf if never received."""

    phase: GatePhase
    permit_mode: Mode
    """Mode of the last permit that the bridge saw."""
    reason: str
    """Why the gate damps; empty while it is healthy."""
    tripped: bool
    stand_reached: bool
    """The ramp to the default pose is over and the joints are there."""
    sit_reached: bool
    """The ramp to the crouch pose is over."""
    state_age: float
    command_age: float
    permit_age: float
    lowstate_count: int = 0
    lowstate_crc_errors: int = 0
    lowstate_lost: int = 0
    lowcmd_count: int = 0
    limited_count: int = 0
    loop_rate: float = 0.0
    """Hz over the last second."""
    loop_jitter_p99_ms: float = 0.0
    loop_overruns: int = 0
    """Periods missed since the start."""
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    guards_expected: int = 2
    """Guard processes that must be alive before the robot may be armed."""
    guards_alive: int = 0
    """Guard processes heard within `guard_status_timeout`."""
    guard_active: bool = False
    """Whether a guard is damping the robot in the bridge's place."""
    foreign_lowcmd: int = 0
    """LowCmds of other programs seen on the wire since the start; guards do not count."""
    network_problem: str = ""
    """What is wrong on the robot's network although the robot is heard: a foreign DDS version; empty when nothing."""
    last_trip: str = ""
    """Reason of the gate's latest trip, kept after it cleared; empty before the first."""
    stopping: bool = False
    """Whether the bridge was asked to end: it sits the robot down if it can, then damps it."""
    clearance_problem: str = ""
    """Why the policy may not run on hardware; empty when nothing."""
    clearance_override: str = ""
    """The operator's reason for doing without a clearance; empty when he does not."""
