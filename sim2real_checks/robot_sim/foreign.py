"""Another program on the network that commands the robot's motors, as a factory controller that woke up would."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import RobotSpec

SILENCE_S = 0.3
"""It is known to every reader before it speaks, like a controller that was on the network all the time and wakes up."""


class ForeignController:
    """Publishes LowCmds of the stand pose, with the stand gains, from a DDS participant of its own.

    Opening and closing a participant takes some tens of milliseconds, which a robot in real time does not have:
    a thread does it.

    Attributes:
        problem: why it cannot publish; empty when nothing is wrong.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int) -> None:
        zero = np.zeros(spec.num_joints)
        gains = spec.stand_gains
        pose = MotorCommand(spec.default_pose, zero, gains.stiffness, gains.damping, zero)
        self.problem = ""
        self._family = family_of(spec)
        self._sample = LowCmdEncoder(spec).encode(pose)
        self._write: Callable[[bytes], None] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(interface, domain_id), daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """Send one LowCmd; False while the others do not know of it yet."""
        write = self._write
        if write is None or self._end.is_set():
            return False
        try:
            write(self._sample)
        except TransportError as error:
            self.problem = str(error)
            self.close()
        return not self.problem

    def close(self) -> None:
        """Leave the network soon, without waiting for it."""
        self._write = None
        self._end.set()

    def join(self) -> None:
        """Wait until it has left."""
        self._thread.join()

    def _live(self, interface: str, domain_id: int) -> None:
        try:
            participant = DdsParticipant(interface, domain_id)
        except TransportError as error:
            self.problem = str(error)
            return
        try:
            writer = participant.writer("rt/lowcmd", self._family.low_cmd_type())
            if not self._end.wait(SILENCE_S):
                self._write = writer.write
            self._end.wait()
        except TransportError as error:
            self.problem = str(error)
        finally:
            self._write = None
            participant.close()
