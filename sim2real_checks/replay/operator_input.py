"""Whether the velocities that a policy was given are what the deployed limiter makes of the recorded `/cmd_vel`.

When a message reached the policy's process is not recorded, only when it reached the recorder. So each tick is tried
with every message that may have been the newest, and with none.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.contract.manifest import PolicyManifest
from sim2real_checks.replay.flight import Flight

EARLIER_NS, LATER_NS = 100_000_000, 30_000_000
"""How far the recorder's time of a message may be from when the policy took it, ns."""
MAX_HYPOTHESES = 8
EXACT = 1e-9


@dataclass(frozen=True)
class OperatorInput:
    """Ticks whose velocity was looked at, and how many of them the limiter explains."""

    ticks: int
    explained: int
    first_ns: int = 0
    """Of the first that it does not explain, ns since 1970; 0 where it explains all."""

    def describe(self) -> str:
        """In one line."""
        if not self.ticks:
            return "not compared: no walk with /cmd_vel begins in the log"
        if not self.first_ns:
            return f"all {self.ticks} ticks are what the limiter makes of /cmd_vel"
        return (
            f"after {self.explained} ticks one is not what the limiter makes of /cmd_vel; a message that the recorder "
            "lost looks so, too"
        )


def follow(flight: Flight, manifest: PolicyManifest) -> OperatorInput:
    """Follow the limiter through the flight, from each reset of the policy on."""
    fresh = VelocityCommandLimiter(manifest.command_ranges, flight.spec.safety.operator_timeout)
    times = [time_ns for time_ns, _ in flight.operator]
    hypotheses: list[VelocityCommandLimiter] = []
    ticks = explained = first_ns = expected = 0
    for command in flight.commands if times else ():
        if command.step == 1:
            hypotheses = [copy.deepcopy(fresh)]
        elif command.step != expected:
            hypotheses = []
        expected = command.step + 1
        if not hypotheses or (not command.velocity.any() and flight.mode_at(command.time_ns) != "WALK"):
            continue
        low = bisect_left(times, command.time_ns - EARLIER_NS)
        near = flight.operator[low : bisect_left(times, command.time_ns + LATER_NS)]
        hypotheses = _explaining(hypotheses, near, command.time_ns, command.velocity, 1.0 / manifest.control_rate_hz)
        ticks += 1
        explained += bool(hypotheses)
        first_ns = first_ns or (0 if hypotheses else command.time_ns)
    return OperatorInput(ticks, explained, first_ns)


def _explaining(
    limiters: list[VelocityCommandLimiter], near: list[tuple[int, np.ndarray]], now_ns: int, given: np.ndarray,
    dt: float,
) -> list[VelocityCommandLimiter]:  # fmt: skip
    """Limiters that may have given `given` (3,) at this tick, after at most one of the messages `near`."""
    found: list[VelocityCommandLimiter] = []
    for limiter in limiters:
        for message in (None, *reversed(near)):
            for later_ns in (0, -LATER_NS, LATER_NS):
                trial = copy.deepcopy(limiter)
                if message is not None:
                    vx, vy, wz = message[1].tolist()
                    trial.receive(vx, vy, wz, min(message[0], now_ns + later_ns))
                if np.abs(trial.step(now_ns + later_ns, dt).as_array() - given).max() < EXACT:
                    found.append(trial)
                    break
            if len(found) >= MAX_HYPOTHESES:
                return found
    return found
