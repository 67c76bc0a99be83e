"""The control socket of a running simulator: faults are asked for in JSON, one datagram each.

Server, client (`SimControl`) and a command line:

    python -m sim2real_checks.robot_sim.control PATH freeze duration=0.5
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpo_deploy.errors import NfpoError
from sim2real_checks.robot_sim.faults import CLEAR, FAULTS, FaultError, describe_parameters

if TYPE_CHECKING:
    from sim2real_checks.robot_sim.injection import ActiveFault, FaultBoard

log = logging.getLogger("robot_sim")

MAX_DATAGRAM = 65536
_PER_POLL = 8
"""Requests answered in one period: whoever floods the socket must not stop the robot."""
_MAX_WAITING = 64


class ControlError(NfpoError):
    """A simulator could not be asked for a fault, or its control socket could not be opened."""


class ControlRefusedError(ControlError):
    """The simulator answered that it will not do that."""


class ControlTimeoutError(ControlError):
    """The simulator did not answer in time."""


class ControlServer:
    """Answers requests on a Unix datagram socket. Never blocks, and survives any datagram.

    Raises:
        ControlError: the path is in use, or cannot be made a socket.
    """

    def __init__(self, path: Path, board: FaultBoard) -> None:
        self.path = path
        self._board = board
        self._waiting: list[tuple[Any, Any, ActiveFault]] = []
        _remove_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(os.fsencode(path))
            path.chmod(0o600)
        except OSError as error:
            self._socket.close()
            raise ControlError(
                f"cannot open the control socket {path}: {error.strerror}; choose another path"
            ) from error

    def poll(self) -> None:
        """Carry out what was asked for since the last call; answer what has taken effect."""
        for _ in range(_PER_POLL):
            try:
                datagram, sender = self._socket.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                break
            except OSError as error:
                log.warning("control socket: %s", error)
                break
            self._handle(datagram, sender)
        if self._waiting:
            self._answer_waiting()

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _handle(self, datagram: bytes, sender: Any) -> None:
        request_id = None
        try:
            message = _decode(datagram)
            request_id = message.get("id") if isinstance(message, dict) else None
            active = self._board.request(message)
        except FaultError as error:
            self._send(sender, request_id, {"ok": False, "error": str(error)})
            return
        if active is None:
            now = {"applied_ns": time.monotonic_ns(), "sim_time": self._board.time}
            self._send(sender, request_id, {"ok": True, **now, "active": self._board.names})
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append((sender, request_id, active))

    def _answer_waiting(self) -> None:
        still = []
        for sender, request_id, active in self._waiting:
            if active.problem:
                self._send(sender, request_id, {"ok": False, "error": active.problem})
            elif active.applied_ns:
                taken = {"applied_ns": active.applied_ns, "sim_time": active.sim_time}
                self._send(sender, request_id, {"ok": True, **taken, "active": self._board.names})
            else:
                still.append((sender, request_id, active))
        self._waiting = still

    def _send(self, address: Any, request_id: Any, answer: dict) -> None:
        if not address:
            return
        if request_id is not None:
            answer["id"] = request_id
        try:
            self._socket.sendto(json.dumps(answer).encode(), address)
        except (OSError, ValueError, RecursionError) as error:
            # Nobody waits any more, or its buffer is full.
            log.debug("control socket: no answer to %r: %s", address, error)


class SimControl:
    """Asks a running simulator for faults.

    Args:
        path: its `--control` socket.
        timeout: s to wait for an answer.

    Raises:
        ControlError: a timeout that is not above zero, or no socket at `path`.
    """

    def __init__(self, path: str | Path, timeout: float = 2.0) -> None:
        if not 0 < timeout < float("inf"):
            raise ControlError(f"timeout must be above zero and finite, got {timeout!r}")
        self._path = os.fsencode(path)
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An empty name lets the kernel choose an abstract one (unix(7)), which leaves no file behind.
        self._socket.bind("")
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            raise ControlError(
                f"no simulator listens at {os.fsdecode(self._path)} ({error.strerror}); start robot_sim with "
                "--control and the same path"
            ) from error

    def send(self, fault: str, duration: float | None = None, **parameters: Any) -> int:
        """Ask for a fault and return when it took effect, ns of CLOCK_MONOTONIC; errors as `request`."""
        return int(self.request(fault, duration, **parameters)["applied_ns"])

    def clear(self) -> int:
        """End all faults; returns and errors as `send`."""
        return self.send(CLEAR)

    def request(self, fault: str, duration: float | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask for a fault and return the whole answer: `applied_ns`, `sim_time` (s) and `active` (names).

        Raises:
            ControlRefusedError: unknown fault, missing or bad parameter; the message names what is known.
            ControlTimeoutError: no answer in time.
            ControlError: the simulator is gone.
        """
        request_id = next(self._ids)
        message = {"fault": fault, **parameters, "id": request_id}
        if duration is not None:
            message["duration"] = duration
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.send(json.dumps(message).encode())
            answer = self._receive(request_id, deadline)
        except TimeoutError as error:
            raise ControlTimeoutError(f"robot_sim did not answer to {fault!r} within {self._timeout} s") from error
        except OSError as error:
            raise ControlError(f"robot_sim at {os.fsdecode(self._path)} is gone: {error.strerror}") from error
        if not answer.get("ok"):
            raise ControlRefusedError(str(answer.get("error")))
        return answer

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> SimControl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, request_id: int, deadline: float) -> dict[str, Any]:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            answer = json.loads(self._socket.recv(MAX_DATAGRAM))
            # An answer to a request that was given up may still come.
            if answer.get("id") == request_id:
                return answer


