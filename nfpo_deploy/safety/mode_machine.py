"""The mode machine: DAMP → STAND → READY → WALK → READY → SIT → DAMP, and FAULT, latched, from anywhere.

It knows no clock and no sensor. The watchdog tells it what is missing for a request, what went wrong, and how far the
bridge has come; the mode goes out in the permit.
"""

from __future__ import annotations

from collections.abc import Sequence

from nfpo_deploy.types import BridgeStatus, GatePhase, Mode

MAX_LATER_CAUSES = 20

# What an operator may ask for in each mode. DAMP is always allowed but for a fault; READY after STAND, and DAMP
# after SIT, come by themselves when the bridge reports that the pose is reached.
REQUESTS: dict[Mode, frozenset[Mode]] = {
    Mode.DAMP: frozenset({Mode.STAND}),
    Mode.STAND: frozenset({Mode.SIT, Mode.DAMP}),
    Mode.READY: frozenset({Mode.WALK, Mode.SIT, Mode.DAMP}),
    Mode.WALK: frozenset({Mode.READY, Mode.SIT, Mode.DAMP}),
    Mode.SIT: frozenset({Mode.DAMP}),
    Mode.FAULT: frozenset(),
}
ACTIVE = frozenset({Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT})
_PASSIVE = frozenset({GatePhase.ZERO_TORQUE, GatePhase.DAMPING})
# What an obedient bridge may be doing in each mode, but for the time that permit and report take.
PHASES: dict[Mode, frozenset[GatePhase]] = {
    Mode.DAMP: _PASSIVE,
    # What is still stiff fades out before a stand-up, and the pose is held until READY is permitted.
    Mode.STAND: _PASSIVE | {GatePhase.RAMPING, GatePhase.HOLDING},
    Mode.READY: frozenset({GatePhase.RAMPING, GatePhase.HOLDING}),
    # WALK is granted only to a bridge that holds its pose, and from there it follows at once.
    Mode.WALK: frozenset({GatePhase.TRACKING}),
    Mode.SIT: frozenset({GatePhase.RAMPING, GatePhase.HOLDING}),
    Mode.FAULT: _PASSIVE,
}


