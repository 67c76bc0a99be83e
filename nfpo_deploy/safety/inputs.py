"""What the gate believes of its three inputs: robot state, permit, joint command. Validity, order and age.

Each class keeps the newest acceptable value and answers, at any time, with the problem that makes its input
unusable; an empty string means usable. A value counts as new only when its own counter moves (tick of a state,
seq of a permit or command), so that a frozen sender which repeats itself ages like a dead one.
"""

from __future__ import annotations

import numpy as np

from nfpo_deploy.safety.arrival import Arrival, ArrivalWatch
from nfpo_deploy.safety.limits import all_finite, gains_allowed, tilt_angle
from nfpo_deploy.types import JointCommand, Mode, RobotState, SafetyPermit
from robots.loader import RobotSpec

# A caller may read its clock just before it takes a message; anything newer than this lies about its time.
FUTURE_TOLERANCE_NS = 2_000_000
# Readings this far outside what the robot can do are decoding errors, not motion.
MAX_PLAUSIBLE_ANGLE = 4.0 * np.pi
PLAUSIBLE_VELOCITY_FACTOR = 10.0


# A delay that begins at once is seen as a gap. This is for one that creeps, and must spare what jitter adds to it.
LATE_TIMEOUTS = 2
MAX_WATCHDOG_HZ = 1000.0
"""No watchdog is faster: within its timeout no permit is further ahead of the one before."""


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds."""
    return int(round(seconds * 1e9))


def _vector_problem(name: str, value: object, n: int) -> str:
    if not isinstance(value, np.ndarray) or value.shape != (n,) or value.dtype.kind not in "fiu":
        shape = getattr(value, "shape", type(value).__name__)
        return f"{name} has shape {shape}, expected {n} numbers"
    return ""


class StateInput:
    """The newest valid robot state: `q`, `dq`, `tau_est` (N,), `tilt` rad. Zeros before the first one."""

    def __init__(self, spec: RobotSpec, period_s: float = 0.002):
        """Take states that come every `period_s`."""
        n = spec.num_joints
        self.q = np.zeros(n)
        self.dq = np.zeros(n)
        self.tau_est = np.zeros(n)
        self.tilt = self._seen_tilt = 0.0
        self.received = False
        """Whether a valid state was ever received."""
        self._n = n
        self._timeout_ns = nanoseconds(spec.safety.state_timeout)
        self._max_dq = PLAUSIBLE_VELOCITY_FACTOR * spec.velocity_limit
        self._last: RobotState | None = None
        self._invalid = ""
        self._mode_machines = spec.mode_machines
        self._tick: int | None = None
        self._arrival = ArrivalWatch(period_s)
        self._fresh_ns = 0

    def settle(self) -> None:
        """Nothing moves: whatever lag the states have now is their normal one."""
        self._arrival.settle()

    def update(self, now_ns: int, state: RobotState | None) -> str:
        """Take a state (the same one again is fine); returns the problem, empty when fresh and valid."""
        if state is None:
            return "no robot state received"
        if state is not self._last:
            self._last = state
            self._invalid = self._take(now_ns, state)
        if self._invalid:
            return self._invalid
        if now_ns - self._fresh_ns > self._timeout_ns:
            frozen = now_ns - state.received_ns <= self._timeout_ns
            kind = f"frozen at tick {state.tick}" if frozen else "stale"
            return f"robot state {kind} for {(now_ns - self._fresh_ns) * 1e-6:.0f} ms"
        return ""

    def lateness(self) -> str:
        """Why the states come too late to act on, though each is new; empty while they do not."""
        if self._arrival.lag_ns > LATE_TIMEOUTS * self._timeout_ns:
            return f"robot states arrive {self._arrival.lag_ns * 1e-6:.0f} ms late"
        return ""

    def _take(self, now_ns: int, state: RobotState) -> str:
        problem = self._problem(state)
        if problem:
            return problem
        if state.received_ns > now_ns + FUTURE_TOLERANCE_NS:
            return f"robot state comes {(state.received_ns - now_ns) * 1e-6:.1f} ms from the future"
        before, self._tick = self._tick, state.tick
        arrival = self._arrival.judge(state.tick, state.received_ns)
        if arrival is Arrival.OLD:
            # A state that was overtaken tells nothing new, and what it tells is no longer true.
            self._tick = before
            return ""
        self.tilt = self._seen_tilt
        np.copyto(self.q, state.q)
        np.copyto(self.dq, state.dq)
        np.copyto(self.tau_est, state.tau_est)
        if arrival is not Arrival.SAME:
            self._fresh_ns = state.received_ns
        self.received = True
        if arrival is Arrival.RESTARTED:
            return f"robot state: tick fell from {before} to {state.tick}; the robot restarted, or there are two"
        return ""

    def _problem(self, state: RobotState) -> str:
        n = self._n
        fields = (("q", n), ("dq", n), ("tau_est", n), ("quat_wxyz", 4), ("gyro_b", 3), ("accel_b", 3))
        arrays = []
        for name, size in fields:
            value = getattr(state, name)
            problem = _vector_problem(name, value, size)
            if problem:
                return f"robot state: {problem}"
            arrays.append(value)
        if not all_finite(*arrays):
            bad = [name for (name, _), value in zip(fields, arrays, strict=True) if not all_finite(value)]
            return f"robot state: non-finite {', '.join(bad)}"
        tilt = tilt_angle(state.quat_wxyz)
        if tilt != tilt:
            return "robot state: quat_wxyz is not a unit quaternion"
        if np.abs(state.q).max() > MAX_PLAUSIBLE_ANGLE or (np.abs(state.dq) > self._max_dq).any():
            return "robot state: joint angles or speeds are beyond anything that the robot can do"
        if state.mode_machine not in self._mode_machines:
            known = ", ".join(str(mode) for mode in self._mode_machines)
            return f"robot state: mode_machine {state.mode_machine}, this robot has {known}; is it another variant?"
        self._seen_tilt = tilt
        return ""


class PermitInput:
    """The newest permit. `mode` is None while there is none to rely on."""

    def __init__(self, spec: RobotSpec):
        self.mode: Mode | None = None
        self._timeout_ns = nanoseconds(spec.safety.permit_timeout)
        self._max_step = round(MAX_WATCHDOG_HZ * spec.safety.permit_timeout)
        self._last: SafetyPermit | None = None
        self._last_mode = Mode.DAMP
        self._seq = -1
        self._fresh_ns = 0
        self._invalid = ""

    def update(self, now_ns: int, permit: SafetyPermit | None, received_ns: int | None) -> str:
        """Take a permit; returns the problem, empty when `mode` may be relied on."""
        self.mode = None
        if permit is None or received_ns is None:
            return "no permit received"
        if permit is not self._last:
            self._last = permit
            self._invalid = self._take(now_ns, permit, received_ns)
        if self._invalid:
            return self._invalid
        if now_ns - self._fresh_ns > self._timeout_ns:
            return f"permit stale for {(now_ns - self._fresh_ns) * 1e-6:.0f} ms"
        self.mode = self._last_mode
        return ""

    def _take(self, now_ns: int, permit: SafetyPermit, received_ns: int) -> str:
        try:
            mode = Mode(permit.mode)
        except ValueError:
            return f"permit carries unknown mode {permit.mode!r}"
        if received_ns > now_ns + FUTURE_TOLERANCE_NS:
            return f"permit comes {(received_ns - now_ns) * 1e-6:.1f} ms from the future"
        stops = mode in (Mode.DAMP, Mode.FAULT)
        # A restarted watchdog counts from zero again, in DAMP. Nothing else may go back.
        if permit.seq < self._seq and not stops:
            return f"permit out of order: seq {permit.seq} after {self._seq}"
        if 0 <= self._seq < permit.seq - self._max_step and not stops:
            return f"permit ahead of order: seq {permit.seq} after {self._seq}; is there a second watchdog?"
        if permit.seq == self._seq and mode != self._last_mode and not stops:
            return f"two permits with seq {permit.seq}: {self._last_mode.name} and {mode.name}"
        if permit.seq != self._seq:
            self._fresh_ns = received_ns
        self._seq, self._last_mode = permit.seq, mode
        return ""


class CommandInput:
    """The newest joint command since `restart`: `q`, `dq`, `stiffness`, `damping`, `tau` (N,)."""

    FIELDS = ("q", "dq", "stiffness", "damping", "tau")

    def __init__(self, spec: RobotSpec):
        n = spec.num_joints
        self.q = np.zeros(n)
        self.dq = np.zeros(n)
        self.stiffness = np.zeros(n)
        self.damping = np.zeros(n)
        self.tau = np.zeros(n)
        self._spec = spec
        self._timeout_ns = nanoseconds(spec.safety.command_timeout)
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next command may carry any seq, as after a restart of an idle policy."""
        self._last: JointCommand | None = None
        self._seq: int | None = None
        self._fresh_ns = 0
        self.invalid = ""
        """Why the newest command must not be followed: a bug upstream, unlike lateness. Empty when valid."""

    def update(self, now_ns: int, command: JointCommand | None, received_ns: int | None) -> str:
        """Take a command; returns the problem, empty when there is a fresh and valid one."""
        if command is None or received_ns is None:
            return "no joint command received"
        if command is not self._last:
            self._last = command
            self.invalid = self._take(now_ns, command, received_ns)
        if self.invalid:
            return self.invalid
        if now_ns - self._fresh_ns > self._timeout_ns:
            return f"joint command stale for {(now_ns - self._fresh_ns) * 1e-6:.0f} ms"
        return ""

    def _take(self, now_ns: int, command: JointCommand, received_ns: int) -> str:
        problem = self._time_problem(now_ns, command, received_ns) or self._value_problem(command)
        if problem:
            return f"joint command: {problem}"
        if command.seq == self._seq:
            return ""  # a duplicate: neither newer nor wrong
        for name in self.FIELDS:
            np.copyto(getattr(self, name), getattr(command, name))
        # The driver would saturate there anyway, and what follows stays exact for any finite feed-forward.
        limit = self._spec.torque_limit
        np.minimum(np.maximum(self.tau, -limit), limit, out=self.tau)
        self._seq, self._fresh_ns = command.seq, received_ns
        return ""

    def _time_problem(self, now_ns: int, command: JointCommand, received_ns: int) -> str:
        newest = max(received_ns, command.state_received_ns)
        if newest > now_ns + FUTURE_TOLERANCE_NS:
            return f"comes {(newest - now_ns) * 1e-6:.1f} ms from the future"
        if self._seq is not None and command.seq < self._seq:
            return f"out of order: seq {command.seq} after {self._seq}"
        answered = received_ns - command.state_received_ns
        if answered > self._timeout_ns:
            return f"answers a state that was {answered * 1e-6:.0f} ms old"
        return ""

    def _value_problem(self, command: JointCommand) -> str:
        spec = self._spec
        for name in self.FIELDS:
            problem = _vector_problem(name, getattr(command, name), spec.num_joints)
            if problem:
                return problem
        for name in self.FIELDS:
            if not all_finite(getattr(command, name)):
                return f"non-finite {name}"
        if not gains_allowed(command.stiffness, command.damping, spec.max_gains.stiffness, spec.max_gains.damping):
            return "gains outside [0, maximum]"
        if (np.abs(command.dq) > spec.velocity_limit).any():
            return "target speed beyond the joint's limit"
        return ""
