"""Messages with known content, and readers that are not ours."""

import struct
from pathlib import Path

import pytest
from mcap.reader import NonSeekingReader, SeekingReader

from nfpo_deploy.flight_log.recorder import LogSettings
from nfpo_deploy.flight_log.schemas import Definition, definition_of_record
from nfpo_deploy.flight_log.segment import Channel, Entry
from nfpo_deploy.transport.codec import GO_LOW_CMD

COUNTER = Channel("/counter", Definition("test_msgs/msg/Counter", "uint32 value\n"))
LOW_CMD = Channel("rt/lowcmd", definition_of_record(GO_LOW_CMD), {"publisher": "bridge", "pid": "17", "guid": "a"})
QUICK = {"segment_s": 0.3, "ring_s": 1.2, "before_s": 0.6, "after_s": 0.4, "flush_s": 0.05, "min_free_mb": 1.0}


def counter(value, time_ns=None, channel=COUNTER):
    """CDR of a Counter, by hand: encapsulation header, then the number."""
    data = b"\x00\x01\x00\x00" + struct.pack("<I", value)
    time_ns = 10**18 + value if time_ns is None else time_ns
    return Entry(channel, time_ns, time_ns - 5, value, data)


def values(messages):
    return [
        struct.unpack("<I", message.data[4:8])[0] for _, channel, message in messages if channel.topic == "/counter"
    ]


def read_indexed(path: Path):
    """By the library's reader that jumps by the index, as Foxglove does."""
    with path.open("rb") as stream:
        return list(SeekingReader(stream, validate_crcs=True).iter_messages(log_time_order=False))


def read_cut(path: Path):
    """By the library's reader of streams, up to where it gives up."""
    found = []
    with path.open("rb") as stream:
        try:
            found.extend(NonSeekingReader(stream, validate_crcs=True).iter_messages(log_time_order=False))
        except Exception:
            stream.seek(0)
            return _read_until_failure(stream)
    return found


def _read_until_failure(stream):
    from mcap.records import Channel as ChannelRecord
    from mcap.records import Message
    from mcap.stream_reader import StreamReader

    channels, found = {}, []
    try:
        for record in StreamReader(stream, validate_crcs=True).records:
            if isinstance(record, ChannelRecord):
                channels[record.id] = record
            elif isinstance(record, Message):
                found.append((None, channels[record.channel_id], record))
    except Exception:  # the end of a cut file
        pass
    return found


@pytest.fixture
def settings():
    return LogSettings(**QUICK)


@pytest.fixture
def reports():
    return []
