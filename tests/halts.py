"""Whether a core of the computer stood still while a test ran in real time, as those of virtual machines do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sim2real_checks.soak.halts import Span, read_spans

HALT_NS = 15_000_000
"""From here on deadlines of the safety layer are missed."""
WINDOW_NS = 100_000_000
"""A host that is short of processors takes a core away several times in a row: what it takes within this adds up."""


class ComputerStoodStillError(AssertionError):
    """A test failed, and for a while no program ran on one core, whatever its priority: the failure says nothing."""


class StackWasLateError(AssertionError):
    """A test failed, and the stack says that some part of it came late: tried again, as often as the session allows."""


LATE = re.compile(r"stale for (\d+) ms")
"""As the watchdog and the gate put it; on a computer without reserve they damp a healthy robot, and shall."""
MOST_LATE = 2
"""Tests of one session that may be tried again for that. More, and it is no chance: they fail."""


class HaltWatch:
    """Watches all cores from the first test that needs it to the end of the session."""

    KEY = pytest.StashKey["HaltWatch"]()

    def __init__(self) -> None:
        self.late: dict[str, str] = {}
        """What the stack said in each test that was tried again, by the test's name."""
        self._folder = tempfile.TemporaryDirectory(prefix="nfpo_halts_")
        cores = sorted(os.sched_getaffinity(0))
        self._files = [Path(self._folder.name) / f"{core}.jsonl" for core in cores]
        module = [sys.executable, "-m", "sim2real_checks.soak.halts"]
        self._watchers = [
            subprocess.Popen([*module, "--core", str(core), "--out", str(path)])
            for core, path in zip(cores, self._files, strict=True)
        ]

    @classmethod
    def of(cls, config: pytest.Config) -> HaltWatch:
        """The session's watch, started if need be."""
        if cls.KEY not in config.stash:
            config.stash[cls.KEY] = cls()
        return config.stash[cls.KEY]

    @classmethod
    def close(cls, config: pytest.Config) -> None:
        """End the session's watch, if there is one."""
        watch = config.stash.get(cls.KEY, None)
        if watch is not None:
            for process in watch._watchers:
                process.terminate()
                process.wait(10)
            watch._folder.cleanup()

    @classmethod
    def late_tests(cls, config: pytest.Config) -> dict[str, str]:
        """`late` of the session's watch."""
        watch = config.stash.get(cls.KEY, None)
        return watch.late if watch is not None else {}

    def stood_still_ns(self, begin_ns: int) -> int:
        """Longest time, ns, that one core stood still within `WINDOW_NS`, since a moment."""
        cores = [[span for span in read_spans([path]) if span[1] > begin_ns] for path in self._files]
        return max((_most_within_window(spans) for spans in cores), default=0)

    def raise_if_halted(self, begin_ns: int, error: Exception) -> None:
        """Name what happened, if something did.

        Raises:
            ComputerStoodStillError: a core stood still since `begin_ns`.
        """
        halted_ns = self.stood_still_ns(begin_ns)
        if halted_ns >= HALT_NS:
            raise ComputerStoodStillError(f"a core stood still for {halted_ns * 1e-6:.0f} ms: {error}") from error

    def raise_if_late(self, test: str, error: Exception) -> None:
        """Name what the stack said of itself, unless too many tests failed so.

        Raises:
            StackWasLateError: a part of the stack was late, and the test may be tried again.
        """
        late = LATE.search(str(error))
        if late is None or (test not in self.late and len(self.late) >= MOST_LATE):
            return
        self.late[test] = str(error).splitlines()[0]
        raise StackWasLateError(f"late, and no core stood still: {error}") from error


def _most_within_window(spans: list[Span]) -> int:
    return max((sum(b - a for a, b in spans if start <= a < start + WINDOW_NS) for start, _ in spans), default=0)
