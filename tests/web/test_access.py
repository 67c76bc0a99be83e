"""Tokens, sessions and origins."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfpo_deploy.errors import WebError
from nfpo_deploy.web.access import (
    FAILURE_WINDOW_S,
    MAX_ADDRESSES,
    MAX_FAILURES,
    MAX_SESSIONS,
    Access,
    choose_token,
    is_loopback,
    same_origin,
)

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host) and choose_token(host, "") == ""


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "robot", "localhost.example.org", "", "1"]
)
def test_anything_else_gets_one_that_nobody_guesses(host: str) -> None:
    first, second = choose_token(host, ""), choose_token(host, "")
    assert first != second and len(first) >= 32


def token_file(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_token_file_holds_everywhere(tmp_path: Path) -> None:
    path = token_file(tmp_path, TOKEN + "\n")
    assert choose_token("0.0.0.0", path) == choose_token("127.0.0.1", path) == TOKEN


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("fifteen-letters", 0o600, "at least 16 characters, got 15"),
        ("", 0o600, "got 0"),
        ("two words of it are no word", 0o600, "one word"),
        ("\x00" * 20, 0o600, "one word"),
        (TOKEN, 0o640, "others may read it .mode 640.; chmod 600"),
        (TOKEN, 0o604, "others may read it"),
    ],
)
def test_bad_token_files_are_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(WebError, match=message):
        choose_token("127.0.0.1", token_file(tmp_path, text, mode))


def test_a_missing_or_binary_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebError, match="no_such"):
        choose_token("127.0.0.1", str(tmp_path / "no_such"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff" * 20)
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(WebError, match="binary"):
        choose_token("127.0.0.1", str(tmp_path / "binary"))


def test_the_token_buys_a_session_and_nothing_else_does() -> None:
    access = Access(TOKEN)
    session = access.login(TOKEN, "10.0.0.9", 0.0)
    assert session is not None and session != TOKEN and access.knows(session)
    for other in (None, "", TOKEN, session[:-1], session + "x", "é"):
        assert not access.knows(other)
    for i, wrong in enumerate(("", TOKEN[:-1], TOKEN + " ", "é" * 16)):
        assert access.login(wrong, f"10.0.1.{i}", 0.0) is None


def test_guessing_is_slowed_for_the_guesser_alone() -> None:
    access = Access(TOKEN)
    session = access.login(TOKEN, "10.0.0.1", 0.0)
    for i in range(MAX_FAILURES):
        assert access.login("guess", "10.0.0.1", float(i)) is None
    assert access.blocked("10.0.0.1", 5.0) and access.login(TOKEN, "10.0.0.1", 5.0) is None
    assert access.knows(session), "who is in may go on, above all to stop the robot"
    assert access.login(TOKEN, "10.0.0.2", 5.0) is not None
    assert access.login(TOKEN, "10.0.0.1", FAILURE_WINDOW_S + 0.1) is not None


def test_memory_stays_bounded() -> None:
    access = Access(TOKEN)
    for i in range(3 * MAX_ADDRESSES):
        access.login("guess", f"address {i}", 0.0)
    sessions = [access.login(TOKEN, "10.0.0.1", 0.0) for _ in range(2 * MAX_SESSIONS)]
    assert len(access._failures) <= MAX_ADDRESSES
    assert sum(map(access.knows, sessions)) == MAX_SESSIONS


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:9000"])
def test_an_open_page_answers_to_loopback_names(host: str) -> None:
    assert Access("").host_allowed(host)


@pytest.mark.parametrize("host", ["evil.example:8080", "192.168.1.5:8080", "", None, "localhost.evil.example"])
def test_an_open_page_answers_to_no_other_name(host: str | None) -> None:
    assert not Access("").host_allowed(host)
    assert Access(TOKEN).host_allowed(host), "with a token the cookie decides, which belongs to one name"


def test_an_open_page_sells_no_sessions() -> None:
    assert Access("").login("", "127.0.0.1", 0.0) is None


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (None, "localhost:8080", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://localhost:9090", "localhost:8080", False),
        ("http://evil.example", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("http://localhost:8080", None, False),
    ],
)
def test_origins(origin: str | None, host: str | None, same: bool) -> None:
    assert same_origin(origin, host) is same
