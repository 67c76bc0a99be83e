"""The table of parsers is complete: whoever reads a file or a packet is fuzzed, or excused with a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from tests.fuzz.table import EXCUSED, PARSERS

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("nfpo_deploy", "nfpo_train", "robots", "sim2real_checks")
READERS = {
    "open", "read_text", "read_bytes", "load", "loads", "load_all", "safe_load", "load_yaml", "read_yaml", "load_json",
    "load_npz", "read_bounded", "frombuffer", "fromfile", "memmap", "genfromtxt", "loadtxt", "unpack", "unpack_from",
    "iter_unpack", "InferenceSession", "deserialize", "deserialize_message", "recv", "recvfrom", "recvmsg",
    "receive_bytes", "fromstring", "parse", "from_xml_path", "from_xml_string", "from_file", "from_string", "open_new",
    "imread", "make_reader", "decoder_for", "literal_eval", "eval", "exec",
}  # fmt: skip
"""Names of functions and methods that turn bytes from outside into values."""
OURS = {"OnnxPolicy.load", "self.alg.load", "self._lowcmd.open"}
"""Calls of those names that lead to a parser of our own, or to something else altogether."""


def reading_calls(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every call that may read something from outside."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if ast.unparse(function) in OURS:
            continue
        if name in READERS and not _only_writes(node) and not _about_the_system(node):
            yield node.lineno, ast.unparse(function)


def _only_writes(call: ast.Call) -> bool:
    """Whether an `open` says that it writes."""
    arguments = [*call.args[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    written = any(text and set(text) <= set("wbxat+") for text in texts)
    return written or "O_WRONLY" in ast.unparse(call) or "O_DIRECTORY" in ast.unparse(call)


def _about_the_system(call: ast.Call) -> bool:
    """Whether the path is one of the kernel's own, as /proc/self/stat."""
    text = ast.unparse(call)
    return "'/proc/" in text or "'/sys/" in text


@lru_cache
def files_that_read() -> dict[str, list[tuple[int, str]]]:
    found = {}
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            calls = list(reading_calls(path.read_text()))
            if calls:
                found[path.relative_to(REPO).as_posix()] = calls
    return found


def test_every_file_that_reads_is_fuzzed_or_excused():
    fuzzed = {name for parser in PARSERS.values() for name in parser.files}
    missing = {name: calls for name, calls in files_that_read().items() if name not in fuzzed | set(EXCUSED)}
    assert not missing, "\n".join(f"{name}: {calls}" for name, calls in missing.items())


def test_nothing_in_the_table_is_stale():
    reading = files_that_read()
    named = {name for parser in PARSERS.values() for name in parser.files} | set(EXCUSED)
    assert not named - set(reading), sorted(named - set(reading))
    assert all(len(reason) > 15 for reason in EXCUSED.values())
    both = {name for parser in PARSERS.values() for name in parser.files} & set(EXCUSED)
    assert not both


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("open(p)", 1), ("open(p, 'rb')", 1), ("open(p, mode='r')", 1), ("path.open()", 1), ("np.load(f)", 1),
        ("json.loads(x)", 1), ("torch.load(f)", 1), ("struct.unpack_from('<I', b)", 1), ("sock.recvfrom(9)", 1),
        ("open(p, 'w')", 0), ("path.open('ab')", 0), ("os.open(p, os.O_WRONLY | os.O_CREAT)", 0), ("f(x)", 0),
        ("open('/proc/self/stat')", 0), ("Path(f'/proc/{pid}/stat').read_text()", 0),
    ],
)  # fmt: skip
def test_the_scan_finds_readers(source, count):
    assert len(list(reading_calls(source))) == count


def test_names_are_unique_and_there_are_many():
    assert len(PARSERS) >= 30
