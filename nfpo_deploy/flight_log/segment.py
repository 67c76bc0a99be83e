"""One MCAP file that grows: chunks reach the disk whole, in order, and no failed write leaves half of one behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, cast

from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer

from nfpo_deploy.flight_log.schemas import Definition

PROFILE = "ros2"
LIBRARY = "nfpo flight recorder"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Channel:
    """A stream of messages of one type. Several may share a topic, as the publishers of rt/lowcmd do."""

    topic: str
    definition: Definition
    metadata: Mapping[str, str] = field(default_factory=dict)


class Entry(NamedTuple):
    """One message. Times are ns since 1970 (UTC)."""

    channel: Channel
    log_ns: int
    """When it was received."""
    publish_ns: int
    """When it was sent, by the sender's clock."""
    sequence: int
    data: bytes
    """CDR with its encapsulation header."""


class Segment:
    """Writes one file.

    Attributes:
        path: where it is.
        start_ns, end_ns: CLOCK_MONOTONIC when it was opened and closed; 0 while it is open.
        size: bytes that reached the file.
    """

    def __init__(self, path: Path, start_ns: int, metadata: Mapping[str, Mapping[str, str]]) -> None:
        """Create the file.

        Args:
            path: must not exist.
            start_ns: CLOCK_MONOTONIC now.
            metadata: records that describe the recording, by name.

        Raises:
            OSError: the file cannot be created or written.
        """
        self.path = path
        self.start_ns = start_ns
        self.end_ns = 0
        self._file = _WholeWrites(path)
        self._writer = Writer(cast(IO[bytes], self._file), chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._ids: dict[int, tuple[Channel, int]] = {}
        self._schemas: dict[str, int] = {}
        self._writer.start(PROFILE, LIBRARY)
        for name, record in metadata.items():
            self._writer.add_metadata(name, dict(record))

    @property
    def size(self) -> int:
        return self._file.written

    def add(self, entry: Entry) -> None:
        """Take one message; it reaches the file with `flush`."""
        # By identity: hashing a channel with its definition would cost more than writing the message.
        known = self._ids.get(id(entry.channel))
        number = known[1] if known is not None else self._register(entry.channel)
        self._writer.add_message(number, entry.log_ns, entry.data, entry.publish_ns, entry.sequence)

    def flush(self) -> None:
        """Write what was added as whole records; `OSError` where they did not fit, and the file is as before."""
        self._writer.flush()
        self._file.commit()

    def sync(self) -> None:
        """Wait until the disk has it; `OSError` where it failed."""
        self._file.sync()

    def finish(self, end_ns: int) -> None:
        """Write the index and close; `OSError` where that did not fit, and the file stays without index."""
        self.end_ns = end_ns
        try:
            self._writer.finish()
            self._file.commit()
            self._file.sync()
        finally:
            self._close()

    def abandon(self, end_ns: int) -> None:
        """Close without index: what was written stays readable, and can be repaired."""
        self.end_ns = end_ns
        self._close()

    def _close(self) -> None:
        self._file.close()
        # The ring remembers closed segments; their chunks and indices need not stay with them.
        del self._writer, self._ids, self._schemas

    def _register(self, channel: Channel) -> int:
        definition = channel.definition
        if definition.name not in self._schemas:
            self._schemas[definition.name] = self._writer.register_schema(
                definition.name, SchemaEncoding.ROS2, definition.text.encode()
            )
        number = self._writer.register_channel(
            channel.topic, MessageEncoding.CDR, self._schemas[definition.name], dict(channel.metadata)
        )
        # The channel is kept, too: an id is unique only as long as its object lives.
        self._ids[id(channel)] = (channel, number)
        return number


class _WholeWrites:
    """What the MCAP writer sees as its stream: collects, then writes everything or nothing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._pending: list[bytes] = []
        self._pending_size = 0
        self.written = 0

    def write(self, data: bytes) -> int:
        self._pending.append(data)
        self._pending_size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.written + self._pending_size

    def flush(self) -> None:
        """Part of a stream's interface; `commit` writes."""

    def commit(self) -> None:
        data = memoryview(b"".join(self._pending))
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            # A file that ends between two records needs no repair to be read, only to be indexed.
            os.ftruncate(self._fd, self.written)
            os.lseek(self._fd, self.written, os.SEEK_SET)
            raise
        self.written += len(data)
        self._pending.clear()
        self._pending_size = 0

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
