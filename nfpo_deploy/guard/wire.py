"""The guard's own channel to the robot: what is commanded on rt/lowcmd, and by whom."""

from __future__ import annotations

from nfpo_deploy.guard.takeover import Heard
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.lowcmd_watch import BRIDGE, GUARD, LOW_CMD_TOPIC, user_data
from nfpo_deploy.transport.mapping import LowCmdDecoder, LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import RobotSpec


class GuardWire:
    """Reads the LowCmds of the bridge and of other guards, and writes this guard's.

    Raises:
        TransportError: unknown message family, and everything that `DdsParticipant` raises.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int, rank: int) -> None:
        family = family_of(spec)
        own = user_data(_mark(rank))
        self._participant = DdsParticipant(interface, domain_id)
        low_cmd_type = family.low_cmd_type()
        self._reader = self._participant.reader(LOW_CMD_TOPIC, low_cmd_type, ignore_own=True)
        self._writer = self._participant.writer(LOW_CMD_TOPIC, low_cmd_type, own)
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
            if not sender.startswith((BRIDGE, GUARD)):
                continue
            command = self._decoder.decode(sample)
            if command is not None:
                # Damping that does not name the robot's variant would not be obeyed: say what the others say.
                self._encoder.echo(self._decoder.mode_machine)
                found.append(Heard(command, rank_of(sender)))
        return found

    def write(self, command: MotorCommand) -> None:
        self._writer.write(self._encoder.encode(command))

    def close(self) -> None:
        self._participant.close()


def rank_of(sender: bytes) -> int | None:
    """Rank of the guard whose UserData this is; None for a bridge."""
    if not sender.startswith(GUARD):
        return None
    digits = sender.partition(b" ")[0][len(GUARD) + 1 :]
    return int(digits) if digits.isdigit() else 0


def _mark(rank: int) -> bytes:
    return b"%s-%d" % (GUARD, rank)
