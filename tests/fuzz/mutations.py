"""Damage for valid inputs: to their bytes, or to the tree that they encode."""

from __future__ import annotations

import copy
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 12, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32,
           2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 10**30, 10**400)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, 1e-300, 5e-324, 1e30, -1e30, 1.7e308, math.inf, -math.inf, math.nan)
TEXTS = ("", " ", "nan", "inf", "1e999", "true", "null", "~", "\0", "\n", "ü", "\U0001f916", "../../etc/passwd",
         "/dev/zero", "%s%n", "{}", "[", "'", '"', "x" * 300, "__class__", "1,2,3", "0x10", "١")  # fmt: skip


def scalar(rng: random.Random) -> Any:
    """A value that somebody may not have thought of."""
    return rng.choice((None, True, False, rng.choice(NUMBERS), rng.choice(FLOATS), rng.choice(TEXTS), rng.random()))


def value(rng: random.Random) -> Any:
    """A scalar, or a small or deep container."""
    pick = rng.randrange(12)
    if pick == 0:
        return []
    if pick == 1:
        return {}
    if pick == 2:
        return [scalar(rng) for _ in range(rng.randrange(1, 20))]
    if pick == 3:
        return {str(scalar(rng)): scalar(rng) for _ in range(rng.randrange(1, 5))}
    if pick == 4:
        deep: Any = scalar(rng)
        for _ in range(rng.choice((3, 20, 60))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return scalar(rng)


def mutate_tree(rng: random.Random, tree: Any, times: int | None = None) -> Any:
    """A copy of a tree of lists and dictionaries with a few places changed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4)) if times is None else times):
        tree = _mutate_once(rng, tree)
    return tree


def _mutate_once(rng: random.Random, tree: Any) -> Any:
    if not isinstance(tree, (list, dict)) or not tree or rng.random() < 0.01:
        return value(rng)
    at: Any = tree
    while True:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], (list, dict)) and at[key] and rng.random() < 0.8:
            at = at[key]
            continue
        break
    operation = rng.randrange(6)
    if operation <= 2:
        at[key] = _neighbour(rng, at[key]) if rng.random() < 0.5 else value(rng)
    elif operation == 3:
        del at[key]
    elif isinstance(at, dict):
        at[str(scalar(rng)) if rng.random() < 0.5 else rng.choice(list(at))] = value(rng)
    else:
        at.insert(rng.randrange(len(at) + 1), copy.deepcopy(at[key]) if operation == 4 else value(rng))
    return tree


def _neighbour(rng: random.Random, old: Any) -> Any:
    """A value close to the old one: what a typing error makes of it."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, (int, float)):
        return rng.choice((-old, old + 1, old * 1000, old / 3 if abs(old) < 1e300 else 0, str(old), [old]))
    if isinstance(old, str):
        return rng.choice((old + "x", old[1:], old.upper(), [old], old.encode(errors="replace").hex()))
    return [old]


def mutate_bytes(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A copy of `data` with a few places damaged; `others` are spliced in."""
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        data = rng.choice(_BYTE_OPERATIONS)(rng, data, others)
    return data


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return bytes([rng.randrange(256)])
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 8, rng.randrange(1, 300))) :]


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 8, 64, 500))]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start:]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[start:]


def _number(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    form = rng.choice("bBhHiIqQfd")
    order = rng.choice("<>")
    number: float = rng.choice(NUMBERS) if form not in "fd" else rng.choice(FLOATS)
    try:
        piece = struct.pack(order + form, number)
    except (struct.error, OverflowError):
        piece = b"\xff" * struct.calcsize(order + form)
    start = rng.randrange(len(data) + 1)
    return data[:start] + piece + data[start + len(piece) :]


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _garbage(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 8, 64, 1000))) if rng.random() < 0.2 else data


_BYTE_OPERATIONS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip, _flip, _number, _number, _cut, _remove, _repeat, _insert, _splice, _garbage,
)  # fmt: skip
