"""The course of a walk, over ROS alone: wait for a healthy graph, stand up, walk the script, sit down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.ros import topics
from nfpo_deploy.ros.loop import RateLoop
from nfpo_deploy.types import Mode
from sim2real_checks.walk.operator import Operator, ServiceTimeoutError
from sim2real_checks.walk.progress import Progress
from sim2real_checks.walk.run_log import SegmentRun
from sim2real_checks.walk.script import Segment

POLL_HZ = 60.0
COMMAND_EVERY = 3
"""/cmd_vel goes out at 20 Hz."""
START_TIMEOUT_S = 60.0
"""On a busy computer the interpreters alone take several seconds."""
MODE_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 5.0
RETRY_S = 0.3
PERMIT_LOST_S = 1.0


class WalkFailureError(NfpoError):
    """The robot or the graph did not do what the operator asked for."""


class StopRequestedError(Exception):
    """Somebody asked the command to end."""


@dataclass
class Drive:
    """Drives one graph.

    Attributes:
        operator: the ROS side.
        progress: where the user sees what happens.
        check: called at every step; raises to end the drive (a process died, a signal came).
    """

    operator: Operator
    progress: Progress
    check: Callable[[], None]

    def __post_init__(self) -> None:
        self._loop = RateLoop(POLL_HZ)
        self._count = 0
        self.command: tuple[float, float, float] | None = None
        """Velocity that is published; None publishes nothing."""

    # One step.

    def step(self) -> None:
        """Wait for the next cycle, see what arrived, say the velocity."""
        self._loop.wait()
        self.operator.poll()
        self.check()
        self._count += 1
        if self.command is not None and self._count % COMMAND_EVERY == 0:
            self.operator.publish_velocity(*self.command)

    def call(self, service: str, mode: str = "") -> tuple[bool, str]:
        """Call a service while the loop goes on.

        Raises:
            ServiceTimeoutError: no answer.
        """
        pending = self.operator.start_call(service, mode)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (answer := self.operator.answer(pending)) is None:
            if time.monotonic() > deadline:
                raise ServiceTimeoutError(f"{service} did not answer within {ANSWER_TIMEOUT_S:g} s")
            self.step()
        return answer

    def insist(self, service: str, mode: str = "", timeout_s: float = MODE_TIMEOUT_S) -> str:
        """Call a service until it accepts.

        Raises:
            WalkFailureError: still refused after the timeout; names what the watchdog misses.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            accepted, message = self.call(service, mode)
            if accepted:
                return message
            if time.monotonic() > deadline or self.operator.mode is Mode.FAULT:
                raise WalkFailureError(f"{mode or service.rpartition('/')[2]}: {message}")
            self.progress.status(f"waiting: {shortened(message)}")
            self.wait(RETRY_S)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def wait_for_mode(self, *modes: Mode, timeout_s: float = MODE_TIMEOUT_S) -> Mode:
        """Wait until the watchdog grants one of the modes.

        Raises:
            WalkFailureError: a fault, or none of them in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.operator.mode not in modes:
            self._refuse_fault()
            if time.monotonic() > deadline:
                wanted = " or ".join(mode.name for mode in modes)
                raise WalkFailureError(f"no {wanted} within {timeout_s:g} s; the mode is {self._mode_text()}")
            self.step()
        mode = self.operator.mode
        assert mode is not None
        return mode

    # The course.

    def wait_until_healthy(self) -> None:
        """Wait for the watchdog's permits and arm, which it refuses until every stream is there and sound.

        Raises:
            WalkFailureError: the graph is not healthy within `START_TIMEOUT_S`; says what is missing.
        """
        self.progress.status("waiting for the nodes")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.operator.permit_ns and self.operator.service_ready(topics.ARM)):
            if time.monotonic() > deadline:
                raise WalkFailureError(
                    f"no permit of the watchdog within {START_TIMEOUT_S:g} s; nodes seen: "
                    f"{', '.join(sorted(self.operator.nodes())) or 'none'}"
                )
            self.step()
        self.insist(topics.ARM, timeout_s=max(1.0, deadline - time.monotonic()))
        self.progress.done("all nodes healthy, armed")

    def stand_up(self) -> None:
        """From the floor to READY."""
        self.progress.status("standing up")
        start = time.monotonic()
        self.insist(topics.SET_MODE, "stand")
        self.wait_for_mode(Mode.READY)
        self.operator.log.stood_ns = time.monotonic_ns()
        self.progress.done(f"stood up in {time.monotonic() - start:.1f} s")

    def start_walking(self) -> None:
        """From READY to WALK, standing still."""
        self.progress.status("handing over to the policy")
        self.command = (0.0, 0.0, 0.0)
        self.insist(topics.SET_MODE, "walk")
        self.wait_for_mode(Mode.WALK)
        self.operator.watching = True

    def walk(self, script: tuple[Segment, ...]) -> None:
        """Drive the segments one after the other.

        Raises:
            WalkFailureError: the watchdog ended the walk.
        """
        for segment in script:
            self._walk_segment(segment)

    def _walk_segment(self, segment: Segment) -> None:
        self.command = (segment.vx, segment.vy, segment.wz)
        self.operator.publish_velocity(*self.command)
        start_ns = time.monotonic_ns()
        end_ns = start_ns + round(segment.duration * 1e9)
        sums, samples = [0.0, 0.0, 0.0], 0
        while (now_ns := time.monotonic_ns()) < end_ns:
            self.step()
            self.require_walking()
            if now_ns - start_ns > 0.5e9:
                samples += 1
                sums = [total + value for total, value in zip(sums, self.operator.velocity, strict=True)]
            self.progress.status(f"{segment} ({measured(self.operator.velocity, segment)})")
        self.operator.log.segments.append(SegmentRun(segment, start_ns, time.monotonic_ns()))
        mean = tuple(total / max(samples, 1) for total in sums)
        self.progress.done(f"{segment} for {segment.duration:g} s ({measured(mean, segment)})")

    def require_walking(self) -> None:
        """Raise `WalkFailureError` when the watchdog has ended the walk."""
        self._refuse_fault()
        if self.operator.mode is not Mode.WALK:
            raise WalkFailureError(f"the watchdog ended the walk: {self._mode_text()}")
        if time.monotonic_ns() - self.operator.permit_ns > PERMIT_LOST_S * 1e9:
            raise WalkFailureError(f"no permit of the watchdog for {PERMIT_LOST_S:g} s")

    def sit_down(self) -> None:
        """Sit from wherever the robot is, and wait for DAMP.

        Raises:
            WalkFailureError: a fault or no end in time.
        """
        operator = self.operator
        operator.log.sit_ns = operator.log.sit_ns or time.monotonic_ns()
        operator.watching = False
        self.command = None
        if operator.mode in (None, Mode.DAMP, Mode.FAULT):
            return
        self.progress.status("sitting down")
        self.insist(topics.SET_MODE, "sit")
        self.wait_for_mode(Mode.DAMP)
        operator.log.sat_down = operator.log.modes[-1].reason == "sit reached"
        self.insist(topics.SET_MODE, "damp")
        self.progress.done("sat down, motors damped")

    def _refuse_fault(self) -> None:
        if self.operator.mode is Mode.FAULT:
            # The analysis lists the fault itself, from the log.
            raise WalkFailureError(f"stopped in {self._mode_text()}")

    def _mode_text(self) -> str:
        if not self.operator.log.modes:
            return "unknown"
        change = self.operator.log.modes[-1]
        return f"{change.mode.name} ({change.reason})"


def shortened(refusal: str) -> str:
    """First cause of a refusal, and how many more there are."""
    first, *others = refusal.split("; ")
    return f"{first}; {len(others)} more" if others else first


def measured(velocity: tuple[float, ...], segment: Segment) -> str:
    """Estimated velocity in the axes that the segment asks for."""
    units = (("vx", segment.vx, "m/s"), ("vy", segment.vy, "m/s"), ("wz", segment.wz, "rad/s"))
    texts = [f"{name} {velocity[i]:+.2f} {unit}" for i, (name, asked, unit) in enumerate(units) if asked]
    return "estimated " + (", ".join(texts) or f"speed {(velocity[0] ** 2 + velocity[1] ** 2) ** 0.5:.2f} m/s")
