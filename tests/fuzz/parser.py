"""What a parser is for the fuzzer, and what it must never do."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_CPU_S = 5.0
"""CPU time of one input; wall time would count what other programs take."""
MAX_MEMORY_KIB = 1 << 20
"""Growth of the process's peak memory by one input: 1 GiB."""
MAX_MESSAGE = 20_000
"""Characters of an error's message: it goes into logs and onto terminals."""


class FoundError(AssertionError):
    """A parser did what none may do."""


@dataclass(frozen=True)
class Parser:
    """One parser under test."""

    name: str
    files: tuple[str, ...]
    """Source files whose reading it covers, relative to the repository."""
    generate: Callable[[random.Random], bytes]
    """An input: a valid one, damaged."""
    run: Callable[[bytes, Path], None]
    """Parse it; the folder is the parser's own."""
    errors: tuple[type[Exception], ...]
    """Documented errors. Everything else is a finding."""
    valid: Callable[[], list[bytes]]
    """Inputs that must be accepted: a parser that refuses everything proves nothing."""


def check(parser: Parser, data: bytes, scratch: Path) -> str:
    """Run one input; returns "value", or the name of the documented error that it gave.

    Raises:
        FoundError: another exception, an error without a message, too much time or memory.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        parser.run(data, scratch)
        outcome = "value"
    except parser.errors as error:
        outcome = type(error).__name__
        if not str(error).strip():
            raise FoundError(f"{parser.name}: {outcome} without a message") from error
        if len(str(error)) > MAX_MESSAGE:
            raise FoundError(f"{parser.name}: {outcome} with a message of {len(str(error))} characters") from error
    except Exception as error:
        raise FoundError(
            f"{parser.name}: {type(error).__module__}.{type(error).__name__}: {str(error)[:300]}"
        ) from error
    seconds = time.process_time() - start
    if seconds > MAX_CPU_S:
        raise FoundError(f"{parser.name}: took {seconds:.1f} s of CPU time")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > MAX_MEMORY_KIB:
        raise FoundError(f"{parser.name}: took {grown >> 10} MiB of memory")
    return outcome
