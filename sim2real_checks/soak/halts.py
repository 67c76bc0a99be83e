"""When the computer itself stood still, as a virtual machine does when its host takes the processor away.

One thread a core, alone at nearly the highest real-time priority, sleeps some milliseconds and notes when it woke late:
`python -m sim2real_checks.soak.halts --core 0 --out halts_0.jsonl` until SIGINT or SIGTERM. The computer stood still
while every core was late at once: no program could have done better then. And a core stood still while its host ran
something else, which the kernel knows and counts as `steal` (proc_stat(5)).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import tyro

PRIORITY = 98
NAP_S = 0.004
NAP_NS = round(NAP_S * 1e9)
LATE_NS = 5_000_000
"""A thread of that priority wakes within some tenths of a millisecond where the computer runs."""
STEAL_EVERY = 50
"""Naps between two looks at the core's steal; a look takes as long as a short wake-up."""
STOLEN_PART = 0.5
"""Part of a span that the host must have taken, by the kernel's count in hundredths of a second."""

Span = tuple[int, int]
"""From, to: CLOCK_MONOTONIC, ns."""


def watch(core: int, out: Path) -> None:
    """Write one JSON line [from, to, ns stolen by the host] for each time that this core ran nothing of ours.

    Args:
        core: number of the core.
        out: file; stays empty without permission for real-time scheduling, because nothing can be told then.
    """
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stops.append(received))
    os.sched_setaffinity(0, {core})
    with out.open("w") as file, Path("/proc/stat").open() as statistics:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        except PermissionError:
            return
        naps, before_ns = 0, stolen_ns(statistics, core)
        last_ns = time.monotonic_ns()
        while not stops:
            time.sleep(NAP_S)
            now_ns = time.monotonic_ns()
            if now_ns - last_ns > NAP_NS + LATE_NS:
                after_ns = stolen_ns(statistics, core)
                file.write(json.dumps([last_ns + NAP_NS, now_ns, after_ns - before_ns]) + "\n")
                file.flush()
                before_ns = after_ns
            elif (naps := naps + 1) % STEAL_EVERY == 0:
                before_ns = stolen_ns(statistics, core)
            last_ns = time.monotonic_ns()


def stolen_ns(statistics: TextIO, core: int) -> int:
    """Time since the start, ns, that a core was ready to run and its host did not let it; /proc/stat is open."""
    statistics.seek(0)
    words = next(line for line in statistics if line.startswith(f"cpu{core} ")).split()
    return round(int(words[8]) * 1e9 / os.sysconf("SC_CLK_TCK"))


def common_spans(cores: Sequence[Sequence[Span]]) -> list[Span]:
    """Spans of at least `LATE_NS` in which every core was late; each core's spans ordered in time."""
    common = list(cores[0]) if cores else []
    for spans in cores[1:]:
        overlaps = [(max(a, c), min(b, d)) for a, b in common for c, d in spans if max(a, c) < min(b, d)]
        common = [(start, end) for start, end in overlaps if end - start >= LATE_NS]
    return common


def read_spans(paths: Sequence[Path]) -> list[Span]:
    """When the computer or one of its cores stood still, in order, from the files of all cores.

    A line that was cut off is left out.
    """
    cores, stolen = [], []
    for path in paths:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        cores.append([(int(start), int(end)) for start, end, _ in rows])
        stolen += [(int(start), int(end)) for start, end, taken in rows if taken >= STOLEN_PART * (end - start)]
    return sorted({*common_spans(cores), *stolen})


if __name__ == "__main__":
    tyro.cli(watch)
    sys.exit(0)
