"""Real-time scheduling for processes that must keep their rhythm on a busy computer.

A nice value is not enough: with autogroups (the default of desktop kernels) it counts only among the processes
of one session, so a training run in another terminal still takes half of the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "NFPO_REALTIME_PRIORITY"
DEFAULT_PRIORITY = "10"
MAX_PRIORITY = 98
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
CAP_IPC_LOCK = 14
"""Numbers of <sys/mman.h> and <linux/capability.h>; Python's library has neither."""
SPREAD_VARIABLE = "NFPO_SPREAD_CORES"
LOADS = {
    "sdk_bridge": 0.31, "robot_sim": 0.31, "state_estimator": 0.18, "safety_watchdog": 0.12, "policy_inference": 0.07,
    "flight_recorder": 0.07, "guard_backup": 0.04, "guard": 0.04, "operator": 0.03,
}  # fmt: skip
"""Cores that each process takes while the robot walks beside other work, `nfpo soak` on two x86_64 cores."""
POLLING_THREADS = "dds.asyn."
"""How Fast DDS 3 names its threads that send again, or later. While they have something to send and another thread
holds the writer's lock they try it in a loop without a pause (`FlowControllerImpl::run`, Fast DDS 2.4 to 3.2). At the
holder's priority on the holder's core, that one never runs again: the core is lost until the process is killed."""
POLLING_PRIORITY = 1
LONGEST_BURST_S = 1.0
"""How long a real-time thread may run without ever waiting for anything. Ours run for some milliseconds."""
APART = {"guard": "guard_backup", "guard_backup": "guard"}
"""Who never shares a core where there are several: what fills it must not stop both."""


def take_core(role: str) -> None:
    """Stay on this process's own core, with all threads that follow, if the launch spreads processes over the cores."""
    if os.environ.get(SPREAD_VARIABLE) == "1" and role in LOADS:
        os.sched_setaffinity(0, {core_of(role, sorted(os.sched_getaffinity(0)))})


def adopt_priority(lower_by: int = 0, endless: bool = False) -> str:
    """Put this process under SCHED_FIFO at the priority that the environment variable asks for, 0 or unset for none.

    All its threads are raised, but those that dropped their priority themselves, and not so high those that poll. Its
    memory is locked then, too. Call it when the process has started: starting takes seconds of work, for which nobody
    that moves a robot may wait. Asking without permission changes nothing.

    Linux ends the process with SIGXCPU when one of its threads runs for `LONGEST_BURST_S` without waiting for anything:
    nothing else could run on that core, and whoever watches this process knows what to do when it is dead.

    Args:
        lower_by: subtracted from the priority, which stays at least 1.
        endless: whether a thread may run on without waiting, as a simulation does that cannot keep up.

    Returns:
        What was done, in words; empty when nothing was asked for.
    """
    text = os.environ.get(VARIABLE, "0") or "0"
    if not text.isdigit() or int(text) > MAX_PRIORITY:
        return f"{VARIABLE}={text!r} ignored: expected 0 to {MAX_PRIORITY}"
    priority = int(text)
    if priority == 0:
        return ""
    priority = max(1, priority - lower_by)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return "no permission for real-time scheduling ('rtprio' in /etc/security/limits.conf); running without"
    while _raise_threads(priority):
        # Those that a thread has started meanwhile are as it was then.
        pass
    if not endless:
        _end_with_a_burst()
    locked = "memory locked" if lock_memory() else "memory not locked ('memlock' in /etc/security/limits.conf)"
    return f"real-time scheduling with priority {priority}, {locked}"


def _end_with_a_burst() -> None:
    soft, hard = round(LONGEST_BURST_S * 1e6), resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    resource.setrlimit(resource.RLIMIT_RTTIME, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _raise_threads(priority: int) -> int:
    """How many threads of this process were under the normal scheduler, and are not any more."""
    raised = 0
    for thread, wanted in _wanted_priorities(priority).items():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(wanted))
                raised += 1
    return raised


def _wanted_priorities(priority: int) -> dict[int, int]:
    """Priority of each thread by its number, without those that have to stay under the normal scheduler."""
    names: dict[int, str] = {}
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names[int(thread.name)] = (thread / "comm").read_text().strip()
    polling = {thread for thread, name in names.items() if name.startswith(POLLING_THREADS)}
    left = polling if priority <= POLLING_PRIORITY else set()
    if not polling and "rclpy" in sys.modules:
        # Fast DDS 2 names none: one that polls is among those of which neither Python nor a name tells what they are.
        known = {thread.native_id for thread in threading.enumerate()}
        left = {thread for thread, name in names.items() if name == names[os.getpid()] and thread not in known}
    return {thread: POLLING_PRIORITY if thread in polling else priority for thread in names if thread not in left}


def lock_memory() -> bool:
    """Keep every page that this process has touched, or will, in memory: none has to be read from a disk in a loop.

    Without an unlimited 'memlock' nothing is done, because a later allocation beyond the limit would fail.

    Returns:
        Whether the memory is locked now.
    """
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if not unlimited and not has_capability(CAP_IPC_LOCK):
        return False
    return ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0


def has_capability(number: int) -> bool:
    """Whether this process has a capability, by its number in <linux/capability.h>."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line for line in lines if line.startswith("CapEff:")).split()[1]
    return bool(int(effective, 16) >> number & 1)


def core_of(role: str, cores: Sequence[int]) -> int:
    """Core of a process of `LOADS`, so that all cores have about the same to do; busiest processes first.

    Linux stops real-time processes for 50 ms on a core where others got less than 5 % of the last second, even if
    another core is free (the scheduler's fair server, kernel 6.12; earlier kernels throttle). On few cores with other
    work that happens by chance alone, because real-time processes stay on the core where they ran last.
    """
    loads = dict.fromkeys(cores, 0.0)
    placed: dict[str, int] = {}
    for name in sorted(LOADS, key=lambda name: -LOADS[name]):
        free = [core for core in cores if core != placed.get(APART.get(name, ""))] or cores
        placed[name] = min(free, key=lambda core: loads[core])
        loads[placed[name]] += LOADS[name]
    return placed[role]


def drop_priority() -> None:
    """Leave the calling thread to the normal scheduler, for work that may take long, and let it stay there."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
