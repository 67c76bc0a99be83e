"""The `nfpo` command: one name for training, export, launching and simulation.

Each subcommand is a callable `run(argv: list[str]) -> int` named by module and function, imported only when
it is called, so `nfpo --help` stays instant and the robot runtime never imports torch. Another package adds
its own subcommand through the entry-point group `nfpo.commands`.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version

from nfpo_deploy.errors import NfpoError

ENTRY_POINT_GROUP = "nfpo.commands"
OWN_PACKAGES = ("nfpo_deploy", "nfpo_train", "robots", "sim2real_checks")
INTERRUPTED = 130

CommandFunction = Callable[[list[str]], int]


@dataclass(frozen=True)
class Command:
    """One subcommand. `target` is `module:function`; `extra` names what it needs installed."""

    name: str
    target: str
    summary: str
    example: str
    extra: str = ""


COMMANDS = (
    Command(
        "walk",
        "sim2real_checks.walk.command:walk",
        "simulated robot and whole ROS 2 graph: stand, walk, turn, sit, report",
        "nfpo walk",
        "sim,ros",
    ),
    Command(
        "launch",
        "nfpo_deploy.supervisor:launch_command",
        "start the ROS 2 graph for a robot or a simulated one",
        "nfpo launch go2_walk sim:=true",
        "ros",
    ),
    Command(
        "preflight",
        "sim2real_checks.preflight.command:preflight",
        "check wire, robot and computer before the first start; --wiggle moves each joint a little",
        "nfpo preflight --interface eth0",
        "ros",
    ),
    Command(
        "restore",
        "nfpo_deploy.factory_mode:restore_command",
        "give a robot back to the built-in controller that it had",
        "nfpo restore --interface eth0",
        "ros",
    ),
    Command(
        "drive",
        "nfpo_deploy.drive:drive_command",
        "drive a running graph with the keyboard",
        "nfpo drive",
        "ros",
    ),
    Command(
        "sim",
        "sim2real_checks.robot_sim.__main__:main",
        "MuJoCo robot that speaks the Unitree protocol",
        "nfpo sim --interface lo",
        "sim,ros",
    ),
    Command(
        "faults",
        "sim2real_checks.faults.command:faults",
        "break the graph of a simulated robot in every known way and measure what follows",
        "nfpo faults --quick",
        "sim,ros",
    ),
    Command(
        "log",
        "nfpo_deploy.flight_log.command:log_command",
        "list, show and repair what the flight recorder wrote",
        "nfpo log show latest",
    ),
    Command(
        "replay",
        "sim2real_checks.replay.command:replay",
        "run a recorded flight through the deployed code again and find the first tick that differs",
        "nfpo replay latest",
    ),
    Command(
        "compare",
        "sim2real_checks.replay.compare_command:compare",
        "the gap between a simulated and a real flight, and the parameters that would close it",
        "nfpo compare sim.npz latest",
        "sim",
    ),
    Command(
        "soak",
        "sim2real_checks.soak.command:soak",
        "walk for an hour with random commands under load and find whatever wears out",
        "nfpo soak --minutes 60",
        "sim,ros",
    ),
    Command("train", "nfpo_train.commands:train", "train a policy", "nfpo train go2_walk", "train"),
    Command(
        "export",
        "nfpo_train.commands:export",
        "write a checkpoint as ONNX and prove parity with torch",
        "nfpo export runs/go2_walk_flow_seed1",
        "train",
    ),
    Command(
        "evaluate",
        "sim2real_checks.evaluate_command:evaluate_command",
        "falls, tracking error and smoothness over randomised episodes",
        "nfpo evaluate robots/go2/policies/walk/policy.onnx --episodes 20",
        "sim",
    ),
    Command(
        "validate",
        "sim2real_checks.validation.command:validate",
        "walk policies through scenarios with the deployed modules and say whether they may go on",
        "nfpo validate a.onnx b.onnx",
        "sim",
    ),
    Command(
        "plot",
        "nfpo_train.commands:plot",
        "plot the curves of a training run",
        "nfpo plot runs/go2_walk_flow_seed1",
        "train",
    ),
)


def builtin_commands() -> dict[str, Command]:
    """The project's own subcommands by name, in the order of the help text."""
    return {command.name: command for command in COMMANDS}


def plugin_commands() -> dict[str, Command]:
    """Subcommands that other installed packages add; they cannot replace one of ours."""
    found = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in builtin_commands():
            package = point.dist.name if point.dist is not None else point.module
            found[point.name] = Command(point.name, point.value, f"added by {package}", f"nfpo {point.name} --help")
    return found


def help_text() -> str:
    """Usage, one line for each subcommand, and examples."""
    commands = [*builtin_commands().values(), *plugin_commands().values()]
    width = max(len(command.name) for command in commands)
    lines = ["usage: nfpo <command> [options]", "", "commands:"]
    lines += [f"  {command.name:<{width}}  {command.summary}" for command in commands]
    lines += ["", "examples:"]
    lines += [f"  {command.example}" for command in commands]
    lines += ["", "`nfpo <command> --help` shows the options of one command; `nfpo --version` the version."]
    return "\n".join(lines)


def load_command(command: Command) -> CommandFunction:
    """Import the function of a subcommand; raises ModuleNotFoundError where a package is missing."""
    module_name, _, function_name = command.target.partition(":")
    function: CommandFunction = getattr(importlib.import_module(module_name), function_name)
    return function


def missing_package_message(command: Command, error: ModuleNotFoundError) -> str | None:
    """What to install for a command; None when the module is our own, which is a defect of this project."""
    missing = (error.name or "").partition(".")[0]
    if not missing or missing in OWN_PACKAGES or not command.extra:
        return None
    return (
        f"needs the Python package {missing!r}, which is not installed; "
        f'install it with: pip install "nfpo[{command.extra}]" (in a clone: make setup)'
    )


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"nfpo {_version()}")
        return 0
    name = arguments[0]
    command = builtin_commands().get(name) or plugin_commands().get(name)
    if command is None:
        print(f"nfpo: unknown command {name!r}\n\n{help_text()}", file=sys.stderr)
        return 2
    try:
        return load_command(command)(arguments[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        if not _output_has_no_reader():
            raise
        # Whoever read the output, as `head`, has seen enough; without this, Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        message = missing_package_message(command, error)
        if message is None:
            raise
        print(f"nfpo {name}: {message}", file=sys.stderr)
        return 1
    except Exception as error:
        # A failure that we named ourselves says all; anything else is a defect and keeps its traceback.
        if not _is_named_failure(error):
            raise
        print(f"nfpo {name}: {error}", file=sys.stderr)
        return 1


def _output_has_no_reader() -> bool:
    """Whether standard output is the broken pipe, and no other pipe or socket of the command."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _is_named_failure(error: Exception) -> bool:
    if isinstance(error, NfpoError):
        return True
    from robots.loader import RobotSpecError

    return isinstance(error, RobotSpecError)


def _version() -> str:
    try:
        return version("nfpo")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
