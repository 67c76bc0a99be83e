"""Output of all processes of a graph, in one file."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

from sim2real_checks.walk.progress import Progress

KEPT_LINES = 12


class GraphLog:
    """Writes the lines of all processes with their times; called from several threads. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=KEPT_LINES)
        self._file = path.open("w")

    def __enter__(self) -> GraphLog:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def __call__(self, process: str, line: str) -> None:
        """Add one line of a process."""
        with self._lock:
            if self._file.closed:
                return
            self._file.write(f"{time.monotonic() - self._start:8.2f} [{process}] {line}\n")
            self._file.flush()
            if process != "launch":
                self._tail.append(f"[{process}] {line}")

    def show_end(self, progress: Progress) -> None:
        """Show the last lines, which tend to say why a process ended."""
        with self._lock:
            lines = list(self._tail)
        for line in lines:
            progress.problem(line)
