"""Arguments of a launch, given as `name:=value`: what there is, what it means, and what is refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nfpo_deploy.errors import GraphError
from nfpo_deploy.realtime import DEFAULT_PRIORITY
from robots.loader import available_robots

MAX_WORD = 4096
"""Longest `name:=value`, as long as a path may be on Linux."""


@dataclass(frozen=True)
class Argument:
    """A launch argument, given as `name:=value`."""

    name: str
    default: str
    description: str


_WALK = (
    Argument("sim", "false", "start a simulated robot on the loopback interface: true or false"),
    Argument("interface", "", "network interface wired to the robot, for example eth0; sim:=true uses lo"),
    Argument("policy", "walk", "ONNX file, or the name of a policy of the robot; 'none' only stands and sits"),
    Argument("clearance_override", "", "reason for running a policy on hardware that nfpo validate did not clear"),
    Argument("robot", "", "robot folder under robots/"),
    Argument("domain_id", "0", "DDS domain of the robot; real robots use 0"),
    Argument("ros_domain_id", "42", "ROS domain; never the robot's, their messages would mix"),
    Argument("composed", "false", "run the four nodes in one process: true or false"),
    Argument("release_mode", "true", "release the robot's built-in controller first: true or false"),
    Argument("restore_mode", "false", "give the robot back to that controller at the end: true or false"),
    Argument("realtime_priority", DEFAULT_PRIORITY, "SCHED_FIFO priority where the system permits it; 0 never asks"),
    Argument("spread_cores", "auto", "tie each process to one core: true, false, or auto: with two cores at most"),
    Argument("params_file", "", "YAML file with node parameters, as config/go2_walk.yaml"),
    Argument("operator", "remote,keyboard,web,autonomy", "who may drive, some of these; 'none' for nobody"),
    Argument("web", "false", "serve the web page that shows and drives the robot: true or false"),
    Argument("web_host", "127.0.0.1", "address of the web page; any but loopback asks browsers for a token"),
    Argument("web_port", "8080", "TCP port of the web page"),
    Argument("web_token_file", "", "file with the web page's token; generated where needed and not given"),
    Argument("flight_log", "true", "record everything to disk and keep what surrounds an incident: true or false"),
    Argument("log_dir", "", "folder of the flight log; $NFPO_LOG_DIR or ~/.local/state/nfpo/flight_log where empty"),
    Argument("record", "", "log the simulator's ground truth to this .npz or .csv file (sim:=true)"),
    Argument("video", "", "write an .mp4 of the simulated run to this file at the end (sim:=true)"),
    Argument("sim_options", "", "further options of the simulator, for example '--push 5,0.5,0'"),
    Argument("log_level", "info", "level of the nodes' log: debug, info, warn or error"),
)


def _for_robot(robot: str) -> tuple[Argument, ...]:
    return tuple(replace(a, default=robot) if a.name == "robot" else a for a in _WALK)


GRAPHS: dict[str, tuple[Argument, ...]] = {f"{robot}_walk": _for_robot(robot) for robot in available_robots()}
"""Arguments of each graph; every robot folder is one, so that a new robot needs no code here."""


def parse_arguments(graph: str, words: Sequence[str]) -> dict[str, str]:
    """Turn `name:=value` words into a mapping.

    Raises:
        GraphError: unknown graph, a word of another form or too long, an unknown or repeated name.
    """
    if graph not in GRAPHS:
        raise GraphError(f"unknown graph {graph!r}; known: {', '.join(GRAPHS)}")
    values: dict[str, str] = {}
    for word in words:
        if len(word) > MAX_WORD:
            raise GraphError(f"an argument of {len(word)} characters, {MAX_WORD} at most: {word[:80]!r}...")
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise GraphError(f"expected <name>:=<value>, got {word!r}")
        if name in values:
            raise GraphError(f"argument {name!r} is given twice: {values[name]!r} and {value!r}")
        values[name] = value
    check_names(graph, values)
    return values


def check_names(graph: str, values: Mapping[str, str]) -> None:
    """Refuse names that the graph does not know.

    Raises:
        GraphError: lists the known arguments and the closest one.
    """
    known = [argument.name for argument in GRAPHS[graph]]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise GraphError(f"unknown argument {name!r} of {graph}{hint} Known: {', '.join(known)}")


def show_arguments(graph: str) -> str:
    """Text of `--show-args`, in the form of `ros2 launch`."""
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for argument in GRAPHS[graph]:
        lines += ["", f"    '{argument.name}':", f"        {argument.description}"]
        lines += [f"        (default: '{argument.default}')"]
    return "\n".join(lines)