def _decode(datagram: bytes) -> Any:
    if len(datagram) > MAX_DATAGRAM:
        raise FaultError(f"a request has at most {MAX_DATAGRAM} bytes")
    try:
        return json.loads(datagram)
    except (ValueError, RecursionError) as error:
        raise FaultError(
            f"cannot read the request as JSON ({type(error).__name__}: {str(error)[:200]}); send an object such as "
            '{"fault": "freeze", "duration": 0.5}'
        ) from error


def _remove_stale(path: Path) -> None:
    """Remove the socket of a simulator that was killed; refuse any other file and a socket in use."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ControlError(f"cannot open the control socket {path}: {error.strerror}; choose another path") from error
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"control: {path} exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fsencode(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise ControlError(f"control: cannot use {path}: {error.strerror}; choose another path") from error
        else:
            raise ControlError(f"control: another program listens at {path}; choose another path")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def main(argv: list[str] | None = None) -> int:
    """Ask for one fault. Exit status: 0 when it took effect, 2 for a bad request or no simulator."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help") or len(words) < 2:
        print(_help())
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    path, fault, *parts = words
    try:
        parameters = dict(_parameter(part) for part in parts)
        with SimControl(path) as control:
            answer = control.request(fault, **parameters)
    except NfpoError as error:
        print(f"control: {error}", file=sys.stderr)
        return 2
    print(json.dumps({key: value for key, value in answer.items() if key != "id"}))
    return 0


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name in ("fault", "id"):
        raise ControlError(f"expected NAME=VALUE, such as duration=0.5, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _help() -> str:
    lines = [
        "usage: python -m sim2real_checks.robot_sim.control PATH FAULT [NAME=VALUE ...]",
        "",
        "Asks the simulator that was started with --control PATH for a fault, or `clear` to end all.",
        "",
        "Examples:",
        "  python -m sim2real_checks.robot_sim.control /tmp/sim freeze duration=0.5",
        "  python -m sim2real_checks.robot_sim.control /tmp/sim remote buttons=L2+B duration=1",
        "  python -m sim2real_checks.robot_sim.control /tmp/sim clear",
        "",
        "Faults:",
    ]
    for name, kind in FAULTS.items():
        lines += [f"  {name}: {kind.effect}", f"      {describe_parameters(name)}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
