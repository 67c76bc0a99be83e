"""Damaged inputs for every parser: a value or a named error, at once and in little memory.

These are short runs for everyday, with the same inputs each time, so that a change is to blame for what they find.
`python -m tests.fuzz --minutes 10` (or `make fuzz`) looks for new findings, with other inputs each time.
"""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.parser import FoundError, Parser, check
from tests.fuzz.table import KNOWN, PARSERS

EXAMPLES = 40


def outcome(name: str, data: bytes, folder: Path) -> str:
    """As `check`; a finding that the table lists as known is an outcome, too."""
    try:
        return check(PARSERS[name], data, folder)
    except FoundError as finding:
        if name in KNOWN and re.match(KNOWN[name], str(finding)):
            return "known finding"
        raise


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tmp_path_factory.mktemp("parser") for name in PARSERS}


@pytest.mark.parametrize("name", PARSERS)
def test_valid_inputs_are_accepted(name, folders):
    for data in PARSERS[name].valid():
        assert check(PARSERS[name], data, folders[name]) == "value"


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_inputs_give_a_value_or_a_named_error(name, folders):
    outcomes = set()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(st.integers(0, 2**64 - 1))
    def run(seed):
        outcomes.add(outcome(name, PARSERS[name].generate(random.Random(seed)), folders[name]))

    run()
    assert outcomes, "nothing ran"


@pytest.mark.parametrize("name", PARSERS)
def test_raw_bytes_give_a_value_or_a_named_error(name, folders):
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300))
    def run(data):
        outcome(name, data, folders[name])

    run()


# --- the fuzzer itself ----------------------------------------------------------------------------


def parser_that(run, errors=(ValueError,)):
    return Parser("x", (), lambda rng: b"", run, errors, lambda: [])


def raises(error):
    def run(data, scratch):
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (raises(KeyError("x")), "builtins.KeyError"),
        (raises(ValueError("")), "without a message"),
        (raises(ValueError("x" * 100_000)), "message of 100000 characters"),
        (raises(RecursionError("deep")), "RecursionError"),
        (raises(MemoryError("big")), "MemoryError"),
        (lambda data, scratch: spin(5.5), "s of CPU time"),
        (lambda data, scratch: len(bytearray(5 << 28)), "MiB of memory"),
    ],
)
def test_the_harness_finds(tmp_path, run, message):
    with pytest.raises(FoundError, match=message):
        check(parser_that(run), b"", tmp_path)


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_harness_accepts_values_and_documented_errors(tmp_path):
    assert check(parser_that(lambda data, scratch: None), b"", tmp_path) == "value"
    assert check(parser_that(raises(ValueError("why"))), b"", tmp_path) == "ValueError"
    assert (
        check(parser_that(raises(UnicodeDecodeError("utf-8", b"", 0, 1, "why"))), b"", tmp_path) == "UnicodeDecodeError"
    )


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_listed_as_known_is_still_there(name, folders):
    """Repaired parsers leave the list."""
    found = set()
    for seed in range(400):
        found.add(outcome(name, PARSERS[name].generate(random.Random(seed)), folders[name]))
    assert "known finding" in found, f"{name} seems repaired: remove it from KNOWN"


def test_the_same_seed_gives_the_same_input():
    for name, parser in PARSERS.items():
        assert parser.generate(random.Random(7)) == parser.generate(random.Random(7)), name
