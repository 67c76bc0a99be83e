"""Whether a core of the computer stood still while a test ran in real time, as those of virtual machines do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sim2real_checks.soak.halts import Span, read_spans

HALT_NS = 15_000_000
"""From here on deadlines of the safety layer are missed."""


class ComputerStoodStillError(AssertionError):
    """A test failed, and for a while no program ran on one core, whatever its priority: the failure says nothing."""


class HaltWatch:
    """Watches all cores from the first test that needs it to the end of the session."""

    KEY = pytest.StashKey["HaltWatch"]()

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nfpo_halts_")
        cores = sorted(os.sched_getaffinity(0))
        self._files = [Path(self._folder.name) / f"{core}.jsonl" for core in cores]
        module = [sys.executable, "-m", "sim2real_checks.soak.halts"]
        self._watchers = [
            subprocess.Popen([*module, "--core", str(core), "--out", str(path)])
            for core, path in zip(cores, self._files, strict=True)
        ]

    @classmethod
    def of(cls, session: pytest.Session) -> HaltWatch:
        """The session's watch, started if need be."""
        if cls.KEY not in session.stash:
            session.stash[cls.KEY] = cls()
        return session.stash[cls.KEY]

    @classmethod
    def close(cls, session: pytest.Session) -> None:
        """End the session's watch, if there is one."""
        watch = session.stash.get(cls.KEY, None)
        if watch is not None:
            for process in watch._watchers:
                process.terminate()
                process.wait(10)
            watch._folder.cleanup()

    def since(self, begin_ns: int) -> list[Span]:
        """Halts that matter since a moment."""
        return [(a, b) for a, b in read_spans(self._files) if b > begin_ns and b - a >= HALT_NS]

    def raise_if_halted(self, begin_ns: int, error: Exception) -> None:
        """Name what happened, if something did.

        Raises:
            ComputerStoodStillError: a core stood still since `begin_ns`.
        """
        halts = self.since(begin_ns)
        if halts:
            longest = max(b - a for a, b in halts) * 1e-6
            raise ComputerStoodStillError(f"a core stood still for {longest:.0f} ms: {error}") from error
