"""Which core and priority a process gets; real-time scheduling itself needs a permission that tests may lack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nfpo_deploy.graph import build_graph
from nfpo_deploy.realtime import (
    CAP_IPC_LOCK,
    LOADS,
    LONGEST_BURST_S,
    SPREAD_VARIABLE,
    VARIABLE,
    core_of,
    has_capability,
)


@pytest.mark.parametrize("cores", [[0], [0, 1], [3, 5], [0, 1, 2, 3]])
def test_cores_have_about_the_same_to_do(cores):
    loads = dict.fromkeys(cores, 0.0)
    for role, load in LOADS.items():
        loads[core_of(role, cores)] += load
    assert max(loads.values()) - min(loads.values()) <= max(
        0.08, max(LOADS.values()) - sum(LOADS.values()) / len(cores)
    )


LOCKS = """
import resource, sys
from nfpo_deploy import realtime
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[1]), int(sys.argv[1])))
if sys.argv[2] == "drop":
    realtime.has_capability = lambda number: False
print(realtime.lock_memory())
touched = bytearray(64 << 20)
print([line for line in open("/proc/self/status") if line.startswith("VmLck")][0].split()[1])
"""


def locked_kb(limit: int, capability: str) -> tuple[bool, int]:
    words = [sys.executable, "-c", LOCKS, str(limit), capability]
    answer, kb = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return answer == "True", int(kb)


@pytest.mark.skipif(not has_capability(CAP_IPC_LOCK), reason="needs CAP_IPC_LOCK")
def test_memory_is_locked_whatever_the_limit_by_who_may():
    done, kb = locked_kb(1 << 20, "keep")
    assert done and kb > 64 << 10


def test_memory_is_left_alone_where_a_limit_would_make_allocations_fail():
    assert locked_kb(1 << 20, "drop") == (False, 0)


def test_guards_are_on_different_cores():
    assert core_of("guard", [0, 1]) != core_of("guard_backup", [0, 1])


@pytest.mark.parametrize(("cores", "spread"), [(1, "1"), (2, "1"), (3, "0"), (8, "0")])
def test_few_cores_are_shared_out_unless_the_launch_says_otherwise(monkeypatch, cores, spread):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert build_graph("go2_walk", {"sim": "true"}, {}).environment[SPREAD_VARIABLE] == spread


@pytest.mark.parametrize("spread", ["true", "false"])
def test_a_process_and_its_threads_stay_on_their_core_if_the_launch_says_so(spread):
    code = """
        import os, threading
        from nfpo_deploy.realtime import take_core
        take_core("operator")
        thread = threading.Thread(target=lambda: print(sorted(os.sched_getaffinity(0))))
        thread.start(); thread.join()
    """
    graph = build_graph("go2_walk", {"sim": "true", "spread_cores": spread}, {})
    assert graph.environment[SPREAD_VARIABLE] == str(int(spread == "true"))
    environment = {**os.environ, **graph.environment, VARIABLE: "0"}
    words = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())]
    cores = sorted(os.sched_getaffinity(0))
    expected = [core_of("operator", cores)] if spread == "true" else cores
    assert subprocess.run(words, env=environment, capture_output=True, text=True).stdout.strip() == str(expected)


RAISED = """
import os, threading, time
from pathlib import Path
from nfpo_deploy.realtime import adopt_priority, drop_priority

def nap():
    time.sleep(60.0)

def slow_work():
    drop_priority()
    nap()

for target in (nap, slow_work):
    threading.Thread(target=target, name=target.__name__, daemon=True).start()
while {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()} == {os.SCHED_OTHER}:
    time.sleep(0.01)
adopt_priority(lower_by=-1)
threading.Thread(target=nap, name="later", daemon=True).start()
for thread in threading.enumerate():
    print(thread.name, os.sched_getscheduler(thread.native_id), os.sched_getparam(thread.native_id).sched_priority)
"""


def may_have_priority() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(11))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.skipif(not may_have_priority(), reason="needs permission for real-time scheduling")
def test_all_threads_are_raised_but_those_that_do_slow_work():
    environment = {**os.environ, VARIABLE: "10"}
    output = subprocess.run([sys.executable, "-c", RAISED], env=environment, capture_output=True, text=True).stdout
    found = {name: (int(policy), int(priority)) for name, policy, priority in map(str.split, output.splitlines())}
    raised = (os.SCHED_FIFO, 11)
    assert found == {"MainThread": raised, "nap": raised, "slow_work": (os.SCHED_BATCH, 0), "later": raised}


THREADS = """
import ctypes, os, sys, threading, time, types
from pathlib import Path
from nfpo_deploy.realtime import adopt_priority

