"""The supervisor with real processes that behave well and badly."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from nfpo_deploy.graph import Graph, Process
from nfpo_deploy.supervisor import Supervisor

CHILD = """
import signal, sys, time
behaviour, code = sys.argv[1], int(sys.argv[2])
stop = []
if behaviour != "default":
    signal.signal(signal.SIGTERM, lambda *_: behaviour == "deaf" or stop.append(1))
print("up", flush=True)
if behaviour == "ends":
    time.sleep(0.3)
    sys.exit(code)
while not stop:
    time.sleep(0.01)
time.sleep(0.2)
print("gone", flush=True)
sys.exit(code)
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "supervised_child.py").write_text(textwrap.dedent(CHILD))
    return {"PYTHONPATH": str(tmp_path)}


def child(name, behaviour="good", code=0, **options):
    return Process(name, "supervised_child", arguments=(behaviour, str(code)), **options)


class Run:
    def __init__(self, environment, *processes):
        self.lines = []
        graph = Graph("test", processes, environment)
        self.supervisor = Supervisor(graph, lambda name, line: self.lines.append((name, line)))
        self.supervisor.start()
        names = {process.name for process in processes}
        end = time.monotonic() + 10
        while {name for name, line in self.lines if line == "up"} != names:
            assert time.monotonic() < end, self.lines
            time.sleep(0.01)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stops_rank_by_rank(environment):
    run = Run(environment, child("late", stop_rank=2), child("first", stop_rank=0), child("second", stop_rank=1))
    run.supervisor.request_stop("enough")
    assert run.supervisor.watch() == 0
    assert [name for name, line in run.lines if line == "gone"] == ["first", "second", "late"]
    assert run.supervisor.reason == "enough"


@pytest.mark.parametrize(("code", "may_end", "status"), [(0, True, 0), (3, True, 1), (0, False, 1), (3, False, 1)])
def test_end_of_one_process_ends_all(environment, code, may_end, status):
    run = Run(environment, child("other"), child("one", "ends", code, may_end=may_end))
    assert run.supervisor.watch() == status
    assert run.supervisor.reason == f"one ended with exit status {code}"
    assert ("other", "gone") in run.lines


def test_killed_process_is_named_with_its_signal(environment):
    run = Run(environment, child("other"), child("one"))
    os.kill(run.supervisor.process_id("one"), signal.SIGKILL)
    assert run.supervisor.watch() == 1
    assert run.supervisor.reason == "one ended with signal SIGKILL"


def test_deaf_process_is_killed_after_its_time(environment):
    run = Run(environment, child("deaf", "deaf", stop_timeout_s=0.5), child("good"))
    pid = run.supervisor.process_id("deaf")
    start = time.monotonic()
    run.supervisor.stop("enough")
    assert 0.4 < time.monotonic() - start < 5
    assert run.supervisor.exit_status == 1 and not alive(pid)
    assert ("launch", "deaf did not stop within 0.5 s: killed") in run.lines


def test_suspended_process_still_stops_in_order(environment):
    run = Run(environment, child("frozen"))
    os.kill(run.supervisor.process_id("frozen"), signal.SIGSTOP)
    run.supervisor.stop("enough")
    assert run.supervisor.exit_status == 0 and ("frozen", "gone") in run.lines


def test_children_end_when_the_supervisor_is_killed(environment, tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(
        "from nfpo_deploy.graph import Graph, Process\n"
        "from nfpo_deploy.supervisor import Supervisor\n"
        f"graph = Graph('t', (Process('a', 'supervised_child', arguments=('default', '0')),), {environment!r})\n"
        "supervisor = Supervisor(graph)\n"
        "supervisor.start()\n"
        "print('pid', supervisor.process_id('a'), flush=True)\n"
        "supervisor.watch()\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        words = [parent.stdout.readline(), parent.stdout.readline()]
        pid = int(next(word for word in words if word.startswith("pid")).split()[1])
        assert alive(pid)
        parent.kill()
    end = time.monotonic() + 5
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.02)
