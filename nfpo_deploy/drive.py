"""`nfpo drive`: drive a running graph with the keyboard of this terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from inspect import cleandoc

import tyro

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import MAX_DOMAIN_ID
from nfpo_deploy.operator.speeds import Speeds
from nfpo_deploy.ros.profiles import discovery_environment

_DEFAULT = Speeds()


@dataclass(frozen=True)
class DriveArgs:
    """Drive the robot of a running graph with the keyboard.

    The robot moves only while keys keep coming: hold one down, any one keeps the present velocity. Letting go stops it;
    closing the terminal stops it too, and it stands, then sits.
    """

    ros_domain_id: int = 42
    """ROS domain of the graph."""
    forward: float = _DEFAULT.forward
    """Largest speed, m/s."""
    backward: float = _DEFAULT.backward
    """Largest speed, m/s."""
    sideways: float = _DEFAULT.sideways
    """Largest speed, m/s."""
    turn: float = _DEFAULT.turn
    """Largest speed, rad/s."""


def drive_command(argv: list[str]) -> int:
    """Drive until Ctrl-C; returns the exit status.

    Raises:
        NfpoError: a bad option, no terminal, no graph on the domain, or one that takes no keyboard.
    """
    args = tyro.cli(DriveArgs, args=argv, prog="nfpo drive", description=cleandoc(DriveArgs.__doc__ or ""))
    speeds = Speeds(args.forward, args.backward, args.sideways, args.turn)
    if not 0 <= args.ros_domain_id <= MAX_DOMAIN_ID:
        raise NfpoError(f"--ros-domain-id must be 0 to {MAX_DOMAIN_ID}, got {args.ros_domain_id}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NfpoError("nfpo drive needs a terminal; programs publish on /nfpo/operator/autonomy instead")
    # Before rclpy is imported: it reads the middleware's settings from the environment, and these are the graph's.
    os.environ.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    os.environ.update(discovery_environment(os.environ))
    from nfpo_deploy.ros.drive import drive

    return drive(args.ros_domain_id, speeds)
