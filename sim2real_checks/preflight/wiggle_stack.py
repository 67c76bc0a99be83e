"""The runtime's own gate, and the monitors that arming needs, around the motion of the wiggle. No wire, no clock.

The gate is the only producer of motor commands here as everywhere. The monitors take the watchdog's place: everything
that would refuse arming keeps the joints from moving, and ends the motion when it comes later. What a watchdog in a
process of its own adds, that it outlives this one, the guards do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.safety.monitors import MONITORS, Context, Level
from nfpo_deploy.safety.observations import Observations
from nfpo_deploy.types import BridgeStatus, GatePhase, JointCommand, Mode, MotorCommand, RobotState, SafetyPermit
from robots.loader import RobotSpec
from sim2real_checks.preflight.judge_wiggle import Stop
from sim2real_checks.preflight.wiggle_motion import Motion, cautious

HZ = 500
PERMIT_EVERY, STATUS_EVERY = 5, 10
"""Cycles for each permit and each report to the monitors, as watchdog and bridge have them."""
PATIENCE_S = 3.0
"""Until everything that arming needs must be well."""
DAMPED_S = 1.0
"""Damping at the end; a robot that lies or hangs does not fall."""
NS = 1_000_000_000
ARMING = tuple(monitor for monitor in MONITORS if "arm" in monitor.needed_for)


@dataclass(frozen=True)
class Surroundings:
    """What the caller knows of the world outside; the fields are those of `BridgeStatus`."""

    guards_alive: int = 0
    guard_active: bool = False
    foreign_lowcmd: int = 0
    network_problem: str = ""
    problem: str = ""
    """Why nothing may move now, for the gate: another program that commands the motors, another robot."""
    stop: str = ""
    """Why the operator wants it to end; empty while he does not."""


class WiggleStack:
    """One run. Call `cycle` every 2 ms until `over`, and send what it returns while `gate.write` is true.

    Attributes:
        gate: the gate, with limits around the rest pose.
        motion: targets, and the strokes measured so far.
        stop: why it ended early; None after a complete run.
        over: whether the robot has been damped for long enough at the end.
    """

    def __init__(self, spec: RobotSpec, rest: np.ndarray, guards: int = 2) -> None:
        """Prepare to move the joints around `rest`, (N,) rad, watched over by so many guards."""
        self._spec = cautious(spec, rest)
        self._rest = rest
        self._guards = guards
        self.gate = Gate(self._spec, float(HZ))
        self.motion = Motion(spec, rest)
        self.stop: Stop | None = None
        self.over = False
        self._seen = Observations(self._spec)
        self._mode = Mode.DAMP
        self._now_ns = self._mode_ns = self._end_ns = self._permit_ns = 0
        self._cycle = self._seq = 0
        self._state: RobotState | None = None
        self._permit: SafetyPermit | None = None

    @property
    def joint(self) -> int | None:
        """Index of the joint whose turn it is; None when nobody's."""
        turn = self.motion.turn_at(self._time) if self._mode is Mode.WALK else None
        return None if turn is None else turn.joint

    def cycle(self, now_ns: int, fresh: RobotState | None, around: Surroundings) -> MotorCommand:
        """One cycle; times are CLOCK_MONOTONIC ns, `fresh` a state that has just arrived, None if none has."""
        if self._mode_ns == 0:
            self._mode_ns = now_ns
        self._now_ns = now_ns
        if fresh is not None:
            self._state = fresh
            self._seen.take_state(fresh, now_ns)
        if self._cycle % STATUS_EVERY == 0:
            self._seen.take_status(self._status(now_ns, around), now_ns)
        if self._cycle % PERMIT_EVERY == 0:
            self._decide(now_ns, around)
            self._seq += 1
            self._permit, self._permit_ns = SafetyPermit(self._seq, self._mode, "wiggle"), now_ns
        self._cycle += 1
        command = self._command() if self._mode is Mode.WALK else None
        out = self.gate.step(
            now_ns, self._state, self._permit, self._permit_ns, command, now_ns if command else None, around.problem
        )
        if fresh is not None and self.gate.phase is GatePhase.TRACKING:
            self.motion.observe(self._time, fresh, out.q)
        return out

    @property
    def _time(self) -> float:
        return (self._now_ns - self._mode_ns) * 1e-9

    def _decide(self, now_ns: int, around: Surroundings) -> None:
        """Go on to the next mode, or end: what the watchdog's mode machine does for an operator."""
        gate, mode = self.gate, self._mode
        if self._end_ns:
            self.over = now_ns - self._end_ns >= DAMPED_S * NS
        elif mode is Mode.DAMP:
            missing = self._problems(now_ns, arming=True)
            if around.stop:
                self._end(around.stop)
            elif not missing:
                self._enter(Mode.STAND)
            elif self._time > PATIENCE_S:
                self._end("; ".join(missing))
        elif problem := next(iter(self._why_not(now_ns, around)), ""):
            self._end(problem)
        elif mode is Mode.STAND and gate.stand_reached:
            self._enter(Mode.READY)
        elif mode is Mode.READY and gate.phase is GatePhase.HOLDING:
            self._enter(Mode.WALK)
        elif mode is Mode.WALK and self._time >= self.motion.duration:
            self._end("")

    def _why_not(self, now_ns: int, around: Surroundings) -> Sequence[str]:
        tripped = [self.gate.last_trip] if self.gate.tripped else []
        return [*([around.stop] if around.stop else []), *tripped, *self._problems(now_ns, arming=False)]

    def _problems(self, now_ns: int, arming: bool) -> list[str]:
        context = Context(
            spec=self._spec, seen=self._seen, now_ns=now_ns, mode=self._mode, mode_age=self._time,
            tick_period=PERMIT_EVERY / HZ, late=0.0, bridge_rate=float(HZ), control_rate=float(HZ),
            operator_drove=False, disagreement="", disagreement_age=0.0,
        )  # fmt: skip
        readings = [(monitor, monitor.check(context)) for monitor in ARMING]
        self._seen.forget_presses()
        return [
            f"{monitor.name}: {reading.message}"
            for monitor, reading in readings
            if (monitor.refuses("arm", reading) if arming else reading.level >= Level.ERROR)
        ]

    def _enter(self, mode: Mode) -> None:
        self._mode, self._mode_ns = mode, self._now_ns

    def _end(self, reason: str) -> None:
        """Damp from here on; a reason is given when it comes early."""
        if reason:
            q = self._rest if self._state is None else self._state.q
            self.stop = Stop(reason, self.joint, q - self._rest)
        self._end_ns = self._now_ns
        self._enter(Mode.DAMP)

    def _command(self) -> JointCommand | None:
        state = self._state
        if state is None:
            return None
        none = np.zeros(self._spec.num_joints)
        q, stiffness, damping = self.motion.target(self._time)
        return JointCommand(
            self._cycle, state.tick, state.received_ns, q, none, stiffness,
            damping, none,
        )  # fmt: skip

    def _status(self, now_ns: int, around: Surroundings) -> BridgeStatus:
        gate = self.gate
        return BridgeStatus(
            phase=gate.phase, permit_mode=self._mode, reason=gate.reason, last_trip=gate.last_trip,
            tripped=gate.tripped, stand_reached=gate.stand_reached, sit_reached=gate.sit_reached,
            state_age=0.0 if self._state is None else (now_ns - self._state.received_ns) * 1e-9,
            command_age=0.0, permit_age=(now_ns - self._permit_ns) * 1e-9, guards_expected=self._guards,
            guards_alive=around.guards_alive, guard_active=around.guard_active,
            foreign_lowcmd=around.foreign_lowcmd, network_problem=around.network_problem,
        )  # fmt: skip
