"""The node graph of a launch as plain data: arguments, processes, parameters, and what ends what.

Two programs turn it into running processes: `robot_walk.launch.py` for the real `ros2 launch`, and
`nfpo_deploy.supervisor` where only the ROS wheels exist. Neither decides anything by itself.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfpo_deploy import realtime
from nfpo_deploy.contract.params_file import check_params_file
from nfpo_deploy.errors import GraphError, PolicyError, SafetyError
from nfpo_deploy.flight_log.folder import check_folder, default_folder
from nfpo_deploy.graph_arguments import GRAPHS, check_names
from nfpo_deploy.operator.arbitration import parse_sources
from nfpo_deploy.ros.profiles import discovery_environment
from robots.loader import RobotSpec, load_robot

PACKAGE = "nfpo_deploy"
NODES = ("sdk_bridge", "state_estimator", "policy_inference", "safety_watchdog")
ROS_NODES = (*NODES, "flight_recorder", "operator", "web")
GUARDS = ("guard", "guard_backup")
SIMULATOR = "robot_sim"
NO_POLICY = NOBODY = "none"
LOOPBACK = "lo"
MAX_DOMAIN_ID = 232
AT_ONCE = signal.SIGUSR1
"""Tells a node to end without the slow way down; the same as a second SIGINT."""
# A bridge that is asked to end sits the robot down and damps it: about six seconds for a Go2.
BRIDGE_STOP_TIMEOUT_S = 12.0
# What it may take besides to start the built-in controller again.
RELEASE_TIMEOUT_S = 15.0
# Longer than the bridge's: asked together, as by `ros2 launch`, a node must not be killed before the robot is down.
NODE_STOP_TIMEOUT_S = 12.0
# After the bridge's death a guard damps for as long as the gate would.
GUARD_STOP_TIMEOUT_S = 20.0
# It records until the robot is down, and closes its files.
RECORDER_STOP_TIMEOUT_S = 25.0
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
AUTO = "auto"
FEW_CORES = 2
"""From so few on, real-time processes that gather on one core by chance fill it."""


@dataclass(frozen=True)
class Process:
    """One process of the graph."""

    name: str
    module: str
    """Python module, run as `python -m`."""
    executable: str = ""
    """Executable of the ROS package; empty for a process that is no ROS node."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of each ROS node in the process."""
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    params_file: str = ""
    log_level: str = "info"
    may_end: bool = False
    """Whether exit status 0 is an orderly end of the whole graph; any other exit is always a failure of it."""
    vital: bool = True
    """Whether the graph ends with the process; without it, the others go on."""
    stop_rank: int = 1
    """Lower ranks are stopped first, and have gone before the next rank is asked to."""
    stop_timeout_s: float = 5.0

    def ros_arguments(self) -> list[str]:
        """Command-line arguments after `--ros-args`; empty for a process that is no ROS node."""
        if not self.executable:
            return []
        arguments = ["--log-level", self.log_level]
        if self.params_file:
            arguments += ["--params-file", self.params_file]
        for node, parameters in self.parameters.items():
            for name, value in parameters.items():
                arguments += ["-p", f"{node}:{name}:={_yaml(value)}"]
        for source, target in self.remappings:
            arguments += ["-r", f"{source}:={target}"]
        return arguments

    def command(self, python: str) -> list[str]:
        """Command that runs the process with the interpreter `python`."""
        ros = self.ros_arguments()
        return [python, "-m", self.module, *self.arguments, *(["--ros-args", *ros] if ros else [])]


@dataclass(frozen=True)
class Graph:
    """Processes in the order in which they start, and the environment that all of them share."""

    name: str
    processes: tuple[Process, ...]
    environment: Mapping[str, str]

    def process(self, name: str) -> Process:
        """Process by name; raises `KeyError`."""
        return {process.name: process for process in self.processes}[name]


