"""Fuzz for longer: `python -m tests.fuzz --minutes 10`.

Each parser runs in a process of its own with an address-space limit; the input is on disk before it is parsed, so
that a crash or a hang leaves it behind. Findings go to fuzz_findings/, one folder for each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import os
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.parser import MAX_MEMORY_KIB, FoundError, Parser, check

REPO = Path(__file__).resolve().parents[2]
FINDINGS = REPO / "fuzz_findings"
HANG_S = 120.0
"""Wall time without progress after which a process counts as hanging, on a machine that others load too."""
BATCH_S = 20.0
"""How long one process runs before the next parser's turn."""


def main() -> int:
    """Exit status: 0 when nothing was found, 1 otherwise."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="how long in all")
    options.add_argument("--seed", type=int, default=None, help="first seed; random by default")
    options.add_argument("--only", default="", help="part of the names of the parsers to run")
    arguments = options.parse_args()
    if not arguments.minutes > 0:
        options.error(f"--minutes must be above zero, got {arguments.minutes}")
    return supervise(arguments.minutes * 60.0, arguments.seed, arguments.only)


def work(parser: Parser, seed: int, seconds: float, folder: Path, report: Connection) -> None:
    """Child: run inputs until the time is over."""
    with (folder / "output").open("wb") as output:  # where the libraries' own words go
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    faulthandler.enable()
    for data in parser.valid():
        check(parser, data, folder)
    _limit_memory()
    end, counts, last = time.monotonic() + seconds, Counter[str](), 0.0
    while time.monotonic() < end:
        seed += 1
        data = parser.generate(random.Random(seed))
        (folder / "input").write_bytes(data)
        try:
            counts[check(parser, data, folder)] += 1
        except FoundError as finding:
            counts["finding"] += 1
            report.send(f"{finding} (seed {seed}, {keep(parser.name, str(finding), data)})")
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            report.send(counts)
    report.send(counts)


def _limit_memory() -> None:
    """What the libraries have taken already, and as much more as one input may."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = taken + 2 * MAX_MEMORY_KIB * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def keep(parser: str, finding: str, data: bytes) -> str:
    """Keep an input; returns its file."""
    folder = FINDINGS / re.sub(r"\W+", "_", parser) / re.sub(r"\W+", "_", re.sub(r"\d+", "N", finding))[:80].strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    if len(list(folder.iterdir())) < 5:
        path.write_bytes(data)
    return str(path.relative_to(REPO))


class Batch:
    """One child process. It is forked, so that the libraries are imported once for all."""

    def __init__(self, parser: Parser, seed: int, seconds: float) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self._name = parser.name
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._ear, mouth = Pipe(duplex=False)
        arguments = (parser, seed, seconds, self._path, mouth)
        self._process = get_context("fork").Process(target=work, args=arguments, daemon=True)
        self._process.start()
        mouth.close()
        self._heard = time.monotonic()

    def poll(self) -> bool:
        """Take what the child says; False once it has ended."""
        ended = not self._process.is_alive()
        with contextlib.suppress(EOFError):
            while self._ear.poll():
                self._heard = time.monotonic()
                said = self._ear.recv()
                if isinstance(said, str):
                    self.findings.append(said)
                else:
                    self.counts = said
        if not ended and time.monotonic() - self._heard > HANG_S:
            self._blame(f"{self._name}: no progress for {HANG_S:g} s")
            return False
        if ended and self._process.exitcode != 0:
            words = (self._path / "output").read_text(errors="replace").strip().splitlines()
            fatal = [word for word in words if "rror" in word] or words[-1:] or [""]
            self._blame(f"{self._name}: ended with {self._process.exitcode}: {fatal[-1]}")
        return not ended

    def close(self) -> None:
        """End the child and remove its folder."""
        self._process.kill()
        self._process.join()
        self._ear.close()
        self._folder.cleanup()

    def _blame(self, finding: str) -> None:
        path = self._path / "input"
        kept = keep(self._name, finding, path.read_bytes()) if path.exists() else "no input"
        self.findings.append(f"{finding} ({kept})")


def supervise(seconds: float, seed: int | None, only: str) -> int:
    """Run all parsers in turn until the time is over."""
    from tests.fuzz.table import PARSERS

    names = [name for name in PARSERS if only in name]
    if not names:
        print(f"no parser's name contains {only!r}; there are: {', '.join(PARSERS)}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(2**40) if seed is None else seed
    start, total, kinds = time.monotonic(), Counter[str](), Counter[str]()
    turn = min(BATCH_S, max(2.0, seconds / len(names)))
    print(f"{len(names)} parsers, {seconds / 60:g} minutes, seed {seed}")
    while time.monotonic() - start < seconds:
        for name in names:
            left = seconds - (time.monotonic() - start)
            if left <= 0:
                break
            batch = Batch(PARSERS[name], seed, min(turn, left))
            try:
                while batch.poll():
                    _progress(name, time.monotonic() - start, seconds, total + batch.counts, len(kinds))
                    time.sleep(0.2)
            finally:
                batch.close()
            total += batch.counts
            for finding in batch.findings:
                kind = re.sub(r"\d+", "N", finding.partition(" (seed")[0])[:120]
                if not kinds[kind]:
                    print(f"\r\033[Kfound: {finding}")
                kinds[kind] += 1
            seed += 1_000_000
    print(f"\r\033[K{total.total()} inputs in {(time.monotonic() - start) / 60:.1f} minutes: {dict(total)}")
    for kind, count in kinds.most_common():
        print(f"  {count} × {kind}")
    return 1 if kinds else 0


def _progress(name: str, passed: float, seconds: float, counts: Counter[str], kinds: int) -> None:
    if sys.stdout.isatty():
        text = f"{passed / 60:.1f}/{seconds / 60:g} min, {counts.total()} inputs, {kinds} kinds of findings: {name}"
        print(f"\r\033[K{text}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
