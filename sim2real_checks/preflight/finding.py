"""The result of one check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Result(Enum):
    """What a check came to. Only FAIL changes the exit status."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """One line of the checklist.

    Attributes:
        check: its name.
        measured: what was seen, for people.
        remedy: what to do about it; empty where the check passed.
        values: the same for machines, SI units.
    """

    check: str
    result: Result
    measured: str
    remedy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def worst(findings: Iterable[Finding]) -> Result:
    """FAIL if one failed, else WARN if one warns, else PASS; what was skipped does not count."""
    results = {finding.result for finding in findings}
    return next((result for result in (Result.FAIL, Result.WARN) if result in results), Result.PASS)


def skipped(checks: Iterable[str], reason: str) -> list[Finding]:
    """Checks that could not be made."""
    return [Finding(check, Result.SKIP, reason) for check in checks]
