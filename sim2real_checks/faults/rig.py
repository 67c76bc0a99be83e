"""A running graph that the campaign brings into a mode, breaks, and looks at."""

from __future__ import annotations

import io
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import Graph, build_graph
from nfpo_deploy.ros import topics
from nfpo_deploy.types import Mode
from sim2real_checks.faults.processes import LaunchedGraph, ProcessId, RigError
from sim2real_checks.faults.watch import Watcher
from sim2real_checks.robot_sim.recorder import RAW_SUFFIX, load_record
from sim2real_checks.walk.drive import Drive
from sim2real_checks.walk.operator import Operator
from sim2real_checks.walk.progress import Progress

GRAPH = "go2_walk"
RECORD_HZ = 1000
"""One row for each physics step: every LowCmd is seen."""
PHASES: dict[Mode, tuple[float, float]] = {
    Mode.DAMP: (0.2, 0.5), Mode.STAND: (0.3, 2.3), Mode.READY: (0.5, 1.2), Mode.WALK: (1.5, 2.5), Mode.SIT: (0.3, 2.2),
}  # fmt: skip
"""s after a mode began within which the fault comes."""
COURSES = ((0.6, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.8), (0.4, 0.0, 0.6), (-0.4, 0.0, 0.0))
"""Velocities vx, vy m/s, wz rad/s of the walks."""
RECOVER_S = 15.0


@dataclass(frozen=True)
class RigOptions:
    """How graphs are started."""

    domain_id: int
    ros_domain_id: int
    policy: str = "walk"


def graph_of(options: RigOptions, folder: Path | None) -> tuple[Graph, dict[str, str]]:
    """The graph of the campaign, and the launch arguments that it is made of; without a folder, nothing is recorded."""
    arguments = {
        "sim": "true", "policy": options.policy,
        "domain_id": str(options.domain_id), "ros_domain_id": str(options.ros_domain_id),
        "record": str(folder / "record.npz") if folder else "", "sim_options": f"--record-hz {RECORD_HZ}",
    }  # fmt: skip
    return build_graph(GRAPH, arguments), arguments


class Rig:
    """One graph from start to stop; a context manager.

    Attributes:
        folder: of the record and the nodes' log.
        operator: the ROS side.
        watcher: what watchdog and bridge said.
    """

    def __init__(self, options: RigOptions, folder: Path, check: Callable[[], None]) -> None:
        """Start a graph.

        Args:
            options: how.
            folder: for record and log.
            check: called at every step; raises to end the campaign.
        """
        self.folder = folder
        self.closed = False
        self._check = check
        self._expect_death = False
        graph, arguments = graph_of(options, folder)
        os.environ.update(graph.environment)
        self._scratch = tempfile.TemporaryDirectory(prefix="nfpo_faults_")
        self.operator = Operator(options.ros_domain_id)
        try:
            self.watcher = Watcher(self.operator.node)
            self._graph = LaunchedGraph(GRAPH, graph, arguments, folder / "graph.log", {})
        except BaseException:
            self.operator.close()
            self._scratch.cleanup()
            raise
        self.drive = Drive(self.operator, Progress(Console(file=io.StringIO())), self._check_all)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def processes(self) -> dict[str, ProcessId]:
        """By name."""
        return self._graph.processes

    @property
    def running(self) -> bool:
        """Whether the launcher still runs."""
        return self._graph.exit_status is None

    def _check_all(self) -> None:
        self.watcher.poll()
        self._check()
        if not self._expect_death and not self.running:
            raise RigError(f"the graph ended before the fault; see {self.folder / 'graph.log'}")

    def reach(self, mode: Mode, rng: random.Random) -> None:
        """Bring the robot from the floor into a mode, to a random moment of it.

        Raises:
            NfpoError: the graph did not do it.
        """
        drive = self.drive
        self._graph.wait_for_processes(self._check)
        drive.wait_until_healthy()
        if mode is Mode.STAND:
            drive.insist(topics.SET_MODE, "stand")
            drive.wait_for_mode(Mode.STAND)
        elif mode is not Mode.DAMP:
            drive.stand_up()
        if mode is Mode.WALK:
            drive.wait(0.5)
            drive.start_walking()
            drive.command = rng.choice(COURSES)
        elif mode is Mode.SIT:
            drive.insist(topics.SET_MODE, "sit")
            drive.wait_for_mode(Mode.SIT)
        drive.wait(rng.uniform(*PHASES[mode]))
        if drive.operator.mode is not mode:
            raise RigError(f"the mode is {drive.operator.mode} instead of {mode.name} before the fault")

    def observe(self, seconds: float) -> None:
        """Let time pass and look; the graph may die."""
        self._expect_death = True
        self.drive.wait(seconds)

    def recover(self) -> str:
        """Bring a graph that survived back to the floor, damped and well; returns what stands in the way, "" for well.

        A robot that stands sits down, a fault is reset, and arming must succeed again.
        """
        self._expect_death = False
        self.drive.command = None
        obstacle = ""
        deadline = time.monotonic() + RECOVER_S
        while time.monotonic() < deadline:
            # What was frozen a moment ago has to say first what it thinks now.
            self.drive.wait(0.5)
            try:
                obstacle = self._step_down()
            except NfpoError as error:
                obstacle = str(error)
            if not obstacle:
                return ""
            if not self.running:
                break
        return obstacle

    def _step_down(self) -> str:
        drive = self.drive
        if drive.operator.mode is Mode.FAULT:
            accepted, message = drive.call(topics.RESET)
            return "reset was just accepted" if accepted else message
        if drive.operator.mode is not Mode.DAMP:
            drive.sit_down()
        accepted, message = drive.call(topics.ARM)
        return "" if accepted else message

    def close(self) -> None:
        """Stop everything; calling it twice is harmless."""
        if self.closed:
            return
        self.closed = True
        self._graph.close()
        self.operator.close()
        self._scratch.cleanup()

    def record(self) -> dict[str, np.ndarray]:
        """The simulator's record of a closed rig, also of a simulator that was killed.

        Raises:
            OSError, ValueError: there is none.
        """
        path = self.folder / "record.npz"
        return load_record(path if path.exists() else path.with_name(path.name + RAW_SUFFIX))[0]
