"""Who may see and use the web page.

On loopback the page is open to this computer's users; what is refused there are other sites' scripts in their browsers.
Bound to anything else, every request needs a session, and a session needs the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import stat
from collections import OrderedDict, deque
from pathlib import Path
from urllib.parse import urlsplit

from nfpo_deploy.errors import WebError

MIN_TOKEN = 16
"""Characters: out of the 64 of a generated token, 96 bits."""
MAX_FAILURES = 5
"""Wrong tokens from one address within `FAILURE_WINDOW_S`, before it has to wait."""
FAILURE_WINDOW_S = 60.0
MAX_ADDRESSES = 1024
MAX_SESSIONS = 64
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches `host`; a name other than localhost counts as reachable from elsewhere."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, token_file: str) -> str:
    """Token for a page bound to `host`: the file's, a generated one, or none at all on loopback without a file.

    A file and not an option, because everybody on the computer can read the options of a running program.

    Raises:
        WebError: a file that is missing, too short, or readable by others.
    """
    if not token_file:
        return "" if is_loopback(host) else secrets.token_urlsafe(24)
    path = Path(token_file).expanduser()
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WebError(f"token_file {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise WebError(f"token_file {path}: others may read it (mode {stat.S_IMODE(mode):o}); chmod 600 it")
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise WebError(
            f"token_file {path}: expected one word of at least {MIN_TOKEN} characters, got {len(token)}; python3 -c "
            "'import secrets; print(secrets.token_urlsafe(24))' makes one"
        )
    return token


class Access:
    """Decides over requests; holds the sessions. Times are CLOCK_MONOTONIC s.

    Args:
        token: what a session costs; empty for none.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._sessions: OrderedDict[str, None] = OrderedDict()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return not self._token

    def login(self, token: str, address: str, now: float) -> str | None:
        """New session for the right token; None for a wrong one, and for any from an address that guessed too often."""
        failures = self._failures.setdefault(address, deque(maxlen=MAX_FAILURES))
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if self.blocked(address, now):
            return None
        if self.open or not hmac.compare_digest(token.encode(), self._token):
            failures.append(now)
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[session] = None
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def blocked(self, address: str, now: float) -> bool:
        """Whether an address has to wait before its next guess; sessions that exist are not affected."""
        failures = self._failures.get(address)
        return failures is not None and len(failures) == MAX_FAILURES and now - failures[0] < FAILURE_WINDOW_S

    def knows(self, session: str | None) -> bool:
        """Whether a session is one of ours."""
        if session is None:
            return False
        given = session.encode()
        # All of them, so that the time tells nothing.
        return any([hmac.compare_digest(given, known.encode()) for known in self._sessions])

    def host_allowed(self, host_header: str | None) -> bool:
        """Without a token, only loopback names: another site's name that resolves to this computer is an attack."""
        if not self.open:
            return True
        return host_header is not None and urlsplit(f"//{host_header}").hostname in LOOPBACK_NAMES


def same_origin(origin: str | None, host_header: str | None) -> bool:
    """Whether a request comes from our own page; programs that are no browsers send no origin."""
    return origin is None or (host_header is not None and urlsplit(origin).netloc == host_header)
