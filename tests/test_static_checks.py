"""Style and types of the whole tree, so that `make test` is the only gate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["style", "format", "types"],
)
def test_tree_passes(arguments: tuple[str, ...]) -> None:
    result = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 0, result.stdout + result.stderr
