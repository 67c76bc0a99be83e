"""Failures of real-time tests are excused by a computer that stood still, seldom by a late one, and by nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.halts import HALT_NS, WINDOW_NS, ComputerStoodStillError, HaltWatch, StackWasLateError

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


STALE = AssertionError("timed out waiting for READY; mode (5, 'state_age: robot state stale for 30 ms')\nassert False")


def test_a_late_stack_excuses_few_tests_and_only_those_where_it_says_so(watch):
    watch.raise_if_late("falls", WRONG)
    for test in ("first", "second", "first"):
        with pytest.raises(StackWasLateError, match="state_age: robot state stale for 30 ms"):
            watch.raise_if_late(test, STALE)
    watch.raise_if_late("third", STALE)
    assert list(watch.late) == ["first", "second"]
    assert watch.late["first"].endswith("stale for 30 ms')")


TRIED_AGAIN = """
import pytest

tries = []

def test_late():
    tries.append(1)
    assert len(tries) > 1, "gate tripped: permit stale for 102 ms"

def test_wrong():
    tries.append(1)
    assert False, "the robot fell"
"""


def test_what_was_tried_again_is_told_at_the_end(tmp_path):
    # Beside the project's own conftest, and in a folder whose tests run alone.
    folder = tmp_path / "tests"
    (folder / "ros").mkdir(parents=True)
    (folder / "ros/test_sample.py").write_text(TRIED_AGAIN)
    (folder / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    words = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", str(tmp_path), str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    output = subprocess.run(words, env=environment, capture_output=True, text=True).stdout
    assert re.search("1 failed, 1 passed,.* 1 rerun", output), output
    told = output[output.index("tried again, because the stack was late") :]
    assert "test_sample.py::test_late: gate tripped: permit stale for 102 ms" in told
