"""The wireless remote: sticks and buttons as the 40 bytes in LowState and as rt/wirelesscontroller."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

# Bit order of the two button bytes, least significant first.
BUTTONS = (
    "R1", "L1", "Start", "Select", "R2", "L2", "F1", "F2",
    "A", "B", "X", "Y", "Up", "Right", "Down", "Left",
)  # fmt: skip
STICKS = ("lx", "ly", "rx", "ry")
REMOTE_SIZE = 40


@dataclass(frozen=True)
class Remote:
    """State of the remote: sticks in -1..1 (ly, ry up positive), names of the pressed buttons.

    Where it is not connected the robot reports zeros instead of a frame.

    Raises:
        ValueError: unknown button, or a stick beyond -1..1.
    """

    lx: float = 0.0
    ly: float = 0.0
    rx: float = 0.0
    ry: float = 0.0
    buttons: frozenset[str] = frozenset()
    connected: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(set(self.buttons) - set(BUTTONS))
        if unknown:
            raise ValueError(f"unknown remote buttons {unknown}; known: {', '.join(BUTTONS)}")
        for stick in STICKS:
            if not -1.0 <= getattr(self, stick) <= 1.0:
                raise ValueError(f"remote stick {stick} must be in -1..1, got {getattr(self, stick)!r}")

    @property
    def keys(self) -> int:
        """Button bits as rt/wirelesscontroller carries them (uint16)."""
        return sum(1 << bit for bit, name in enumerate(BUTTONS) if name in self.buttons)

    def to_bytes(self) -> bytes:
        """LowState's `wireless_remote`: buttons at 2..3, float32 lx 4, rx 8, ry 12, L2 16, ly 20."""
        frame = bytearray(REMOTE_SIZE)
        if not self.connected:
            return bytes(frame)
        # The remote's receiver starts each frame with 55 51.
        struct.pack_into("<2BH3f4xf", frame, 0, 0x55, 0x51, self.keys, self.lx, self.rx, self.ry, self.ly)
        return bytes(frame)


@dataclass(frozen=True)
class RemoteEvent:
    """From `time` (s) on, the remote is in state `remote`."""

    time: float
    remote: Remote


def parse_remote_event(text: str) -> RemoteEvent:
    """Parse "TIME[,BUTTON+BUTTON…][,STICK=VALUE…]".

    "3,L2+B" presses L2 and B at 3 s, "5,ly=0.5" leans forward at 5 s, "6" lets go of everything at 6 s.

    Raises:
        ValueError: names the part that cannot be read.
    """
    time_text, *parts = text.split(",")
    try:
        time = float(time_text)
    except ValueError as error:
        raise ValueError(f"remote event {text!r}: expected a time (s) first, got {time_text!r}") from error
    sticks: dict[str, Any] = {}
    buttons: set[str] = set()
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and name in STICKS:
            sticks[name] = float(value)
        elif not equals:
            buttons.update(part.split("+"))
        else:
            raise ValueError(f"remote event {text!r}: unknown stick {name!r}; known: {', '.join(STICKS)}")
    return RemoteEvent(time, Remote(buttons=frozenset(buttons), **sticks))
