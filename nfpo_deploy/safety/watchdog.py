"""The watchdog: sees every stream, owns the mode machine, and grants the permit to move.

Feed it what arrives, call `tick` at a fixed rate and publish the permit that it returns. The methods may be called
from two threads, as a loop beside a service executor does.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.safety.mode_machine import ModeMachine
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


class Diagnostic(NamedTuple):
    """One row for /diagnostics."""

    name: str
    level: Level
    message: str
    values: dict[str, str]


class Watchdog:
    """Monitors, mode machine and permit. Times are CLOCK_MONOTONIC ns of this process."""

    def __init__(
        self,
        spec: RobotSpec,
        rate_hz: float = 50.0,
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
        self._mode_before = self.machine.mode
        self._mode_ns = 0
        self._mode_of_fault = Mode.DAMP
        self._named_causes: set[str] = set()

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
        with self._lock:
            self._seen.take_state(state, now_ns)

    def observe_estimate(self, estimate: StateEstimate, now_ns: int) -> None:
        """Newest state estimate, as received now."""
        with self._lock:
            self._seen.take_estimate(estimate, now_ns)

    def observe_command(
        self, command: JointCommand, now_ns: int, observation_ok: bool = True, inference_ms: float = 0.0
    ) -> None:
        """Newest joint command of the policy, as received now."""
        with self._lock:
            self._seen.take_command(command, now_ns, observation_ok, inference_ms)

    def observe_bridge_status(self, status: BridgeStatus, now_ns: int) -> None:
        """Newest report of the bridge, as received now; drives STAND → READY and SIT → DAMP."""
        with self._lock:
            self._seen.take_status(status, now_ns)
            self.machine.report(status)
            self._note_mode(now_ns)

    def observe_operator(self, command: VelocityCommand, now_ns: int) -> None:
        """Newest velocity command of the operator, as received now."""
        with self._lock:
            self._seen.take_operator(command, now_ns)

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
            self._seen.tick_stream.observe(now_ns, self._seq)
            context = self._context(now_ns)
            for monitor in MONITORS:
                self._react(monitor, monitor.check(context), context)
            self._note_mode(now_ns)
            self._seq += 1
            return SafetyPermit(self._seq, self.machine.mode, self.machine.reason)

    def diagnostics(self, now_ns: int) -> list[Diagnostic]:
        """One row for the mode, then one for each monitor."""
        with self._lock:
            machine, context = self.machine, self._context(now_ns)
            level = Level.ERROR if machine.mode is Mode.FAULT else Level.OK
            values = {"mode": machine.mode.name, "armed": str(machine.armed), "first_cause": machine.first_cause}
            values |= {f"later_cause_{i}": cause for i, cause in enumerate(machine.later_causes, start=1)}
            rows = [Diagnostic("mode", level, f"{machine.mode.name}: {machine.reason}", values)]
            return rows + [_row(monitor, monitor.check(context), context) for monitor in MONITORS]

    def _react(self, monitor: Monitor, reading: Reading, context: Context) -> None:
        if reading.level < Level.ERROR:
            return
        machine = self.machine
        # In FAULT, what fails after the first cause belongs to the incident, if it was watched when that began.
        mode = self._mode_of_fault if machine.mode is Mode.FAULT else context.mode
        if mode not in monitor.enforced:
            return
        cause = f"{monitor.name}: {reading.message}"
        if monitor.reaction is Reaction.FAULT:
            # Messages carry numbers that change at every tick: one for each monitor is enough.
            if machine.mode is Mode.FAULT and monitor.name in self._named_causes:
                return
            machine.trip(cause)
            self._note_mode(context.now_ns)
            self._named_causes.add(monitor.name)
        elif monitor.reaction is Reaction.STOP_AND_STAND:
            machine.stop_and_stand(cause)
        elif monitor.reaction is Reaction.STOP_AND_SIT:
            machine.stop_and_sit(cause)

    def _note_mode(self, now_ns: int) -> None:
        mode = self.machine.mode
        if mode is self._mode_before:
            return
        if mode is Mode.FAULT:
            self._mode_of_fault, self._named_causes = self._mode_before, set()
        self._mode_before, self._mode_ns = mode, now_ns

    def _context(self, now_ns: int) -> Context:
        period, bridge_rate, control_rate = self._rates
        return Context(
            spec=self._spec,
            seen=self._seen,
            now_ns=now_ns,
            mode=self.machine.mode,
            mode_age=(now_ns - self._mode_ns) * 1e-9,
            tick_period=period,
            bridge_rate=bridge_rate,
            control_rate=control_rate,
        )

    def _missing(self, purpose: str, now_ns: int) -> list[str]:
        context = self._context(now_ns)
        readings = ((m, m.check(context)) for m in MONITORS if purpose in m.needed_for)
        return [f"{m.name}: {reading.message}" for m, reading in readings if reading.level >= Level.ERROR]


def _row(monitor: Monitor, reading: Reading, context: Context) -> Diagnostic:
    values = {
        "seen": f"{reading.seen:.6g} {reading.unit}".strip(),
        "threshold": f"{reading.threshold:.6g} {reading.unit}".strip(),
        "reaction": monitor.reaction.value,
        "enforced_now": str(context.mode in monitor.enforced),
    }
    return Diagnostic(monitor.name, reading.level, reading.message, values)
