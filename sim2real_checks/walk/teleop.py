"""Driving with the keyboard of a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

HELP = (
    "w/s faster forward/backward, a/d turn left/right, q/e step left/right, space stop, "
    "esc emergency stop, r stand up again, Ctrl-C sit down and end"
)
STEPS: dict[str, tuple[str, float]] = {
    "w": ("vx", 0.2), "s": ("vx", -0.2), "q": ("vy", 0.2), "e": ("vy", -0.2), "a": ("wz", 0.2), "d": ("wz", -0.2),
}  # fmt: skip
"""What each key adds to which axis, m/s or rad/s."""
ARROWS = {"A": "w", "B": "s", "C": "d", "D": "a"}
ESCAPE = "\x1b"


@dataclass
class Teleop:
    """Keys to a velocity command inside `ranges`; `estop` and `restart` are set when they were asked for."""

    ranges: Mapping[str, tuple[float, float]]
    velocity: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("vx", "vy", "wz"), 0.0))
    estop: bool = False
    restart: bool = False

    def press(self, key: str) -> None:
        """One key; keys without a meaning do nothing."""
        key = key.lower()
        if key == ESCAPE:
            self.estop = True
        elif key == "r":
            self.restart = True
        if key in (" ", ESCAPE, "r"):
            self.velocity = dict.fromkeys(self.velocity, 0.0)
        elif key in STEPS:
            axis, step = STEPS[key]
            low, high = self.ranges[axis]
            # Rounded, so that as many steps back as forth end at exactly zero.
            self.velocity[axis] = round(min(max(self.velocity[axis] + step, low), high), 3)

    @property
    def command(self) -> tuple[float, float, float]:
        """Velocity command vx, vy, wz in m/s, m/s, rad/s."""
        return (self.velocity["vx"], self.velocity["vy"], self.velocity["wz"])


def split_keys(text: str) -> list[str]:
    """Keys in what a terminal sent: arrows become the letters for the same direction, other sequences vanish."""
    keys: list[str] = []
    i = 0
    while i < len(text):
        if text[i] == ESCAPE and text[i + 1 : i + 2] in ("[", "O"):
            end = i + 2
            while end < len(text) and not text[end].isalpha() and text[end] != "~":
                end += 1
            final = text[end : end + 1]
            keys += [ARROWS[final]] if final in ARROWS else []
            i = end + 1
        else:
            keys.append(text[i])
            i += 1
    return keys


@contextmanager
def raw_keyboard() -> Iterator[None]:
    """Deliver keys at once and without echo; Ctrl-C stays a signal. The terminal is as before afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def pressed_keys() -> list[str]:
    """Keys that wait on standard input; never blocks."""
    if not select.select([sys.stdin], [], [], 0.0)[0]:
        return []
    # The whole buffer at once: an arrow's three bytes must not be taken for the escape key.
    return split_keys(os.read(sys.stdin.fileno(), 256).decode(errors="ignore"))
