"""The motors' own controllers: the PD law that runs beside each motor, its limits and its temperature."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.transport.codec import MOTOR_CMD_FLOATS, motor_floats
from robots.loader import RobotSpec

# Unitree's sentinels are PosStopF = 2.146e9 and VelStopF = 16000; no real target comes near them.
_NO_POSITION = 1.0e9
_NO_VELOCITY = 15999.0

AMBIENT = 25.0
"""°C; motors start here."""
# Plausible rather than identified: a Go2 motor that holds its torque limit gains about 60 °C over minutes.
HEATING = 60.0
TIME_CONSTANT = 180.0


def effective_gains(q: np.ndarray, dq: np.ndarray, kp: np.ndarray, kd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gains (N,) that act: a target that is Unitree's sentinel switches its term off."""
    return (np.abs(q) < _NO_POSITION) * kp, (np.abs(dq) < _NO_VELOCITY) * kd


class MotorBank:
    """Holds the last command of every joint and turns it into torque at each physics step.

    All arrays are (N,) in joint order, SI units. A motor whose mode is not the spec's servo mode is off. A
    position target of PosStopF removes the position term and a velocity target of VelStopF the velocity term.
    """

    def __init__(self, spec: RobotSpec, strength: float = 1.0) -> None:
        n = spec.num_joints
        self._limit = spec.torque_limit
        self._servo_mode = spec.motor_mode
        self._slots = spec.motor_index
        self._strength = strength
        self.factor = np.ones(n)
        """Part of its torque that each motor makes; less than 1 is a weak one."""
        self.runaway = np.zeros(n)
        """N·m that each motor adds, whatever it is told and even while it is off."""
        self.q, self.dq, self.kp, self.kd, self.tau = (np.zeros(n) for _ in range(5))
        self._position_gain = np.zeros(n)
        self._velocity_gain = np.zeros(n)
        self._enabled: np.ndarray | float = 0.0
        self.torque = np.zeros(n)
        """Torque at the joint in the last step, N·m."""
        self.temperature = np.full(n, AMBIENT)
        """°C."""

    def command_slots(self, motor_cmd: np.ndarray) -> None:
        """Take the `motor_cmd` array of a LowCmd record."""
        used = motor_floats(motor_cmd, MOTOR_CMD_FLOATS)[self._slots]
        q, dq, tau, kp, kd = used.T.astype(np.float64, order="C")
        self.command(q, dq, kp, kd, tau, enabled=motor_cmd["mode"][self._slots] == self._servo_mode)

    def command(
        self,
        q: np.ndarray,
        dq: np.ndarray,
        kp: np.ndarray,
        kd: np.ndarray,
        tau: np.ndarray,
        enabled: np.ndarray | float = 1.0,
    ) -> None:
        """Take targets rad, rad/s, gains N·m/rad, N·m·s/rad, feed-forward N·m; hold them until the next."""
        self.q, self.dq, self.kp, self.kd, self.tau = q, dq, kp, kd, tau
        self._enabled = enabled
        self._position_gain, self._velocity_gain = effective_gains(q, dq, kp, kd)

    def off(self) -> None:
        """Switch all motors off, as before the first command."""
        zero = np.zeros_like(self.q)
        self.command(zero, zero, zero, zero, zero, enabled=0.0)

    def step(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """Torque for measured q, dq: tau + kp(q* - q) + kd(dq* - dq), clipped to the motor's limits.

        Faults of the motor come on top: what it adds by itself is clipped with the rest, what it loses is not.
        """
        asked = self.tau + self._position_gain * (self.q - q) + self._velocity_gain * (self.dq - dq)
        clipped = np.clip(asked * self._enabled + self.runaway, -self._limit, self._limit)
        self.torque = clipped * self._strength * self.factor
        return self.torque

    def warm(self, duration: float) -> None:
        """Let `duration` s pass for the temperatures: first-order, heated by torque squared."""
        steady = AMBIENT + HEATING * (self.torque / self._limit) ** 2
        self.temperature += (steady - self.temperature) * (duration / TIME_CONSTANT)
