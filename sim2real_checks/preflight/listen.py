"""Listen to a robot and write down what came. Nothing is sent but DDS discovery and one CheckMode request.

No writer of rt/lowcmd exists here, and none can be reached from here: `open_transport`, which makes one, is not used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.identity import IdentityCheck, SingleSource
from nfpo_deploy.transport.lowcmd_watch import LowCmdWatch
from nfpo_deploy.transport.mapping import LowStateDecoder
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.transport.peers import PeerVersions
from nfpo_deploy.transport.publisher import Publisher
from nfpo_deploy.transport.spdp import PeerVersion
from nfpo_deploy.transport.unitree import LOW_STATE_TOPIC
from robots.loader import RobotSpec

FIRST_S = 4.0
"""How long discovery may take, s: a participant announces itself at once to one that it hears for the first time."""
SERVICE_S = 2.5
_POLL_S = 0.0005
_PEERS_S = 0.1
_DEPTH = 512
_MOST_HZ = 2000
"""States kept each second; more than four times the nominal rate says all that it can."""
_LAST_DOMAIN = 99
"""Ports of higher domains lie where other programs have their outgoing connections."""


@dataclass(frozen=True)
class States:
    """The S valid LowStates of the listening time, in order of arrival, joints in the order of the spec."""

    received_ns: np.ndarray
    """(S,) CLOCK_MONOTONIC when each was taken."""
    tick: np.ndarray
    """(S,)."""
    quat_wxyz: np.ndarray
    gyro_b: np.ndarray
    """(S, 3) rad/s."""
    accel_b: np.ndarray
    """(S, 3) m/s², gravity included."""
    q: np.ndarray
    dq: np.ndarray
    temperature: np.ndarray
    """(S, N) °C."""
    battery_soc: np.ndarray
    """(S,) %, NaN where LowState does not carry it."""
    voltage: np.ndarray
    """(S,) V, NaN or 0 where not reported."""
    mode_machine: np.ndarray
    """(S,) version of the robot; 0 in a family that has none."""

    def __len__(self) -> int:
        return len(self.tick)


@dataclass(frozen=True)
class Commands:
    """Who else publishes rt/lowcmd."""

    foreign: int = 0
    """Messages of others, bridges of this project included."""
    by: str = ""
    """Publisher of the last one, for people."""
    address: str = ""
    guard: int = 0
    """Messages of this project's guards."""
    silent: tuple[str, ...] = ()
    """Programs that could publish."""


@dataclass(frozen=True)
class Peers:
    """Who else speaks DDS."""

    seen: tuple[PeerVersion, ...] = ()
    problem: str = ""
    others: tuple[PeerVersion, ...] = ()
    malformed: int = 0
    unheard: tuple[Publisher, ...] = ()
    """Participants that discovery knows and that did not announce their version while we listened."""


@dataclass(frozen=True)
class Heard:
    """All that listening brought."""

    states: States
    came: int
    """LowStates, valid or not."""
    crc_errors: int
    malformed: int
    identity_problem: str
    publishers: tuple[str, ...]
    """Writers of rt/lowstate that were discovered, for people."""
    longest_poll_s: float
    """The longest time that this computer did not look."""
    commands: Commands
    peers: Peers
    controller: str | None
    """Active built-in controller, "" for none; None where nobody answered."""


def listen(spec: RobotSpec, interface: str, domain_id: int, seconds: float) -> Heard:
    """Wait up to `FIRST_S` for the first LowState, listen for `seconds`, then ask for the built-in controller.

    Raises:
        TransportError: an unknown message family, or DDS cannot be opened.
    """
    participant = DdsParticipant(interface, domain_id)
    try:
        peers = PeerVersions(interface, domain_id)
        try:
            return _Listener(participant, peers, spec).listen(seconds)
        finally:
            peers.close()
    finally:
        participant.close()


