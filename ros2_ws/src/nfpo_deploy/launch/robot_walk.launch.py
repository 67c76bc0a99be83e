"""A robot walks: `ros2 launch nfpo_deploy go2_walk.launch.py sim:=true`; `--show-args` lists the arguments.

Installed once for each robot, as `<robot>_walk.launch.py`; the file's own name says which graph it starts.
The graph itself is described in `nfpo_deploy.graph`; here it only becomes launch actions.
"""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from nfpo_deploy.errors import GraphError
from nfpo_deploy.graph import PACKAGE, Process, build_graph
from nfpo_deploy.graph_arguments import GRAPHS, parse_arguments
from nfpo_deploy.supervisor import describe_status

SUFFIX = ".launch.py"
GRAPH = Path(__file__).name.removesuffix(SUFFIX)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` calls.

    Raises:
        GraphError: no robot has the name of this file.
    """
    if GRAPH not in GRAPHS:
        raise GraphError(f"{__file__}: no graph is called {GRAPH!r}; known: {', '.join(GRAPHS)}")
    arguments = GRAPHS[GRAPH]
    declared = [DeclareLaunchArgument(a.name, default_value=a.default, description=a.description) for a in arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """Make the actions once the arguments have their values; refused arguments raise before anything starts."""
    if any(Path(word).name == f"{GRAPH}{SUFFIX}" for word in sys.argv):
        # Named on the command line, so the words are ours; launch itself would ignore a misspelt name.
        parse_arguments(GRAPH, [word for word in context.argv if ":=" in word])
    values = {a.name: LaunchConfiguration(a.name).perform(context) for a in GRAPHS[GRAPH]}
    graph = build_graph(GRAPH, values)
    environment = [SetEnvironmentVariable(name, value) for name, value in graph.environment.items()]
    return [*environment, *(action_for(process) for process in graph.processes)]


def action_for(process: Process) -> ExecuteProcess:
    """Launch action of one process."""
    common = {
        "output": "screen",
        "sigterm_timeout": str(process.stop_timeout_s),
        "on_exit": lambda event, context: ended(process, event.returncode, context),
    }
    if not process.executable:
        return ExecuteProcess(name=process.name, cmd=process.command(sys.executable), **common)
    return Node(
        package=PACKAGE,
        executable=process.executable,
        arguments=list(process.arguments),
        ros_arguments=process.ros_arguments(),
        **common,
    )


def ended(process: Process, status: int, context: LaunchContext) -> list:
    """End everything when a process ends: none of them is there for nothing.

    Raises:
        GraphError: the process failed; launch stops the others and its exit status tells.
    """
    if context.is_shutdown:
        return []
    reason = f"{process.name} ended with {describe_status(status)}"
    if not process.vital:
        return [LogInfo(msg=f"{reason}; the others go on")]
    if process.may_end and status == 0:
        return [LogInfo(msg=reason), EmitEvent(event=Shutdown(reason=reason))]
    raise GraphError(f"{reason}; stopping everything")