class ModeMachine:
    """Holds the mode and decides which changes are allowed.

    Attributes:
        mode: the mode now.
        reason: why it is what it is; in FAULT the first cause.
        armed: whether STAND may be requested. Lasts until the next DAMP or FAULT: every stand-up is armed anew.
        first_cause: of the latched fault, empty otherwise.
        later_causes: what else went wrong since, in order, each once, at most `MAX_LATER_CAUSES`.
    """

    def __init__(self) -> None:
        self.mode = Mode.DAMP
        self.reason = "start"
        self.armed = False
        self.first_cause = ""
        self.later_causes: list[str] = []
        self._sit_wanted = ""  # why, while a SIT waits until the robot stands
        self._settled = False

    def arm(self, missing: Sequence[str] = ()) -> tuple[bool, str]:
        """Allow STAND; refused outside DAMP and while anything is missing."""
        if self.mode is not Mode.DAMP:
            return False, f"arm works in DAMP, the mode is {self._described()}"
        if missing:
            return False, _missing("arm", missing)
        self.armed = True
        return True, "armed"

    def disarm(self) -> tuple[bool, str]:
        """Forbid STAND again; refused while the robot is up, because that takes a SIT or DAMP request."""
        if self.mode in ACTIVE:
            return False, f"the mode is {self.mode.name}: request SIT or DAMP first"
        self.armed = False
        return True, "disarmed"

    def request(self, name: str, missing: Sequence[str] = ()) -> tuple[bool, str]:
        """Ask for a mode by name, upper or lower case.

        Args:
            name: DAMP, STAND, READY, WALK or SIT.
            missing: what the mode needs and does not have, in words.

        Returns:
            Whether it was accepted, and a message that names what stands in the way.
        """
        wanted = Mode.__members__.get(str(name).strip().upper())
        if wanted is None or wanted is Mode.FAULT:
            known = [mode.name for mode in Mode if mode is not Mode.FAULT]
            return False, f"unknown mode {name!r}; known: {', '.join(known)}"
        if wanted is self.mode:
            self._sit_wanted = ""
            return True, f"already in {wanted.name}"
        if wanted not in REQUESTS[self.mode]:
            return False, self._refusal(wanted)
        if wanted is Mode.STAND and not self.armed:
            missing = ["not armed: call arm first", *missing]
        if wanted is Mode.WALK and not self._settled:
            missing = ["the bridge does not hold the pose yet", *missing]
        if missing:
            return False, _missing(wanted.name, missing)
        if wanted is Mode.SIT and self.mode is Mode.WALK:
            self._enter(Mode.READY, "requested SIT: standing first")
            self._sit_wanted = "requested"
            return True, "standing first, then SIT"
        self._enter(wanted, "requested")
        return True, wanted.name

    def report(self, status: BridgeStatus) -> None:
        """Progress of the bridge: STAND reached → READY, SIT reached → DAMP, a wanted SIT after settling."""
        if status.stopping and not status.tripped:
            self._follow_down(status.permit_mode)
        if status.tripped or status.permit_mode is not self.mode:
            return  # it speaks about an earlier permit
        if self.mode is Mode.STAND and status.stand_reached:
            self._enter(Mode.READY, "stand reached")
        elif self.mode is Mode.SIT and status.sit_reached:
            self._enter(Mode.DAMP, "sit reached")
        elif self.mode is Mode.READY:
            self._settled = status.phase is GatePhase.HOLDING
            if self._settled and self._sit_wanted:
                self._enter(Mode.SIT, self._sit_wanted)

    def _follow_down(self, granted: Mode) -> None:
        """A bridge that was asked to end grants itself the way down; opposing it would only make the robot fall."""
        reason = "the bridge is ending"
        if granted is Mode.READY and self.mode is Mode.WALK:
            self._enter(Mode.READY, reason)
        elif (granted is Mode.SIT and self.mode in ACTIVE - {Mode.SIT}) or (
            granted is Mode.DAMP and self.mode in ACTIVE
        ):
            self._enter(granted, reason)

    def stop_and_stand(self, reason: str) -> None:
        """Controlled end of walking: hold the pose. Nothing to do in any other mode."""
        if self.mode is Mode.WALK:
            self._enter(Mode.READY, reason)

    def stop_and_sit(self, reason: str) -> None:
        """Controlled end of everything: stand, then sit, then damp."""
        if self.mode is Mode.WALK:
            self._enter(Mode.READY, reason)
            self._sit_wanted = reason
        elif self.mode is Mode.READY and not self._settled:
            self._sit_wanted = reason
        elif self.mode in (Mode.STAND, Mode.READY):
            self._enter(Mode.SIT, reason)

    def estop(self, source: str = "operator") -> None:
        """Emergency stop, from any mode."""
        self.trip(f"emergency stop by {source}")

    def trip(self, reason: str) -> None:
        """Latch FAULT. The first cause stays; later ones are listed."""
        if self.mode is not Mode.FAULT:
            self._enter(Mode.FAULT, reason)
            self.first_cause, self.later_causes = reason, []
        elif (
            reason != self.first_cause and reason not in self.later_causes and len(self.later_causes) < MAX_LATER_CAUSES
        ):
            self.later_causes.append(reason)

    def reset(self, missing: Sequence[str] = ()) -> tuple[bool, str]:
        """Leave FAULT for DAMP, disarmed; refused while anything is still wrong."""
        if self.mode is not Mode.FAULT:
            return False, f"nothing to reset, the mode is {self.mode.name}"
        if missing:
            return False, _missing("reset", missing)
        self._enter(Mode.DAMP, f"reset after: {self.first_cause}")
        self.first_cause, self.later_causes = "", []
        return True, "DAMP"

    def _enter(self, mode: Mode, reason: str) -> None:
        if mode in (Mode.DAMP, Mode.FAULT):
            self.armed = False
        # STAND ends in READY with the pose held; walking ends in READY while it settles.
        self._settled = self.mode is Mode.STAND and mode is Mode.READY
        self._sit_wanted = ""
        self.mode, self.reason = mode, reason

    def _described(self) -> str:
        return f"FAULT ({self.first_cause}): reset first" if self.mode is Mode.FAULT else self.mode.name

    def _refusal(self, wanted: Mode) -> str:
        if self.mode is Mode.FAULT:
            return f"{wanted.name} refused in {self._described()}"
        allowed = ", ".join(sorted(mode.name for mode in REQUESTS[self.mode]))
        return f"{wanted.name} cannot follow {self.mode.name}; possible now: {allowed}"


def contradiction(mode: Mode, status: BridgeStatus) -> str:
    """How a bridge that neither tripped nor ends contradicts the permitted mode, in words; empty when it obeys."""
    if status.tripped or status.stopping or (status.permit_mode is mode and status.phase in PHASES[mode]):
        return ""
    why = f" ({status.reason})" if status.reason else ""
    return f"{status.phase.name} under a permit of {status.permit_mode.name}{why} while {mode.name} is granted"


def _missing(what: str, missing: Sequence[str]) -> str:
    return f"{what} refused: {'; '.join(missing)}"
