"""The operator node: as a process of its own against a bench, and in the whole graph with the simulated robot."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("nfpo_msgs", reason="ros2_ws is not built: ros2_ws/build.sh")

from nfpo_msgs.msg import SafetyPermit

from tests.ros.operator_bench import Bench, remote_frame, start, stop

NODE = "nfpo_deploy.ros.operator"
AHEAD = (0.6, 0.0, 0.0)
ZERO = (0.0, 0.0, 0.0)
LATE_S = 1.0
"""What must happen at once may take this long where other programs want the same processor."""


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def start_operator(bench):
    started = []

    def begin(**parameters):
        process = start(NODE, **parameters)
        started.append(process)
        # In WALK with a connected remote beside nobody it holds the robot in place.
        bench.wait(lambda: bench.velocities, 60.0, "the operator node")
        return process

    yield begin
    for process in started:
        print(stop(process))


def test_the_remote_drives_only_with_its_deadman(bench, start_operator):
    start_operator()
    bench.remote = remote_frame(ly=1.0)
    assert set(bench.heard(1.0)) == {ZERO}
    bench.remote = remote_frame("L1", ly=1.0)
    bench.spin(0.2)
    heard = bench.heard(2.0)
    assert set(heard) == {AHEAD}
    assert 30 <= len(heard) <= 41, "20 a second"
    bench.remote = remote_frame("L1", ly=1.0, lx=1.0, rx=-1.0)
    bench.spin(0.2)
    assert bench.heard(0.3)[-1] == pytest.approx((0.6, -0.3, 0.8))
    bench.remote = remote_frame(ly=1.0)
    released = time.monotonic()
    stopped, _ = bench.wait(lambda: next(((at, v) for at, v in bench.velocities if v == ZERO), None), 10.0, "zero")
    assert stopped - released < LATE_S


@pytest.mark.parametrize("lost", [None, bytes(40)], ids=["no states", "disconnected"])
def test_a_lost_remote_is_one_zero_and_then_silence(bench, start_operator, lost):
    start_operator()
    bench.remote = remote_frame("L1", ly=1.0)
    bench.wait(lambda: bench.velocities[-1][1] == pytest.approx(AHEAD), 10.0, "motion")
    bench.velocities.clear()
    bench.remote = lost
    lost_at = time.monotonic()
    bench.spin(2.0)
    zeros = [at for at, velocity in bench.velocities if velocity == ZERO]
    assert len(zeros) == 1 and zeros[0] == bench.velocities[-1][0]
    assert zeros[0] - lost_at < 0.2 + LATE_S
    # It comes back with the stick still pushed: nothing moves before the deadman was let go.
    bench.remote = remote_frame("L1", ly=1.0)
    assert set(bench.heard(1.0)) <= {ZERO}
    bench.remote = remote_frame()
    bench.spin(0.2)
    bench.remote = remote_frame("L1", ly=1.0)
    bench.wait(lambda: bench.velocities[-1][1] == pytest.approx(AHEAD), 10.0, "motion")


def test_a_frozen_remote_stops(bench, start_operator):
    start_operator(frozen_s=1.0)
    bench.remote = remote_frame("L1", ly=1.0)
    bench.wait(lambda: bench.velocities[-1][1] == pytest.approx(AHEAD), 10.0, "motion")
    bench.spin(1.3)
    assert set(bench.heard(0.5)) == {ZERO}


def test_buttons_ask_once_in_order_and_a_refused_arm_stops_there(bench, start_operator):
    process = start_operator()
    for buttons in (["Start"], ["A"], ["X"], ["Down"], ["Y"], ["L2", "Select"]):
        bench.remote = remote_frame(*buttons)
        bench.spin(0.5)
        bench.remote = remote_frame()
        bench.spin(0.2)
    assert bench.calls == ["arm", "stand", "walk", "ready", "sit", "reset", "damp"]
    bench.calls.clear()
    bench.refusal = "arm refused: bench says no"
    bench.remote = remote_frame("Start")
    bench.spin(0.5)
    assert bench.calls == ["arm"]
    output = stop(process)
    assert "the remote asks: stand" in output and "stand: arm refused: bench says no" in output


@pytest.mark.parametrize("mode", [SafetyPermit.FAULT, SafetyPermit.WALK])
def test_the_remotes_emergency_stop_calls_the_service_only_where_the_watchdog_missed_it(bench, start_operator, mode):
    start_operator()
    bench.remote = remote_frame("L1", ly=1.0)
    bench.wait(lambda: bench.velocities[-1][1] == pytest.approx(AHEAD), 10.0, "motion")
    bench.mode = mode
    bench.remote = remote_frame("L1", "L2", "B", ly=1.0)
    pressed = time.monotonic()
    bench.spin(2.0)
    assert all(velocity == ZERO for at, velocity in bench.velocities if at > pressed + LATE_S)
    assert bench.calls == ([] if mode == SafetyPermit.FAULT else ["estop"])


def test_sources_yield_to_the_remote_and_a_lost_one_leaves_silence(bench, start_operator):
    start_operator()
    bench.inputs = {"web": (0.2, 0.0, 0.0), "autonomy": (-0.2, 0.0, 0.0)}
    bench.spin(0.5)
    assert set(bench.heard(1.0)) == {(0.2, 0.0, 0.0)}
    bench.remote = remote_frame("L1")
    bench.spin(0.2)
    assert set(bench.heard(1.0)) == {ZERO}, "the remote says stop"
    bench.remote = remote_frame()
    bench.spin(0.2)
    assert set(bench.heard(0.5)) == {(0.2, 0.0, 0.0)}
    # The browser is gone, the program is not: it may drive on.
    del bench.inputs["web"]
    bench.spin(0.4)
    assert set(bench.heard(0.5)) == {(-0.2, 0.0, 0.0)}
    del bench.inputs["autonomy"]
    bench.spin(0.5)
    assert bench.heard(1.0) == [], "the idle remote on the table is no operator"


def test_another_publisher_is_left_alone_by_an_idle_remote(bench, start_operator):
    process = start_operator()
    bench.inputs = {"/cmd_vel": (0.11, 0.0, 0.0)}
    bench.spin(2.0)
    assert set(bench.heard(1.0)) == {(0.11, 0.0, 0.0)}
    bench.remote = remote_frame("L1", ly=1.0)
    bench.spin(0.2)
    assert pytest.approx(AHEAD) in bench.heard(0.5)
    assert "which no remote can overrule" in stop(process)


def test_sources_can_be_switched_off(bench):
    process = start(NODE, sources="web")
    try:
        bench.inputs = {"web": (0.1, 0.0, 0.0), "keyboard": (0.3, 0.0, 0.0)}
        bench.remote = remote_frame("L1", ly=1.0)
        bench.wait(lambda: bench.velocities, 60.0, "the operator node")
        assert set(bench.heard(1.0)) == {(0.1, 0.0, 0.0)}
    finally:
        stop(process)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sources": "joystick"}, "expected some of remote, keyboard, web, autonomy"),
        ({"forward": -1.0}, "parameter forward: expected a number above zero"),
        ({"frozen_s": 0.0}, "parameter frozen_s"),
        ({"dead_zone": 1.5}, "dead_zone must be at least 0 and below 1"),
    ],
)
def test_wrong_parameters_end_it_with_one_line(parameters, message):
    process = start(NODE, **parameters)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and message in output
