"""`nfpo drive` on a real terminal against a bench: keys, deadman, emergency stop, and every way to go away."""

from __future__ import annotations

import os
import signal
import sys
import termios
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("nfpo_msgs", reason="ros2_ws is not built: ros2_ws/build.sh")

from nfpo_msgs.msg import SafetyPermit

from tests.ros.operator_bench import ROS_DOMAIN, Bench, start, stop
from tests.ros.terminal import Terminal, hold

ZERO = (0.0, 0.0, 0.0)
START_S = 60.0
"""An interpreter with ROS takes a second to start, on a crowded machine many."""
LATE_S = 1.0
"""What must happen at once may take this long where other programs want the same processor."""
COMMAND = [sys.executable, "-m", "nfpo_deploy.cli", "drive", "--ros-domain-id", str(ROS_DOMAIN)]


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def terminal(bench):
    terminal = Terminal(COMMAND, dict(os.environ))
    try:
        bench.wait(lambda: bench.velocities, START_S, "nfpo drive")
        yield terminal
    finally:
        terminal.end()
        print(terminal.text[-3000:])


def moved(bench) -> list[float]:
    return [velocity[0] for _, velocity in bench.velocities if velocity[0] != 0.0]


def test_holding_moves_and_letting_go_stops(bench, terminal):
    assert set(bench.heard(0.5)) == {ZERO}
    bench.velocities.clear()
    hold(terminal, "w", 2.0, bench.spin)
    released = time.monotonic()
    bench.spin(2.0)
    first = next(at for at, velocity in bench.velocities if velocity[0] > 0)
    last = max(at for at, velocity in bench.velocities if velocity[0] > 0)
    assert released - first > 1.7, "from the first press on, without a gap"
    assert all(velocity[0] > 0 for at, velocity in bench.velocities if first < at < released - 0.1)
    assert last - released < 0.25 + LATE_S
    assert max(moved(bench)) == pytest.approx(0.4), "repeats do not push to full speed"
    assert "WALK (bench)" in terminal.line() and "asked +0.00 +0.00 +0.00" in terminal.line()
    bench.mode = SafetyPermit.DAMP
    bench.wait(lambda: terminal.read() and "DAMP (bench)" in terminal.line(), 5.0, "the new mode in the line")


def test_escape_stops_at_once_and_recover_walks_again(bench, terminal):
    terminal.type("w")
    bench.wait(lambda: moved(bench), 10.0, "motion")
    terminal.type("\x1b")
    pressed = time.monotonic()
    bench.wait(lambda: "estop" in bench.calls, 5.0, "the call")
    assert time.monotonic() - pressed < LATE_S
    bench.mode = SafetyPermit.FAULT
    bench.spin(0.3)
    assert bench.heard(0.5) == [], "silence until r"
    bench.calls.clear()
    terminal.type("r")
    bench.wait(lambda: "reset" in bench.calls, 10.0, "reset")
    bench.mode = SafetyPermit.DAMP
    bench.wait(lambda: "stand" in bench.calls, 10.0, "stand")
    bench.mode = SafetyPermit.READY
    bench.wait(lambda: "walk" in bench.calls, 10.0, "walk")
    bench.mode = SafetyPermit.WALK
    assert set(bench.heard(0.5)) == {ZERO}
    assert bench.calls == ["reset", "arm", "stand", "walk"]


def test_a_watchdog_that_does_not_answer_does_not_stop_the_loop(bench, terminal):
    terminal.type("w")
    bench.wait(lambda: moved(bench), 10.0, "motion")
    terminal.type("\x1b")
    time.sleep(1.0)  # nobody spins: no service answers, no permit is sent
    assert "EMERGENCY STOP NOT CONFIRMED" in terminal.line()
    lines = terminal.text.count("\r")
    time.sleep(0.5)
    assert terminal.read().count("\r") >= lines + 3, "the loop goes on"
    bench.wait(lambda: bench.calls.count("estop"), 10.0, "the stop")
    bench.wait(lambda: "emergency stop confirmed" in terminal.read(), 10.0, "its answer")


def test_stand_and_sit_stop_first(bench, terminal):
    for key, call in (("x", "ready"), ("c", "sit")):
        terminal.type("w")
        bench.wait(lambda: moved(bench), 10.0, "motion")
        terminal.type(key)
        bench.wait(lambda call=call: call in bench.calls, 10.0, call)
        bench.spin(0.1)
        assert set(bench.heard(0.3)) == {ZERO}
    bench.refusal = "sit refused by the bench"
    terminal.type("c")
    bench.wait(lambda: "sit: sit refused by the bench" in terminal.read(), 10.0, "the refusal")


@pytest.mark.parametrize("way", ["SIGKILL", "SIGSTOP", "window closed", "Ctrl-C"])
def test_every_way_to_go_away_is_silence(bench, terminal, way):
    terminal.type("w")
    bench.wait(lambda: moved(bench), 10.0, "motion")
    if way.startswith("SIG"):
        terminal.process.send_signal(getattr(signal, way))
    elif way == "Ctrl-C":
        terminal.type("\x03")
    else:
        terminal.hang_up()
    gone = time.monotonic()
    bench.spin(3.0)
    assert not [at for at, _ in bench.velocities if at > gone + LATE_S]
    if way == "Ctrl-C":
        assert bench.velocities[-1][1] == ZERO and terminal.process.wait(5) == 0
        assert "the robot stops, stands, and sits down" in terminal.read()
        flags = termios.tcgetattr(terminal.master)[3]
        assert flags & termios.ECHO and flags & termios.ICANON, "the terminal is as before"
    if way == "SIGSTOP":
        terminal.process.send_signal(signal.SIGCONT)
        assert set(bench.heard(1.0)) == {ZERO}, "it wakes up with nobody at the keys"


def test_it_drives_through_the_operator_node_where_there_is_one(bench):
    operator = start("nfpo_deploy.ros.operator")
    bench.remote = None
    bench.wait(lambda: "operator" in bench.node.get_node_names(), START_S, "the operator node")
    terminal = Terminal(COMMAND, dict(os.environ))
    try:
        bench.wait(lambda: "driving over /nfpo/operator/keyboard" in terminal.read(), START_S, "the route")
        bench.velocities.clear()
        terminal.type("a")
        bench.wait(lambda: [v for _, v in bench.velocities if v[2] > 0], 10.0, "turning")
        terminal.process.kill()
        killed = time.monotonic()
        bench.spin(2.5)
        after = [(at, v) for at, v in bench.velocities if at > killed + 0.05]
        assert after[-1][1] == ZERO and after[-1][0] - killed < 0.25 + LATE_S
    finally:
        terminal.end()
        print(stop(operator))


def test_an_operator_node_without_keyboard_refuses(bench):
    operator = start("nfpo_deploy.ros.operator", sources="remote")
    try:
        bench.wait(lambda: "operator" in bench.node.get_node_names(), START_S, "the operator node")
        terminal = Terminal(COMMAND, dict(os.environ))
        try:
            bench.wait(lambda: terminal.process.poll() is not None, START_S, "the end")
        finally:
            # One that goes on driving would disturb every later test.
            status = terminal.end()
        assert status == 1 and "takes no keyboard; add it to the parameter 'sources'" in terminal.text
    finally:
        stop(operator)


def test_without_a_graph_it_says_how_to_start_one():
    terminal = Terminal(COMMAND, dict(os.environ))
    assert terminal.process.wait(START_S) == 1
    terminal.end()
    assert f"no graph on ROS domain {ROS_DOMAIN}" in terminal.text and "nfpo launch" in terminal.text
