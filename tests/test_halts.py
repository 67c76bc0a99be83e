"""Failures of real-time tests are excused by a computer that stood still, and by nothing else."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.halts import HALT_NS, ComputerStoodStillError, HaltWatch

WRONG = AssertionError("the robot fell")


@pytest.fixture
def watch():
    watch = HaltWatch()
    for process in watch._watchers:
        process.terminate()
        process.wait(10)
    return watch


def note(watch, *spans):
    """Each (from, to) or (from, to, ns stolen by the host)."""
    for path, span in zip(watch._files, spans, strict=True):
        path.write_text(json.dumps([*span, 0][:3]) + "\n")


def test_a_core_that_the_host_took_excuses_too(watch):
    now = time.monotonic_ns()
    others = [[now, now]] * (len(watch._files) - 1)
    note(watch, [now, now + 2 * HALT_NS, HALT_NS - 1], *others)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + 2 * HALT_NS, HALT_NS], *others)
    with pytest.raises(ComputerStoodStillError, match="stood still for 30 ms"):
        watch.raise_if_halted(now, WRONG)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: it cannot be told what stopped it")
def test_only_a_halt_of_every_core_within_the_test_excuses(watch):
    now = time.monotonic_ns()
    others = [[now, now + 3 * HALT_NS]] * (len(watch._files) - 2)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + 2 * HALT_NS], [now + 3 * HALT_NS, now + 5 * HALT_NS], *others)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + 2 * HALT_NS], [now, now + HALT_NS // 2], *others)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + 2 * HALT_NS], [now, now + 2 * HALT_NS], *others)
    watch.raise_if_halted(now + 3 * HALT_NS, WRONG)
    with pytest.raises(ComputerStoodStillError, match="stood still for 30 ms: the robot fell"):
        watch.raise_if_halted(now, WRONG)
