"""The wireless remote's 40 bytes, as every LowState carries them.

Layout (facts of Unitree's SDK): bytes 0-1 head, 2-3 button bits, float32 little endian lx at 4, rx at 8, ry at 12,
ly at 20. Without a connected remote all bytes are zero.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

SIZE = 40
BUTTONS = (
    "R1", "L1", "Start", "Select", "R2", "L2", "F1", "F2",
    "A", "B", "X", "Y", "Up", "Right", "Down", "Left",
)  # fmt: skip
"""Bit order of the two button bytes, least significant first."""
ESTOP_BUTTONS = frozenset({"L2", "B"})
"""Held together: emergency stop, as Unitree's own programs use them for damping."""


@dataclass(frozen=True)
class RemoteInput:
    """Sticks in -1..1 (up and right positive) and the pressed buttons' names."""

    lx: float
    ly: float
    rx: float
    ry: float
    buttons: frozenset[str]

    @property
    def estop(self) -> bool:
        """Whether the emergency-stop buttons are held."""
        return ESTOP_BUTTONS <= self.buttons


def decode_remote(frame: bytes) -> RemoteInput | None:
    """The remote's state; None where no remote is connected or the bytes cannot come from one."""
    if len(frame) != SIZE or not any(frame[:24]):
        return None
    keys, lx, rx, ry, ly = struct.unpack_from("<2xH3f4xf", frame)
    if not all(math.isfinite(stick) and abs(stick) <= 1.01 for stick in (lx, ly, rx, ry)):
        return None
    return RemoteInput(lx, ly, rx, ry, frozenset(name for bit, name in enumerate(BUTTONS) if keys >> bit & 1))