def build_graph(graph: str, given: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Graph:
    """Describe the processes of a launch; nothing is started, but what can be wrong is found here.

    Args:
        graph: name of the graph: of the robot's folder and `_walk`, as `go2_walk`.
        given: values of launch arguments; those that are missing have their defaults.
        environment: environment of the caller, `os.environ` where left out.

    Raises:
        GraphError: an argument with a bad value, or a combination that would be dangerous.
        PolicyError: the policy file does not exist or does not fit the robot.
        RobotSpecError: unknown robot.
    """
    if graph not in GRAPHS:
        raise GraphError(f"unknown graph {graph!r}; known: {', '.join(GRAPHS)}")
    check_names(graph, given)
    values = {argument.name: argument.default for argument in GRAPHS[graph]} | dict(given)
    sim = _boolean(values, "sim")
    spec = load_robot(values["robot"])
    domain_id, ros_domain_id = _domain(values, "domain_id"), _domain(values, "ros_domain_id")
    if domain_id == ros_domain_id:
        raise GraphError(
            f"ros_domain_id and domain_id are both {domain_id}: ROS 2 on the robot's DDS domain can crash the robot's "
            "own software; choose another ros_domain_id"
        )
    interface = _interface(values["interface"], sim)
    policy = _policy(values["policy"], spec)
    processes = [
        *_recorder(values, interface, domain_id, policy),
        *guard_processes(values["robot"], interface, domain_id),
        *_node_processes(values, interface, domain_id, policy),
        *_operators(values),
    ]
    if sim:
        processes.insert(0, _simulator(values, interface, domain_id))
    else:
        _refuse_simulator_options(values)
    shared = _environment(ros_domain_id, os.environ if environment is None else environment)
    shared[realtime.VARIABLE] = str(_integer(values, "realtime_priority", 0, realtime.MAX_PRIORITY))
    shared[realtime.SPREAD_VARIABLE] = str(int(_spread(values)))
    return Graph(graph, tuple(processes), shared)


def resolve_policy(value: str, spec: RobotSpec) -> Path:
    """Path of a policy: a file, or the name of a folder under `robots/<robot>/policies/`.

    Raises:
        PolicyError: no such file or name; lists the robot's policies.
    """
    named = Path(value).name == value and not value.endswith(".onnx")
    path = spec.folder / "policies" / value / "policy.onnx" if named else Path(value).expanduser().absolute()
    try:
        there = path.is_file()
    except OSError as error:
        raise PolicyError(f"no policy {value[:80]!r}: {error.strerror}") from error
    if not there:
        found = sorted(p.parent.name for p in (spec.folder / "policies").glob("*/policy.onnx"))
        raise PolicyError(
            f"no policy at {path}; policies of {spec.name}: {', '.join(found) or 'none'}; "
            "give one of them or the path of an .onnx file"
        )
    return path


def _policy(value: str, spec: RobotSpec) -> Path | None:
    if value == NO_POLICY:
        return None
    path = resolve_policy(value, spec)
    # Here and not only in the node: a policy that does not fit must be refused before anything touches a robot.
    from nfpo_deploy.policy.onnx_policy import OnnxPolicy

    OnnxPolicy.load(path, spec)
    return path


def _node_processes(values: Mapping[str, str], interface: str, domain_id: int, policy: Path | None) -> list[Process]:
    robot = values["robot"]
    bridge = {
        "robot": robot,
        "interface": interface,
        "domain_id": domain_id,
        "release_mode": _boolean(values, "release_mode"),
        "release_timeout_s": RELEASE_TIMEOUT_S,
        "restore_mode": _boolean(values, "restore_mode"),
        "policy": str(policy or NO_POLICY),
        # No robot is wired to the loopback interface.
        "simulated": interface == LOOPBACK,
        "clearance_override": values["clearance_override"],
    }
    parameters: dict[str, dict[str, Any]] = {
        "safety_watchdog": {"robot": robot},
        "state_estimator": {"robot": robot},
        "policy_inference": {"robot": robot, "policy": str(policy)},
        "sdk_bridge": bridge,
    }
    if policy is None:
        del parameters["policy_inference"]
    common = _common(values)
    bridge_stop_s = BRIDGE_STOP_TIMEOUT_S + (RELEASE_TIMEOUT_S if bridge["restore_mode"] else 0.0)
    if _boolean(values, "composed"):
        arguments = () if policy else ("--without", "policy_inference")
        module = f"{PACKAGE}.ros.composed"
        return [
            Process(
                "composed",
                module,
                "composed",
                parameters,
                arguments=arguments,
                stop_rank=0,
                stop_timeout_s=bridge_stop_s,
                **common,
            )
        ]
    return [
        Process(
            name,
            f"{PACKAGE}.ros.{name}",
            name,
            {name: own},
            # The bridge first: it brings the robot down while the others still run.
            stop_rank=0 if name == "sdk_bridge" else 1,
            stop_timeout_s=bridge_stop_s if name == "sdk_bridge" else NODE_STOP_TIMEOUT_S,
            **common,
        )
        for name, own in parameters.items()
    ]


def _common(values: Mapping[str, str]) -> dict[str, Any]:
    """What all ROS nodes of the graph have in common."""
    log_level = values["log_level"].lower()
    if log_level not in ("debug", "info", "warn", "error"):
        raise GraphError(f"log_level must be debug, info, warn or error, got {values['log_level']!r}")
    params_file = _file(values, "params_file")
    if params_file:
        check_params_file(Path(params_file), ROS_NODES)
    return {"params_file": params_file, "log_level": log_level}


def _recorder(values: Mapping[str, str], interface: str, domain_id: int, policy: Path | None) -> list[Process]:
    """The flight recorder, which sees the others start and end."""
    if not _boolean(values, "flight_log"):
        return []
    folder = Path(values["log_dir"]).expanduser().absolute() if values["log_dir"] else default_folder()
    check_folder(folder)
    parameters = {
        "robot": values["robot"],
        "interface": interface,
        "domain_id": domain_id,
        "policy": str(policy or ""),
        "log_dir": str(folder),
    }
    # A robot in motion is not brought down because its log ends.
    return [
        _node("flight_recorder", parameters, values, stop_rank=3, stop_timeout_s=RECORDER_STOP_TIMEOUT_S, vital=False)
    ]


def _operators(values: Mapping[str, str]) -> list[Process]:
    """Who may drive: the operator node, and the web page beside it."""
    robot, processes = {"robot": values["robot"]}, []
    if values["operator"] != NOBODY:
        try:
            parse_sources(values["operator"])
        except SafetyError as error:
            raise GraphError(f"operator: {error}") from error
        processes.append(_node("operator", robot | {"sources": values["operator"]}, values))
    if _boolean(values, "web"):
        page: dict[str, Any] = {
            "host": values["web_host"],
            "port": _integer(values, "web_port", 0, 65535),
            "token_file": _file(values, "web_token_file"),
        }
        # Whatever a browser does to it must not bring the robot down.
        processes.append(_node("web", robot | page, values, vital=False))
    return processes


def _node(name: str, parameters: Mapping[str, Any], values: Mapping[str, str], **options: Any) -> Process:
    options = {"stop_rank": 1, "stop_timeout_s": NODE_STOP_TIMEOUT_S} | options
    return Process(name, f"{PACKAGE}.ros.{name}", name, {name: parameters}, **options, **_common(values))


def guard_processes(robot: str, interface: str, domain_id: int) -> list[Process]:
    """Two, so that one is left when bridge and guard die together; stopped when nothing needs guarding any more."""
    common = ("--robot", robot, "--interface", interface, "--domain-id", str(domain_id))
    return [
        Process(
            name,
            f"{PACKAGE}.guard",
            arguments=(*common, "--rank", str(rank)),
            stop_rank=2,
            stop_timeout_s=GUARD_STOP_TIMEOUT_S,
        )
        for rank, name in enumerate(GUARDS)
    ]


def _simulator(values: Mapping[str, str], interface: str, domain_id: int) -> Process:
    arguments = ["--robot", values["robot"], "--interface", interface, "--domain-id", str(domain_id)]
    for option in ("record", "video"):
        if values[option]:
            path = Path(values[option]).expanduser().absolute()
            if not path.parent.is_dir():
                raise GraphError(f"{option}: folder {path.parent} does not exist")
            arguments += [f"--{option}", str(path)]
    try:
        arguments += shlex.split(values["sim_options"])
    except ValueError as error:
        raise GraphError(f"sim_options {values['sim_options']!r}: {error}") from error
    # Rendering a video after the run takes a while, and so does closing the record of a long one.
    timeout = 120.0 if values["video"] else 60.0 if values["record"] else 10.0
    return Process(
        SIMULATOR,
        "sim2real_checks.robot_sim",
        arguments=tuple(arguments),
        may_end=True,
        stop_rank=4,
        stop_timeout_s=timeout,
    )


def _refuse_simulator_options(values: Mapping[str, str]) -> None:
    for option in ("record", "video", "sim_options"):
        if values[option]:
            raise GraphError(f"{option}:={values[option]} belongs to the simulator; it needs sim:=true")


def _interface(value: str, sim: bool) -> str:
    known = sorted(path.name for path in Path("/sys/class/net").iterdir()) if Path("/sys/class/net").is_dir() else []
    if sim:
        if value not in ("", LOOPBACK):
            raise GraphError(
                f"interface:={value} with sim:=true: a simulated robot must not speak on a network where a real "
                "one may listen; leave interface out"
            )
        return LOOPBACK
    if not value:
        raise GraphError(
            f"interface is required for a real robot; this computer has {', '.join(known)}. "
            "For a simulated robot give sim:=true"
        )
    if known and value not in known:
        raise GraphError(f"interface {value!r} does not exist; this computer has {', '.join(known)}")
    return value


def _environment(ros_domain_id: int, outer: Mapping[str, str]) -> dict[str, str]:
    rmw = outer.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if "cyclonedds" in rmw:
        raise GraphError(
            f"RMW_IMPLEMENTATION is {rmw}: it would bring a second Cyclone DDS into the process that speaks with the "
            "robot; use rmw_fastrtps_cpp"
        )
    return {
        "RMW_IMPLEMENTATION": rmw,
        "ROS_DOMAIN_ID": str(ros_domain_id),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **discovery_environment(outer),
    }


def _spread(values: Mapping[str, str]) -> bool:
    if values["spread_cores"].strip().lower() == AUTO:
        return len(os.sched_getaffinity(0)) <= FEW_CORES
    return _boolean(values, "spread_cores", "true, false or auto")


def _boolean(values: Mapping[str, str], name: str, expected: str = "true or false") -> bool:
    value = values[name].strip().lower()
    if value not in (*TRUE, *FALSE):
        raise GraphError(f"{name} must be {expected}, got {values[name]!r}")
    return value in TRUE


def _integer(values: Mapping[str, str], name: str, lower: int, upper: int) -> int:
    try:
        number = int(values[name])
    except ValueError:
        number = lower - 1
    if not lower <= number <= upper:
        raise GraphError(f"{name} must be a whole number from {lower} to {upper}, got {values[name]!r}")
    return number


def _domain(values: Mapping[str, str], name: str) -> int:
    return _integer(values, name, 0, MAX_DOMAIN_ID)


def _file(values: Mapping[str, str], name: str) -> str:
    if not values[name]:
        return ""
    path = Path(values[name]).expanduser().absolute()
    if not path.is_file():
        raise GraphError(f"{name}: no file at {path}")
    return str(path)


def _yaml(value: Any) -> str:
    """Write a parameter value so that ROS's YAML parser reads it with the same type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)
