"""What is written is read by readers that are not ours, and ours tells what is wrong with a file."""

import struct
import zlib

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Chunk
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.reader import MAX_CHUNK, LogReader
from nfpo_deploy.flight_log.segment import Channel, Segment

from .conftest import COUNTER, counter, read_cut, read_indexed, values


def write(path, chunks, metadata=None):
    """A finished segment; each chunk is a list of numbers."""
    segment = Segment(path, 0, metadata or {})
    for chunk in chunks:
        for value in chunk:
            segment.add(counter(value))
        segment.flush()
    segment.finish(1)
    return path


def test_the_library_reads_what_was_written(tmp_path):
    path = write(tmp_path / "a.mcap", [[1, 2], [3]], {"nfpo": {"robot": "go2"}})
    messages = read_indexed(path)
    assert values(messages) == [1, 2, 3]
    schema, channel, message = messages[2]
    assert (schema.name, schema.encoding, schema.data) == ("test_msgs/msg/Counter", "ros2msg", b"uint32 value\n")
    assert (channel.topic, channel.message_encoding) == ("/counter", "cdr")
    assert (message.log_time, message.publish_time, message.sequence) == (10**18 + 3, 10**18 - 2, 3)


def test_writers_of_one_topic_stay_apart(tmp_path):
    twins = [Channel("/counter", COUNTER.definition, {"publisher": name}) for name in ("bridge", "guard")]
    segment = Segment(tmp_path / "a.mcap", 0, {})
    for value, channel in enumerate(twins):
        segment.add(counter(value, channel=channel))
    segment.flush()
    segment.finish(1)
    messages = read_indexed(segment.path)
    assert values(messages) == [0, 1]
    assert [channel.metadata["publisher"] for _, channel, _ in messages] == ["bridge", "guard"]


def test_flushed_messages_are_in_the_file_before_it_is_finished(tmp_path):
    segment = Segment(tmp_path / "a.mcap", 0, {})
    for value in range(5):
        segment.add(counter(value))
    segment.flush()
    segment.add(counter(5))
    assert values(read_cut(segment.path)) == [0, 1, 2, 3, 4]
    assert segment.size == segment.path.stat().st_size
    segment.abandon(1)


def test_an_existing_file_is_never_overwritten(tmp_path):
    (tmp_path / "a.mcap").write_text("somebody's")
    with pytest.raises(FileExistsError):
        Segment(tmp_path / "a.mcap", 0, {})
    assert (tmp_path / "a.mcap").read_text() == "somebody's"


def test_reader_agrees_with_the_library(tmp_path):
    path = write(tmp_path / "a.mcap", [[1, 2], [3]], {"nfpo": {"robot": "go2"}})
    reader = LogReader(path)
    ours = [(m.channel.topic, m.log_ns, m.publish_ns, m.sequence, m.data) for m in reader.messages()]
    theirs = [(c.topic, m.log_time, m.publish_time, m.sequence, m.data) for _, c, m in read_indexed(path)]
    assert ours == theirs and len(ours) == 3
    assert reader.finished and not reader.problems and reader.metadata == {"nfpo": {"robot": "go2"}}


def test_reader_reads_files_without_chunks(tmp_path):
    path = tmp_path / "plain.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, use_chunking=False)
        writer.start("ros2", "another program")
        channel = writer.register_channel("/counter", "cdr", writer.register_schema("x/msg/Y", "ros2msg", b""))
        writer.add_message(channel, 7, counter(4).data, 6, 3)
        writer.finish()
    reader = LogReader(path)
    (message,) = reader.messages()
    assert (message.log_ns, message.publish_ns, message.sequence) == (7, 6, 3)
    assert reader.finished and reader.profile == "ros2" and reader.library == "another program"


