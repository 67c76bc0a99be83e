"""Who else commands the motors: every LowCmd on the wire that is not our own.

Two publishers of rt/lowcmd are not arbitrated by the robot; the motors obey whichever packet came last and shake
(unifolm#46). Writers of this project carry a UserData that says what they are; all others are foreign.
"""

from __future__ import annotations

import os
import time

from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import MessageFamily
from nfpo_deploy.transport.publisher import Publisher

LOW_CMD_TOPIC = "rt/lowcmd"
BRIDGE = b"nfpo-bridge"
GUARD = b"nfpo-guard"


def user_data(role: bytes) -> bytes:
    """UserData of this process's writer of rt/lowcmd: the role (`BRIDGE` or `GUARD`) and what makes it unique."""
    return b"%s %d %d" % (role, os.getpid(), time.monotonic_ns())


class LowCmdWatch:
    """Counts LowCmds of others. `poll` it regularly from one thread; it never blocks.

    A bridge counts every LowCmd as foreign that is neither its own nor a guard's: a second bridge is foreign too. A
    guard (whose own UserData begins with `GUARD`) expects one bridge; bridges are not foreign to it.

    Attributes:
        foreign_count: LowCmds of foreign publishers since the start.
        last_foreign_ns: CLOCK_MONOTONIC when the last one was taken; 0 before the first.
        foreign: the publisher of the last one.
        guard_count, guard_last_ns: the same for guards other than this process.
        bridge_count, bridge_last_ns, bridge: the same for bridges other than this process.
    """

    def __init__(self, participant: DdsParticipant, own_user_data: bytes, family: MessageFamily) -> None:
        """Subscribe to a family's rt/lowcmd, without the samples that `participant` itself writes."""
        self._reader = participant.reader(LOW_CMD_TOPIC, family.low_cmd_type(), ignore_own=True)
        self._own = own_user_data
        self._expects_bridge = own_user_data.startswith(GUARD)
        self.foreign_count = 0
        self.last_foreign_ns = 0
        self.foreign: Publisher | None = None
        self.guard_count = 0
        self.guard_last_ns = 0
        self.bridge_count = 0
        self.bridge_last_ns = 0
        self.bridge: Publisher | None = None

    def poll(self) -> None:
        """Take what has come since the last call; microseconds where nothing has."""
        samples = self._reader.take_with_handles()
        if not samples:
            return
        now_ns = time.monotonic_ns()
        for _, handle in samples:
            self._count(self._reader.publisher(handle), now_ns)

    def others(self) -> list[Publisher]:
        """Foreign programs that could publish, silent ones included; up to a millisecond each, not for a fast loop."""
        return [publisher for publisher in self._reader.publishers() if self._is_foreign(publisher)]

    def describe(self) -> str:
        """The last foreign publisher for people; "" before the first."""
        return "" if self.foreign is None else f"another program publishes rt/lowcmd: {self.foreign.describe()}"

    def _is_foreign(self, publisher: Publisher) -> bool:
        if publisher.user_data == self._own or publisher.user_data.startswith(GUARD):
            return False
        return not (self._expects_bridge and publisher.user_data.startswith(BRIDGE))

    def _count(self, publisher: Publisher, now_ns: int) -> None:
        if publisher.user_data == self._own:
            return
        if publisher.user_data.startswith(GUARD):
            self.guard_count += 1
            self.guard_last_ns = now_ns
        if publisher.user_data.startswith(BRIDGE):
            self.bridge_count += 1
            self.bridge_last_ns, self.bridge = now_ns, publisher
        if self._is_foreign(publisher):
            self.foreign_count += 1
            self.last_foreign_ns, self.foreign = now_ns, publisher
