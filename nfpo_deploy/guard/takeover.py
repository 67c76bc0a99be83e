"""When a guard steps in, what it sends, and when it steps back. Pure: no clock, no wire."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.types import MotorCommand
from robots.loader import RobotSpec

RANKS = (0, 1)
RANK_DELAY_S = 0.02
"""Each rank waits this much longer than the one before it: two guards never start in the same moment."""
ZERO_TORQUE_S = 0.2
"""Zero torque is repeated for this long at the end; then the guard falls silent."""


@dataclass(frozen=True)
class Heard:
    """A LowCmd seen on the wire."""

    command: MotorCommand
    guard_rank: int | None = None
    """Rank of the guard that sent it, None for the bridge."""


class Takeover:
    """One guard's decisions, one `step` for each poll of the wire.

    Silence is counted in polls that found nothing, not read off a clock: a guard that was suspended itself finds the
    bridge's commands waiting when it comes back, and does not take its own absence for the bridge's.

    Attributes:
        active: whether it is commanding the motors.
        armed: whether there is something to guard: the last command seen was not limp.
        takeovers: how often it stepped in.
    """

    def __init__(self, spec: RobotSpec, rank: int, poll_period_s: float) -> None:
        """Prepare.

        Args:
            spec: the robot; `safety.guard_timeout` and the damping ramp are used.
            rank: 0 acts first, 1 only when 0 does not.
            poll_period_s: time between two steps while watching, s.

        Raises:
            SafetyError: unknown rank, or a period that is not above zero or longer than half of the time-out.
        """
        if rank not in RANKS:
            raise SafetyError(f"guard rank must be one of {RANKS}, got {rank!r}")
        timeout = spec.safety.guard_timeout + rank * RANK_DELAY_S
        if not 0.0 < poll_period_s <= timeout / 2:
            raise SafetyError(
                f"guard poll period must be above zero and at most {timeout / 2:g} s, got {poll_period_s}"
            )
        self._rank = rank
        self._empty_polls_allowed = math.floor(timeout / poll_period_s + 1e-9)
        self._ramp_s = spec.safety.damp_ramp
        self._end_s = spec.safety.damp_ramp + spec.safety.damp_duration
        self._damping = spec.damp_gains.damping
        self._stiffness = spec.damp_gains.stiffness
        self._zero = np.zeros(spec.num_joints)
        self._last: MotorCommand | None = None
        self._empty_polls = 0
        self._start_ns = 0
        self.active = False
        self.takeovers = 0

    @property
    def armed(self) -> bool:
        return self._last is not None and not is_limp(self._last)

    def dismiss(self) -> bool:
        """The bridge says that it has finished; believed only when its last command holds nothing up."""
        if self.active or (self._last is not None and not is_passive(self._last)):
            return False
        self._last = None
        return True

    def step(self, now_ns: int, heard: list[Heard]) -> MotorCommand | None:
        """Take what was heard since the last step, oldest first; returns what to send, None for nothing.

        Args:
            now_ns: CLOCK_MONOTONIC ns.
            heard: LowCmds of the bridge and of other guards; never this guard's own, nor foreign ones.
        """
        # A guard of higher rank only fills in for us: it is no reason to step back.
        relevant = [item for item in heard if item.guard_rank is None or item.guard_rank < self._rank]
        if relevant:
            self._last = relevant[-1].command
            self._empty_polls = 0
            self.active = False
            return None
        if self.active:
            return self._command(now_ns)
        if not self.armed:
            return None
        self._empty_polls += 1
        if self._empty_polls <= self._empty_polls_allowed:
            return None
        self.active, self._start_ns = True, now_ns
        self.takeovers += 1
        return self._command(now_ns)

    def _command(self, now_ns: int) -> MotorCommand | None:
        """Stiffness and feed-forward fade over `damp_ramp`, damping follows, zero torque ends it."""
        elapsed = (now_ns - self._start_ns) * 1e-9
        last = self._last
        assert last is not None
        if elapsed >= self._end_s + ZERO_TORQUE_S:
            self.active, self._last = False, None
            return None
        if elapsed >= self._end_s:
            return MotorCommand(last.q, self._zero, self._zero, self._zero, self._zero)
        part = min(1.0, max(0.0, elapsed / self._ramp_s))
        keep = 1.0 - part
        return MotorCommand(
            q=last.q,
            dq=last.dq * keep,
            stiffness=last.stiffness * keep + self._stiffness * part,
            damping=last.damping * keep + self._damping * part,
            tau=last.tau * keep,
        )


def is_passive(command: MotorCommand) -> bool:
    """Whether a command holds nothing up: no stiffness, no feed-forward, no target speed."""
    return not (command.stiffness.any() or command.tau.any() or command.dq.any())


def is_limp(command: MotorCommand) -> bool:
    """Whether a command makes no torque at all."""
    return is_passive(command) and not command.damping.any()
