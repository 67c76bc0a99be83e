"""What every test shares: DDS traffic that never leaves this host."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

from nfpo_deploy.ros.profiles import discovery_environment
from tests.halts import ComputerStoodStillError, HaltWatch, StackWasLateError

# Set before any test imports a middleware. A developer's own setting must not widen it.
os.environ.update(discovery_environment({}))
os.environ["NFPO_LOG_DIR"] = tempfile.mkdtemp(prefix="nfpo_log_")
os.environ["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"
os.environ["CYCLONEDDS_URI"] = (
    "<CycloneDDS><Domain><General><Interfaces>"
    '<NetworkInterface name="lo" multicast="default"/>'
    "</Interfaces></General></Domain></CycloneDDS>"
)

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the workers, which share the cores.
    os.environ["OMP_NUM_THREADS"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background commands so, and children inherit it: Ctrl-C would reach none of them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, so that a change is to blame for what they find; `make test-slow` looks for new ones.
settings.register_profile("everyday", derandomize=True)
settings.load_profile("default" if os.environ.get("NFPO_SLOW") else "everyday")

TESTS = Path(__file__).parent
ALONE = (
    "ros", "security/test_ros_sockets.py", "security/test_sros2.py", "security/test_two_hosts.py",
    "walk/test_walk_end_to_end.py", "faults/test_campaign_for_real.py",
    "preflight/test_against_robot_sim.py", "preflight/test_over_a_cable.py", "preflight/test_wiggle_end_to_end.py",
)  # fmt: skip

BENCH = tuple(
    f"ros/test_{name}.py"
    for name in ("conversions", "drive", "graph", "operator", "policy_log", "state_wire", "supervisor", "web")
)
"""Of these: a node or none, which may run beside another one."""


def pytest_collection_modifyitems(items):
    """Mark what must have the computer for itself, and runs in real time: a computer that stops spoils it."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / place) for place in ALONE):
            beside = any(item.path == TESTS / place for place in BENCH)
            item.add_marker(pytest.mark.bench if beside else pytest.mark.alone)
            again = [ComputerStoodStillError.__name__, StackWasLateError.__name__]
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=again))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from told_apart(item, "setup"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from told_apart(item, "call"))


def told_apart(item, when):
    """A failure on a computer that stood still or was late is told apart from others, and the test run again."""
    if not any(item.get_closest_marker(name) for name in ("alone", "bench")):
        return (yield)
    watch = HaltWatch.of(item.config)
    begin_ns = time.monotonic_ns()
    try:
        return (yield)
    except Exception as error:
        watch.raise_if_halted(begin_ns, error)
        halted_ms = watch.stood_still_ns(begin_ns) * 1e-6
        item.add_report_section(when, "computer", f"longest time that a core stood still: {halted_ms:.0f} ms")
        if item.get_closest_marker("alone"):
            # Only these run in one process, so that they can be counted and named.
            watch.raise_if_late(item.nodeid, error)
        raise


def pytest_sessionfinish(session):
    HaltWatch.close(session.config)


def pytest_terminal_summary(terminalreporter, config):
    """Nobody shall have to guess that the stack was late, because the test passed in the end."""
    late = HaltWatch.late_tests(config)
    if late:
        terminalreporter.section("tried again, because the stack was late")
        for test, said in late.items():
            terminalreporter.write_line(f"{test}: {said}")
