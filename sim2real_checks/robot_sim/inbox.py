"""Where LowCmds arrive: they are checked, counted, logged and, where the robot is late or deaf, held back or lost."""

from __future__ import annotations

import logging
import time
from collections import deque

import numpy as np

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import MOTOR_CMD_FLOATS, motor_floats
from nfpo_deploy.transport.dds import DdsParticipant, RawReader
from nfpo_deploy.transport.family import family_of
from nfpo_deploy.transport.mapping import MODE_PR
from robots.loader import RobotSpec
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.robot_sim.lowcmd_log import BAD_CRC, HEARD, IGNORED, LOST, MALFORMED, LowCmdLog
from sim2real_checks.robot_sim.messages import mode_machine_of
from sim2real_checks.robot_sim.plant import Plant

log = logging.getLogger("robot_sim")

_MAX_QUEUE = 16384
"""LowCmds under way, the newest ones: a robot that hangs until further notice must not fill the memory."""


class LowCmdInbox:
    """Receives LowCmds: checks them, counts the bad ones, delays the good ones by the command latency.

    Attributes:
        count: LowCmds obeyed or queued; crc_errors, malformed, ignored and lost count the others.
        received_ns: CLOCK_MONOTONIC when the newest of `count` came.
        delay: s added to the command latency.
        loss: probability with which a good LowCmd is not heard.
        random: decides it.
        mode_pr: how the newest of `count` commands ankles and waist; 0 in a family without a choice.
    """

    def __init__(self, spec: RobotSpec, config: SimConfig) -> None:
        self._reader: RawReader | None = None
        self._family = family_of(spec)
        self._variant = mode_machine_of(spec, config) if spec.message_family == "unitree_hg" else None
        self._warned: set[str] = set()
        self.mode_pr = 0
        self.count = self.crc_errors = self.malformed = self.ignored = self.lost = 0
        self.received_ns = 0
        self.delay = 0.0
        self.loss = 0.0
        self.random = np.random.default_rng(0)
        self._latency = config.command_latency
        self._timeout = config.lowcmd_timeout
        self._queue: deque[tuple[float, np.ndarray]] = deque(maxlen=_MAX_QUEUE)
        self._last: float | None = None
        self._log: LowCmdLog | None = None

    def open(self, participant: DdsParticipant, lowcmd_log: LowCmdLog | None = None) -> None:
        """Subscribe to rt/lowcmd; before that, nothing arrives. `lowcmd_log` gets every LowCmd that comes."""
        self._reader = participant.reader("rt/lowcmd", self._family.low_cmd_type())
        self._log = lowcmd_log

    def listen(self, now: float, ignore: bool, plant: Plant) -> None:
        """Receive what has come. While `ignore` is set, commands are dropped: a built-in controller owns the motors."""
        if self._reader is None:
            return
        for sample, handle in self._reader.take_with_handles():
            received_ns = time.monotonic_ns()
            motor_cmd, fate = self._judge(sample, ignore)
            if fate == HEARD and motor_cmd is not None:
                self.count += 1
                self.received_ns = received_ns
                self._last = now
                self._queue.append((now, motor_cmd))
            if self._log is not None:
                self._log.append(received_ns, self._reader, handle, fate, motor_cmd, plant)

    def due(self, now: float) -> np.ndarray | None:
        """`motor_cmd` of the newest LowCmd that is due, None if there is no new one."""
        due = None
        while self._queue and self._queue[0][0] + self._latency + self.delay <= now + 1e-9:
            due = self._queue.popleft()[1]
        return due

    def timed_out(self, now: float) -> bool:
        """Whether the stream stopped for longer than the configured timeout."""
        return self._timeout is not None and self._last is not None and now - self._last > self._timeout

    def _judge(self, sample: bytes, ignore: bool) -> tuple[np.ndarray | None, int]:
        """Content of a LowCmd, None if it has none that can be read, and what becomes of it."""
        try:
            record = self._family.low_cmd.decode(sample)
        except TransportError:
            self.malformed += 1
            return None, MALFORMED
        if self._family.low_cmd.crc(record) != record["crc"]:
            self.crc_errors += 1
            return None, BAD_CRC
        motor_cmd = record["motor_cmd"]
        if not np.isfinite(motor_floats(motor_cmd, MOTOR_CMD_FLOATS)).all():
            self.malformed += 1
            return None, MALFORMED
        if self._variant is not None and record["mode_machine"] != self._variant:
            named = int(record["mode_machine"])
            self._warn(f"LowCmd ignored: it names mode_machine {named}, this robot is {self._variant}")
            self.ignored += 1
            return motor_cmd, IGNORED
        if self.loss and self.random.random() < self.loss:
            self.lost += 1
            return motor_cmd, LOST
        if ignore:
            self._warn("LowCmd ignored: a built-in controller is active; release it first")
            self.ignored += 1
            return motor_cmd, IGNORED
        if self._variant is not None:
            self._take_mode(int(record["mode_pr"]))
        return motor_cmd, HEARD

    def _take_mode(self, mode_pr: int) -> None:
        self.mode_pr = mode_pr
        if mode_pr != MODE_PR:
            self._warn(f"LowCmd has mode_pr {mode_pr}: taken as pitch and roll, motors A and B have no linkage here")

    def _warn(self, text: str) -> None:
        """Say something once."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning(text)
