"""Unitree's motion switcher: which built-in controller runs, release it, select one.

Low-level commands must wait until no built-in controller is active, or two sources fight over the motors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.rpc import RpcClient

SERVICE = "motion_switcher"
CHECK_MODE = 1001
SELECT_MODE = 1002
RELEASE_MODE = 1003
_RELEASE_PERIOD_S = 0.2
_ATTEMPT_S = 2.0
_SHORTEST_ATTEMPT_S = 0.5
_UNKNOWN_MODE = 7004


class _UnknownModeError(TransportError):
    """Asking again will not help."""


class MotionSwitcherClient:
    """Client of the robot's motion switcher; all methods block up to `timeout_s` seconds.

    Every method raises TransportError: no answer in time, an error code, or a malformed answer.
    """

    def __init__(self, participant: DdsParticipant) -> None:
        self._rpc = RpcClient(participant, SERVICE)

    def check_mode(self, timeout_s: float) -> str:
        """Name of the active built-in controller, "" if none."""
        data = self._call(CHECK_MODE, {}, timeout_s)
        try:
            name = json.loads(data)["name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            name = None
        if not isinstance(name, str):
            raise TransportError(f"motion switcher answered {data[:200]!r}, expected JSON with a 'name'")
        return name

    def select_mode(self, name: str, timeout_s: float) -> None:
        """Start a built-in controller: "ai", "normal" or "advanced", as far as the robot has it."""
        self._call(SELECT_MODE, {"name": name}, timeout_s)

    def restore_mode(self, name: str, timeout_s: float) -> None:
        """Start the built-in controller `name` and confirm that it is active; asks again until it is.

        Raises TransportError: `name` is empty or unknown to the robot (at once), or it is not active in time.
        """
        if not name:
            raise TransportError('no built-in controller named to restore; release_mode returned "": none was active')
        deadline = time.monotonic() + timeout_s
        problem = ""
        # An attempt too short for an answer would only hide what the last one said.
        while (left := deadline - time.monotonic()) > (_SHORTEST_ATTEMPT_S if problem else 0.0):
            try:
                if self._select_and_check(name, min(left, _ATTEMPT_S)):
                    return
                problem = "it accepted the request and did not start it"
            except _UnknownModeError:
                raise
            except TransportError as error:
                problem = str(error)
            time.sleep(min(_RELEASE_PERIOD_S, max(0.0, deadline - time.monotonic())))
        raise TransportError(
            f"built-in controller {name!r} is not active {timeout_s} s after it was asked for: {problem}; select it "
            "with the app, or switch the robot off and on"
        )

    def _select_and_check(self, name: str, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        self.select_mode(name, timeout_s)
        return self.check_mode(max(_RELEASE_PERIOD_S, deadline - time.monotonic())) == name

    def release_mode(self, timeout_s: float, before: Callable[[str], None] = lambda name: None) -> str:
        """Release what is active, confirm it, and return the name of what was active ("" if nothing was).

        `before` is called with that name before the release, so that it can be remembered whatever happens next.
        """
        deadline = time.monotonic() + timeout_s
        active = first = self.check_mode(timeout_s)
        if first:
            before(first)
        while active:
            if time.monotonic() >= deadline - _RELEASE_PERIOD_S:
                raise TransportError(f"built-in controller {active!r} was not released within {timeout_s} s")
            self._call(RELEASE_MODE, {}, deadline - time.monotonic())
            active = self.check_mode(max(_RELEASE_PERIOD_S, deadline - time.monotonic()))
            if active:
                time.sleep(_RELEASE_PERIOD_S)
        return first

    def _call(self, api_id: int, parameter: dict, timeout_s: float) -> str:
        code, data = self._rpc.call(api_id, json.dumps(parameter), timeout_s)
        if code == _UNKNOWN_MODE:
            raise _UnknownModeError(f"this robot has no built-in controller {parameter} (code {code})")
        if code != 0:
            raise TransportError(f"motion switcher refused request {api_id} {parameter} with code {code}")
        return data
