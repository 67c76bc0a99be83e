"""What an operator can ask of the watchdog, whichever device he asks with."""

from __future__ import annotations

from enum import Enum

from nfpo_deploy.types import Mode

RETRY_NS = 300_000_000
RECOVERY_NS = 20_000_000_000
"""A recovery that takes longer is given up: standing up takes 3 s, damping before it 1 s."""
SETTLE_NS = 3_000_000_000
"""How long READY may refuse WALK while the pose settles and the policy starts."""


class Request(Enum):
    """One wish; the value is its name on pages and in logs."""

    STAND = "stand"
    WALK = "walk"
    READY = "ready"
    SIT = "sit"
    DAMP = "damp"
    RESET = "reset"
    ESTOP = "estop"


STEPS: dict[Request, tuple[tuple[str, str], ...]] = {
    Request.STAND: (("arm", ""), ("set_mode", "stand")),
    Request.WALK: (("set_mode", "walk"),),
    Request.READY: (("set_mode", "ready"),),
    Request.SIT: (("set_mode", "sit"),),
    Request.DAMP: (("set_mode", "damp"),),
    Request.RESET: (("reset", ""),),
    Request.ESTOP: (("estop", ""),),
}
"""Service calls (name, mode) of each request, in order; the next only when the one before was accepted."""
STARTS_MOTION = frozenset({Request.STAND, Request.WALK})
_NEXT = {Mode.FAULT: Request.RESET, Mode.DAMP: Request.STAND, Mode.READY: Request.WALK}


class Recovery:
    """The way back to walking from any mode, one request at a time: reset, stand, walk."""

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._next_ns = 0
        self._asked: Request | None = None
        self._ready_ns: int | None = None

    @property
    def running(self) -> bool:
        return self._start_ns is not None

    def start(self, now_ns: int) -> None:
        """Begin, or begin again."""
        self._start_ns, self._next_ns, self._asked, self._ready_ns = now_ns, now_ns, None, None

    def cancel(self) -> None:
        """Ask for nothing more."""
        self._start_ns = None

    def step(self, mode: Mode | None, now_ns: int) -> Request | None:
        """What to ask for now; None while waiting for an answer, for a mode, or when it is over."""
        if self._start_ns is None:
            return None
        if mode is Mode.WALK or now_ns - self._start_ns > RECOVERY_NS:
            self.cancel()
            return None
        wanted = _NEXT.get(mode) if mode is not None else None
        if wanted is None or now_ns < self._next_ns or self._asked is wanted:
            return None
        self._asked = wanted
        return wanted

    def answered(self, request: Request, accepted: bool, now_ns: int) -> None:
        """Take the answer to a request; a refusal ends the recovery, but WALK may need a moment after standing up."""
        if self._start_ns is None or request is not self._asked:
            return
        if accepted:
            return
        if request is Request.WALK:
            self._ready_ns = self._ready_ns or now_ns
            if now_ns - self._ready_ns < SETTLE_NS:
                self._asked, self._next_ns = None, now_ns + RETRY_NS
                return
        self.cancel()
