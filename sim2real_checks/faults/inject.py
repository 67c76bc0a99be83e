"""How each kind of fault is brought into a running graph, and taken back."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nfpo_deploy.ros import topics
from robots.loader import RobotSpec
from sim2real_checks.faults.catalogue import ANY_JOINT, Fault, Injection
from sim2real_checks.faults.processes import Child, RigError

if TYPE_CHECKING:
    from sim2real_checks.faults.rig import Rig

Undo = Callable[[], Any]
Done = tuple[int, Undo | None]
FAST = (1.0, 0.0, 0.0)
"""m/s, m/s, rad/s: at this velocity a spoiled policy shows what it is."""
SECOND_BRIDGE_S = 20.0


def prepare(fault: Fault, rig: Rig) -> None:
    """What has to exist before the fault without being one."""
    for injection in fault.injections:
        rig.rogue.prepare(injection.kind)


def inject(fault: Fault, rig: Rig, spec: RobotSpec, rng: random.Random) -> tuple[int, list[Undo]]:
    """Break what the fault says.

    Returns:
        CLOCK_MONOTONIC ns of the last part, from which on the fault is complete, and how to take it back.

    Raises:
        NfpoError: it could not be done.
    """
    moments, undos = [], []
    for injection in fault.injections:
        if injection.kind not in KINDS:
            raise RigError(f"{fault.name}: unknown kind of fault {injection.kind!r}; known: {', '.join(KINDS)}")
        ns, undo = KINDS[injection.kind](injection, rig, spec, rng)
        moments.append(ns)
        undos += [undo] if undo else []
    return max(moments), undos


def _signal(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    try:
        process = rig.processes[injection.target]
    except KeyError:
        raise RigError(f"no process {injection.target!r} in the graph; it has {', '.join(rig.processes)}") from None
    number = signal.Signals[injection.options["signal"]]
    ns = time.monotonic_ns()
    process.send(number)
    return ns, (lambda: process.send(signal.SIGCONT)) if number is signal.SIGSTOP else None


def _saboteur(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    with rig.saboteur(injection.target) as control:
        return control.send(**injection.options), None


def _sim(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    options: dict[str, Any] = {
        name: rng.choice(spec.joint_names) if value == ANY_JOINT else value for name, value in injection.options.items()
    }
    return rig.robot.send(injection.target, **options), rig.robot.clear


def _wait(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    rig.observe(injection.options["seconds"])
    return 0, None


def _rogue(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    return rig.rogue.send(injection.kind, injection.target, spec), None


def _fast(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    rig.drive.command = FAST
    return time.monotonic_ns(), None


def _service(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    ns = time.monotonic_ns()
    if injection.target == "estop":
        accepted, message = rig.drive.call(topics.ESTOP)
    else:
        accepted, message = rig.drive.call(topics.SET_MODE, injection.target)
    if not accepted:
        raise RigError(f"{injection.target} was refused: {message}")
    return ns, None


def _silence(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    # The last word is now: ages count from it.
    if rig.drive.command is not None:
        rig.operator.publish_velocity(*rig.drive.command)
    rig.drive.command = None
    return time.monotonic_ns(), None


def _second_bridge(injection: Injection, rig: Rig, spec: RobotSpec, rng: random.Random) -> Done:
    """Another bridge for the same robot: it must refuse to start."""
    command = rig.graph.process("sdk_bridge").command(sys.executable)
    ns = time.monotonic_ns()
    child = Child(command, dict(rig.graph.environment), rig.folder / "second.log")
    deadline = time.monotonic() + SECOND_BRIDGE_S
    try:
        while child.exit_status is None:
            if time.monotonic() > deadline:
                raise RigError("a second bridge for the same robot did not refuse to start")
            rig.drive.step()
        if child.exit_status == 0:
            raise RigError("a second bridge for the same robot ended as if nothing were wrong")
    finally:
        child.stop(5.0)
    return ns, None


KINDS: dict[str, Callable[[Injection, Rig, RobotSpec, random.Random], Done]] = {
    "signal": _signal, "saboteur": _saboteur, "sim": _sim, "wait": _wait, "joint_command": _rogue, "permit": _rogue,
    "velocity": _rogue, "fast": _fast, "service": _service, "silence": _silence, "second_bridge": _second_bridge,
}  # fmt: skip
