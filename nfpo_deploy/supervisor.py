"""Run a graph as supervised processes: the launcher for places where `ros2 launch` is not installed.

`nfpo launch go2_walk sim:=true` takes the same arguments as `ros2 launch nfpo_deploy go2_walk.launch.py sim:=true`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from nfpo_deploy.graph import AT_ONCE, Graph, Process, build_graph
from nfpo_deploy.graph_arguments import GRAPHS, parse_arguments, show_arguments

POLL_S = 0.05
KILL_WAIT_S = 2.0
PR_SET_PDEATHSIG = 1
COLOURS = (36, 33, 35, 32, 34, 31)
USAGE = """usage: nfpo launch GRAPH [NAME:=VALUE ...]
       nfpo launch GRAPH --show-args

examples:
  nfpo launch go2_walk sim:=true                 a simulated Go2 on this computer
  nfpo launch go2_walk interface:=eth0           a real one behind eth0
  nfpo launch go2_walk sim:=true composed:=true  the four nodes in one process
  nfpo launch g1_walk sim:=true policy:=none     a simulated G1 in its gantry, without a policy

Ctrl-C stops everything: a healthy robot sits down first, any other is damped; Ctrl-C again damps at once.

graphs: """


class Supervisor:
    """Starts the processes of a graph, watches them, and stops them in the order that the graph gives.

    Attributes:
        reason: why the graph stopped; empty while it runs.
        exit_status: 0 after a requested stop, 1 when a process failed.
    """

    def __init__(self, graph: Graph, output: Callable[[str, str], None] | None = None) -> None:
        """Prepare; nothing starts yet.

        Args:
            graph: what to run.
            output: called with process name and line, from several threads; standard output by default.
        """
        self.graph = graph
        self.reason = ""
        self.exit_status = 0
        self._output = output or Printer([process.name for process in graph.processes])
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._stop_request = ""
        self._hurry = False
        self._missed: set[str] = set()

    def start(self) -> None:
        """Start all processes. They end with this process, whatever ends it.

        Raises:
            OSError: a process cannot be started; those that were are stopped again.
        """
        try:
            for process in self.graph.processes:
                self._spawn(process)
        except OSError:
            self.stop("a process could not be started", failed=True)
            raise

    def process_id(self, name: str) -> int:
        """Process id of a running or ended process; raises `KeyError`."""
        return self._children[name].pid

    def request_stop(self, reason: str) -> None:
        """Make `watch` stop everything; may be called from a signal handler or another thread."""
        self._stop_request = self._stop_request or reason

    def check(self) -> bool:
        """Look once at every process; stops everything when one has ended. Returns whether the graph still runs."""
        if self.reason:
            return False
        if self._stop_request:
            self.stop(self._stop_request)
            return False
        for process in self.graph.processes:
            status = self._children[process.name].poll()
            if status is not None and not process.vital:
                if process.name not in self._missed:
                    self._missed.add(process.name)
                    self._output("launch", f"{process.name} ended with {describe_status(status)}; the others go on")
            elif status is not None:
                failed = not (process.may_end and status == 0)
                self.stop(f"{process.name} ended with {describe_status(status)}", failed=failed)
                return False
        return True

    def watch(self) -> int:
        """Block until the graph has stopped; returns `exit_status`."""
        while self.check():
            time.sleep(POLL_S)
        return self.exit_status

    def stop(self, reason: str, failed: bool = False, at_once: bool = False) -> None:
        """Stop every process, rank by rank, so that the robot is down before those that watch it leave.

        Args:
            reason: why.
            failed: whether the exit status shall say so.
            at_once: damp the robot where it is, as `hurry` does; otherwise a healthy one sits down first.
        """
        if self.reason:
            return
        self.reason, self.exit_status = reason, int(failed)
        self._hurry = self._hurry or at_once
        self._output("launch", f"{'failure: ' if failed else ''}{reason}; stopping")
        started = [process for process in self.graph.processes if process.name in self._children]
        for rank in sorted({process.stop_rank for process in started}):
            self._stop_rank([process for process in started if process.stop_rank == rank])
        for reader in self._readers:
            reader.join(timeout=KILL_WAIT_S)
        self._output("launch", "all processes have ended")

    def hurry(self) -> None:
        """Do not wait until the robot sits: the bridge damps it at once. May be called from a signal handler."""
        self._hurry = True
        for process in self.graph.processes:
            child = self._children.get(process.name)
            if self.reason and child is not None and child.poll() is None:
                self._damp_at_once(process)

    def _damp_at_once(self, process: Process) -> None:
        # Only ROS nodes know this signal.
        if process.executable:
            self._children[process.name].send_signal(AT_ONCE)

    def _stop_rank(self, processes: list[Process]) -> None:
        for process in processes:
            child = self._children[process.name]
            if child.poll() is None:
                # Not SIGINT: a second one means "at once" to a node, and it may have had one from the terminal.
                child.send_signal(signal.SIGTERM)
                if self._hurry:
                    self._damp_at_once(process)
        # A child that was suspended would never see its signal.
        for process in processes:
            if self._children[process.name].poll() is None:
                self._children[process.name].send_signal(signal.SIGCONT)
        start = time.monotonic()
        for process in processes:
            child = self._children[process.name]
            try:
                child.wait(max(0.0, start + process.stop_timeout_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._output("launch", f"{process.name} did not stop within {process.stop_timeout_s:g} s: killed")
                self.exit_status = 1
                child.kill()
                child.wait()

    def _spawn(self, process: Process) -> None:
        environment = {**os.environ, **self.graph.environment}
        child = subprocess.Popen(
            process.command(sys.executable),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C must reach us alone: we decide who stops first.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._children[process.name] = child
        reader = threading.Thread(target=self._read, args=(process.name, child), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self._output(name, line.rstrip("\n"))


class Printer:
    """Prints lines with the name of their process, coloured on a terminal."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(len(name) for name in [*names, "launch"])
        colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)} if colourful else {}
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        label = f"[{name}]".ljust(self._width + 2)
        if name in self._colours:
            label = f"\033[{self._colours[name]}m{label}\033[0m"
        with self._lock:
            print(label, line, flush=True)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _end_with_parent() -> None:
    # SIGTERM and not SIGKILL: an orphaned bridge still damps the robot.
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_status(status: int) -> str:
    """Exit status of a process in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def launch_command(arguments: list[str]) -> int:
    """`nfpo launch`: exit status 0 after a requested stop, 1 when a process failed, 2 for wrong usage.

    Raises:
        NfpoError: an argument, the policy or the robot is refused; nothing was started.
    """
    usage = USAGE + ", ".join(GRAPHS)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return 0 if arguments else 2
    name, *words = arguments
    if name not in GRAPHS:
        print(f"nfpo launch: unknown graph {name!r}\n\n{usage}", file=sys.stderr)
        return 2
    if any(word in ("-s", "--show-args", "--show-arguments", "-h", "--help") for word in words):
        print(show_arguments(name))
        return 0
    supervisor = Supervisor(build_graph(name, parse_arguments(name, words)))

    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            supervisor.hurry()
        supervisor.request_stop(f"received {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    supervisor.start()
    return supervisor.watch()
