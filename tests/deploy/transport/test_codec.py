"""Our codec and checksum against unitree_sdk2py's own, over random messages."""

import dataclasses

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import codec

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg import dds_ as go
from unitree_sdk2py.idl.unitree_hg.msg import dds_ as hg
from unitree_sdk2py.utils.crc import CRC

CASES = [
    (codec.GO_LOW_STATE, go.LowState_, 1180, True),
    (codec.GO_LOW_CMD, go.LowCmd_, 812, True),
    (codec.HG_LOW_STATE, hg.LowState_, 2092, True),
    (codec.HG_LOW_CMD, hg.LowCmd_, 1004, True),
    (codec.HG_IMU_STATE, hg.IMUState_, None, False),
    (codec.HG_BMS_STATE, hg.BmsState_, None, False),
    (codec.GO_SPORT_MODE_STATE, go.SportModeState_, None, False),
    (codec.GO_WIRELESS_CONTROLLER, go.WirelessController_, None, False),
]
IDS = [case[0].name for case in CASES]


def random_record(message: codec.MessageCodec, rng: np.random.Generator) -> np.ndarray:
    """Random finite numbers in every field; small integers, because the SDK's CRC packs some as signed."""
    record = message.new()
    fill(record, rng)
    return record


def fill(array: np.ndarray, rng: np.random.Generator) -> None:
    for name in array.dtype.names:
        part = array[name]
        if part.dtype.names:
            fill(part, rng)
        elif part.dtype.kind == "f":
            array[name] = rng.normal(0, 100, part.shape)
        else:
            largest = {1: 127, 2: 32767, 4: 2**31 - 1}[part.dtype.itemsize]
            array[name] = rng.integers(0, largest, part.shape, endpoint=True)


def assert_same(record: np.ndarray, message: object, path: str = "") -> int:
    """Compare every number of a record with an SDK message by field name; return how many were compared."""
    compared = 0
    fields = [field.name for field in dataclasses.fields(message)]
    assert list(record.dtype.names) == fields, path
    for name in fields:
        ours, theirs = record[name], getattr(message, name)
        if not dataclasses.is_dataclass(theirs) and not isinstance(theirs, (list, tuple, bytes)):
            assert ours.item() == theirs, f"{path}.{name}"
            compared += 1
        elif dataclasses.is_dataclass(theirs):
            compared += assert_same(ours, theirs, f"{path}.{name}")
        elif dataclasses.is_dataclass(theirs[0]):
            for i, element in enumerate(theirs):
                compared += assert_same(ours[i], element, f"{path}.{name}[{i}]")
        else:
            assert ours.tolist() == list(theirs), f"{path}.{name}"
            compared += len(theirs)
    return compared


@pytest.mark.parametrize(("message", "idl", "struct_size", "has_crc"), CASES, ids=IDS)
def test_random_messages_agree_with_the_sdk(message, idl, struct_size, has_crc):
    rng = np.random.default_rng(7)
    for _ in range(20):
        record = random_record(message, rng)
        wire = message.encode(record)
        theirs = idl.deserialize(wire)
        assert assert_same(record, theirs) > 4
        serialised = theirs.serialize()
        assert wire == serialised.ljust(len(wire), b"\0") and len(wire) - len(serialised) < 4
        assert message.decode(wire).tobytes() == record.tobytes()
        if has_crc:
            assert message.dtype.itemsize == struct_size  # the sizes of the C structs in Unitree's SDK
            assert message.crc(record) == CRC().Crc(theirs)


@pytest.mark.parametrize("message", [codec.GO_LOW_CMD, codec.HG_LOW_CMD], ids=lambda message: message.name)
def test_the_checksum_covers_every_field(message):
    record = random_record(message, np.random.default_rng(1))
    before = message.crc(record)
    record["motor_cmd"]["tau"][-1] += 1
    changed = message.crc(record)
    record["crc"] += 1
    assert changed != before
    assert message.crc(record) == changed, "the stored checksum itself does not count"


def test_padding_does_not_count():
    record = random_record(codec.GO_LOW_STATE, np.random.default_rng(2))
    dirty = np.frombuffer(bytes([0xAA]) * 1180, dtype=codec.GO_LOW_STATE.dtype).copy().reshape(())
    for name in record.dtype.names:
        dirty[name] = record[name]
    assert dirty.tobytes() != record.tobytes()
    assert codec.GO_LOW_STATE.crc(dirty) == codec.GO_LOW_STATE.crc(record)
    assert codec.GO_LOW_STATE.encode(dirty) == codec.GO_LOW_STATE.encode(record)


def test_checksum_of_known_bytes():
    """CRC-32/MPEG-2 of "12345678" as big-endian words, from the bitwise definition."""
    from nfpo_deploy.transport.crc import crc32

    def bitwise(words):
        crc = 0xFFFFFFFF
        for word in words:
            crc ^= word
            for _ in range(32):
                crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        return crc

    words = [0x31323334, 0x35363738, 0, 0xFFFFFFFF]
    assert crc32(np.array(words, dtype="<u4")) == bitwise(words)


@pytest.mark.parametrize(
    "damage",
    [lambda wire: wire[:-4], lambda wire: wire + b"\0\0\0\0", lambda wire: b"", lambda wire: b"\0\0" + wire[2:]],
    ids=["short", "long", "empty", "big-endian"],
)
def test_wrong_size_or_encoding_is_refused(damage):
    wire = codec.GO_LOW_STATE.encode(codec.GO_LOW_STATE.new())
    with pytest.raises(TransportError, match=r"unitree_go/LowState: expected 1180 bytes"):
        codec.GO_LOW_STATE.decode(damage(wire))


def test_negative_temperature_survives():
    record = codec.GO_LOW_STATE.new()
    record["motor_state"]["temperature"] = -12
    decoded = codec.GO_LOW_STATE.decode(codec.GO_LOW_STATE.encode(record))
    assert decoded["motor_state"]["temperature"].tolist() == [-12] * 20
