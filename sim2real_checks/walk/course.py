"""One run from a started graph to a robot that sits: the script, driving by hand, and every way to end early."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.operator import keyboard as teleop
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.ros import topics
from nfpo_deploy.supervisor import Supervisor
from nfpo_deploy.types import Mode
from sim2real_checks.walk.drive import Drive, StopRequestedError, WalkFailureError
from sim2real_checks.walk.operator import Operator
from sim2real_checks.walk.progress import Progress
from sim2real_checks.walk.run_log import RunLog
from sim2real_checks.walk.script import Segment


class StopSource(Protocol):
    """Where requests to end come from."""

    def take(self) -> bool:
        """Whether one came since the last call."""


def run_course(
    operator: Operator,
    supervisor: Supervisor,
    stops: StopSource,
    progress: Progress,
    script: tuple[Segment, ...],
    policy: OnnxPolicy,
    keep_running: bool,
) -> RunLog:
    """Drive the graph from start to sit; never raises for what the robot or the graph does, the log says it.

    Returns:
        What was seen while the script ran.
    """

    def check() -> None:
        if stops.take():
            raise StopRequestedError
        if not supervisor.check():
            raise WalkFailureError(f"the graph ended: {supervisor.reason}")

    drive, log = Drive(operator, progress, check), operator.log
    try:
        drive.wait_until_healthy()
        drive.stand_up()
        drive.start_walking()
        drive.walk(script)
        if keep_running:
            drive_by_hand(drive, policy.manifest.command_ranges)
    except StopRequestedError:
        log.interrupted = not log.driven_by_hand
        progress.done("asked to stop" + ("" if supervisor.reason else ": sitting down, once more stops at once"))
    except NfpoError as error:
        log.problems.append(str(error))
        progress.problem(str(error))
    if not supervisor.reason:
        _end(drive, log, supervisor)
    return log


def _end(drive: Drive, log: RunLog, supervisor: Supervisor) -> None:
    """Sit down where that is possible; the bridge damps the robot in any case when its process is stopped."""
    try:
        drive.sit_down()
        log.sit_ns, log.sat_down = log.sit_ns or drive.operator.log.sit_ns, drive.operator.log.sat_down
    except StopRequestedError:
        log.interrupted = log.interrupted or not log.driven_by_hand
        drive.progress.done("stopping at once: the robot is damped")
        supervisor.stop("asked to stop at once", at_once=True)
    except NfpoError as error:
        log.problems.append(str(error))
        drive.progress.problem(str(error))


def drive_by_hand(drive: Drive, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Obey the keyboard until a stop is requested; without a terminal, leave the robot standing for others to drive.

    Raises:
        StopRequestedError: always, in the end.
        NfpoError: the graph died.
    """
    operator = drive.operator
    script_log = operator.log
    script_log.driven_by_hand = True
    script_log.sit_ns = time.monotonic_ns()
    operator.watching = False
    # What happens from here on is the driver's business and no part of the verdict.
    operator.log = RunLog(modes=script_log.modes[-1:])
    if sys.stdin.isatty():
        drive.progress.done(f"your turn: {teleop.HELP}")
        try:
            with teleop.raw_keyboard():
                _obey_keyboard(drive, teleop.Teleop(ranges))
        except EOFError as error:
            raise StopRequestedError from error
    drive.command = None
    drive.insist(topics.SET_MODE, "ready")
    drive.progress.done(
        "no terminal: the robot stands. Call /nfpo/set_mode walk, publish /cmd_vel; Ctrl-C or SIGTERM sits it down"
    )
    while True:
        drive.step()


def _obey_keyboard(drive: Drive, keys: teleop.Teleop) -> None:
    while True:
        for key in teleop.pressed_keys():
            keys.press(key)
        drive.command = keys.command
        if keys.estop:
            keys.estop = False
            drive.call(topics.ESTOP)
        if keys.restart:
            keys.restart = False
            _stand_up_again(drive)
        drive.step()
        _show(drive, keys)


def _stand_up_again(drive: Drive) -> None:
    """From any mode back to WALK; a refusal is shown and leaves the robot as it is."""
    try:
        if drive.operator.mode is Mode.FAULT:
            drive.insist(topics.RESET)
            drive.wait_for_mode(Mode.DAMP)
        if drive.operator.mode is Mode.DAMP:
            drive.insist(topics.ARM)
            drive.stand_up()
        if drive.operator.mode is Mode.READY:
            drive.start_walking()
    except WalkFailureError as error:
        # Also a dead graph ends here; the next step raises it again.
        drive.progress.problem(str(error))


def _show(drive: Drive, keys: teleop.Teleop) -> None:
    operator = drive.operator
    if operator.mode is Mode.WALK:
        asked, actual = ("vx {:+.2f} vy {:+.2f} wz {:+.2f}".format(*v) for v in (keys.command, operator.velocity))
        drive.progress.status(f"asked {asked} (estimated {actual})")
    else:
        reason = operator.log.modes[-1].reason if operator.log.modes else ""
        drive.progress.status(f"{operator.mode.name if operator.mode else 'no mode'} ({reason}); r walks again")
