"""The checksum of Unitree's LowState and LowCmd, at C speed without a compiled library of our own.

Unitree's CRC is CRC-32/MPEG-2 (polynomial 04C11DB7, start FFFFFFFF, neither reflected nor inverted) over the
message's little-endian 32-bit words, most significant bit first. zlib has the same polynomial with every bit
order reversed and an inversion at the end, hence crc = reverse32(~zlib.crc32(bit-reversed, byte-swapped
words)).
"""

from __future__ import annotations

import zlib

import numpy as np

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32(words: np.ndarray) -> int:
    """Checksum of little-endian words, dtype `<u4`, shape (W,): the C struct without its last word."""
    return _finish(zlib.crc32(words.byteswap().tobytes().translate(_REVERSED_BITS)))


def _finish(crc: int) -> int:
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little").translate(_REVERSED_BITS), "big")
