"""The watchdog: sees every stream, owns the mode machine, and grants the permit to move.

Feed it what arrives, call `tick` at a fixed rate and publish the permit that it returns. The methods may be called
from two threads, as a loop beside a service executor does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety.mode_machine import ModeMachine, contradiction
from nfpo_deploy.safety.monitors import MONITORS, Context, Level, Monitor, Reaction, Reading
from nfpo_deploy.safety.observations import Observations
from nfpo_deploy.types import (
    BridgeStatus,
    JointCommand,
    Mode,
    RobotState,
    SafetyPermit,
    StateEstimate,
    VelocityCommand,
)
from robots.loader import RobotSpec

LATE_TICK = 1.5
"""A tick that comes after more than so many periods is late."""


class Diagnostic(NamedTuple):
    """One row for /diagnostics."""

    name: str
    level: Level
    message: str
    values: dict[str, str]


class Watchdog:
    """Monitors, mode machine and permit. Times are CLOCK_MONOTONIC ns of this process.

    An exception inside a check, or inside what takes a message, ends in FAULT with its name.
    """

    def __init__(
        self,
        spec: RobotSpec,
        rate_hz: float = 100.0,
        control_rate_hz: float = 50.0,
        bridge_rate_hz: float = 500.0,
    ):
        """Prepare for ticks at `rate_hz`, joint commands at `control_rate_hz` and a bridge at `bridge_rate_hz`.

        Raises:
            SafetyError: a rate that is not finite and above zero.
        """
        for name, rate in (
            ("rate_hz", rate_hz), ("control_rate_hz", control_rate_hz), ("bridge_rate_hz", bridge_rate_hz)
        ):  # fmt: skip
            if not 0.0 < rate < float("inf"):
                raise SafetyError(f"watchdog {name} must be finite and above zero, got {rate!r}")
        self.machine = ModeMachine()
        self._spec = spec
        self._rates = (1.0 / rate_hz, bridge_rate_hz, control_rate_hz)
        self._seen = Observations(spec)
        self._lock = threading.RLock()
        self._seq = 0
        self._ticked_ns: int | None = None
        self._readings: tuple[Reading, ...] = ()
        self._broken = ""
        self._mode_before = self.machine.mode
        self._mode_ns = 0
        self._mode_of_fault = Mode.DAMP
        self._named_causes: set[str] = set()
        self._operator_drove = False
        self._disagreement, self._disagreement_ns = "", 0

    @property
    def mode(self) -> Mode:
        return self.machine.mode

    @property
    def reason(self) -> str:
        """Why the mode is what it is; in FAULT the first cause."""
        return self.machine.reason

    # --- what arrives ---

    def observe_state(self, state: RobotState, now_ns: int) -> None:
        """Newest robot state, as received now."""
        self._take("robot state", now_ns, lambda: self._seen.take_state(state, now_ns))

    def observe_estimate(self, estimate: StateEstimate, now_ns: int) -> None:
        """Newest state estimate, as received now."""
        self._take("state estimate", now_ns, lambda: self._seen.take_estimate(estimate, now_ns))

    def observe_command(
        self,
        command: JointCommand,
        now_ns: int,
        observation_ok: bool = True,
        inference_ms: float = 0.0,
        output_ok: bool = True,
    ) -> None:
        """Newest joint command of the policy, as received now, with what the policy says of itself."""
        self._take(
            "joint command",
            now_ns,
            lambda: self._seen.take_command(command, now_ns, observation_ok, inference_ms, output_ok),
        )

    def observe_bridge_status(self, status: BridgeStatus, now_ns: int) -> None:
        """Newest report of the bridge, as received now; drives STAND → READY and SIT → DAMP."""

        def take() -> None:
            self._seen.take_status(status, now_ns)
            self.machine.report(status)

        self._take("bridge status", now_ns, take)

    def observe_operator(self, command: VelocityCommand, now_ns: int) -> None:
        """Newest velocity command of the operator, as received now."""

        def take() -> None:
            if self._seen.take_operator(command, now_ns) and self.machine.mode is Mode.WALK:
                self._operator_drove = True

        self._take("velocity command", now_ns, take)

    def _take(self, what: str, now_ns: int, take: Callable[[], None]) -> None:
        with self._lock:
            try:
                take()
            except Exception as error:
                self._fault(what, f"{what}: internal error: {error!r}", now_ns)
            self._note_mode(now_ns)

    # --- what an operator asks for ---

    def arm(self, now_ns: int) -> tuple[bool, str]:
        """Allow the next STAND; the message lists what is missing."""
        with self._lock:
            return self.machine.arm(self._missing("arm", now_ns))

    def disarm(self) -> tuple[bool, str]:
        """Forbid STAND again; refused while the robot is up."""
        with self._lock:
            return self.machine.disarm()

    def request(self, name: str, now_ns: int) -> tuple[bool, str]:
        """Ask for a mode by name; the message lists what is missing."""
        with self._lock:
            wanted = str(name).strip().upper()
            need = {"STAND": "arm", "WALK": "walk"}.get(wanted)
            answer = self.machine.request(name, self._missing(need, now_ns) if need else ())
            self._note_mode(now_ns)
            return answer

    def estop(self, now_ns: int, source: str = "operator") -> None:
        """Latch FAULT, from any mode."""
        with self._lock:
            self.machine.estop(source)
            self._note_mode(now_ns)

    def trip(self, reason: str, now_ns: int) -> None:
        """Latch FAULT for a reason found elsewhere, such as a node that died."""
        with self._lock:
            self.machine.trip(reason)
            self._note_mode(now_ns)

    def wind_down(self, reason: str, now_ns: int) -> bool:
        """Bring the robot down in a controlled way, whatever it does now; returns whether it is down."""
        with self._lock:
            self.machine.stop_and_sit(reason)
            self._note_mode(now_ns)
            return self.machine.mode in (Mode.DAMP, Mode.FAULT)

    def reset(self, now_ns: int) -> tuple[bool, str]:
        """Leave FAULT when everything that arming needs is well."""
        with self._lock:
            answer = self.machine.reset(self._missing("arm", now_ns))
            self._note_mode(now_ns)
            return answer

    # --- what it decides ---

    def tick(self, now_ns: int) -> SafetyPermit:
        """Evaluate every monitor, react, and return the permit to publish."""
        with self._lock:
            try:
                self._broken = ""
                self._evaluate(now_ns)
            except Exception as error:
                self._broken = f"watchdog: internal error: {error!r}"
                self._fault("watchdog", self._broken, now_ns)
            self._note_mode(now_ns)
            self._seq += 1
            return SafetyPermit(self._seq, self.machine.mode, self.machine.reason)

    def _evaluate(self, now_ns: int) -> None:
        late, self._ticked_ns = self._lateness(now_ns), now_ns
        self._seen.tick_stream.observe(now_ns, self._seq)
        self._compare_with_bridge(now_ns)
        context = self._context(now_ns, late)
        self._readings = tuple(_checked(monitor, context) for monitor in MONITORS)
        for monitor, reading in zip(MONITORS, self._readings, strict=True):
            self._react(monitor, reading, context)
        self._seen.forget_presses()

    def diagnostics(self, now_ns: int) -> list[Diagnostic]:
        """One row for the mode, then one for each monitor as the last tick found it."""
        with self._lock:
            machine, mode = self.machine, self.machine.mode
            level = Level.ERROR if mode is Mode.FAULT else Level.OK
            values = {"mode": mode.name, "armed": str(machine.armed), "first_cause": machine.first_cause}
            values |= {f"later_cause_{i}": cause for i, cause in enumerate(machine.later_causes, start=1)}
            rows = [Diagnostic("mode", level, f"{mode.name}: {machine.reason}", values)]
            readings = self._last_readings(now_ns)
            return rows + [_row(m, reading, mode) for m, reading in zip(MONITORS, readings, strict=True)]

    def _react(self, monitor: Monitor, reading: Reading, context: Context) -> None:
        if reading.level < Level.ERROR:
            return
        machine, now_ns = self.machine, context.now_ns
        cause = f"{monitor.name}: {reading.message}"
        if reading.broken:
            self._fault(monitor.name, cause, now_ns)
            return
        # In FAULT, what fails after the first cause belongs to the incident, if it was watched when that began.
        mode = self._mode_of_fault if machine.mode is Mode.FAULT else context.mode
        if mode not in monitor.enforced:
            return
        if monitor.reaction is Reaction.ESTOP:
            machine.estop("remote")
        elif monitor.reaction is Reaction.FAULT:
            self._fault(monitor.name, cause, now_ns)
        elif monitor.reaction is Reaction.STOP_AND_STAND:
            machine.stop_and_stand(cause)
        elif monitor.reaction is Reaction.STOP_AND_SIT:
            machine.stop_and_sit(cause)

    def _fault(self, name: str, cause: str, now_ns: int) -> None:
        # Messages carry numbers that change at every tick: one for each name is enough.
        if self.machine.mode is Mode.FAULT and name in self._named_causes:
            return
        self.machine.trip(cause)
        self._note_mode(now_ns)
        self._named_causes.add(name)

    def _note_mode(self, now_ns: int) -> None:
        mode = self.machine.mode
        if mode is self._mode_before:
            return
        if mode is Mode.FAULT:
            self._mode_of_fault, self._named_causes = self._mode_before, set()
        if mode in (Mode.DAMP, Mode.FAULT, Mode.STAND):
            self._operator_drove = False
        self._mode_before, self._mode_ns = mode, now_ns

    def _lateness(self, now_ns: int) -> float:
        """Seconds by which this tick came later than one period after the last; zero for ordinary jitter."""
        if self._ticked_ns is None:
            return 0.0
        period, gap = self._rates[0], (now_ns - self._ticked_ns) * 1e-9
        return gap - period if gap > LATE_TICK * period else 0.0

    def _compare_with_bridge(self, now_ns: int) -> None:
        status, timeout = self._seen.status, self._spec.safety.bridge_status_timeout
        # What a silent or tripped bridge said last is the business of other monitors.
        silent = status is None or self._seen.status_stream.age(now_ns) > timeout
        words = "" if status is None or silent else contradiction(self.machine.mode, status)
        if words and not self._disagreement:
            self._disagreement_ns = now_ns
        self._disagreement = words

    def _context(self, now_ns: int, late: float = 0.0) -> Context:
        period, bridge_rate, control_rate = self._rates
        return Context(
            spec=self._spec,
            seen=self._seen,
            now_ns=now_ns,
            mode=self.machine.mode,
            mode_age=(now_ns - self._mode_ns) * 1e-9,
            tick_period=period,
            late=late,
            bridge_rate=bridge_rate,
            control_rate=control_rate,
            operator_drove=self._operator_drove,
            disagreement=self._disagreement,
            disagreement_age=(now_ns - max(self._disagreement_ns, self._mode_ns)) * 1e-9,
        )

    def _last_readings(self, now_ns: int) -> tuple[Reading, ...]:
        """Those of the last tick: between two ticks nothing is read, so ages would grow without meaning anything."""
        if self._readings:
            return self._readings
        context = self._context(now_ns)
        return tuple(_checked(monitor, context) for monitor in MONITORS)

    def _missing(self, purpose: str, now_ns: int) -> list[str]:
        pairs = zip(MONITORS, self._last_readings(now_ns), strict=True)
        missing = [f"{m.name}: {reading.message}" for m, reading in pairs if m.refuses(purpose, reading)]
        return [self._broken, *missing] if self._broken else missing


def _checked(monitor: Monitor, context: Context) -> Reading:
    try:
        return monitor.check(context)
    except Exception as error:
        # A check that fails proves nothing about the robot, and a watchdog that ends with it protects nobody.
        return Reading(Level.ERROR, f"internal error: {error!r}", broken=True)


def _row(monitor: Monitor, reading: Reading, mode: Mode) -> Diagnostic:
    values = {
        "seen": f"{reading.seen:.6g} {reading.unit}".strip(),
        "threshold": f"{reading.threshold:.6g} {reading.unit}".strip(),
        "reaction": monitor.reaction.value,
        "enforced_now": str(mode in monitor.enforced),
    }
    return Diagnostic(monitor.name, reading.level, reading.message, values)
