"""A simulated robot and a running graph that the campaign brings into a mode, breaks, and looks at."""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import SIMULATOR, Graph, build_graph, resolve_policy
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.ros import topics
from nfpo_deploy.types import Mode
from robots.loader import load_robot
from sim2real_checks.faults.catalogue import ROBOT
from sim2real_checks.faults.detect import launcher_words
from sim2real_checks.faults.processes import Child, LaunchedGraph, ProcessId, RigError
from sim2real_checks.faults.rogue import Rogue
from sim2real_checks.faults.watch import Watcher
from sim2real_checks.robot_sim.control import ControlError, SimControl
from sim2real_checks.robot_sim.recorder import RAW_SUFFIX, load_record
from sim2real_checks.walk.drive import Drive
from sim2real_checks.walk.operator import Operator
from sim2real_checks.walk.progress import Progress

GRAPH, ROBOT_SPEC = "go2_walk", "go2"
SABOTEUR = Path(__file__).with_name("saboteur")
RECORD_HZ = 1000
"""One row for each physics step: every LowCmd is seen."""
PHASES: dict[Mode, tuple[float, float]] = {
    Mode.DAMP: (0.2, 0.5), Mode.STAND: (0.3, 2.3), Mode.READY: (0.5, 1.2), Mode.WALK: (1.5, 2.5), Mode.SIT: (0.3, 2.2),
}  # fmt: skip
"""s after a mode began within which the fault comes."""
COURSES = ((0.6, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.8), (0.4, 0.0, 0.6), (-0.4, 0.0, 0.0))
"""Velocities vx, vy m/s, wz rad/s of the walks."""
SLOW = (0.4, 0.0, 0.0)
"""Velocity at which a spoiled policy still does what it should."""
SETTLE_S = 0.4
"""READY until WALK: the policy's first commands have been seen."""
RECOVER_S = 15.0
ROBOT_START_S = 30.0
ROBOT_STOP_S = 30.0


@dataclass(frozen=True)
class RigOptions:
    """How robot and graph are started."""

    domain_id: int
    ros_domain_id: int
    policy: str = "walk"


def graph_of(
    options: RigOptions, policy: str = "", params_file: str = "", log_dir: str = ""
) -> tuple[Graph, dict[str, str]]:
    """The graph under test, which knows nothing of a simulator, and the launch arguments that it is made of."""
    arguments = {
        "interface": "lo", "policy": policy or options.policy, "params_file": params_file, "log_dir": log_dir,
        "domain_id": str(options.domain_id), "ros_domain_id": str(options.ros_domain_id),
    }  # fmt: skip
    return build_graph(GRAPH, arguments), arguments


def write_parameters(policy: str, path: Path) -> None:
    """Parameters with which the operator node lets through all that the policy was trained for."""
    spec = load_robot(ROBOT_SPEC)
    ranges = OnnxPolicy.load(resolve_policy(policy, spec), spec).manifest.command_ranges
    speeds = {
        "forward": ranges["vx"][1], "backward": -ranges["vx"][0], "sideways": ranges["vy"][1], "turn": ranges["wz"][1],
    }  # fmt: skip
    lines = [f"    {name}: {float(value)}" for name, value in speeds.items()]
    path.write_text("\n".join(["operator:", "  ros__parameters:", *lines]) + "\n")


def robot_command(options: RigOptions, folder: Path, control: Path) -> list[str]:
    """Command that starts the simulated robot with its record and control socket."""
    sim_options = f"--record-hz {RECORD_HZ} --control {control}"
    arguments = {
        "sim": "true", "policy": "none", "domain_id": str(options.domain_id),
        "ros_domain_id": str(options.ros_domain_id), "record": str(folder / "record.npz"), "sim_options": sim_options,
    }  # fmt: skip
    return build_graph(GRAPH, arguments).process(SIMULATOR).command(sys.executable)


