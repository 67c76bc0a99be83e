"""A program on a real pseudo-terminal: what is typed goes in, what it prints comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """Runs `command` as a session leader on its own terminal of 200 columns, as a terminal window does."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def read(self) -> str:
        """Everything printed so far, without control sequences."""
        try:
            while data := os.read(self.master, 65536):
                self.text += re.sub(r"\x1b\[\w", "", data.decode(errors="replace"))
        except OSError:
            pass
        return self.text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def line(self) -> str:
        """The status line now."""
        return self.read().rpartition("\r")[2]

    def hang_up(self) -> None:
        """Close the window: the kernel sends SIGHUP."""
        os.close(self.master)
        self.master = -1

    def end(self) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait(10)
        if self.master >= 0:
            self.read()
            os.close(self.master)
        return status


def hold(terminal: Terminal, key: str, seconds: float, live, delay: float = 0.5, period: float = 0.03) -> None:
    """Hold a key as an auto-repeating terminal does; `live(s)` lets time pass."""
    end = time.monotonic() + seconds
    terminal.type(key)
    live(min(delay, seconds))
    while time.monotonic() < end:
        terminal.type(key)
        live(period)