def domains_in_use(interface: str, but: int, seconds: float = 2.5) -> list[int]:
    """DDS domains other than `but` in which somebody announces himself; sends nothing."""
    listeners = {}
    for domain in range(_LAST_DOMAIN + 1):
        if domain != but:
            try:
                listeners[domain] = PeerVersions(interface, domain)
            except TransportError:
                continue
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for listener in listeners.values():
                listener.poll()
            time.sleep(_PEERS_S)
        return [domain for domain, listener in listeners.items() if listener.peers()]
    finally:
        for listener in listeners.values():
            listener.close()


class _Listener:
    def __init__(self, participant: DdsParticipant, peers: PeerVersions, spec: RobotSpec) -> None:
        self._participant, self._peers, self._spec = participant, peers, spec
        self._reader = participant.reader(LOW_STATE_TOPIC, family_of(spec).low_state_type(), depth=_DEPTH)
        self._watch = LowCmdWatch(participant, b"nfpo-preflight %d" % os.getpid(), family_of(spec))
        self._next_peers = 0.0

    def listen(self, seconds: float) -> Heard:
        self._until_first()
        taken, longest_poll = self._record(seconds)
        publishers = tuple(publisher.describe() for publisher in self._reader.publishers())
        commands = self._commands()
        controller = self._controller() if taken or publishers else None
        decoder, states, problem = self._decode(taken)
        peers = self._peers_heard()
        return Heard(
            states, len(taken), decoder.crc_errors, decoder.malformed, problem, publishers, longest_poll, commands,
            peers, controller,
        )  # fmt: skip

    def _until_first(self) -> None:
        deadline = time.monotonic() + FIRST_S
        while time.monotonic() < deadline and not self._reader.take():
            self._poll_others()
            time.sleep(_POLL_S)

    def _record(self, seconds: float) -> tuple[list[tuple[bytes, int, int]], float]:
        """Samples with writer and time of arrival; decoding waits, so that arrival is seen without delay."""
        taken: list[tuple[bytes, int, int]] = []
        begin = last = time.monotonic()
        longest = 0.0
        while (now := time.monotonic()) < begin + seconds:
            longest, last = max(longest, now - last), now
            samples = self._reader.take_with_handles()
            stamp = time.monotonic_ns()
            if len(taken) < _MOST_HZ * seconds:
                taken += [(data, handle, stamp) for data, handle in samples]
            self._poll_others()
            time.sleep(_POLL_S)
        return taken, longest

    def _poll_others(self) -> None:
        self._watch.poll()
        if time.monotonic() >= self._next_peers:
            self._peers.poll()
            self._next_peers = time.monotonic() + _PEERS_S

    def _decode(self, taken: Sequence[tuple[bytes, int, int]]) -> tuple[LowStateDecoder, States, str]:
        decoder, identity = LowStateDecoder(self._spec), IdentityCheck(self._spec)
        source = SingleSource(lambda handle: self._reader.publisher(handle).describe())
        states, problem = [], ""
        for data, handle, received_ns in taken:
            record = decoder.accept(data)
            if record is None:
                continue
            identity.observe(record)
            source.observe(handle)
            problem = problem or identity.problem or source.problem
            states.append(decoder.to_state(record, received_ns))
        columns = {field.name: np.array([getattr(state, field.name) for state in states]) for field in fields(States)}
        return decoder, States(**columns), problem

    def _commands(self) -> Commands:
        watch = self._watch
        silent = tuple(publisher.describe() for publisher in watch.others())
        by: Any = watch.foreign
        return Commands(
            watch.foreign_count, by.describe() if by else "", by.address if by else "", watch.guard_count, silent
        )

    def _peers_heard(self) -> Peers:
        peers = self._peers
        heard = {peer.guid for peer in peers.peers()}
        unheard = [one for one in self._participant.participants() if one.participant[:24] not in heard]
        return Peers(tuple(peers.peers()), peers.problem, tuple(peers.others()), peers.malformed, tuple(unheard))

    def _controller(self) -> str | None:
        try:
            return MotionSwitcherClient(self._participant).check_mode(SERVICE_S)
        except TransportError:
            return None
