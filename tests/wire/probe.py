"""The transport as the bridge uses it, reporting ten times a second: python probe.py INTERFACE DOMAIN [REPORT_S].

Reads and writes at 500 Hz until stdin closes. Each line of output is a JSON object about the time since the last one.
"""

import json
import os
import resource
import sys
import threading
import time

import numpy as np

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.transport import open_transport
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot

PERIOD_S = 0.002
ZERO = np.zeros(12)
DAMPING = MotorCommand(ZERO, ZERO, ZERO, np.full(12, 3.0), ZERO)


def waits() -> int:
    """How often this thread gave up its processor: it waited for something, it was not merely interrupted."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Window:
    """What happened since the last report."""

    def __init__(self):
        self.states = self.errors = 0
        self.write_ms = self.waited_ms = self.read_ms = 0.0
        self.age_ms = 0.0
        self.error = ""

    def cycle(self, transport, last_state):
        """One cycle of the bridge; returns the time of the newest state."""
        begin = time.perf_counter()
        state = transport.read_state()
        waited, middle = waits(), time.perf_counter()
        try:
            transport.write_command(DAMPING)
        except NfpoError as error:
            self.errors += 1
            self.error = str(error)
        took_ms = 1000 * (time.perf_counter() - middle)
        self.read_ms = max(self.read_ms, 1000 * (middle - begin))
        self.write_ms = max(self.write_ms, took_ms)
        if waits() > waited:
            self.waited_ms = max(self.waited_ms, took_ms)
        now = time.monotonic()
        self.states += state is not None
        if last_state:
            self.age_ms = max(self.age_ms, 1000 * (now - last_state))
        return now if state is not None else last_state


def report(window, transport, now):
    counts = transport.statistics
    print(json.dumps({
        "t": now, **vars(window), "accepted": counts.lowstate_count, "lost": counts.lost,
        "malformed": counts.malformed, "crc_errors": counts.crc_errors, "lowcmd": counts.lowcmd_count,
        "foreign": counts.foreign_lowcmd, "identity": transport.identity_problem,
        "foreign_dds": transport.peer_versions().problem,
    }), flush=True)  # fmt: skip


def main():
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    transport = open_transport(load_robot("go2"), sys.argv[1], int(sys.argv[2]))
    period = float(sys.argv[3]) if len(sys.argv) > 3 else 0.1
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError:
        pass
    window, last_state = Window(), 0.0
    due = next_report = time.monotonic()
    while not ended.is_set():
        last_state = window.cycle(transport, last_state)
        now = time.monotonic()
        if now >= next_report:
            transport.peer_versions().poll()
            report(window, transport, now)
            window, next_report = Window(), now + period
        due = max(due + PERIOD_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    transport.close()


if __name__ == "__main__":
    main()
