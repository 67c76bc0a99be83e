"""The keyboard's deadman: what a terminal sends while a key is held, and what happens when it stops."""

from __future__ import annotations

import os
import pty
import sys
import threading
import time

import pytest

from nfpo_deploy.operator import keyboard
from nfpo_deploy.operator.keyboard import HeldKeys, Teleop

RANGES = {"vx": (-0.4, 0.6), "vy": (-0.3, 0.3), "wz": (-0.8, 0.8)}


class Typist:
    def __init__(self) -> None:
        self.keys = HeldKeys(Teleop(RANGES))
        self.now = 100.0

    def press(self, key: str) -> None:
        self.keys.press(key, round(self.now * 1e9))

    def hold(self, key: str, seconds: float, delay: float, period: float) -> list[float]:
        """What an auto-repeating terminal sends; returns vx asked 100 times a second until the key is let go."""
        end, next_key, seen = self.now + seconds, self.now, []
        first = True
        while self.now < end:
            if self.now >= next_key:
                self.press(key)
                next_key += delay if first else period
                first = False
            seen.append(self.vx())
            self.now += 0.01
        return seen

    def vx(self) -> float:
        return self.keys.command(round(self.now * 1e9))[0]

    def moves_for(self) -> float:
        start = self.now
        while self.vx() != 0.0:
            self.now += 0.01
            assert self.now < start + 5.0
        return self.now - start


@pytest.mark.parametrize(
    ("delay", "period"),
    [(0.66, 0.04), (0.5, 0.03), (0.25, 0.092), (0.225, 0.03)],
    ids=["X11", "GNOME", "Linux console", "macOS shortest"],
)
def test_a_held_key_keeps_going_and_a_released_one_stops(delay: float, period: float) -> None:
    typist = Typist()
    seen = typist.hold("w", 3.0, delay, period)
    assert min(seen) > 0.0, "the gap before the first repeat"
    # Pressed once, and once more when the repeat begins; the repeats themselves do not push to full speed.
    assert max(seen) == pytest.approx(0.4)
    assert typist.moves_for() <= 0.26


def test_a_tap_moves_for_a_moment_only() -> None:
    typist = Typist()
    typist.press("w")
    assert typist.vx() == pytest.approx(0.2)
    assert 0.7 < typist.moves_for() <= 0.76
    typist.press("w")
    assert typist.vx() == pytest.approx(0.2), "not where it was left"


def test_taps_add_up_and_any_key_keeps_them() -> None:
    typist = Typist()
    for _ in range(3):
        typist.press("w")
        typist.now += 0.2
    assert typist.vx() == pytest.approx(0.6)
    seen = typist.hold(".", 2.0, 0.5, 0.03)
    assert min(seen) == max(seen) == pytest.approx(0.6)


@pytest.mark.parametrize("key", [" ", "\x1b"])
def test_space_and_escape_stop_at_once(key: str) -> None:
    typist = Typist()
    typist.press("w")
    typist.now += 0.3
    typist.press(key)
    assert typist.vx() == 0.0


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Standard input of this process on a real terminal; yields the other end."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with keyboard.raw_keyboard():
            yield master
    os.close(master)


def test_an_arrow_that_arrives_in_parts_is_no_emergency_stop(terminal: int) -> None:
    os.write(terminal, b"\x1b")
    threading.Timer(0.005, os.write, (terminal, b"[A")).start()
    assert keyboard.pressed_keys() == ["w"]


def test_a_lonely_escape_is_known_at_once(terminal: int) -> None:
    os.write(terminal, b"w\x1b")
    start = time.monotonic()
    assert keyboard.pressed_keys() == ["w", "\x1b"]
    assert time.monotonic() - start < 0.2
    assert keyboard.pressed_keys() == []


def test_a_terminal_that_is_gone_is_no_silent_operator() -> None:
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read) as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with pytest.raises(EOFError, match="terminal is gone"):
            keyboard.pressed_keys()
