"""Which core and priority a process gets; real-time scheduling itself needs a permission that tests may lack."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nfpo_deploy.graph import build_graph
from nfpo_deploy.realtime import CAP_IPC_LOCK, LOADS, SPREAD_VARIABLE, VARIABLE, core_of, has_capability


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
