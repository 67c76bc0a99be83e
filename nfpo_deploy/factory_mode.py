"""Which built-in controller a robot had before its motors were taken over, remembered on disk until it has it back.

A killed low-level program leaves some robots deaf to their remote (unitree_rl_lab#59); with the name on disk
`nfpo restore` can hand the robot back later, also after this computer was switched off.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import tyro

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.guard.link import BRIDGE_ROLE, Mailbox
from robots.loader import load_robot

MAX_NAME = 64
MAX_FILE = 4096


class FactoryMode:
    """The remembered name for one robot, reached over one interface and DDS domain."""

    def __init__(self, interface: str, domain_id: int, folder: Path | None = None) -> None:
        self.path = (folder or state_folder()) / f"factory_mode_{interface}_{domain_id}.json"

    def remember(self, name: str) -> None:
        """Write the name so that it survives a power cut.

        Raises:
            SafetyError: a name that no controller has, or the folder cannot be written.
        """
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise SafetyError(f"built-in controller {name!r}: expected 1 to {MAX_NAME} printable characters")
        text = json.dumps({"name": name, "released": datetime.now(timezone.utc).isoformat(timespec="seconds")})
        scratch = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self.path)
        except OSError as error:
            raise SafetyError(
                f"cannot remember the robot's built-in controller in {self.path}: {error.strerror}; make the folder "
                "writable, or point XDG_STATE_HOME elsewhere"
            ) from error

    def recall(self) -> str:
        """The remembered name; empty where nothing is remembered.

        Raises:
            SafetyError: the file is there and cannot be understood.
        """
        try:
            with self.path.open() as file:
                name = json.loads(file.read(MAX_FILE))["name"]
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SafetyError(
                f"{self.path} is damaged ({error}); restore the controller with the robot's app"
            ) from error
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise SafetyError(f"{self.path} is damaged: name {name!r}; restore the controller with the robot's app")
        return name

    def forget(self) -> None:
        """The robot has its controller back."""
        self.path.unlink(missing_ok=True)


def state_folder() -> Path:
    """Where the project keeps what must survive a restart: `$XDG_STATE_HOME/nfpo`, by default ~/.local/state/nfpo."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "nfpo"


@dataclass
class RestoreArgs:
    """Hand the robot back to the built-in controller that it had before its motors were taken over.

    The name was written to disk when it was released. Refused while a bridge of this computer or another program
    still commands the motors. The controller takes the motors at once: robot on its belly, area clear.

    Examples:
      nfpo restore --interface eth0
      nfpo restore --interface eth0 --mode ai
    """

    interface: str
    """Network interface wired to the robot; lo for the simulated one."""
    robot: str = "go2"
    """Robot folder."""
    domain_id: int = 0
    """DDS domain of the robot."""
    mode: str = ""
    """Controller to start: normal, ai or advanced. Left out: the remembered one."""
    timeout: Annotated[float, tyro.conf.arg(metavar="S")] = 15.0
    """How long to try, s."""


def restore_command(argv: list[str]) -> int:
    """`nfpo restore`; exit status 0 when the controller is active.

    Raises:
        SafetyError: nothing is remembered, or a bridge is running.
        TransportError: somebody commands the motors, or the robot does not answer.
    """
    from nfpo_deploy.transport import open_transport
    from nfpo_deploy.transport.dds import check_interface

    args = tyro.cli(RestoreArgs, args=argv, prog="nfpo restore")
    check_interface(args.interface)
    memory = FactoryMode(args.interface, args.domain_id)
    name = args.mode or memory.recall()
    if not name:
        raise SafetyError(
            f"no built-in controller is remembered for interface {args.interface!r}, domain {args.domain_id} "
            f"({memory.path}); name one with --mode normal, ai or advanced"
        )
    spec = load_robot(args.robot)
    mailbox = Mailbox(BRIDGE_ROLE, args.interface, args.domain_id)
    transport = open_transport(spec, args.interface, args.domain_id)
    try:
        transport.refuse_company(1.0)
        started = time.monotonic()
        print(f"starting built-in controller {name!r}", file=sys.stderr, flush=True)
        transport.restore_mode(name, args.timeout)
    finally:
        transport.close()
        mailbox.close()
    memory.forget()
    print(f"built-in controller {name!r} is active after {time.monotonic() - started:.1f} s")
    return 0
