"""A file of equal rows that grows while a run lasts: memory stays flat, and a kill loses only the last moments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RAW_SUFFIX = ".partial"
NUMBERS = "biuf"
"""Kinds of NumPy types in a row. Damaged text can hold code points that Python cannot represent."""


class RawFile:
    """Rows behind a JSON header that names their columns.

    Args:
        path: of the file.
        dtype: of a row.
        meta: JSON text that is kept with the rows.
        buffer: bytes that may be lost in a kill.
    """

    def __init__(self, path: Path, dtype: np.dtype, meta: str, buffer: int = 8192) -> None:
        self.path = path
        self._file = path.open("wb", buffering=buffer)
        header = json.dumps({"dtype": _describe(dtype), "meta": meta}).encode()
        self._file.write(len(header).to_bytes(8, "little") + header)

    def append(self, row: np.ndarray) -> None:
        """Add one row, shape () or (1,)."""
        self._file.write(row.data)

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        """Complete the file; it stays where it is."""
        self._file.close()


def read_raw(path: Path) -> tuple[np.ndarray, str]:
    """Rows, read from the file as they are used, and meta of a raw file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a raw file.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, path.stat().st_size)))
            dtype = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in header["dtype"]])
            meta = header["meta"]
            if not dtype.itemsize or not isinstance(meta, str):
                raise ValueError("rows of no size, or meta that is no text")
            strange = [name for name in dtype.names or () if dtype[name].base.kind not in NUMBERS]
            if strange:
                raise ValueError(f"columns {strange} do not hold numbers")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}: not a raw record of robot_sim: {error}") from error
    # A kill can leave half a row at the end.
    count = max(0, path.stat().st_size - 8 - size) // dtype.itemsize
    if count == 0:
        return np.zeros(0, dtype=dtype), meta
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + size, shape=(count,)), meta


def _describe(dtype: np.dtype) -> list:
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names or ()]
