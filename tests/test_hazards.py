"""Every row of the hazard table in docs/safety.md names tests, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
COLUMNS = ["fault", "unprotected", "detected by, within", "reaction", "tests"]


def hazard_rows() -> list[list[str]]:
    """Rows of the table, cells stripped, without headings of groups."""
    lines = (REPO / "docs/safety.md").read_text().split("## Hazards")[1].splitlines()
    table = [line for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == COLUMNS
    end = next((i for i, row in enumerate(cells) if i > 1 and len(row) != len(COLUMNS)), len(cells))
    return [row for row in cells[2:end] if any(row[1:])]


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_the_table_is_there() -> None:
    rows = hazard_rows()
    assert len(rows) > 35
    assert len({row[0] for row in rows}) == len(rows)


@pytest.mark.parametrize("row", hazard_rows(), ids=lambda row: row[0][:40])
def test_a_row_is_complete_and_its_tests_exist(row: list[str]) -> None:
    assert all(row), f"an empty cell in {row}"
    named = re.findall(r"`(test_\w+)::(\w*)`", row[4])
    assert named and re.sub(r"`test_\w+::\w*`", "", row[4]).strip() == "", row[4]
    for file, part in named:
        paths = sorted((REPO / "tests").rglob(f"{file}.py"))
        assert len(paths) == 1, f"{file}: {paths}"
        names = {name for name in functions_of(paths[0]) if name.startswith("test_")}
        assert any(part in name for name in names), f"{file}::{part} names none of {sorted(names)}"
