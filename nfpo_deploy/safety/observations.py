"""What the watchdog has seen: newest message of each stream, its age and rate, and how long something has lasted."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from nfpo_deploy.safety.limits import tilt_angle
from nfpo_deploy.types import BridgeStatus, JointCommand, RobotState, StateEstimate, VelocityCommand
from robots.loader import RobotSpec

RATE_WINDOW_NS = 1_000_000_000
# Time between two observations that counts as continuous; a longer gap is the age monitors' business.
MAX_STEP = 0.1


class Stream:
    """Age, rate and longest gap of one stream, from a counter that its sender increments."""

    def __init__(self) -> None:
        self.count: int | None = None
        self._fresh_ns = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=256)

    def observe(self, now_ns: int, count: int) -> None:
        """A message with this counter arrived; the same counter again is a repetition and refreshes nothing."""
        if count == self.count:
            return
        if self.count is not None and count < self.count:
            self._marks.clear()  # the sender restarted
        self.count, self._fresh_ns = count, now_ns
        self._marks.append((now_ns, count))
        while self._marks[0][0] < now_ns - RATE_WINDOW_NS:
            self._marks.popleft()

    def age(self, now_ns: int) -> float:
        """Seconds since the last new message; inf when there was none."""
        return math.inf if self.count is None else max(0.0, (now_ns - self._fresh_ns) * 1e-9)

    def rate(self) -> float | None:
        """Hz over the last second; None until half a second was seen."""
        if len(self._marks) < 3:
            return None
        (first_ns, first), (last_ns, last) = self._marks[0], self._marks[-1]
        return (last - first) * 1e9 / (last_ns - first_ns) if last_ns - first_ns > RATE_WINDOW_NS // 2 else None

    def longest_gap(self) -> float:
        """Longest time between two new messages within the last second, s: the stream's jitter as it matters here."""
        times = [mark[0] for mark in self._marks]
        return max((b - a for a, b in zip(times, times[1:], strict=False)), default=0) * 1e-9


class Increments:
    """How much a counter grew within the last second; a restarted counter starts anew."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque(maxlen=256)

    def observe(self, now_ns: int, count: int) -> None:
        """The counter's value now."""
        if self._marks and count < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now_ns, count))
        while self._marks[0][0] < now_ns - RATE_WINDOW_NS:
            self._marks.popleft()

    def last_second(self) -> int:
        return self._marks[-1][1] - self._marks[0][1] if self._marks else 0


class Lasting:
    """For how many seconds a condition has held without a break, one for each element."""

    def __init__(self, n: int):
        self.seconds = np.zeros(n)
        self._last_ns: int | None = None

    def observe(self, now_ns: int, condition: np.ndarray) -> None:
        """The condition, (n,) bool, as of now."""
        dt = 0.0 if self._last_ns is None else min(max((now_ns - self._last_ns) * 1e-9, 0.0), MAX_STEP)
        self._last_ns = now_ns
        self.seconds = np.where(condition, self.seconds + dt, 0.0)