@pytest.mark.parametrize("content", [b"", b"\x89MCAP", b"not a log at all, whatever its name says", bytes(64)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.mcap"
    path.write_bytes(content)
    with pytest.raises(FlightLogError, match="no MCAP file"):
        LogReader(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.mcap", tmp_path):
        with pytest.raises(FlightLogError, match="is not a file"):
            LogReader(path)


def test_damage_in_one_chunk_costs_that_chunk_only(tmp_path):
    path = write(tmp_path / "a.mcap", [[1, 2], [3, 4], [5]])
    data = bytearray(path.read_bytes())
    chunks = chunk_offsets(data)
    data[chunks[1] + 60] ^= 0xFF
    path.write_bytes(data)
    reader = LogReader(path)
    got = [struct.unpack("<I", m.data[4:8])[0] for m in reader.messages()]
    assert got == [1, 2, 5]
    assert [problem.offset for problem in reader.problems] == [chunks[1]]
    assert not reader.cut_only


def chunk_offsets(data):
    offsets, offset = [], len(MCAP0_MAGIC)
    while offset + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, offset)
        if opcode == Opcode.CHUNK:
            offsets.append(offset)
        offset += 9 + length
    return offsets


# Hostile files. Each claims more than it holds; reading it must cost neither memory nor time.


def file_with(tmp_path, *records):
    path = tmp_path / "hostile.mcap"
    path.write_bytes(MCAP0_MAGIC + b"".join(records))
    return path


def chunk(data, size, compression="zstd", crc=0):
    builder = RecordBuilder()
    Chunk(
        compression=compression, data=data, message_start_time=0, message_end_time=0, uncompressed_crc=crc,
        uncompressed_size=size,
    ).write(builder)  # fmt: skip
    return builder.end()


def bomb(size):
    """A small zstd frame that unpacks to zeros."""
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=True).compressobj(size=size)
    out = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return out + compressor.flush()


HOSTILE = {
    "record of 2^62 bytes": lambda: struct.pack("<BQ", Opcode.SCHEMA, 1 << 62) + bytes(100),
    "chunk that claims 2^62 bytes": lambda: chunk(b"\x00" * 50, 1 << 62),
    "chunk without compression that claims more": lambda: chunk(b"\x00" * 50, 51, compression=""),
    "zstd frame larger than its chunk says": lambda: chunk(bomb(256 << 20), 100),
    "zstd frame of 256 MB": lambda: chunk(bomb(256 << 20), 256 << 20),
    "zstd frame that claims an exabyte": lambda: chunk(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60), MAX_CHUNK),
    "unknown compression": lambda: chunk(b"xx", 2, compression="brotli"),
    "compression name that is no text": lambda: chunk(b"xx", 2).replace(b"zstd", b"\xff\xfe\xfd\xfc"),
    "record in a chunk that is longer than it": lambda: chunk(struct.pack("<BQ", 5, 1 << 40), 9, compression=""),
    "message of an unknown channel": lambda: struct.pack("<BQHIQQ", Opcode.MESSAGE, 22, 9, 0, 0, 0),
    "short message": lambda: struct.pack("<BQH", Opcode.MESSAGE, 2, 9),
    "channel with endless metadata": lambda: struct.pack("<BQHHIII", Opcode.CHANNEL, 16, 1, 0, 0, 0, 0xFFFFFFFF),
    "schema name of 4 GB": lambda: struct.pack("<BQHI", Opcode.SCHEMA, 6, 1, 0xFFFFFFFF),
    "zeros": lambda: bytes(10_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_named_and_skipped(tmp_path, name):
    path = file_with(tmp_path, HOSTILE[name]())
    reader = LogReader(path)
    assert list(reader.messages()) == []
    assert reader.problems and not reader.finished


def test_hostile_records_cost_no_memory(tmp_path):
    """In a process that may not have more than the interpreter and twice the largest chunk."""
    import subprocess
    import sys

    for index, make in enumerate(HOSTILE.values()):
        (tmp_path / f"{index}.mcap").write_bytes(MCAP0_MAGIC + make())
    code = f"""
import resource, sys
from pathlib import Path
from nfpo_deploy.flight_log.reader import LogReader
from nfpo_deploy.flight_log.timeline import analyse
used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {2 * MAX_CHUNK + (32 << 20)},) * 2)
for path in sorted(Path(sys.argv[1]).glob('*.mcap')):
    reader = LogReader(path)
    assert list(reader.messages()) == [] and reader.problems, path
    assert analyse([path]).problems
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr


def test_a_valid_checksum_does_not_make_hostile_content_harmless(tmp_path):
    inner = struct.pack("<BQ", Opcode.MESSAGE, 22) + struct.pack("<HIQQ", 77, 0, 0, 0)
    path = file_with(tmp_path, chunk(inner, len(inner), compression="", crc=zlib.crc32(inner)))
    reader = LogReader(path)
    assert list(reader.messages()) == []
    assert "channel 77" in reader.problems[0].text


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "a.mcap"
    return write(path, [[1, 2, 3], [4, 5], [6]], {"nfpo": {"robot": "go2"}}).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "a.mcap"


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_never_make_wrong_messages(sample, scratch, data):
    """Chunks carry a checksum: whatever happens to a file, what is read from a chunk was written."""
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 8))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        if kind == "flip" and damaged:
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del damaged[at:]
        elif kind == "insert":
            damaged[at:at] = data.draw(st.binary(max_size=20))
        else:
            del damaged[at : at + data.draw(st.integers(1, 30))]
    scratch.write_bytes(damaged)
    try:
        reader = LogReader(scratch)
    except FlightLogError:
        assert damaged[:8] != MCAP0_MAGIC
        return
    for message in reader.messages():
        assert message.data in {counter(value).data for value in range(1, 7)}


def test_compression_of_the_library_is_what_the_reader_expects(tmp_path):
    path = tmp_path / "lz4.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.LZ4)
        writer.start()
        channel = writer.register_channel("/counter", "cdr", 0)
        writer.add_message(channel, 1, b"", 1)
        writer.finish()
    reader = LogReader(path)
    assert list(reader.messages()) == []
    assert "lz4" in reader.problems[0].text
