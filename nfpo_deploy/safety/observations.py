"""What the watchdog has seen: newest message of each stream, its age and rate, and how long something has lasted."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from nfpo_deploy.command.remote import decode_remote
from nfpo_deploy.safety.limits import tilt_angle
from nfpo_deploy.state.chain_kinematics import leg_kinematics
from nfpo_deploy.types import BridgeStatus, JointCommand, RobotState, StateEstimate, VelocityCommand
from robots.loader import RobotSpec

RATE_WINDOW_NS = 1_000_000_000
# Time between two observations that counts as continuous; a longer gap is the age monitors' business.
MAX_STEP_NS = 100_000_000


# Counts back of at most this are messages that were overtaken; more is a sender that restarted.
MAX_OVERTAKEN = 200


class Stream:
    """Age, rate and longest gap of one stream, from a counter that its sender increments."""

    def __init__(self) -> None:
        self.count: int | None = None
        self._fresh_ns = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=256)
        # (end, length) ns of gaps, each longer than all that follow: the first is the longest.
        self._gaps: deque[tuple[int, int]] = deque()

    def observe(self, now_ns: int, count: int) -> None:
        """A message with this counter arrived; a repetition, or one that was overtaken, refreshes nothing."""
        if self.count is not None:
            if 0 <= self.count - count <= MAX_OVERTAKEN:
                return
            if count < self.count:
                self._marks.clear()  # the sender restarted
            gap = now_ns - self._fresh_ns
            while self._gaps and self._gaps[-1][1] <= gap:
                self._gaps.pop()
            self._gaps.append((now_ns, gap))
        self.count, self._fresh_ns = count, now_ns
        self._marks.append((now_ns, count))
        start_ns = now_ns - RATE_WINDOW_NS
        while self._marks[0][0] < start_ns:
            self._marks.popleft()
        while self._gaps and self._gaps[0][0] < start_ns:
            self._gaps.popleft()

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
        return self._gaps[0][1] * 1e-9 if self._gaps else 0.0


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
    """For how many seconds a condition has been seen to hold without a break, one for each element.

    It counts from the first observation that shows the condition, so it never claims more than was seen. An
    element that does not hold is -1.
    """

    def __init__(self, n: int):
        self.seconds = np.full(n, -1.0)
        # Whole nanoseconds: sums of seconds would pass a threshold a tick early or late.
        self._held_ns = np.full(n, -1, dtype=np.int64)
        self._last_ns: int | None = None

    def observe(self, now_ns: int, condition: np.ndarray) -> None:
        """The condition, (n,) bool, as of now."""
        dt_ns = 0 if self._last_ns is None else min(max(now_ns - self._last_ns, 0), MAX_STEP_NS)
        self._last_ns = now_ns
        if not condition.any():
            self._held_ns[:] = -1
            self.seconds[:] = -1.0
            return
        held = np.where(self._held_ns >= 0, self._held_ns + dt_ns, 0)
        self._held_ns = np.where(condition, held, -1)
        self.seconds = np.where(condition, held * 1e-9, -1.0)


class Observations:
    """Everything that the monitors look at. Values that are malformed or not finite are named, not stored."""

    def __init__(self, spec: RobotSpec):
        n, safety = spec.num_joints, spec.safety
        self._n, self._num_feet = n, len(spec.feet)
        self._lower = spec.position_lower - safety.joint_position_margin
        self._upper = spec.position_upper + safety.joint_position_margin
        self._speed = safety.joint_velocity * spec.velocity_limit
        self._torque = safety.torque_fraction * spec.torque_limit
        self._min_height = safety.height
        self._legs = leg_kinematics(spec)
        self._foot_radius = self._legs.foot_radius
        self._still = np.zeros(n)
        self.state: RobotState | None = None
        self.state_problem = ""
        self.remote_held = False
        """Whether the newest state showed the remote's emergency-stop buttons."""
        self.remote_pressed = False
        """Whether any state since `forget_presses` did."""
        self.estimate: StateEstimate | None = None
        self.estimate_problem = ""
        self.command: JointCommand | None = None
        self.command_problem = ""
        self.observation_bad_since: int | None = None
        self.output_bad_since: int | None = None
        self.inference_ms = 0.0
        self.status: BridgeStatus | None = None
        self.operator: VelocityCommand | None = None
        self.tilt = 0.0
        self.height = 0.0
        """m, trunk (origin of base_link) above its lowest foot."""
        self.state_stream, self.estimate_stream = Stream(), Stream()
        self.command_stream, self.status_stream, self.operator_stream = Stream(), Stream(), Stream()
        self.lowstate_stream = Stream()
        self.tick_stream = Stream()
        self.overruns, self.wire_errors, self.foreign_lowcmd = Increments(), Increments(), Increments()
        self.over_position, self.over_speed, self.over_torque = Lasting(n), Lasting(n), Lasting(n)
        self.too_low = Lasting(1)

    def take_state(self, state: RobotState, now_ns: int) -> None:
        """Newest robot state."""
        # Before anything else: a press counts whatever the rest of the state holds.
        self._take_remote(state.wireless_remote)
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
        self.height = self._height(state)
        self.too_low.observe(now_ns, np.array([self.height < self._min_height]))
        self.over_position.observe(now_ns, (state.q < self._lower) | (state.q > self._upper))
        self.over_speed.observe(now_ns, np.abs(state.dq) > self._speed)
        self.over_torque.observe(now_ns, np.abs(state.tau_est) >= self._torque)

    def _take_remote(self, frame: bytes) -> None:
        remote = decode_remote(frame)
        self.remote_held = remote is not None and remote.estop
        self.remote_pressed |= self.remote_held

    def forget_presses(self) -> None:
        """The presses of the remote until now have had their effect."""
        self.remote_pressed = False

    def _height(self, state: RobotState) -> float:
        """Trunk above the ground that its lowest foot would stand on, along gravity: any pose, upside down as well."""
        w, x, y, z = state.quat_wxyz.tolist()
        # Third row of the rotation matrix: the world's vertical, seen from base_link.
        up = np.array([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), w * w - x * x - y * y + z * z])
        feet = self._legs.forward(state.q, self._still).position
        return self._foot_radius - float((feet @ up).min()) / (w * w + x * x + y * y + z * z)

    def take_estimate(self, estimate: StateEstimate, now_ns: int) -> None:
        """Newest state estimate."""
        sizes = {"quat_wxyz": 4, "ang_vel_b": 3, "lin_vel_b": 3, "lin_vel_std": 3, "position_w": 3}
        sizes |= {"contact": self._num_feet, "q": self._n, "dq": self._n}
        self.estimate_problem = _problem(estimate, sizes)
        if not self.estimate_problem:
            self.estimate = estimate
            self.estimate_stream.observe(now_ns, estimate.tick)

    def take_command(
        self, command: JointCommand, now_ns: int, observation_ok: bool, inference_ms: float, output_ok: bool
    ) -> None:
        """Newest joint command, with what the policy says of its own observation and action."""
        sizes = dict.fromkeys(("q", "dq", "stiffness", "damping", "tau"), self._n)
        self.command_problem = _problem(command, sizes)
        if not self.command_problem:
            self.command, self.inference_ms = command, inference_ms
            self.command_stream.observe(now_ns, command.seq)
        self.observation_bad_since = _bad_since(self.observation_bad_since, observation_ok, now_ns)
        self.output_bad_since = _bad_since(self.output_bad_since, output_ok, now_ns)

    def take_status(self, status: BridgeStatus, now_ns: int) -> None:
        """Newest report of the bridge."""
        self.status = status
        # Every report counts: it carries no sequence number of its own, and a hung bridge sends none.
        self.status_stream.observe(now_ns, (self.status_stream.count or 0) + 1)
        self.lowstate_stream.observe(now_ns, status.lowstate_count)
        self.overruns.observe(now_ns, status.loop_overruns)
        self.wire_errors.observe(now_ns, status.lowstate_crc_errors + status.lowstate_lost)
        self.foreign_lowcmd.observe(now_ns, status.foreign_lowcmd)

    def take_operator(self, command: VelocityCommand, now_ns: int) -> bool:
        """Newest velocity command; one that is not finite is no sign of an operator. Returns whether it was."""
        alive = math.isfinite(command.vx) and math.isfinite(command.vy) and math.isfinite(command.wz)
        if alive:
            self.operator = command
            self.operator_stream.observe(now_ns, (self.operator_stream.count or 0) + 1)
        return alive


def _bad_since(before: int | None, ok: bool, now_ns: int) -> int | None:
    if ok:
        return None
    return now_ns if before is None else before


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
