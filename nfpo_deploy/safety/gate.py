"""The gate: the only code that makes a command that moves the robot; a guard can only fade one to damping.

It runs in the bridge, on every cycle, and trusts nobody.

It follows the watchdog's permit and bounds everything on the way out. Whatever goes wrong ends the same way:
gains ramp to pure damping, damping lasts until the robot is down, then zero torque. After a trip nothing moves
until a DAMP or FAULT permit arrived while the robot was healthy, and then only from the start: STAND.
"""

from __future__ import annotations

from enum import Enum, auto

import numpy as np

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety import limits
from nfpo_deploy.safety.inputs import CommandInput, PermitInput, StateInput, nanoseconds
from nfpo_deploy.safety.ramp import Ramp, Setpoint
from nfpo_deploy.types import GatePhase, JointCommand, Mode, MotorCommand, RobotState, SafetyPermit
from robots.loader import RobotSpec


class Activity(Enum):
    """What the gate does, finer than the phase that it reports."""

    PASSIVE = auto()
    STANDING = auto()
    HOLDING = auto()
    TRACKING = auto()
    SETTLING = auto()
    SITTING = auto()
    SEATED = auto()


_PHASES = {
    Activity.STANDING: GatePhase.RAMPING,
    Activity.HOLDING: GatePhase.HOLDING,
    Activity.TRACKING: GatePhase.TRACKING,
    Activity.SETTLING: GatePhase.RAMPING,
    Activity.SITTING: GatePhase.RAMPING,
    Activity.SEATED: GatePhase.HOLDING,
}

# What each permitted mode makes of each activity: the next one, or the same. A pair that is not here is a jump
# in the mode sequence (a restarted bridge or watchdog, a confused sender), and jumps trip.
_NEXT = {
    Mode.STAND: {
        Activity.PASSIVE: Activity.STANDING,
        Activity.STANDING: Activity.STANDING,
        Activity.HOLDING: Activity.HOLDING,
    },
    Mode.READY: {
        Activity.STANDING: Activity.STANDING,
        Activity.HOLDING: Activity.HOLDING,
        Activity.TRACKING: Activity.SETTLING,
        Activity.SETTLING: Activity.SETTLING,
    },
    Mode.WALK: {
        Activity.HOLDING: Activity.TRACKING,
        Activity.TRACKING: Activity.TRACKING,
        Activity.SETTLING: Activity.SETTLING,
    },
    Mode.SIT: {
        Activity.STANDING: Activity.SITTING,
        Activity.HOLDING: Activity.SITTING,
        Activity.SETTLING: Activity.SITTING,
        Activity.SITTING: Activity.SITTING,
        Activity.SEATED: Activity.SEATED,
    },
}


