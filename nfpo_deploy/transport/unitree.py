"""Transport to a Unitree robot of the unitree_go family (Go2, B2, H1) over DDS."""

from __future__ import annotations

import time

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.base import TransportStatistics
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdEncoder, LowStateDecoder
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec

LOW_STATE_TOPIC = "rt/lowstate"
LOW_CMD_TOPIC = "rt/lowcmd"


class UnitreeTransport:
    """Reads rt/lowstate and writes rt/lowcmd; see `Transport` for the contract.

    Raises:
        TransportError: message family without support, and everything that `DdsParticipant` raises.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int = 0) -> None:
        if spec.message_family != "unitree_go":
            raise TransportError(
                f"robot {spec.name!r} uses message family {spec.message_family!r}; this transport speaks "
                "only unitree_go"
            )
        self._participant = DdsParticipant(interface, domain_id)
        from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_

        self._spec = spec
        self._decoder = LowStateDecoder(spec)
        self._reader = self._participant.reader(LOW_STATE_TOPIC, LowState_)
        self._writer = self._participant.writer(LOW_CMD_TOPIC, LowCmd_)
        self._command = LowCmdEncoder(spec)
        self._lowcmd_count = 0
        self._switcher: MotionSwitcherClient | None = None

    def read_state(self) -> RobotState | None:
        samples = self._reader.take()
        if not samples:
            return None
        received_ns = time.monotonic_ns()
        newest = None
        for sample in samples:
            record = self._decoder.accept(sample)
            newest = newest if record is None else record
        return None if newest is None else self._decoder.to_state(newest, received_ns)

    def write_command(self, cmd: MotorCommand) -> None:
        self._writer.write(self._command.encode(cmd))
        self._lowcmd_count += 1

    def release_mode(self, timeout_s: float) -> str:
        if not timeout_s > 0:
            raise TransportError(f"timeout of release_mode must be above zero, got {timeout_s}")
        if self._switcher is None:
            self._switcher = MotionSwitcherClient(self._participant)
        return self._switcher.release_mode(timeout_s)

    @property
    def statistics(self) -> TransportStatistics:
        counts = self._decoder
        return TransportStatistics(
            counts.accepted, counts.crc_errors, counts.lost.total, counts.malformed, self._lowcmd_count
        )

    def close(self) -> None:
        self._participant.close()
