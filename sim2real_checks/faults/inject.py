"""How each kind of fault is brought into a running graph, and taken back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sim2real_checks.faults.catalogue import Fault, Injection
from sim2real_checks.faults.processes import RigError

if TYPE_CHECKING:
    from sim2real_checks.faults.rig import Rig

Undo = Callable[[], None]


def inject(fault: Fault, rig: Rig) -> tuple[int, list[Undo]]:
    """Break what the fault says.

    Returns:
        CLOCK_MONOTONIC ns of the last part, from which on the fault is complete, and how to take it back.

    Raises:
        RigError: it could not be done.
    """
    moments, undos = [], []
    for injection in fault.injections:
        if injection.kind not in _KINDS:
            raise RigError(f"{fault.name}: unknown kind of fault {injection.kind!r}; known: {', '.join(_KINDS)}")
        ns, undo = _KINDS[injection.kind](injection, rig)
        moments.append(ns)
        undos += [undo] if undo else []
    return max(moments), undos


def _send_signal(injection: Injection, rig: Rig) -> tuple[int, Undo | None]:
    try:
        process = rig.processes[injection.target]
    except KeyError:
        known = ", ".join(rig.processes)
        raise RigError(f"the graph has no process {injection.target!r}; it has {known}") from None
    number = signal.Signals[injection.options["signal"]]
    if not process.alive:
        raise RigError(f"{injection.target} had ended before the fault")
    ns = time.monotonic_ns()
    process.send(number)
    return ns, (lambda: process.send(signal.SIGCONT)) if number is signal.SIGSTOP else None


_KINDS: dict[str, Callable[[Injection, Rig], tuple[int, Undo | None]]] = {"signal": _send_signal}