class Observations:
    """Everything that the monitors look at. Values that are malformed or not finite are named, not stored."""

    def __init__(self, spec: RobotSpec):
        n, safety = spec.num_joints, spec.safety
        self._n, self._num_feet = n, len(spec.feet)
        self._lower = spec.position_lower - safety.joint_position_margin
        self._upper = spec.position_upper + safety.joint_position_margin
        self._speed = safety.joint_velocity * spec.velocity_limit
        self._torque = safety.torque_fraction * spec.torque_limit
        self.state: RobotState | None = None
        self.state_problem = ""
        self.estimate: StateEstimate | None = None
        self.estimate_problem = ""
        self.command: JointCommand | None = None
        self.command_problem = ""
        self.observation_bad_since: int | None = None
        self.inference_ms = 0.0
        self.status: BridgeStatus | None = None
        self.operator: VelocityCommand | None = None
        self.tilt = 0.0
        self.state_stream, self.estimate_stream = Stream(), Stream()
        self.command_stream, self.status_stream, self.operator_stream = Stream(), Stream(), Stream()
        self.lowstate_stream = Stream()
        self.tick_stream = Stream()
        self.overruns, self.wire_errors = Increments(), Increments()
        self.over_position, self.over_speed, self.over_torque = Lasting(n), Lasting(n), Lasting(n)

    def take_state(self, state: RobotState, now_ns: int) -> None:
        """Newest robot state."""
        sizes = {"q": self._n, "dq": self._n, "tau_est": self._n, "temperature": self._n}
        sizes |= {"quat_wxyz": 4, "gyro_b": 3, "accel_b": 3}
        self.state_problem = _problem(state, sizes)
        if self.state_problem:
            return
        tilt = tilt_angle(state.quat_wxyz)
        if math.isnan(tilt):
            self.state_problem = "quat_wxyz is not a unit quaternion"
            return
        self.state, self.tilt = state, tilt
        self.state_stream.observe(now_ns, state.tick)
        self.over_position.observe(now_ns, (state.q < self._lower) | (state.q > self._upper))
        self.over_speed.observe(now_ns, np.abs(state.dq) > self._speed)
        self.over_torque.observe(now_ns, np.abs(state.tau_est) >= self._torque)

    def take_estimate(self, estimate: StateEstimate, now_ns: int) -> None:
        """Newest state estimate."""
        sizes = {"quat_wxyz": 4, "ang_vel_b": 3, "lin_vel_b": 3, "lin_vel_std": 3, "position_w": 3}
        sizes |= {"contact": self._num_feet, "q": self._n, "dq": self._n}
        self.estimate_problem = _problem(estimate, sizes)
        if not self.estimate_problem:
            self.estimate = estimate
            self.estimate_stream.observe(now_ns, estimate.tick)

    def take_command(self, command: JointCommand, now_ns: int, observation_ok: bool, inference_ms: float) -> None:
        """Newest joint command, with what the policy says of its own observation."""
        sizes = dict.fromkeys(("q", "dq", "stiffness", "damping", "tau"), self._n)
        self.command_problem = _problem(command, sizes)
        if not self.command_problem:
            self.command, self.inference_ms = command, inference_ms
            self.command_stream.observe(now_ns, command.seq)
        if observation_ok:
            self.observation_bad_since = None
        elif self.observation_bad_since is None:
            self.observation_bad_since = now_ns

    def take_status(self, status: BridgeStatus, now_ns: int) -> None:
        """Newest report of the bridge."""
        self.status = status
        # Every report counts: it carries no sequence number of its own, and a hung bridge sends none.
        self.status_stream.observe(now_ns, (self.status_stream.count or 0) + 1)
        self.lowstate_stream.observe(now_ns, status.lowstate_count)
        self.overruns.observe(now_ns, status.loop_overruns)
        self.wire_errors.observe(now_ns, status.lowstate_crc_errors + status.lowstate_lost)

    def take_operator(self, command: VelocityCommand, now_ns: int) -> None:
        """Newest velocity command; one that is not finite is no sign of an operator."""
        if math.isfinite(command.vx) and math.isfinite(command.vy) and math.isfinite(command.wz):
            self.operator = command
            self.operator_stream.observe(now_ns, (self.operator_stream.count or 0) + 1)


def _problem(message: object, sizes: dict[str, int]) -> str:
    """First field of wrong shape or with a non-finite value, in words; empty when all are well."""
    for name, size in sizes.items():
        try:
            value = np.asarray(getattr(message, name), dtype=np.float64)
        except (TypeError, ValueError):
            return f"{name} does not hold numbers"
        if value.shape != (size,):
            return f"{name} has shape {value.shape}, expected ({size},)"
        if not np.isfinite(value).all():
            return f"non-finite {name}"
    return ""
