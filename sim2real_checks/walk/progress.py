"""What the user sees while the robot walks: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.status import Status

REFRESH_S = 0.2


class Progress:
    """`status` is what happens now, `done` what has happened; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Status | None = None
        self._start = time.monotonic()
        self._last = ""
        self._updated = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = self._console.status("starting", spinner="dots", refresh_per_second=5)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def status(self, text: str) -> None:
        """Show what is going on; without a terminal only its first words, once."""
        headline = text.partition(" (")[0]
        changed, self._last = headline != self._last, headline
        if self._live is None:
            if changed:
                self._line(f"{escape(headline)} …")
        elif changed or time.monotonic() - self._updated > REFRESH_S:
            self._updated = time.monotonic()
            self._live.update(escape(text))

    def done(self, text: str) -> None:
        """Show that something is over."""
        self._line(f"[green]✓[/green] {escape(text)}" if self._live is not None else escape(text))

    def problem(self, text: str) -> None:
        """Show something that went wrong."""
        self._line(f"[red]{escape(text)}[/red]")

    def _line(self, text: str) -> None:
        stamp = f"{time.monotonic() - self._start:6.1f} s"
        self._console.print(f"{stamp}  {text}", highlight=False, soft_wrap=True)
