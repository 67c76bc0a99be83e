"""Driving with the robot's own wireless remote, whose 40 bytes every LowState carries.

Motion needs the deadman (L1) held; a deadman that was held through a start, a lost link or a frozen remote counts only
after it has been let go once. What cannot be detected: a remote that keeps sending, held by something that is no hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nfpo_deploy.command.remote import ESTOP_BUTTONS, RemoteInput, decode_remote
from nfpo_deploy.errors import SafetyError
from nfpo_deploy.operator.requests import Request
from nfpo_deploy.operator.speeds import STANDING_STILL, Speeds
from nfpo_deploy.types import VelocityCommand

DEADMAN = "L1"
"""Under the left index finger, so that both thumbs stay on the sticks."""
BUTTONS: dict[frozenset[str], Request] = {
    frozenset({"Start"}): Request.STAND,
    frozenset({"A"}): Request.WALK,
    frozenset({"X"}): Request.READY,
    frozenset({"Down"}): Request.SIT,
    frozenset({"Y"}): Request.RESET,
    # It drops the robot, so it takes two fingers.
    frozenset({"L2", "Select"}): Request.DAMP,
}
MODIFIERS = frozenset({"L2", "R1", "R2"})
"""Buttons that give another one a second meaning in Unitree's own programs: with one of them held, a single button
asks for nothing here."""
GAP_S = 0.1
"""Without a new LowState with a connected remote for this long, 50 missed, the remote's link is lost."""
FROZEN_S = 5.0
"""A deflected stick under a held deadman whose bytes do not change by one bit for this long is no hand: the remote's
link may have died without zeroing them. At the default speed the robot has walked 3 m by then."""
DEAD_ZONE = 0.1
"""Part of a stick's travel without effect: sticks do not come back to exactly zero."""
_CONTENT = slice(2, 24)  # buttons and sticks


@dataclass(frozen=True)
class RemoteOutput:
    """What the remote says now."""

    present: bool
    """A connected remote has been heard within `GAP_S`."""
    active: bool = False
    """The deadman counts: the velocity is meant, also where it is zero."""
    velocity: VelocityCommand = STANDING_STILL
    requests: tuple[Request, ...] = ()
    """Buttons pressed since the last step; each press once."""
    notice: str = ""
    """Why a held deadman or a button has no effect."""


class RemoteDrive:
    """Remote bytes to velocity and requests. Times are CLOCK_MONOTONIC ns."""

    def __init__(
        self, speeds: Speeds, link_timeout_s: float, frozen_s: float = FROZEN_S, dead_zone: float = DEAD_ZONE
    ) -> None:
        """Create it.

        Args:
            speeds: velocity at full stick.
            link_timeout_s: a link that was lost for longer needs a fresh press of the deadman.
            frozen_s: see `FROZEN_S`.
            dead_zone: see `DEAD_ZONE`; at least 0, below 1.

        Raises:
            SafetyError: a time that is not above zero, or a dead zone out of its range.
        """
        for name, value in (("link_timeout_s", link_timeout_s), ("frozen_s", frozen_s)):
            if not (math.isfinite(value) and value > 0):
                raise SafetyError(f"remote {name} must be finite and above zero, got {value!r}")
        if not 0.0 <= dead_zone < 1.0:
            raise SafetyError(f"remote dead_zone must be at least 0 and below 1, got {dead_zone!r}")
        self._speeds = speeds
        self._link_timeout_ns, self._frozen_ns = round(link_timeout_s * 1e9), round(frozen_s * 1e9)
        self._dead_zone = dead_zone
        self._input: RemoteInput | None = None
        self._buttons: frozenset[str] | None = None
        self._tick = -1
        self._heard_ns: int | None = None
        self._content = b""
        self._changed_ns = 0
        self._released = False
        self._notice = ""

    def step(self, frame: bytes | None, tick: int, now_ns: int) -> RemoteOutput:
        """Take what arrived since the last step.

        Args:
            frame: the remote's bytes in the newest LowState, None where none arrived.
            tick: that LowState's counter; the same one again is nothing new.
            now_ns: time of this step.
        """
        requests: tuple[Request, ...] = ()
        if frame is not None and tick != self._tick:
            self._tick = tick
            remote = decode_remote(frame)
            if remote is not None:
                requests = self._take(remote, frame[_CONTENT], now_ns)
        if self._heard_ns is None or self._input is None or now_ns - self._heard_ns > GAP_S * 1e9:
            # What was pressed before the gap must not make an edge after it.
            self._buttons = None
            return RemoteOutput(False)
        held = DEADMAN in self._input.buttons
        velocity = self._velocity(self._input)
        if self._released and held and velocity != STANDING_STILL and now_ns - self._changed_ns > self._frozen_ns:
            self._released = False
            self._notice = (
                f"the remote has not changed for {self._frozen_ns * 1e-9:g} s: let go of {DEADMAN} and press it again"
            )
        notice, self._notice = self._notice, ""
        if held and self._released and not self._input.estop:
            return RemoteOutput(True, True, velocity, requests, notice)
        return RemoteOutput(True, False, STANDING_STILL, requests, notice)

    def _take(self, remote: RemoteInput, content: bytes, now_ns: int) -> tuple[Request, ...]:
        if self._heard_ns is None or now_ns - self._heard_ns > self._link_timeout_ns:
            self._released = False
            self._changed_ns = now_ns
        if content != self._content:
            self._content, self._changed_ns = content, now_ns
        self._heard_ns, self._input = now_ns, remote
        if remote.estop:
            self._released = False
        elif DEADMAN not in remote.buttons:
            self._released = True
        before, self._buttons = self._buttons, remote.buttons
        return self._pressed(before, remote.buttons) if before is not None else ()

    def _pressed(self, before: frozenset[str], now: frozenset[str]) -> tuple[Request, ...]:
        if now >= ESTOP_BUTTONS:
            return () if before >= ESTOP_BUTTONS else (Request.ESTOP,)
        held = now & MODIFIERS
        fresh = [
            request for combo, request in BUTTONS.items() if combo <= now and not combo <= before and held <= combo
        ]
        if len(fresh) > 1:
            self._notice = f"several requests at once ({', '.join(request.value for request in fresh)}): none is taken"
            return ()
        return tuple(fresh)

    def _velocity(self, remote: RemoteInput) -> VelocityCommand:
        forward, left, turn = (self._scaled(stick) for stick in (remote.ly, -remote.lx, -remote.rx))
        speeds = self._speeds
        return VelocityCommand(
            forward * (speeds.forward if forward > 0 else speeds.backward), left * speeds.sideways, turn * speeds.turn
        )

    def _scaled(self, stick: float) -> float:
        """Stick without its dead zone, -1 to 1."""
        beyond = min((abs(stick) - self._dead_zone) / (1.0 - self._dead_zone), 1.0)
        return math.copysign(beyond, stick) if beyond > 0 else 0.0
