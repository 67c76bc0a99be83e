"""What lies where in the log folder, and what may be removed from it.

    <folder>/session_20260102T030405Z_4711/          one for each run of the recorder, the ring
        session.json  lock  20260102T030405.123Z_00001.mcap ...
    <folder>/incident_20260102T030510Z_emergency-stop/
        incident.json  hard links to the segments around it

Only names of this form, in folders that carry our mark, are ever moved or removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nfpo_deploy.flight_log.errors import FlightLogError

VARIABLE = "NFPO_LOG_DIR"
FORMAT = "nfpo flight log 1"
SESSION_FILE, INCIDENT_FILE, LOCK_FILE = "session.json", "incident.json", "lock"
_SESSION = re.compile(r"session_\d{8}T\d{6}Z_\d+")
_INCIDENT = re.compile(r"incident_\d{8}T\d{6}Z_[a-z0-9-]+")
_SEGMENT = re.compile(r"\d{8}T\d{6}\.\d{3}Z_\d{5}\.mcap")
PARTIAL = ".partial"
_PARTIAL = re.compile(rf"\..*{re.escape(PARTIAL)}")
_SLUG_LENGTH = 48
_MAX_JSON = 1 << 20
_PROBE_BYTES = 1 << 14


def default_folder() -> Path:
    """`$NFPO_LOG_DIR`, else `~/.local/state/nfpo/flight_log` (or below `$XDG_STATE_HOME`)."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "nfpo" / "flight_log"


def check_folder(folder: Path) -> None:
    """Make sure that a recorder could work in `folder`: creates it, writes and links a file, and removes both again.

    Raises:
        FlightLogError: it cannot be created or written, is full, or its file system has no hard links.
    """
    probe = folder / f".probe_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    linked = probe.with_name(f"{probe.name}_link")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write_synced(probe, bytes(_PROBE_BYTES))
            os.link(probe, linked)
        finally:
            for path in (probe, linked):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise FlightLogError(
            f"the flight log cannot be written to {folder}: {error.strerror or error}; name another folder on a local "
            f"disk with the launch argument log_dir:=PATH or the variable {VARIABLE}"
        ) from error


def timestamp(utc_ns: int, milliseconds: bool = False) -> str:
    """`20260102T030405Z`, with milliseconds `20260102T030405.123Z`."""
    text = datetime.fromtimestamp(utc_ns // 1_000_000_000, timezone.utc).strftime("%Y%m%dT%H%M%S")
    return f"{text}.{utc_ns // 1_000_000 % 1000:03d}Z" if milliseconds else f"{text}Z"


def utc_text(utc_ns: int) -> str:
    """ISO 8601 with milliseconds, as `2026-01-02T03:04:05.123+00:00`; the number itself where it is no sane time."""
    try:
        return datetime.fromtimestamp(utc_ns / 1e9, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(utc_ns)


def segment_name(utc_ns: int, number: int) -> str:
    """File name of the `number`-th segment of a session."""
    return f"{timestamp(utc_ns, milliseconds=True)}_{number:05d}.mcap"


def slug(text: str) -> str:
    """Short form of a reason for a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_SLUG_LENGTH].strip("-") or "unknown"


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the entries of a folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Replace a JSON file as a whole: after a cut either the old or the new one is there."""
    temporary = partial_of(path)
    write_synced(temporary, json.dumps({"format": FORMAT, **record}, indent=1).encode())
    os.replace(temporary, path)
    sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """Where a file is written before it replaces `path`."""
    return path.with_name(f".{path.name}{PARTIAL}")


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON file that `write_record` wrote; None where there is none, or it is not ours."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_JSON:
            return None
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def segments_in(folder: Path) -> list[Path]:
    """Segments of a session or an incident, oldest first."""
    return sorted(path for path in _children(folder) if _SEGMENT.fullmatch(path.name) and _is_file(path))


def sessions_in(folder: Path) -> list[Path]:
    """Folders of sessions, oldest first."""
    return _marked(folder, _SESSION, SESSION_FILE)


def incidents_in(folder: Path) -> list[Path]:
    """Folders of incidents, oldest first."""
    return _marked(folder, _INCIDENT, INCIDENT_FILE)


def make_folder(parent: Path, name: str) -> Path:
    """Create a new folder; a counter is added to a name that is taken."""
    for attempt in range(1, 1000):
        folder = parent / (name if attempt == 1 else f"{name}{'-' if name.startswith('incident') else ''}{attempt}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{parent / name}")


class Lock:
    """Held while a session is alive; the kernel releases it when the process dies, however that happens."""

    def __init__(self, session: Path) -> None:
        """Take the lock of a session.

        Raises:
            BlockingIOError: the session is alive.
        """
        self._fd = os.open(session / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise

    def release(self) -> None:
        """Let go; calling it twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_alive(session: Path) -> bool:
    """Whether the recorder of a session still runs."""
    try:
        with Lock(session):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def remove_session(session: Path) -> bool:
    """Remove the folder of an ended session that has no segments left; whatever is not ours keeps it in place."""
    rest = list(_children(session))
    if any(path.name not in (SESSION_FILE, LOCK_FILE) and not _is_partial(path) for path in rest):
        return False
    for path in rest:
        path.unlink(missing_ok=True)
    session.rmdir()
    return True


def is_pinned(incident: Path) -> bool:
    """Whether somebody has put a file of his own into an incident: then it is kept for ever."""
    ours = {INCIDENT_FILE, *(path.name for path in segments_in(incident))}
    return any(path.name not in ours and not _is_partial(path) for path in _children(incident))


def remove_incident(incident: Path) -> None:
    """Remove an incident with its segments; not one that `is_pinned`."""
    partial = [path for path in _children(incident) if _is_partial(path)]
    # The record last: what a cut leaves of the folder still says that it is ours.
    for path in (*segments_in(incident), *partial, incident / INCIDENT_FILE):
        path.unlink(missing_ok=True)
    incident.rmdir()


def free_bytes(folder: Path) -> int:
    """Room left for an ordinary user on the file system of `folder`."""
    return shutil.disk_usage(folder).free


def _children(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_partial(path: Path) -> bool:
    return _PARTIAL.fullmatch(path.name) is not None and _is_file(path)


def _marked(folder: Path, name: re.Pattern[str], mark: str) -> list[Path]:
    return sorted(
        path
        for path in _children(folder)
        if name.fullmatch(path.name) and not path.is_symlink() and read_record(path / mark) is not None
    )