libc = ctypes.CDLL(None)

def nap(name):
    if name:
        libc.prctl(15, name.encode())  # PR_SET_NAME
    time.sleep(60.0)

names = [name for name in sys.argv[1].split(",") if name]
for name in ["", *names]:
    threading.Thread(target=nap, args=(name,), daemon=True).start()
libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.sleep, 60)  # a library's, without a name
if sys.argv[2] == "ros":
    sys.modules["rclpy"] = types.ModuleType("rclpy")
time.sleep(0.2)
adopt_priority()
ours = {thread.native_id for thread in threading.enumerate()}
for path in Path("/proc/self/task").iterdir():
    thread, name = int(path.name), (path / "comm").read_text().strip()
    kind = name if name in names else "ours" if thread in ours else "foreign"
    print(kind, os.sched_getparam(thread).sched_priority)
"""


def priorities_with(names, loaded, priority) -> dict[str, set[int]]:
    environment = {**os.environ, VARIABLE: str(priority)}
    words = [sys.executable, "-c", THREADS, ",".join(names), loaded]
    output = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[int]] = {}
    for kind, number in map(str.split, output.splitlines()):
        found.setdefault(kind, set()).add(int(number))
    return found


FAST_DDS_3 = ("dds.asyn.0.0", "dds.asyn.0.1", "dds.ev.0")


@pytest.mark.skipif(not may_have_priority(), reason="needs permission for real-time scheduling")
@pytest.mark.parametrize(
    ("names", "loaded", "priority", "expected"),
    [
        (FAST_DDS_3, "ros", 10, {"ours": 10, "foreign": 10, "dds.ev.0": 10, "dds.asyn.0.0": 1, "dds.asyn.0.1": 1}),
        (FAST_DDS_3, "ros", 1, {"ours": 1, "foreign": 1, "dds.ev.0": 1, "dds.asyn.0.0": 0, "dds.asyn.0.1": 0}),
        (("recvUC",), "ros", 10, {"ours": 10, "foreign": 0, "recvUC": 10}),
        (("recvUC",), "none", 10, {"ours": 10, "foreign": 10, "recvUC": 10}),
    ],
    ids=["Fast DDS 3", "lowest priority", "Fast DDS 2 names no thread", "no ROS"],
)
def test_a_thread_that_polls_never_has_the_priority_of_whom_it_waits_for(names, loaded, priority, expected):
    assert priorities_with(names, loaded, priority) == {name: {number} for name, number in expected.items()}


NODE = """
import os, rclpy
from pathlib import Path
from nfpo_deploy.realtime import adopt_priority
rclpy.init()
node = rclpy.create_node("priorities")
adopt_priority()
for path in Path("/proc/self/task").iterdir():
    print((path / "comm").read_text().strip(), os.sched_getparam(int(path.name)).sched_priority)
"""


@pytest.mark.skipif(not may_have_priority(), reason="needs permission for real-time scheduling")
def test_the_middleware_calls_its_polling_threads_what_they_are_expected_to_be_called():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    environment = {**os.environ, VARIABLE: "10", "ROS_DOMAIN_ID": "126"}
    words = [sys.executable, "-c", NODE]
    output = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    threads = [line.rsplit(" ", 1) for line in output.splitlines()]
    polling = [int(number) for name, number in threads if name.startswith("dds.asyn.")]
    others = [int(number) for name, number in threads if not name.startswith("dds.asyn.")]
    assert polling and set(polling) == {1} and len(others) > 5 and set(others) == {10}


BURST = """
import os, sys, threading, time
from nfpo_deploy.realtime import adopt_priority
adopt_priority(endless=sys.argv[2] == "endless")

def run(pause):
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        if pause:
            time.sleep(0.001)

thread = threading.Thread(target=run, args=(sys.argv[1] == "pauses",))
thread.start()
thread.join()
"""


@pytest.mark.skipif(not may_have_priority(), reason="needs permission for real-time scheduling")
@pytest.mark.parametrize(
    ("how", "kind", "priority", "expected"),
    [
        ("never waits", "bounded", 10, -signal.SIGXCPU),
        ("pauses", "bounded", 10, 0),
        ("never waits", "endless", 10, 0),
        ("never waits", "bounded", 0, 0),
    ],
)
def test_a_thread_that_never_waits_ends_its_process_and_frees_its_core(how, kind, priority, expected):
    environment = {**os.environ, VARIABLE: str(priority)}
    begin = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", BURST, how, kind], env=environment)
    assert ended.returncode == expected
    assert expected == 0 or time.monotonic() - begin < 2.0 * LONGEST_BURST_S
