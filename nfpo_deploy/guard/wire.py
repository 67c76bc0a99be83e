"""The guard's own channel to the robot: what is commanded on rt/lowcmd, and by whom."""

from __future__ import annotations

import os

from nfpo_deploy.errors import TransportError
from nfpo_deploy.guard.takeover import Heard
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdDecoder, LowCmdEncoder
from nfpo_deploy.transport.unitree import BRIDGE_USER_DATA, GUARD_USER_DATA, LOW_CMD_TOPIC
from nfpo_deploy.types import MotorCommand
from robots.loader import RobotSpec


class GuardWire:
    """Reads the LowCmds of the bridge and of other guards, and writes this guard's.

    Raises:
        TransportError: message family without support, and everything that `DdsParticipant` raises.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int, rank: int) -> None:
        if spec.message_family != "unitree_go":
            raise TransportError(f"the guard speaks unitree_go only, robot {spec.name!r} uses {spec.message_family!r}")
        from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

        self._own = user_data(rank)
        self._participant = DdsParticipant(interface, domain_id)
        self._reader = self._participant.reader(LOW_CMD_TOPIC, LowCmd_)
        self._writer = self._participant.writer(LOW_CMD_TOPIC, LowCmd_, self._own)
        self._decoder = LowCmdDecoder(spec)
        self._encoder = LowCmdEncoder(spec)

    def heard(self) -> list[Heard]:
        """Newest valid LowCmd of each sender since the last call, oldest first; foreign programs do not count."""
        newest: dict[int, bytes] = {}
        for sample, handle in self._reader.take_with_handles():
            newest.pop(handle, None)
            newest[handle] = sample
        found = []
        for handle, sample in newest.items():
            sender = self._reader.publisher(handle).user_data
            if sender == self._own or not sender.startswith((BRIDGE_USER_DATA, GUARD_USER_DATA)):
                continue
            command = self._decoder.decode(sample)
            if command is not None:
                found.append(Heard(command, rank_of(sender)))
        return found

    def write(self, command: MotorCommand) -> None:
        self._writer.write(self._encoder.encode(command))

    def close(self) -> None:
        self._participant.close()


def user_data(rank: int) -> bytes:
    """What marks the writer of a guard on the wire."""
    return b"%s %d %d" % (GUARD_USER_DATA, rank, os.getpid())


def rank_of(sender: bytes) -> int | None:
    """Rank of the guard with that mark; None for a bridge."""
    words = sender.split()
    if words[0] != GUARD_USER_DATA:
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
