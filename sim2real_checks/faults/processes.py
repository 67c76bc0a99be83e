"""A graph started by `nfpo launch`, as a user starts it, the robot beside it, and all their processes by name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import Graph

LAUNCHER = "launcher"
"""Name of `nfpo launch` itself among the processes."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.05
AT_ONCE_S = 0.2
"""Between two Ctrl-C, of which the second means: at once."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class RigError(NfpoError):
    """The graph did not start, or not do what it was asked to before the fault."""


@dataclass(frozen=True)
class ProcessId:
    """A process; `started` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and fields[19] == self.started and fields[0] not in ("Z", "X")

    def send(self, number: int) -> None:
        """Send a signal; one that has gone gets none."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Child:
    """A process of our own, with its output in a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("a") as file:
            self._popen = subprocess.Popen(
                list(command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C must reach us alone: everything is stopped in order, and frozen processes are woken first.
                start_new_session=True,
                preexec_fn=_prepare_child,
            )
        self.id = process_id(self._popen.pid)

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def stop(self, timeout_s: float) -> None:
        """Wake it, ask it to end, kill it after a while."""
        self.id.send(signal.SIGCONT)
        self.id.send(signal.SIGINT)
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class LaunchedGraph:
    """`nfpo launch` with its children. Create it to start, `close` it in the end.

    Attributes:
        processes: by the names that the graph gives them, and `LAUNCHER`.
    """

    def __init__(
        self, name: str, graph: Graph, arguments: Mapping[str, str], log: Path, environment: Mapping[str, str]
    ) -> None:
        """Start the launcher; `wait_for_processes` waits for its children.

        Args:
            name: of the graph.
            graph: what `build_graph` makes of the arguments.
            arguments: of the launch.
            log: file for the output of all processes.
            environment: added to this process's own.
        """
        words = [f"{key}:={value}" for key, value in arguments.items()]
        self._graph = graph
        self._log = log
        self._launcher = Child([sys.executable, "-m", "nfpo_deploy.cli", "launch", name, *words], environment, log)
        self.processes = {LAUNCHER: self._launcher.id}

    def wait_for_processes(self, check: Callable[[], None]) -> None:
        """Wait until every process of the graph runs.

        Raises:
            RigError: the launcher ended or took too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing := [process for process in self._graph.processes if process.name not in self.processes]:
            check()
            if self.exit_status is not None:
                raise RigError(f"nfpo launch ended with exit status {self.exit_status}; {self._log} tells why")
            if time.monotonic() > deadline:
                raise RigError(f"{missing[0].name} did not start within {START_TIMEOUT_S:g} s; see {self._log}")
            commands = {tuple(process.command(sys.executable)): process.name for process in missing}
            for pid in _children(self._launcher.id.pid):
                if (name := commands.get(_command_line(pid))) is not None:
                    self.processes[name] = process_id(pid)
            time.sleep(POLL_S)

    @property
    def exit_status(self) -> int | None:
        """Of the launcher; None while it runs."""
        return self._launcher.exit_status

    def close(self, sit_down: bool = False) -> None:
        """Stop everything in order; what does not stop is killed. Nothing is left.

        Args:
            sit_down: let a healthy robot sit down first; otherwise it is damped where it stands.
        """
        for process in self.processes.values():
            process.send(signal.SIGCONT)
        if not sit_down:
            self._launcher.id.send(signal.SIGINT)
            time.sleep(AT_ONCE_S)
        self._launcher.stop(STOP_TIMEOUT_S)
        # A killed launcher's orphans were told to end by the kernel; the bridge takes its time to sit down.
        deadline = time.monotonic() + STOP_TIMEOUT_S / 2
        while any(process.alive for process in self.processes.values()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for process in self.processes.values():
            process.send(signal.SIGKILL)


def _prepare_child() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Crashes are part of the campaign; their memory on disk is not.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def process_id(pid: int) -> ProcessId:
    """Id of a process that runs now."""
    fields = _stat(pid)
    return ProcessId(pid, fields[19] if fields else "")


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third (state) on; None when the process has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the program's name in parentheses, may hold anything.
    return text.rpartition(")")[2].split()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None and int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
    except OSError:
        return ()
