"""Ground-truth log of a run: rows are appended to a file as it runs, and made into .npz or .csv at the end.

The raw file keeps memory flat over hours and survives a kill: `load_record` reads the leftover of a crashed
run too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sim2real_checks.robot_sim.motors import MotorBank
    from sim2real_checks.robot_sim.plant import Plant

RAW_SUFFIX = ".partial"


def row_dtype(nq: int, nv: int, n: int, feet: int) -> np.dtype:
    """One row: joint columns (N,) in joint order, SI units, `*_ns` of CLOCK_MONOTONIC with 0 for "never"."""
    return np.dtype([
        ("time", "<f8"),
        ("wall_ns", "<i8"),
        ("qpos", "<f8", (nq,)),
        ("qvel", "<f8", (nv,)),
        ("torque", "<f4", (n,)),
        ("command_q", "<f4", (n,)),
        ("command_dq", "<f4", (n,)),
        ("command_kp", "<f4", (n,)),
        ("command_kd", "<f4", (n,)),
        ("command_tau", "<f4", (n,)),
        ("foot_force", "<f4", (feet,)),
        ("lowstate_ns", "<i8"),
        ("lowcmd_ns", "<i8"),
        ("lowcmd_count", "<u4"),
        ("lowcmd_crc_errors", "<u4"),
        ("builtin_active", "u1"),
    ])  # fmt: skip


class Recorder:
    """Appends rows to `<path>.partial`; `close()` makes `path` (.npz or .csv) of it.

    The .npz holds one array for each column, plus `meta`, a JSON text with the given `meta`.
    """

    def __init__(self, path: Path, dtype: np.dtype, meta: dict) -> None:
        self.path = path
        self._meta = json.dumps(meta)
        self._row = np.zeros((), dtype=dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw_path = path.with_name(path.name + RAW_SUFFIX)
        self._raw = self._raw_path.open("wb")
        header = json.dumps({"dtype": _describe(dtype), "meta": self._meta}).encode()
        self._raw.write(len(header).to_bytes(8, "little") + header)

    def append(self, plant: Plant, motors: MotorBank, wall_ns: int, **counters: int) -> None:
        """Add one row: the current state, the command in force, and columns named in `counters`."""
        row = self._row
        row["time"] = plant.time
        row["wall_ns"] = wall_ns
        row["qpos"] = plant.data.qpos
        row["qvel"] = plant.data.qvel
        row["torque"] = motors.torque
        row["foot_force"] = plant.foot_force()
        for name in ("q", "dq", "kp", "kd", "tau"):
            row[f"command_{name}"] = getattr(motors, name)
        for name, value in counters.items():
            row[name] = value
        self._raw.write(row.tobytes())

    def close(self) -> None:
        """Write the final file and remove the raw one; calling it twice is harmless."""
        if self._raw.closed:
            return
        self._raw.close()
        rows, meta = _read_raw(self._raw_path)
        finished = self.path.with_name(self.path.name + ".tmp")
        if self.path.suffix == ".csv":
            _write_csv(finished, rows)
        else:
            columns: dict[str, Any] = {name: rows[name] for name in _names(rows)}
            with finished.open("wb") as file:
                np.savez_compressed(file, meta=np.array(meta), **columns)
        os.replace(finished, self.path)
        self._raw_path.unlink()


def load_record(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Columns and meta of a record: an .npz, or the `.partial` file of a run that was killed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a record.
    """
    if path.name.endswith(RAW_SUFFIX):
        rows, meta = _read_raw(path)
        return {name: rows[name] for name in _names(rows)}, json.loads(meta)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected an .npz record or a {RAW_SUFFIX} file of a killed run")
    with np.load(path) as data:
        if "meta" not in data or "qpos" not in data:
            raise ValueError(f"{path}: not a record of robot_sim; it holds {sorted(data)}")
        return {name: data[name] for name in data.files if name != "meta"}, json.loads(str(data["meta"]))


def _names(rows: np.ndarray) -> tuple[str, ...]:
    return rows.dtype.names or ()


def _describe(dtype: np.dtype) -> list:
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names or ()]


def _read_raw(path: Path) -> tuple[np.ndarray, str]:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size])
        dtype = np.dtype([(name, kind, tuple(shape)) for name, kind, shape in header["dtype"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a raw record of robot_sim: {error}") from error
    body = content[8 + size :]
    # A kill can leave half a row at the end.
    return np.frombuffer(body[: len(body) // dtype.itemsize * dtype.itemsize], dtype=dtype), header["meta"]


def _write_csv(path: Path, rows: np.ndarray) -> None:
    names, columns = [], []
    for name in _names(rows):
        values = rows[name].reshape(len(rows), -1)
        names += [name] if values.shape[1] == 1 else [f"{name}_{i}" for i in range(values.shape[1])]
        columns += list(values.T)
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for row in zip(*columns, strict=True):
            file.write(",".join(repr(value.item()) for value in row) + "\n")
