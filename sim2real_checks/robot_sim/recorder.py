"""Ground-truth log of a run: rows are appended to a file as it runs, and made into .npz or .csv at the end.

Beside the rows, which come at a fixed rate, it keeps the log of every LowCmd. The raw files keep memory flat over
hours and survive a kill: `load_record` reads the leftovers of a crashed run too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robots.loader import RobotSpec
from robots.untrusted import UntrustedError, load_npz
from sim2real_checks.robot_sim.rawfile import RAW_SUFFIX, RawFile, read_raw

if TYPE_CHECKING:
    from sim2real_checks.robot_sim.lowcmd_log import LowCmdLog
    from sim2real_checks.robot_sim.motors import MotorBank
    from sim2real_checks.robot_sim.plant import Plant

LOWCMD_SUFFIX = ".lowcmd"
LOWCMD_PREFIX = "lowcmd_log_"
WRITERS = "lowcmd_writers"
# Small, so that a killed run's log ends within 0.1 s of its rows.
_LOWCMD_BUFFER = 1024
_CSV_BLOCK = 10_000


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
        ("fault", "u1"),
    ])  # fmt: skip


class Recorder:
    """Appends rows to `<path>.partial`; `close()` makes `path` (.npz or .csv) of it.

    The .npz holds one array for each column, plus `meta`, a JSON text with the given `meta`. The log of LowCmds
    becomes arrays of the same .npz, or a second file `<name>.lowcmd.csv`.
    """

    def __init__(self, path: Path, dtype: np.dtype, meta: dict) -> None:
        self.path = path
        self.lowcmd_log: LowCmdLog | None = None
        self._meta = json.dumps(meta)
        row = np.zeros(1, dtype=dtype)
        self._row = row
        # Views into the row; looking a field up at each append would cost more than filling it.
        self._views = {name: row[name] for name in dtype.names or ()}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw = RawFile(path.with_name(path.name + RAW_SUFFIX), dtype, self._meta)
        self._lowcmd_raw: RawFile | None = None

    def open_lowcmd_log(self, spec: RobotSpec) -> LowCmdLog:
        """Keep a log of LowCmds too."""
        from sim2real_checks.robot_sim.lowcmd_log import ROW, LowCmdLog

        self._lowcmd_raw = RawFile(_lowcmd_raw_path(self._raw.path), ROW, self._meta, _LOWCMD_BUFFER)
        self.lowcmd_log = LowCmdLog(self._lowcmd_raw, spec)
        return self.lowcmd_log

    def append(self, plant: Plant, motors: MotorBank, wall_ns: int, **counters: int) -> None:
        """Add one row: the current state, the command in force, and columns named in `counters`."""
        views = self._views
        views["time"][0] = plant.time
        views["wall_ns"][0] = wall_ns
        views["qpos"][0] = plant.data.qpos
        views["qvel"][0] = plant.data.qvel
        views["torque"][0] = motors.torque
        views["foot_force"][0] = plant.foot_force()
        views["command_q"][0] = motors.q
        views["command_dq"][0] = motors.dq
        views["command_kp"][0] = motors.kp
        views["command_kd"][0] = motors.kd
        views["command_tau"][0] = motors.tau
        for name, value in counters.items():
            views[name][0] = value
        self._raw.append(self._row)

    def close(self) -> None:
        """Write the final file and remove the raw ones; calling it twice is harmless."""
        if self._raw.closed:
            return
        raws = [raw for raw in (self._raw, self._lowcmd_raw) if raw is not None]
        for raw in raws:
            raw.close()
        if self.path.suffix == ".csv":
            self._finish_csv(raws)
        else:
            self._finish_npz()
        for raw in raws:
            raw.path.unlink()

    def _finish_npz(self) -> None:
        rows, meta = read_raw(self._raw.path)
        columns: dict[str, Any] = {name: rows[name] for name in _names(rows)}
        if self._lowcmd_raw is not None and self.lowcmd_log is not None:
            columns |= _lowcmd_columns(self._lowcmd_raw.path)
            columns[WRITERS] = np.array(self.lowcmd_log.writers, dtype=np.str_)
        finished = self.path.with_name(self.path.name + ".tmp")
        with finished.open("wb") as file:
            np.savez_compressed(file, meta=np.array(meta), **columns)
        os.replace(finished, self.path)

    def _finish_csv(self, raws: list[RawFile]) -> None:
        paths = (self.path, self.path.with_suffix(LOWCMD_SUFFIX + self.path.suffix))
        for raw, path in zip(raws, paths, strict=False):
            finished = path.with_name(path.name + ".tmp")
            _write_csv(finished, read_raw(raw.path)[0])
            os.replace(finished, path)


MAX_RECORD_BYTES = 4 << 30
"""An hour at 1000 rows a second unpacks to less."""


def load_record(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Columns and meta of a record: an .npz, or the `.partial` file of a run that was killed.

    All columns have the length of `time`, except the log of LowCmds (`lowcmd_log_*`, one row for each LowCmd) and
    `lowcmd_writers`, which a killed run lacks. Records of older versions lack `fault` and the log.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a record.
    """
    if path.name.endswith(RAW_SUFFIX):
        rows, meta = read_raw(path)
        if "qpos" not in _names(rows):
            raise ValueError(f"{path}: not the rows of a record; it holds {sorted(_names(rows))}")
        columns = {name: rows[name] for name in _names(rows)}
        lowcmd = _lowcmd_raw_path(path)
        return columns | (_lowcmd_columns(lowcmd) if lowcmd.exists() else {}), _meta(path, meta)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected an .npz record or a {RAW_SUFFIX} file of a killed run")
    try:
        data = load_npz(path, MAX_RECORD_BYTES)
    except UntrustedError as error:
        raise ValueError(f"{path}: not a record of robot_sim: {error}") from error
    if "meta" not in data or "qpos" not in data:
        raise ValueError(f"{path}: not a record of robot_sim; it holds {sorted(data)}")
    return {name: array for name, array in data.items() if name != "meta"}, _meta(path, str(data["meta"]))


def _meta(path: Path, text: object) -> dict:
    try:
        meta = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: not a record of robot_sim: its meta is no JSON object")
    return meta


def _lowcmd_raw_path(rows: Path) -> Path:
    """`run.npz.partial` → `run.npz.lowcmd.partial`."""
    return rows.with_name(rows.name.removesuffix(RAW_SUFFIX) + LOWCMD_SUFFIX + RAW_SUFFIX)


def _lowcmd_columns(path: Path) -> dict[str, np.ndarray]:
    rows, _ = read_raw(path)
    return {LOWCMD_PREFIX + name: rows[name] for name in _names(rows)}


def _names(rows: np.ndarray) -> tuple[str, ...]:
    return rows.dtype.names or ()


def _write_csv(path: Path, rows: np.ndarray) -> None:
    widths = {name: int(np.prod(rows.dtype[name].shape)) for name in _names(rows)}
    titles = [
        title
        for name, width in widths.items()
        for title in ([name] if width == 1 else [f"{name}_{i}" for i in range(width)])
    ]
    with path.open("w") as file:
        file.write(",".join(titles) + "\n")
        for start in range(0, len(rows), _CSV_BLOCK):
            block = rows[start : start + _CSV_BLOCK]
            columns = [column for name in widths for column in block[name].reshape(len(block), -1).T]
            for row in zip(*columns, strict=True):
                file.write(",".join(repr(value.item()) for value in row) + "\n")