class Rig:
    """One robot and one graph from start to stop; a context manager.

    Attributes:
        folder: of the record and the processes' log.
        operator: the ROS side.
        drive: asks the graph for modes and walks.
        watcher: what watchdog and bridge said.
        rogue: publishes what nobody should.
    """

    def __init__(
        self,
        options: RigOptions,
        folder: Path,
        check: Callable[[], None],
        policy: str = "",
        tapped: bool = False,
    ) -> None:
        """Start robot and graph.

        Args:
            options: how.
            folder: for record and log.
            check: called at every step; raises to end the campaign.
            policy: instead of the one in the options.
            tapped: also listen to LowCmds on the wire, into `tap.npz`.

        Raises:
            RigError: the robot does not start.
        """
        self.folder = folder
        self.options = options
        self.closed = False
        self._check = check
        self._expect_death = False
        self._scratch = tempfile.TemporaryDirectory(prefix="nfpo_faults_")
        scratch = Path(self._scratch.name)
        write_parameters(options.policy, scratch / "parameters.yaml")
        graph, arguments = graph_of(options, policy, str(scratch / "parameters.yaml"), str(scratch / "flight_log"))
        self.graph = graph
        os.environ.update(graph.environment)
        # The environment of everything that may be spoiled; this process's own stays clean.
        self._environment = {"PYTHONPATH": str(SABOTEUR), "NFPO_SABOTEUR": str(scratch)}
        log = folder / "graph.log"
        self._children: dict[str, Child] = {}
        self._control: SimControl | None = None
        self._graph: LaunchedGraph | None = None
        self.operator = Operator(options.ros_domain_id, topics.OPERATOR_INPUT + "autonomy")
        try:
            self.watcher, self.rogue = Watcher(self.operator.node), Rogue(self.operator.node)
            control = scratch / "control"
            self._children[ROBOT] = Child(robot_command(options, folder, control), self._environment, log)
            if tapped:
                command = [sys.executable, "-m", "sim2real_checks.faults.tap", "--out", str(folder / "tap.npz")]
                self._children["tap"] = Child([*command, "--domain-id", str(options.domain_id)], {}, log)
            self._wait_for_robot(control)
            self._graph = LaunchedGraph(GRAPH, graph, arguments, log, self._environment)
        except BaseException:
            self.close()
            raise
        self.drive = Drive(self.operator, Progress(Console(file=io.StringIO())), self._check_all)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _wait_for_robot(self, control: Path) -> None:
        robot, deadline = self._children[ROBOT], time.monotonic() + ROBOT_START_S
        while self._control is None:
            self._check()
            if robot.exit_status is not None or time.monotonic() > deadline:
                raise RigError(f"the simulated robot did not start; {self.folder / 'graph.log'} tells why")
            try:
                self._control = SimControl(control)
            except ControlError:
                time.sleep(0.05)

    @property
    def processes(self) -> dict[str, ProcessId]:
        """By name: the launcher, its children, and the robot."""
        own = self._graph.processes if self._graph is not None else {}
        return {**own, ROBOT: self._children[ROBOT].id}

    @property
    def robot(self) -> SimControl:
        """Takes faults of the simulated robot."""
        assert self._control is not None
        return self._control

    def saboteur(self, process: str) -> SimControl:
        """Takes faults of one process's interpreter; raises `ControlError` where there is none."""
        return SimControl(Path(self._scratch.name) / str(self.processes[process].pid))

    @property
    def running(self) -> bool:
        """Whether the launcher still runs."""
        return self._graph is not None and self._graph.exit_status is None

    def _check_all(self) -> None:
        self.watcher.poll()
        self.rogue.poll()
        self._check()
        if not self._expect_death and not self.running:
            log = self.folder / "graph.log"
            raise RigError(f"the graph ended before the fault ({launcher_words(log) or 'it says not why'}); see {log}")

    def reach(self, mode: Mode, rng: random.Random, slow: bool = False) -> None:
        """Bring the robot from the floor into a mode, to a random moment of it.

        Args:
            mode: which.
            rng: chooses the moment and, in WALK, the velocity.
            slow: walk slowly.

        Raises:
            NfpoError: the graph did not do it.
        """
        drive = self.drive
        assert self._graph is not None
        self._expect_death = False
        self._graph.wait_for_processes(self._check)
        drive.wait_until_healthy()
        if mode is Mode.STAND:
            drive.insist(topics.SET_MODE, "stand")
            drive.wait_for_mode(Mode.STAND)
        elif mode is not Mode.DAMP:
            drive.stand_up()
        course = rng.choice(COURSES)
        if mode is Mode.WALK:
            drive.wait(SETTLE_S)
            drive.start_walking()
            drive.command = SLOW if slow else course
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
            try:
                # What was frozen a moment ago has to say first what it thinks now.
                self.drive.wait(0.5)
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
        if self._graph is not None:
            self._graph.close()
        if self._control is not None:
            self._control.close()
        for child in self._children.values():
            child.stop(ROBOT_STOP_S)
        self.operator.close()
        self._scratch.cleanup()

    def record(self) -> dict[str, np.ndarray]:
        """The simulator's record of a closed rig, also of a simulator that was killed.

        Raises:
            OSError, ValueError: there is none.
        """
        path = self.folder / "record.npz"
        return load_record(path if path.exists() else path.with_name(path.name + RAW_SUFFIX))[0]
