"""Is this the robot of the spec, and only one? Judged from what LowStates say, not from what the user typed.

Another robot of the same message family would obey our joint targets on other joints, with other gains.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from robots.loader import RobotSpec

CONSECUTIVE = 5
"""Implausible LowStates in a row until the robot counts as wrong: one glitch proves nothing."""
RECENT_S = 1.0
"""A writer of LowState heard within this time is still there; a problem not seen for this long is over."""
_CLEAR_AFTER = 500
_STILL_Q = 1e-6
_REPORTED_V = 1.0
_UP, _DOWN = 3, 1


class _Suspicion:
    """A level that rises with evidence and falls without, so that alternating evidence still counts."""

    def __init__(self) -> None:
        self._level = 0

    def add(self, bad: bool) -> bool | None:
        """Take one piece of evidence: True when it is enough, False when none is left, None in between."""
        enough = CONSECUTIVE * _UP
        self._level = min(self._level + _UP, enough + _CLEAR_AFTER) if bad else max(0, self._level - _DOWN)
        return True if self._level >= enough else False if self._level == 0 else None


class IdentityCheck:
    """Watches decoded LowStates for a robot that is not the spec's.

    Attributes:
        problem: what is wrong, for people; empty when nothing is, and again after a second of good states.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self.problem = ""
        self._spec = spec
        self._unused: np.ndarray | None = None
        self._suspicion = _Suspicion()

    def observe(self, record: np.ndarray) -> None:
        """Take one accepted LowState, as `LowStateDecoder.accept` returns it."""
        finding = self._finding(record)
        verdict = self._suspicion.add(bool(finding))
        if verdict is False:
            self.problem = ""
        elif verdict and finding:
            self.problem = (
                f"this is not a {self._spec.name}: {finding}; name the robot that is on this network interface, "
                "or the interface of the robot that you mean"
            )

    def _finding(self, record: np.ndarray) -> str:
        slots = record["motor_state"]
        if self._unused is None:
            self._unused = np.setdiff1d(np.arange(len(slots)), self._spec.motor_index)
        modes, q = slots["mode"][self._unused], slots["q"][self._unused]
        # The negation makes a NaN count as alive.
        if modes.any() or not (np.abs(q) <= _STILL_Q).all():
            alive = self._unused[(modes != 0) | ~(np.abs(q) <= _STILL_Q)]
            return f"its motors {alive.tolist()} are alive, which a {self._spec.name} does not have"
        return self._voltage_finding(record) or self._mode_finding(record)

    def _voltage_finding(self, record: np.ndarray) -> str:
        if "power_v" not in (record.dtype.names or ()):
            return ""
        voltage = round(float(record["power_v"]), 3)  # the message has single precision
        low, high = self._spec.voltage_range
        if math.isfinite(voltage) and voltage > _REPORTED_V and not low <= voltage <= high:
            return f"its battery has {voltage:.1f} V, expected {low} to {high} V"
        return ""

    def _mode_finding(self, record: np.ndarray) -> str:
        names = record.dtype.names or ()
        machine = int(record["mode_machine"]) if "mode_machine" in names else 0
        if machine not in self._spec.mode_machines:
            return f"its mode_machine is {machine}, expected one of {list(self._spec.mode_machines)}"
        return ""


class SingleSource:
    """Notices when two writers send LowStates in turns: two robots, or a robot and a simulator, on one network.

    A writer that takes over for good is a robot that was restarted.

    Attributes:
        problem: what is wrong, for people; empty when nothing is.
    """

    def __init__(self, describe: Callable[[int], str]) -> None:
        """`describe` names the writer behind a publication handle."""
        self.problem = ""
        self._describe = describe
        self._last: int | None = None
        self._heard: dict[int, float] = {}
        self._returns = 0

    def observe(self, handle: int) -> None:
        """Take the publication handle of the next valid LowState."""
        if handle == self._last and len(self._heard) == 1:
            return
        now = time.monotonic()
        if handle != self._last:
            self._change(handle, now)
        self._heard[handle] = now
        self._heard = {one: when for one, when in self._heard.items() if now - when < RECENT_S}
        if len(self._heard) == 1:
            self._returns, self.problem = 0, ""

    def _change(self, handle: int, now: float) -> None:
        previous, self._last = self._last, handle
        if previous is None:
            return
        # While one writer is alone its time is not kept.
        self._heard[previous] = now
        if handle in self._heard:
            self._returns += 1
        if self._returns >= CONSECUTIVE and not self.problem:
            self.problem = (
                f"two programs or robots publish rt/lowstate at once: {self._describe(previous)}, and "
                f"{self._describe(handle)}; leave one of them on this network and DDS domain"
            )
