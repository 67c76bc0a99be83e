"""Failures of real-time tests are excused by a computer that stood still, and by nothing else."""

from __future__ import annotations

import json
import time

import pytest

from tests.halts import HALT_NS, WINDOW_NS, ComputerStoodStillError, HaltWatch

WRONG = AssertionError("the robot fell")


@pytest.fixture
def watch():
    watch = HaltWatch()
    for process in watch._watchers:
        process.terminate()
        process.wait(10)
    return watch


def note(watch, *spans):
    for path, span in zip(watch._files, spans, strict=True):
        path.write_text(json.dumps(span) + "\n")


def test_only_a_long_halt_of_a_core_within_the_test_excuses(watch):
    now = time.monotonic_ns()
    others = [[now, now]] * (len(watch._files) - 1)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + HALT_NS - 1], *others)
    watch.raise_if_halted(now, WRONG)
    note(watch, [now, now + 2 * HALT_NS], *others)
    watch.raise_if_halted(now + 3 * HALT_NS, WRONG)
    with pytest.raises(ComputerStoodStillError, match="stood still for 30 ms: the robot fell"):
        watch.raise_if_halted(now, WRONG)


def test_short_halts_in_a_row_add_up_and_those_far_apart_do_not(watch):
    now = time.monotonic_ns()
    third = HALT_NS // 3
    starts = [now + number * WINDOW_NS for number in range(5)]
    watch._files[0].write_text("".join(json.dumps([start, start + third]) + "\n" for start in starts))
    watch.raise_if_halted(now, WRONG)
    starts = [now + number * 2 * third for number in range(3)]
    watch._files[0].write_text("".join(json.dumps([start, start + third]) + "\n" for start in starts))
    with pytest.raises(ComputerStoodStillError, match="stood still for 15 ms"):
        watch.raise_if_halted(now, WRONG)


def test_halts_of_two_cores_are_not_added(watch):
    if len(watch._files) < 2:
        pytest.skip("needs two cores")
    now = time.monotonic_ns()
    note(watch, *([[now, now + HALT_NS - 1]] * len(watch._files)))
    watch.raise_if_halted(now, WRONG)
