"""Packets of the right topic with the wrong content: each decoder answers with a value, a count or an error of ours."""

import random
import struct

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import (
    GO_LOW_CMD,
    GO_LOW_STATE,
    GO_SPORT_MODE_STATE,
    GO_WIRELESS_CONTROLLER,
    HG_LOW_CMD,
    HG_LOW_STATE,
)
from nfpo_deploy.transport.identity import IdentityCheck
from nfpo_deploy.transport.mapping import LowStateDecoder
from robots.loader import load_robot

SPEC = load_robot("go2")
CODECS = (GO_LOW_STATE, GO_LOW_CMD, GO_SPORT_MODE_STATE, GO_WIRELESS_CONTROLLER, HG_LOW_STATE, HG_LOW_CMD)


def good_state(tick=1):
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["tick"] = tick
    record["crc"] = GO_LOW_STATE.crc(record)
    return GO_LOW_STATE.encode(record)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_length_but_the_right_one_is_refused(codec):
    wire = codec.encode(codec.new())
    lengths = {*range(40), *range(max(0, codec.wire_size - 40), codec.wire_size + 2), 70_000}
    for length in lengths - {codec.wire_size}:
        with pytest.raises(TransportError, match=f"{length} bytes"):
            codec.decode((wire * (length // len(wire) + 1))[:length])


@pytest.mark.parametrize("header", ["0000", "0002", "0003", "0006", "0007", "0009", "ffff"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_big_endian_and_other_encodings_are_refused(codec, header):
    wire = bytes.fromhex(header) + codec.encode(codec.new())[2:]
    with pytest.raises(TransportError, match=header):
        codec.decode(wire)


def test_random_content_never_becomes_a_state():
    decoder, source = LowStateDecoder(SPEC), random.Random(1)
    for _ in range(3000):
        sample = b"\x00\x01\x00\x00" + source.randbytes(GO_LOW_STATE.wire_size - 4)
        assert decoder.accept(sample) is None
    assert decoder.crc_errors == 3000 and decoder.accepted == 0


def test_every_single_flipped_bit_of_content_is_caught():
    """The checksum covers all fields; only padding and the two option bytes of the header do not count."""
    decoder, wire = LowStateDecoder(SPEC), good_state()
    accepted = set()
    for bit in range(16, 8 * len(wire)):
        sample = bytearray(wire)
        sample[bit // 8] ^= 1 << bit % 8
        if decoder.accept(bytes(sample)) is not None:
            accepted.add(bit // 8)
    used = set((GO_LOW_STATE._to_image[GO_LOW_STATE._to_image > 0]).tolist())
    assert accepted and not accepted & used


def test_content_with_a_valid_checksum_is_still_judged():
    """A sender with a right checksum and absurd numbers: a state that comes through is finite."""
    decoder, source = LowStateDecoder(SPEC), np.random.default_rng(2)
    check = IdentityCheck(SPEC)
    specials = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0.0, 1.0, 1e9], dtype=np.float32)
    passed = 0
    for _ in range(3000):
        record = GO_LOW_STATE.new()
        record["imu_state"]["quaternion"] = (1, 0, 0, 0)
        target = source.choice(["q", "dq", "tau_est", "gyroscope", "quaternion", "power_v", "nothing"])
        value = source.choice(specials)
        if target in ("q", "dq", "tau_est"):
            record["motor_state"][target][source.integers(20)] = value
        elif target in ("gyroscope", "quaternion"):
            record["imu_state"][target][source.integers(3)] = value
        elif target == "power_v":
            record["power_v"] = value
        record["crc"] = GO_LOW_STATE.crc(record)
        accepted = decoder.accept(GO_LOW_STATE.encode(record))
        if accepted is not None:
            passed += 1
            check.observe(accepted)
            state = decoder.to_state(accepted, 1)
            values = (state.q, state.dq, state.tau_est, state.gyro_b, state.accel_b, state.quat_wxyz)
            assert all(np.isfinite(part).all() for part in values)
    assert 500 < passed < 3000 and decoder.malformed == 3000 - passed


def test_mutated_answers_of_a_service_are_no_answers():
    pytest.importorskip("unitree_sdk2py")
    from unitree_sdk2py.idl.unitree_api.msg import dds_ as api

    from nfpo_deploy.transport.dds import DdsParticipant
    from nfpo_deploy.transport.rpc import RpcClient

    participant = DdsParticipant("lo", 38)
    try:
        client = RpcClient(participant, "fuzz")
        identity = api.RequestIdentity_(7, 1001)
        header = api.ResponseHeader_(identity, api.ResponseStatus_(0))
        wire = api.Response_(header, '{"name": "ai"}', [1, 2, 3]).serialize()
        assert client._decode(wire).header.identity.id == 7
        source, unreadable = random.Random(4), 0
        for _ in range(5000):
            sample = bytearray(wire)
            for _ in range(source.randint(1, 4)):
                sample[source.randrange(len(sample))] = source.randrange(256)
            sample = sample[: source.randint(0, len(sample))]
            unreadable += client._decode(bytes(sample)) is None
        assert unreadable > 1000
        claims_4_gb = wire[:4] + struct.pack("<qq", 7, 1001) + struct.pack("<i", 0) + struct.pack("<I", 0xFFFFFFF0)
        assert client._decode(claims_4_gb) is None
    finally:
        participant.close()


@pytest.mark.parametrize("answer", ["", "[", "[" * 100_000, "null", "[]", "3", '{"name": null}', '{"name": 3}', "{}"])
def test_absurd_answers_of_the_motion_switcher_are_named(answer, monkeypatch):
    pytest.importorskip("unitree_sdk2py")
    from nfpo_deploy.transport.dds import DdsParticipant
    from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient

    participant = DdsParticipant("lo", 38)
    try:
        client = MotionSwitcherClient(participant)
        monkeypatch.setattr(client, "_call", lambda *_: answer)
        with pytest.raises(TransportError, match="expected JSON with a 'name'"):
            client.check_mode(1.0)
    finally:
        participant.close()
