"""Transport to a Unitree robot over DDS, in the message family that its spec names."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.base import TransportStatistics
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.identity import IdentityCheck, SingleSource
from nfpo_deploy.transport.lowcmd_watch import BRIDGE, LOW_CMD_TOPIC, LowCmdWatch, user_data
from nfpo_deploy.transport.mapping import LowCmdEncoder, LowStateDecoder
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.transport.peers import PeerVersions
from nfpo_deploy.types import MotorCommand, RobotState
from robots.loader import RobotSpec

LOW_STATE_TOPIC = "rt/lowstate"
_LISTEN_PERIOD_S = 0.01


class UnitreeTransport:
    """Reads rt/lowstate and writes rt/lowcmd; see `Transport` for the contract.

    Raises:
        TransportError: unknown message family, and everything that `DdsParticipant` raises.
    """

    def __init__(self, spec: RobotSpec, interface: str, domain_id: int = 0) -> None:
        family = family_of(spec)
        self._participant = DdsParticipant(interface, domain_id)
        self._spec = spec
        self._decoder = LowStateDecoder(spec)
        self._reader = self._participant.reader(LOW_STATE_TOPIC, family.low_state_type())
        own = user_data(BRIDGE)
        self._writer = self._participant.writer(LOW_CMD_TOPIC, family.low_cmd_type(), own)
        self._watch = LowCmdWatch(self._participant, own, family)
        self._identity = IdentityCheck(spec)
        self._source = SingleSource(lambda handle: self._reader.publisher(handle).describe())
        self._command = LowCmdEncoder(spec)
        self._lowcmd_count = 0
        self._switcher: MotionSwitcherClient | None = None
        self._peers: PeerVersions | None = None

    def read_state(self) -> RobotState | None:
        self._watch.poll()
        samples = self._reader.take_with_handles()
        if not samples:
            return None
        received_ns = time.monotonic_ns()
        newest = None
        for sample, handle in samples:
            record = self._decoder.accept(sample)
            if record is not None:
                newest = record
                self._identity.observe(record)
                self._source.observe(handle)
        if newest is None:
            return None
        state = self._decoder.to_state(newest, received_ns)
        self._command.echo(state.mode_machine)
        return state

    def write_command(self, cmd: MotorCommand) -> None:
        self._writer.write(self._command.encode(cmd))
        self._lowcmd_count += 1

    def release_mode(self, timeout_s: float, before: Callable[[str], None] = lambda name: None) -> str:
        _require_above_zero("timeout of release_mode", timeout_s)
        return self._motion_switcher().release_mode(timeout_s, before)

    def restore_mode(self, name: str, timeout_s: float) -> None:
        _require_above_zero("timeout of restore_mode", timeout_s)
        self._motion_switcher().restore_mode(name, timeout_s)

    def refuse_company(self, listen_s: float) -> None:
        _require_above_zero("listening time of refuse_company", listen_s)
        self._watch.poll()  # what was sent before counts for the statistics, not against the present
        before = self._watch.foreign_count
        deadline = time.monotonic() + listen_s
        while time.monotonic() < deadline:
            self._watch.poll()
            if self._watch.foreign_count > before:
                raise TransportError(
                    f"{self._watch.describe()}; two programs that command the motors make them shake. Stop it; if it "
                    "is the robot's own controller, release it (motion switcher, or the app's low-level mode)"
                )
            time.sleep(_LISTEN_PERIOD_S)

    @property
    def statistics(self) -> TransportStatistics:
        counts = self._decoder
        return TransportStatistics(
            counts.accepted, counts.crc_errors, counts.lost.total, counts.malformed, self._lowcmd_count,
            self._watch.foreign_count, self._watch.guard_count,
        )  # fmt: skip

    @property
    def foreign_publisher(self) -> str:
        return self._watch.describe()

    @property
    def last_foreign_ns(self) -> int:
        return self._watch.last_foreign_ns

    @property
    def last_guard_ns(self) -> int:
        return self._watch.guard_last_ns

    @property
    def identity_problem(self) -> str:
        return self._identity.problem or self._source.problem

    def peer_versions(self) -> PeerVersions:
        if self._peers is None:
            self._peers = PeerVersions(self._participant.interface, self._participant.domain_id)
        return self._peers

    def close(self) -> None:
        if self._peers is not None:
            self._peers.close()
        self._participant.close()

    def _motion_switcher(self) -> MotionSwitcherClient:
        if self._switcher is None:
            self._switcher = MotionSwitcherClient(self._participant)
        return self._switcher


def _require_above_zero(what: str, seconds: float) -> None:
    if not seconds > 0 or not math.isfinite(seconds):
        raise TransportError(f"{what} must be a finite number of seconds above zero, got {seconds}")
