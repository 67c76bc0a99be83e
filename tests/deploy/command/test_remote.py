"""The remote's bytes against the simulator's own encoding of them, and what is no remote at all."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpo_deploy.command.remote import BUTTONS, SIZE, decode_remote
from sim2real_checks.robot_sim.remote import BUTTONS as SIMULATED_BUTTONS
from sim2real_checks.robot_sim.remote import Remote

sticks = st.floats(-1.0, 1.0, width=32)
buttons = st.frozensets(st.sampled_from(SIMULATED_BUTTONS))


@settings(max_examples=300, deadline=None)
@given(sticks, sticks, sticks, sticks, buttons)
def test_every_remote_is_read_as_it_was_written(lx, ly, rx, ry, pressed):
    read = decode_remote(Remote(lx, ly, rx, ry, pressed).to_bytes())
    assert (read.lx, read.ly, read.rx, read.ry, read.buttons) == (lx, ly, rx, ry, pressed)
    assert read.estop is ({"L2", "B"} <= pressed)


# Byte and bit of each button as Unitree's joystick structure has them; written down apart from the decoder.
BITS = {
    "R1": (2, 0), "L1": (2, 1), "Start": (2, 2), "Select": (2, 3), "R2": (2, 4), "L2": (2, 5), "F1": (2, 6),
    "F2": (2, 7), "A": (3, 0), "B": (3, 1), "X": (3, 2), "Y": (3, 3), "Up": (3, 4), "Right": (3, 5), "Down": (3, 6),
    "Left": (3, 7),
}  # fmt: skip


@pytest.mark.parametrize("button", list(BITS))
def test_each_button_has_its_bit(button):
    frame = bytearray(SIZE)
    frame[:2] = b"\x55\x51"
    byte, bit = BITS[button]
    frame[byte] = 1 << bit
    assert decode_remote(bytes(frame)).buttons == {button}
    assert set(BUTTONS) == set(BITS)


def test_stick_offsets():
    frame = bytearray(SIZE)
    for offset, value in ((4, 0.1), (8, 0.2), (12, 0.3), (16, 0.4), (20, 0.5)):
        struct.pack_into("<f", frame, offset, value)
    read = decode_remote(bytes(frame))
    assert (read.lx, read.rx, read.ry, read.ly) == pytest.approx((0.1, 0.2, 0.3, 0.5), abs=1e-7)


@pytest.mark.parametrize("frame", [b"", bytes(SIZE), bytes(SIZE - 1), bytes(SIZE + 1), b"\xff" * SIZE, b"\x55" * 39])
def test_no_remote_is_none(frame):
    assert decode_remote(frame) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.02, -1.5, 1e30, -3e38])
@pytest.mark.parametrize("offset", [4, 8, 12, 20])
def test_implausible_stick_makes_the_whole_frame_none(offset, value):
    frame = bytearray(Remote(buttons=frozenset({"L2", "B"})).to_bytes())
    assert decode_remote(bytes(frame)).estop
    struct.pack_into("<f", frame, offset, value)
    assert decode_remote(bytes(frame)) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_and_never_raise(frame):
    read = decode_remote(frame)
    if read is not None:
        assert all(abs(stick) <= 1.01 for stick in (read.lx, read.ly, read.rx, read.ry))


def test_random_bytes_rarely_look_like_an_emergency_stop():
    """LowState carries a checksum, so this is the second line; it still should not stop one frame in a hundred."""
    frames = np.random.default_rng(0).integers(0, 256, (50_000, SIZE), dtype=np.uint8)
    stops = sum(1 for frame in frames if (read := decode_remote(frame.tobytes())) is not None and read.estop)
    assert stops / len(frames) < 0.02
    print(f"{stops} of {len(frames)} random frames read as an emergency stop")