class Gate:
    """Turns state, permit and joint command into the motor command of this cycle.

    Attributes:
        phase: what it does now.
        reason: why it does not move; empty while it follows a motion permit. After a trip: the first cause.
        tripped: latched until a DAMP or FAULT permit comes while the state is fresh, valid, upright and slow.
        last_trip: reason of the latest trip, kept after it cleared.
        limited_count: cycles in which a policy command had to be bounded.
        stand_reached, sit_reached: the ramps are over (and standing: the joints are there).
        write: whether the returned command may be sent. False until the first valid state: what has never
            been seen may be standing under another controller, and even zero torque would drop it. The
            command returned meanwhile is all zeros, so that sending it by mistake moves nothing.
    """

    def __init__(self, spec: RobotSpec, rate_hz: float = 500.0):
        """Prepare for a loop at `rate_hz`.

        Raises:
            SafetyError: a rate that is not finite and above zero, or a torque fraction above one.
        """
        if not 0.0 < rate_hz < float("inf"):
            raise SafetyError(f"gate rate must be finite and above zero, got {rate_hz!r} Hz")
        n, safety = spec.num_joints, spec.safety
        if safety.torque_fraction > 1.0:
            raise SafetyError(f"safety.torque_fraction must be at most 1, got {safety.torque_fraction}")
        self._spec = spec
        self._safety = safety
        self._max_dt = 2.0 / rate_hz
        self._state = StateInput(spec, 1.0 / rate_hz)
        self._permit = PermitInput(spec)
        self._command = CommandInput(spec)
        self._lower = spec.position_lower + safety.joint_position_margin
        self._upper = spec.position_upper - safety.joint_position_margin
        self._torque = safety.torque_fraction * spec.torque_limit
        self._speed = safety.joint_velocity * spec.velocity_limit
        self._measured_lower = spec.position_lower - safety.joint_position_margin
        self._measured_upper = spec.position_upper + safety.joint_position_margin
        self._default = Setpoint(n)
        self._default.set(spec.default_pose, spec.stand_gains.stiffness, spec.stand_gains.damping)
        self._crouch = Setpoint(n)
        self._crouch.set(spec.crouch_pose, spec.stand_gains.stiffness, spec.stand_gains.damping)
        self._damped = Setpoint(n)
        self._follow = Setpoint(n)
        self._target = Setpoint(n)
        self._bounded = Setpoint(n)
        self._sent = Setpoint(n)
        self._ramp = Ramp(n)
        self._seen_lower = np.zeros(n)
        self._seen_upper = np.zeros(n)
        self._saturated = np.zeros(n)
        self._at_limit = np.zeros(n, dtype=bool)
        self._zero = np.zeros(n)

        self.phase = GatePhase.ZERO_TORQUE
        self.reason = "no robot state received"
        self.tripped = False
        self.last_trip = ""
        self.limited_count = 0
        self.stand_reached = False
        self.sit_reached = False
        self.write = False
        self._activity = Activity.PASSIVE
        self._last_ns: int | None = None
        self._passive_ns = 0
        self._over_position = 0.0
        self._over_speed = 0.0
        self._unheard = 0.0

    def step(
        self,
        now_ns: int,
        state: RobotState | None,
        permit: SafetyPermit | None,
        permit_received_ns: int | None,
        command: JointCommand | None,
        command_received_ns: int | None,
        problem: str = "",
    ) -> MotorCommand:
        """One cycle. Pass the newest of each input every time, new or not; None withdraws it. Never raises.

        Args:
            now_ns: CLOCK_MONOTONIC ns, as are the reception times.
            state: newest robot state.
            permit: newest permit of the watchdog.
            permit_received_ns: when that arrived.
            command: newest joint command of the policy.
            command_received_ns: when that arrived.
            problem: why nothing may move now, found outside: a foreign program on the wire, another robot.

        Returns:
            New arrays at each call: the caller may keep them.
        """
        try:
            return self._step(now_ns, state, permit, permit_received_ns, command, command_received_ns, problem)
        except Exception as error:
            # Inputs of a type that nobody foresaw must end in damping, never in a bridge that stops sending.
            self._trip(f"internal error: {error!r}", self._last_ns or 0)
            return self._pure_damping()

    def _step(
        self,
        now_ns: int,
        state: RobotState | None,
        permit: SafetyPermit | None,
        permit_ns: int | None,
        command: JointCommand | None,
        command_ns: int | None,
        problem: str,
    ) -> MotorCommand:
        gap = 0.0 if self._last_ns is None else (now_ns - self._last_ns) * 1e-9
        dt = min(max(gap, 0.0), self._max_dt)
        self._last_ns = now_ns
        state_problem = self._state.update(now_ns, state)
        permit_problem = self._permit.update(now_ns, permit, permit_ns)
        if not self.write and self._state.received:
            # A bridge that starts while the robot stands catches it in damping instead of dropping it.
            self.write = True
            self._become_passive(now_ns)
        if gap < 0.0:
            problem = "clock went backwards"
        self._resume(now_ns, gap)
        self._decide(now_ns, dt, problem or state_problem or self._state.lateness(), permit_problem)
        if self._activity is Activity.TRACKING:
            self._listen(now_ns, dt, command, command_ns)
        if self._activity is not Activity.PASSIVE:
            self._advance(now_ns, dt)
        if self._activity is Activity.PASSIVE:
            self._state.settle()
            return self._passive_command(now_ns, usable=not state_problem)
        self.phase = _PHASES[self._activity]
        return self._bounded_command(now_ns, dt)

    # --- what to do ---

    def _resume(self, now_ns: int, gap: float) -> None:
        """After a pause of the bridge itself nothing goes on: a guard may have damped the robot meanwhile.

        Its stiffness must not come back for a moment either, so the ramp is left out.
        """
        if self._activity is not Activity.PASSIVE and gap > self._safety.cycle_timeout:
            self._trip(f"the bridge paused for {gap * 1e3:.0f} ms", now_ns)
            self._ramp.start.set(self._state.q, self._damped.stiffness, self._damped.damping)

    def _decide(self, now_ns: int, dt: float, state_problem: str, permit_problem: str) -> None:
        active = self._activity is not Activity.PASSIVE
        mode = self._permit.mode
        if active:
            problem = permit_problem or state_problem or self._measured_problem(dt)
            if problem and (mode is None or mode not in (Mode.DAMP, Mode.FAULT)):
                self._trip(problem, now_ns)
                return
        if mode is None:
            if not self.tripped:
                self.reason = state_problem if not self.write else permit_problem
            return
        if mode in (Mode.DAMP, Mode.FAULT):
            if active:
                self._become_passive(now_ns)
            if self.tripped and not (state_problem or self._posture_problem()):
                self.tripped = False
            if not self.tripped:
                self.reason = f"mode {mode.name}" if self.write else state_problem
            return
        if not self.tripped:
            self._obey(mode, now_ns, state_problem or ("" if active else self._posture_problem()))

    def _obey(self, mode: Mode, now_ns: int, problem: str) -> None:
        """Follow a motion permit: start what it asks for, or trip."""
        if problem:
            self._trip(problem, now_ns)
            return
        activity = self._activity
        following = _NEXT[mode].get(activity)
        if following is None:
            self._trip(f"permit jumped to {mode.name} while {activity.name.lower()}", now_ns)
            return
        self.reason = ""
        if following is activity:
            return
        if following is Activity.STANDING:
            # A stand-up begins limp, so what is still stiff fades out first.
            if now_ns - self._passive_ns < nanoseconds(self._safety.damp_ramp):
                self.reason = "damping before standing up"
            else:
                self._start_standing(now_ns)
            return
        safety = self._safety
        if following is Activity.TRACKING:
            self._command.restart()
            self._unheard = 0.0
            self._ramp.begin(self._sent, safety.blend_duration, safety.blend_duration)
        elif following is Activity.SETTLING:
            self._ramp.begin(self._sent, safety.settle_duration, safety.blend_duration)
        else:
            self._ramp.begin(self._sent, safety.sit_duration, safety.blend_duration)
        self.stand_reached = following is Activity.TRACKING
        self._activity = following

    def _start_standing(self, now_ns: int) -> None:
        spec, safety, q = self._spec, self._safety, self._state.q
        distance = limits.distance_from_line(q, spec.crouch_pose, spec.default_pose)
        worst = int(distance.argmax())
        if distance[worst] > safety.start_pose_tolerance:
            self._trip(
                f"start pose refused: {spec.joint_names[worst]} is {distance[worst]:.2f} rad from the line "
                f"between crouch and stand, more than {safety.start_pose_tolerance:g}",
                now_ns,
            )
            return
        # Folded legs rest on their mechanical stops, where an encoder may read past the limit: while standing
        # up, what was measured at the start counts as inside.
        np.minimum(self._measured_lower, q - safety.joint_position_margin, out=self._seen_lower)
        np.maximum(self._measured_upper, q + safety.joint_position_margin, out=self._seen_upper)
        start = self._target
        start.set(limits.clamp_positions(q, self._lower, self._upper), self._zero, spec.damp_gains.damping)
        np.copyto(self._sent.values, start.values)
        self._ramp.begin(start, safety.stand_duration, safety.blend_duration)
        self._saturated[:] = 0.0
        self._over_position = self._over_speed = 0.0
        self.stand_reached = self.sit_reached = False
        self._activity = Activity.STANDING

    def _listen(self, now_ns: int, dt: float, command: JointCommand | None, command_ns: int | None) -> None:
        """Take the policy's command; trips when it must not be followed."""
        problem = self._command.update(now_ns, command, command_ns)
        if not problem:
            self._unheard = 0.0
            np.copyto(self._follow.q, self._command.q)
            np.copyto(self._follow.dq, self._command.dq)
            np.copyto(self._follow.stiffness, self._command.stiffness)
            np.copyto(self._follow.damping, self._command.damping)
            np.copyto(self._follow.tau, self._command.tau)
            return
        # The permit and the first command take different ways here: until the first one counts, hold the pose,
        # but no longer than a command may be late.
        first = not self._command.invalid and self._ramp.elapsed == 0.0
        self._unheard += dt
        if not first or self._unheard > self._safety.command_timeout:
            self._trip(problem, now_ns)

    def _advance(self, now_ns: int, dt: float) -> None:
        """Move the target of this cycle along its ramp."""
        activity, ramp, target = self._activity, self._ramp, self._target
        if activity is Activity.TRACKING:
            if self._unheard > 0.0:
                return
            ramp.advance(dt, self._follow, target)
        elif activity is Activity.STANDING:
            ramp.advance(dt, self._default, target)
            if ramp.finished:
                self._finish_standing(now_ns)
        elif activity is Activity.SETTLING:
            ramp.advance(dt, self._default, target)
            if ramp.finished:
                self._activity, self.stand_reached = Activity.HOLDING, True
        elif activity is Activity.SITTING:
            ramp.advance(dt, self._crouch, target)
            if ramp.finished:
                self._activity, self.sit_reached = Activity.SEATED, True

    def _finish_standing(self, now_ns: int) -> None:
        error = np.abs(self._state.q - self._spec.default_pose)
        worst = int(error.argmax())
        if error[worst] <= self._safety.pose_tolerance:
            self._activity, self.stand_reached = Activity.HOLDING, True
            np.copyto(self._seen_lower, self._measured_lower)
            np.copyto(self._seen_upper, self._measured_upper)
        elif self._ramp.elapsed > self._ramp.duration + self._safety.pose_timeout:
            name = self._spec.joint_names[worst]
            self._trip(f"stand-up failed: {name} is {error[worst]:.2f} rad away from its target", now_ns)

    # --- what is wrong ---

    def _posture_problem(self) -> str:
        """What speaks against any motion, whatever the gate does: tilt and speed."""
        if self._state.tilt > self._safety.tilt:
            return f"tilt {self._state.tilt:.2f} rad exceeds {self._safety.tilt:g}"
        over = np.abs(self._state.dq) > self._speed
        return self._joint_message("velocity", self._state.dq, over, "rad/s") if over.any() else ""

    def _measured_problem(self, dt: float) -> str:
        """Tilt at once; joint position, speed and torque when they stay beyond their limits."""
        state, safety = self._state, self._safety
        if state.tilt > safety.tilt:
            return f"tilt {state.tilt:.2f} rad exceeds {safety.tilt:g}"
        over = (state.q < self._seen_lower) | (state.q > self._seen_upper)
        self._over_position = self._over_position + dt if over.any() else 0.0
        if self._over_position > safety.joint_trip_duration:
            return self._joint_message("position", state.q, over, "rad")
        over = np.abs(state.dq) > self._speed
        self._over_speed = self._over_speed + dt if over.any() else 0.0
        if self._over_speed > safety.joint_trip_duration:
            return self._joint_message("velocity", state.dq, over, "rad/s")
        over = (np.abs(state.tau_est) >= self._torque) | self._at_limit
        self._saturated += dt
        self._saturated *= over
        over = self._saturated > safety.torque_duration
        return self._joint_message("torque saturated at", state.tau_est, over, "N·m") if over.any() else ""

    def _joint_message(self, what: str, values: np.ndarray, over: np.ndarray, unit: str) -> str:
        index = int(over.argmax())
        return f"{self._spec.joint_names[index]}: {what} {values[index]:.2f} {unit}, beyond its limit"

    def _trip(self, problem: str, now_ns: int) -> None:
        if self._activity is not Activity.PASSIVE:
            self._become_passive(now_ns)
        if not self.tripped:
            self.tripped, self.reason, self.last_trip = True, problem, problem

    def _become_passive(self, now_ns: int) -> None:
        self._activity = Activity.PASSIVE
        self._passive_ns = now_ns
        self.stand_reached = self.sit_reached = False
        self._command.restart()
        damped = self._damped
        damped.set(self._sent.q, self._spec.damp_gains.stiffness, self._spec.damp_gains.damping)
        self._ramp.begin(self._sent, self._safety.damp_ramp, self._safety.damp_ramp)

    # --- what is sent ---

    def _passive_command(self, now_ns: int, usable: bool) -> MotorCommand:
        """Ramp to damping, damping, zero torque: by the clock alone, with or without a state."""
        since = now_ns - self._passive_ns
        target, safety = self._target, self._safety
        if not self.write or since >= nanoseconds(safety.damp_ramp + safety.damp_duration):
            self.phase = GatePhase.ZERO_TORQUE
            target.values[:] = 0.0
        else:
            self.phase = GatePhase.DAMPING
            # A late cycle must not prolong stiffness: the ramp follows the clock, not the number of cycles.
            self._ramp.elapsed = max(0.0, since * 1e-9)
            self._ramp.advance(0.0, self._damped, target)
        # Without a usable state the last position is the best guess, and no speed is worth trusting.
        dq = self._state.dq if usable else self._zero
        target.stiffness[:], target.tau[:], target.damping[:] = limits.bound_torque_by_gains(
            self._state.q, dq, target.q, target.dq, target.stiffness, target.damping, target.tau, self._torque
        )
        return self._send(target, now_ns)

    def _bounded_command(self, now_ns: int, dt: float) -> MotorCommand:
        """The target of this cycle within position, rate and torque limits.

        Moving the target bounds the torque without changing the feel of the joint; where the rate or position
        limit forbids it to move that far, gains shrink for what remains.
        """
        state, target, sent, limit = self._state, self._target, self._sent, self._torque
        step = self._safety.command_rate * dt
        dq, stiffness = target.dq, target.stiffness
        q = limits.limit_rate(limits.clamp_positions(target.q, self._lower, self._upper), sent.q, step)
        self._at_limit[:] = False
        free = q
        q, tau, damping = limits.bound_torque_by_target(
            state.q, state.dq, q, dq, stiffness, target.damping, target.tau, limit
        )
        if q is not free:
            self._at_limit[:] = (q != free) | (tau != target.tau) | (damping != target.damping)
            q = limits.clamp_positions(limits.limit_rate(q, sent.q, step), self._lower, self._upper)
        stiffness, tau, damping = limits.bound_torque_by_gains(state.q, state.dq, q, dq, stiffness, damping, tau, limit)
        if self._activity is Activity.TRACKING and (
            stiffness is not target.stiffness or damping is not target.damping or (q != target.q).any()
        ):
            self.limited_count += 1
        values = self._bounded.values
        values[0], values[1], values[2], values[3], values[4] = q, dq, stiffness, damping, tau
        return self._send(self._bounded, now_ns)

    def _send(self, setpoint: Setpoint, now_ns: int) -> MotorCommand:
        """Last look at the numbers, then out."""
        values = setpoint.values.copy()
        if not limits.all_finite(values.ravel()):
            self._trip("internal error: non-finite motor command", now_ns)
            return self._pure_damping()
        np.copyto(self._sent.values, values)
        return MotorCommand(values[0], values[1], values[2], values[3], values[4])

    def _pure_damping(self) -> MotorCommand:
        self.phase = GatePhase.DAMPING if self.write else GatePhase.ZERO_TORQUE
        sent = self._sent
        sent.set(sent.q, self._zero, self._spec.damp_gains.damping if self.write else self._zero)
        # Stiffness must not come back when the next cycle succeeds.
        np.copyto(self._ramp.start.values, sent.values)
        values = sent.values.copy()
        return MotorCommand(values[0], values[1], values[2], values[3], values[4])
