"""When a core of the computer stood still.

A virtual machine's host takes the processor away now and then, and Linux pauses real-time programs for 50 ms on a core
where they took more than 95 % of a second.

One thread a core, alone at nearly the highest real-time priority, sleeps some milliseconds and notes when it woke late:
`python -m sim2real_checks.soak.halts --core 0 --out halts_0.jsonl` until SIGINT or SIGTERM. While it is late, no
program on that core runs, whatever its priority.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tyro

PRIORITY = 98
NAP_S = 0.004
NAP_NS = round(NAP_S * 1e9)
LATE_NS = 5_000_000
"""A thread of that priority wakes within some tenths of a millisecond where the computer runs."""

Span = tuple[int, int]
"""From, to: CLOCK_MONOTONIC, ns."""


def watch(core: int, out: Path) -> None:
    """Write one JSON line [from, to] for each time that this core ran nothing of ours, until a signal comes.

    Args:
        core: number of the core.
        out: file; stays empty without permission for real-time scheduling, because nothing can be told then.
    """
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stops.append(received))
    os.sched_setaffinity(0, {core})
    with out.open("w") as file:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        except PermissionError:
            return
        last_ns = time.monotonic_ns()
        while not stops:
            time.sleep(NAP_S)
            now_ns = time.monotonic_ns()
            if now_ns - last_ns > NAP_NS + LATE_NS:
                file.write(json.dumps([last_ns + NAP_NS, now_ns]) + "\n")
                file.flush()
            last_ns = now_ns


def read_spans(paths: Sequence[Path]) -> list[Span]:
    """When a core stood still, in order, from the files of all cores; a line that was cut off is left out."""
    spans = []
    for path in paths:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        spans += [(int(start), int(end)) for start, end in (json.loads(line) for line in lines if line.endswith("\n"))]
    return sorted(spans)


if __name__ == "__main__":
    tyro.cli(watch)
    sys.exit(0)
