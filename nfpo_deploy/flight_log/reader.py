"""Read MCAP that may be cut, damaged or hostile: what is whole is returned, what is not is named, nothing explodes.

The `mcap` library parses the records; the framing around them is checked here first, because its readers trust
the lengths that a file claims.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import zstandard
from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC

from nfpo_deploy.flight_log.errors import FlightLogError

MAX_RECORD = 256 << 20
"""Longest record that is read at all, bytes."""
MAX_CHUNK = 64 << 20
"""Longest unpacked chunk, bytes; writers close a chunk after one to four MiB."""
_FRAME = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_PARSE_ERRORS = (McapError, ValueError, struct.error, KeyError, OverflowError)
_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """Something in the file that could not be read."""

    offset: int
    """Byte at which it begins."""
    text: str
    lost: int
    """Bytes that were skipped because of it."""


@dataclass(frozen=True)
class LogMessage:
    """One message of a log. Times in ns since 1970 (UTC)."""

    schema: records.Schema | None
    channel: records.Channel
    log_ns: int
    publish_ns: int
    sequence: int
    data: bytes


@dataclass(frozen=True)
class _Frame:
    opcode: int
    offset: int
    body: bytes


class LogReader:
    """Reads one file, once.

    Attributes:
        problems: what could not be read, in the order of the file; complete when `messages` has ended.
        finished: whether the file has its end, so that every MCAP reader opens it; known when `messages` has ended.
        metadata: metadata records by name.
        attachments: attachments, in order.
        profile, library: of the file's header.
        last_good: byte after the last record that could be read and matters.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; nothing but its first bytes is read yet.

        Raises:
            FlightLogError: it cannot be opened, or is no MCAP file.
        """
        self.path = path
        self.problems: list[Problem] = []
        self.finished = False
        self.metadata: dict[str, dict[str, str]] = {}
        self.attachments: list[records.Attachment] = []
        self.profile = self.library = ""
        self.last_good = 0
        self._schemas: dict[int, records.Schema] = {}
        self._channels: dict[int, records.Channel] = {}
        try:
            if not path.is_file():
                raise FlightLogError(f"{path} is not a file")
            self._size = path.stat().st_size
            self._stream: BinaryIO = path.open("rb")
            start = self._stream.read(len(MCAP0_MAGIC))
        except OSError as error:
            raise FlightLogError(f"cannot read {path}: {error.strerror or error}") from error
        if start != MCAP0_MAGIC:
            self._stream.close()
            raise FlightLogError(f"{path} is no MCAP file: it begins with {start.hex() or 'nothing'}")

    def messages(self) -> Iterator[LogMessage]:
        """Every message that can be read, in the order of the file; raises nothing but `OSError`."""
        with self._stream:
            for frame in self._frames():
                try:
                    yield from self._read(frame)
                except _PARSE_ERRORS as error:
                    text = f"{Opcode(frame.opcode).name.lower()} cannot be read: {_describe(error)}"
                    self._problem(frame.offset, text, _FRAME.size + len(frame.body))

    @property
    def cut_only(self) -> bool:
        """Whether nothing is lost but the end: every problem lies behind the last record that could be read."""
        return all(problem.offset >= self.last_good for problem in self.problems)

    def _frames(self) -> Iterator[_Frame]:
        offset = len(MCAP0_MAGIC)
        while offset < self._size:
            self._stream.seek(offset)
            head = self._stream.read(_FRAME.size)
            rest = self._size - offset
            if len(head) < _FRAME.size:
                return self._problem(offset, "the file ends within a record", rest)
            opcode, length = _FRAME.unpack(head)
            if opcode == 0:
                return self._problem(offset, "no record begins here", rest)
            if length > rest - _FRAME.size:
                return self._problem(offset, "the file ends within a record", rest)
            if opcode == Opcode.FOOTER:
                self._check_end(offset + _FRAME.size + length)
                return None
            if length > MAX_RECORD:
                self._problem(offset, f"a record of {length} bytes is left out, the limit is {MAX_RECORD}", length)
            elif opcode in _INTERESTING:
                body = self._stream.read(length)
                if len(body) < length:
                    return self._problem(offset, "the file ends within a record", rest)
                yield _Frame(opcode, offset, body)
            offset += _FRAME.size + length
        self._problem(self._size, "the file has no end", 0)
        return None

    def _check_end(self, offset: int) -> None:
        self._stream.seek(offset)
        if self._stream.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC:
            self.finished = True
        else:
            self._problem(offset, "the file has no end", self._size - offset)

    def _read(self, frame: _Frame) -> Iterator[LogMessage]:
        if frame.opcode == Opcode.CHUNK:
            # Whole chunks or nothing: a chunk is checked before its first message is given out.
            chunk = records.Chunk.read(_stream(frame.body))
            content = _unpack(chunk)
            if chunk.uncompressed_crc:
                # Intact, even if what it needs stood in a damaged part.
                self.last_good = frame.offset + _FRAME.size + len(frame.body)
            yield from self._read_chunk(content)
        elif (message := self._read_record(frame.opcode, frame.body)) is not None:
            yield message
        self.last_good = frame.offset + _FRAME.size + len(frame.body)

    def _read_chunk(self, content: bytes) -> Iterator[LogMessage]:
        found = []
        offset = 0
        while offset < len(content):
            opcode, length = _FRAME.unpack_from(content, offset)
            offset += _FRAME.size
            if length > len(content) - offset:
                raise ValueError(f"it claims a record of {length} bytes, {len(content) - offset} are left")
            message = self._read_record(opcode, content[offset : offset + length])
            if message is not None:
                found.append(message)
            offset += length
        return iter(found)

    def _read_record(self, opcode: int, body: bytes) -> LogMessage | None:
        if opcode == Opcode.MESSAGE:
            return self._message(body)
        stream = _stream(body)
        if opcode == Opcode.SCHEMA:
            schema = records.Schema.read(stream)
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = records.Channel.read(stream)
            self._channels[channel.id] = channel
        elif opcode == Opcode.METADATA:
            metadata = records.Metadata.read(stream)
            self.metadata[metadata.name] = metadata.metadata
        elif opcode == Opcode.ATTACHMENT:
            self.attachments.append(records.Attachment.read(stream))
        elif opcode == Opcode.HEADER:
            header = records.Header.read(stream)
            self.profile, self.library = header.profile, header.library
        return None

    def _message(self, body: bytes) -> LogMessage:
        channel_id, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(body)
        channel = self._channels.get(channel_id)
        if channel is None:
            raise ValueError(f"a message belongs to channel {channel_id}, which the file does not describe")
        schema = self._schemas.get(channel.schema_id)
        return LogMessage(schema, channel, log_ns, publish_ns, sequence, body[_MESSAGE.size :])

    def _problem(self, offset: int, text: str, lost: int) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(offset, text, lost))


_INTERESTING = frozenset(
    {Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK, Opcode.METADATA, Opcode.ATTACHMENT}
)


def _stream(body: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(body))


def _unpack(chunk: records.Chunk) -> bytes:
    """Content of a chunk.

    Raises:
        ValueError: too large, compressed in a way that we do not write, or damaged.
    """
    size = chunk.uncompressed_size
    if size > MAX_CHUNK:
        raise ValueError(f"it claims to unpack to {size} bytes, the limit is {MAX_CHUNK}")
    if chunk.compression == "zstd":
        content = _unpack_zstd(chunk.data, size)
    elif chunk.compression == "":
        content = chunk.data
    else:
        raise ValueError(f"compression {chunk.compression!r} is not supported, only zstd and none are")
    if len(content) != size:
        raise ValueError(f"it unpacks to {len(content)} bytes instead of {size}")
    if chunk.uncompressed_crc and zlib.crc32(content) != chunk.uncompressed_crc:
        raise ValueError("its checksum does not match")
    return content


def _unpack_zstd(data: bytes, size: int) -> bytes:
    try:
        # The one-shot function would allocate whatever the frame claims; this one stops where we say.
        with zstandard.ZstdDecompressor(max_window_size=MAX_CHUNK).stream_reader(data) as reader:
            return bytes(reader.read(size + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
