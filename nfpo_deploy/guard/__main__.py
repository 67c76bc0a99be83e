"""Command line of a guard: `python -m nfpo_deploy.guard --interface eth0`. A launch starts two of them."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import time
from types import FrameType

# Numerical libraries' threads would only be more to schedule.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from nfpo_deploy.errors import NfpoError, TransportError  # noqa: E402
from nfpo_deploy.guard.link import (  # noqa: E402
    BRIDGE_ROLE,
    HEARTBEAT_HZ,
    Mailbox,
    Report,
    encode_report,
    guard_role,
    is_dismissal,
)
from nfpo_deploy.guard.takeover import RANKS, Takeover  # noqa: E402
from nfpo_deploy.guard.wire import GuardWire  # noqa: E402
from nfpo_deploy.realtime import adopt_priority, take_core  # noqa: E402
from robots.loader import RobotSpecError, load_robot  # noqa: E402

WATCH_PERIOD_S = 0.005
COMMAND_PERIOD_S = 0.002
EXAMPLES = """examples:
  python -m nfpo_deploy.guard --interface eth0            the first guard of a robot on eth0
  python -m nfpo_deploy.guard --interface eth0 --rank 1   the second

It stays until nothing is left to guard, also after SIGINT, SIGTERM and SIGHUP."""


class Guard:
    """Polls the wire, steps in when it must, reports to the bridge."""

    def __init__(self, robot: str, interface: str, domain_id: int, rank: int) -> None:
        spec = load_robot(robot)
        self._rank = rank
        self._mailbox = Mailbox(guard_role(rank), interface, domain_id)
        self._wire = GuardWire(spec, interface, domain_id, rank)
        self._takeover = Takeover(spec, rank, WATCH_PERIOD_S)
        self._next_report = 0.0
        self._was_active = False
        self.ending = ""
        """Why it was asked to end; empty while it was not."""

    def run(self) -> None:
        """Guard until asked to end and nothing is left to guard."""
        gc.collect()
        gc.freeze()
        gc.disable()
        deadline = time.monotonic()
        while not self.ending or self._takeover.armed:
            self._cycle()
            deadline += COMMAND_PERIOD_S if self._takeover.active else WATCH_PERIOD_S
            pause = deadline - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            else:
                # Late: the grid moves. A burst of polls would count as long silence.
                deadline -= pause
        self._wire.close()

    def _cycle(self) -> None:
        now = time.monotonic()
        for data in self._mailbox.receive():
            if is_dismissal(data):
                self._takeover.dismiss()
        try:
            command = self._takeover.step(time.monotonic_ns(), self._wire.heard())
            if command is not None:
                self._wire.write(command)
        except TransportError as error:
            # Nothing is better than trying again: the network may come back.
            say(f"{error}")
        if self._takeover.active != self._was_active:
            self._was_active = self._takeover.active
            self._next_report = 0.0
            say("the bridge fell silent: damping the robot" if self._was_active else "stepped back")
        if now >= self._next_report:
            self._next_report = now + 1.0 / HEARTBEAT_HZ
            report = Report(self._rank, self._takeover.active, os.getpid())
            self._mailbox.send(BRIDGE_ROLE, encode_report(report))


def say(text: str) -> None:
    """Print; a terminal that has gone must not stop a guard."""
    with contextlib.suppress(OSError, ValueError):
        print(text, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 after an orderly end, 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m nfpo_deploy.guard",
        description="Damps the robot when the bridge is dead or hung. Needs no ROS.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--robot", default="go2", help="robot folder under robots/ (default: go2)")
    parser.add_argument("--interface", default="lo", help="network interface wired to the robot (default: lo)")
    parser.add_argument("--domain-id", type=int, default=0, help="DDS domain of the robot (default: 0)")
    parser.add_argument("--rank", type=int, default=0, choices=RANKS, help="0 acts first, 1 when 0 does not")
    arguments = parser.parse_args(argv)
    take_core(guard_role(arguments.rank))
    try:
        guard = Guard(arguments.robot, arguments.interface, arguments.domain_id, arguments.rank)
    except (NfpoError, RobotSpecError) as error:
        print(f"{guard_role(arguments.rank)}: {error}", file=sys.stderr, flush=True)
        return 1

    def end(number: int, frame: FrameType | None) -> None:
        guard.ending = signal.Signals(number).name

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # Above the bridge: whoever decides that it is silent must not be the one that waits.
    scheduling = adopt_priority(lower_by=-2)
    say(f"watching rt/lowcmd on {arguments.interface}, domain {arguments.domain_id}. {scheduling}")
    guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
