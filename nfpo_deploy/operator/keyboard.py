"""Driving with the keyboard of a terminal."""

# A terminal tells when a key goes down, never when it comes up; a held key is known by its auto-repeat alone.

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
FIRST_S = 0.75
"""How long one press lasts: desktops wait up to 0.66 s (X11's default) before a held key repeats."""
RELEASE_S = 0.25
"""How long a repeat lasts: the slowest usual rate, 11 a second (Linux console), may miss one."""
REPEAT_GAP_S = 0.12
"""The same key again within this time is a repeat; nobody taps one faster than eight times a second."""
ESCAPE_WAIT_S = 0.02
"""An arrow's three bytes may arrive in two parts; an escape that nothing follows for this long was meant."""


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


class HeldKeys:
    """Deadman of a keyboard: the velocity of `teleop` lasts only while keys keep coming, whichever they are.

    A key that is held counts once: the repeats keep the velocity and add nothing to it.
    """

    def __init__(self, teleop: Teleop) -> None:
        self._teleop = teleop
        self._last = ("", 0)
        self._until_ns = 0

    def press(self, key: str, now_ns: int) -> None:
        """One key from the terminal, received at `now_ns` (CLOCK_MONOTONIC)."""
        self.command(now_ns)
        before, at_ns = self._last
        repeated = key == before and now_ns - at_ns <= REPEAT_GAP_S * 1e9
        self._last = (key, now_ns)
        self._until_ns = now_ns + round((RELEASE_S if repeated else FIRST_S) * 1e9)
        if not repeated or key == ESCAPE:
            self._teleop.press(key)

    def command(self, now_ns: int) -> tuple[float, float, float]:
        """Velocity vx, vy, wz now, m/s, m/s, rad/s; zero once no key has come for long enough."""
        if now_ns >= self._until_ns:
            self._teleop.velocity = dict.fromkeys(self._teleop.velocity, 0.0)
        return self._teleop.command


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
    """Keys that wait on standard input; blocks for `ESCAPE_WAIT_S` at most.

    Raises:
        EOFError: the terminal is gone.
    """
    if not select.select([sys.stdin], [], [], 0.0)[0]:
        return []
    data = _read()
    if data.endswith(b"\x1b") and select.select([sys.stdin], [], [], ESCAPE_WAIT_S)[0]:
        data += _read()
    return split_keys(data.decode(errors="ignore"))


def _read() -> bytes:
    # The whole buffer at once: an arrow's three bytes must not be taken for the escape key.
    try:
        data = os.read(sys.stdin.fileno(), 256)
    except OSError as error:
        raise EOFError(f"the terminal is gone: {error}") from error
    if not data:
        raise EOFError("the terminal is gone")
    return data
