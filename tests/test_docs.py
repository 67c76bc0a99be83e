"""README and docs: links lead somewhere, and commands, files and folders that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfpo_deploy.cli import builtin_commands
from nfpo_deploy.graph_arguments import GRAPHS

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def code(text: str) -> str:
    """What stands in code blocks and between backticks."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join(blocks + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def anchors(path: Path) -> set[str]:
    """Anchors that a Markdown viewer makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_named_commands_exist(page: Path) -> None:
    text = code(page.read_text())
    for name in re.findall(r"(?:^|\brun )nfpo ([a-z]+)", text, re.MULTILINE):
        assert name in builtin_commands(), f"{page.name}: nfpo {name}"
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    for name in re.findall(r"(?:^|&& )make ([a-z-]+)", text, re.MULTILINE):
        assert name in targets, f"{page.name}: make {name}"


def test_named_launch_arguments_exist(page: Path) -> None:
    known = {argument.name for arguments in GRAPHS.values() for argument in arguments}
    for line in code(page.read_text()).splitlines():
        if "launch" in line:
            for name in re.findall(r"(\w+):=", line):
                assert name in known, f"{page.name}: {name}:="


def test_named_paths_exist(page: Path) -> None:
    roots = "nfpo_deploy|nfpo_train|robots|sim2real_checks|ros2_ws|scripts|tests|docs"
    made_by_building = ("ros2_ws/build", "ros2_ws/install", "ros2_ws/log")
    for name in re.findall(rf"(?:^|[\s(])((?:{roots})/[\w./-]*)", code(page.read_text()), re.MULTILINE):
        if not name.rstrip("/").startswith(made_by_building) or name == "ros2_ws/build.sh":
            assert (REPO / name).exists(), f"{page.name}: {name}"


def test_every_page_is_listed_in_the_index() -> None:
    index = (REPO / "docs/index.md").read_text()
    for path in (REPO / "docs").glob("*.md"):
        assert path.name == "index.md" or f"({path.name})" in index, path.name


def test_readme_opens_with_what_it_is_a_picture_and_the_two_commands() -> None:
    text = (REPO / "README.md").read_text()
    order = [text.index(part) for part in ("# nfpo", "Normalizing-flow", "![", "make walk", "make test", "## You own")]
    assert order == sorted(order)
