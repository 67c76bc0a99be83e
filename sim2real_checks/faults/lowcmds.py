"""LowCmds as a simulated robot received them, from its record. Pure: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nfpo_deploy.errors import NfpoError

LOG, WRITERS = "lowcmd_log_", "lowcmd_writers"
"""Names in a record: of the log of LowCmds, and of what their writers call themselves."""
HEARD = 0
"""Fate of a LowCmd that was obeyed."""


class MeasureError(NfpoError):
    """The record cannot be measured: no rows, or none around the fault."""


@dataclass(frozen=True)
class LowCmds:
    """LowCmds as the robot received them, m of N joints; `writer` is "bridge", "guard", "foreign" or "" for unknown."""

    ns: np.ndarray
    kp: np.ndarray
    """(m,) sum of the stiffness over the joints, N·m/rad."""
    kd: np.ndarray
    """(m,) sum of the damping, N·m·s/rad."""
    q: np.ndarray
    """(m, N) position targets, rad."""
    writer: np.ndarray

    def __len__(self) -> int:
        return len(self.ns)

    def between(self, start_ns: int, end_ns: int) -> LowCmds:
        """Those of a time span."""
        part = slice(int(np.searchsorted(self.ns, start_ns)), int(np.searchsorted(self.ns, end_ns)))
        return LowCmds(self.ns[part], self.kp[part], self.kd[part], self.q[part], self.writer[part])


def writer_of(user_data: str) -> str:
    """Who a LowCmd writer is, by what it says of itself in its UserData."""
    for role in ("bridge", "guard"):
        if user_data.startswith(f"nfpo-{role}"):
            return role
    return "foreign"


def lowcmds_of(columns: Mapping[str, np.ndarray]) -> LowCmds:
    """Our LowCmds from a record: from its log of LowCmds or, where it has none, one for each row with a new one.

    Raises:
        MeasureError: an empty record.
    """
    if len(columns["wall_ns"]) < 2:
        raise MeasureError(f"the simulator's record holds {len(columns['wall_ns'])} rows")
    if f"{LOG}ns" in columns and len(columns[f"{LOG}ns"]):
        return _lowcmds_of_log(columns)
    fresh = np.flatnonzero(np.diff(columns["lowcmd_count"].astype(np.int64), prepend=0) > 0)
    return LowCmds(
        ns=columns["lowcmd_ns"][fresh].astype(np.int64),
        kp=columns["command_kp"][fresh].sum(axis=1, dtype=np.float64),
        kd=columns["command_kd"][fresh].sum(axis=1, dtype=np.float64),
        q=columns["command_q"][fresh].astype(np.float64),
        writer=np.full(len(fresh), "", dtype="U8"),
    )


def _lowcmds_of_log(columns: Mapping[str, np.ndarray]) -> LowCmds:
    """The log has the moment and the writer of each LowCmd; the targets come from the row that it first ruled."""
    ns = columns[f"{LOG}ns"].astype(np.int64)
    writer = writers_of_log(columns)
    own = (columns[f"{LOG}fate"] == HEARD) & (writer != "foreign")
    row = np.searchsorted(columns["lowcmd_ns"], ns[own])
    return LowCmds(
        ns=ns[own],
        kp=columns[f"{LOG}kp_sum"][own].astype(np.float64),
        kd=columns[f"{LOG}kd_sum"][own].astype(np.float64),
        q=columns["command_q"][np.minimum(row, len(columns["wall_ns"]) - 1)].astype(np.float64),
        writer=writer[own],
    )


def writers_of_log(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(m,) writer of each LowCmd of the log; "" for all in the record of a simulator that was killed."""
    ids = columns[f"{LOG}writer"].astype(int)
    if WRITERS not in columns:
        return np.full(len(ids), "", dtype="U8")
    names = np.array([*(writer_of(str(text)) for text in columns[WRITERS]), "foreign"], dtype="U8")
    return names[np.minimum(ids, len(names) - 1)]


def foreign_rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) whether the command in force in a row is another program's."""
    if f"{LOG}ns" not in columns:
        return np.zeros(len(columns["wall_ns"]), dtype=bool)
    theirs = columns[f"{LOG}ns"][writers_of_log(columns) == "foreign"]
    return np.isin(columns["lowcmd_ns"], theirs)


def window(columns: Mapping[str, np.ndarray], start_ns: int, end_ns: int) -> dict[str, np.ndarray]:
    """Rows and LowCmds of a time span."""
    wall = columns["wall_ns"]
    rows = slice(int(np.searchsorted(wall, start_ns)), int(np.searchsorted(wall, end_ns)))
    part = {name: values[rows] for name, values in columns.items() if len(values) == len(wall)}
    if f"{LOG}ns" in columns:
        ns = columns[f"{LOG}ns"]
        heard = slice(int(np.searchsorted(ns, start_ns)), int(np.searchsorted(ns, end_ns)))
        part |= {name: values[heard] for name, values in columns.items() if name.startswith(LOG)}
    if WRITERS in columns:
        part[WRITERS] = columns[WRITERS]
    return part
