"""The watchdog in its own process, beside a bench that speaks for bridge, estimator, policy and operator over ROS."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from nfpo_msgs.srv import SetMode
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from std_srvs.srv import Trigger

from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.node_base import SENSOR_QOS, command_qos
from nfpo_deploy.types import BridgeStatus, GatePhase, JointCommand, Mode, RobotState, StateEstimate
from robots.loader import load_robot
from sim2real_checks.robot_sim.remote import Remote
from tests.ros.messages import fill_robot_state, fill_state_estimate

DOMAIN = 140
SPEC = load_robot("go2")
N = SPEC.num_joints
NS = 1_000_000_000
PHASES = {
    Mode.DAMP: GatePhase.DAMPING, Mode.STAND: GatePhase.HOLDING, Mode.READY: GatePhase.HOLDING,
    Mode.WALK: GatePhase.TRACKING, Mode.SIT: GatePhase.RAMPING, Mode.FAULT: GatePhase.DAMPING,
}  # fmt: skip


class Bench:
    """Healthy messages at 250 Hz from one thread, permits and diagnostics from another; a test changes either."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("bench", context=self.context)
        publish, listen = self.node.create_publisher, self.node.create_subscription
        self.states = publish(RobotStateMsg, topics.ROBOT_STATE, SENSOR_QOS)
        self.estimates = publish(StateEstimateMsg, topics.STATE_ESTIMATE, SENSOR_QOS)
        self.statuses = publish(BridgeStatusMsg, topics.BRIDGE_STATUS, SENSOR_QOS)
        self.commands = publish(JointCommandMsg, topics.JOINT_COMMAND, command_qos(SPEC.safety.command_timeout))
        self.velocities = publish(Twist, topics.VELOCITY_COMMAND, 1)
        self.permits: list[tuple[int, int, str]] = []
        self.rows: dict[str, tuple[int, str]] = {}
        listen(SafetyPermitMsg, topics.PERMIT, self._on_permit, qos_profile_sensor_data)
        listen(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, 10)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.mode, self.k, self.seq, self.lowstates = Mode.DAMP, 0, 0, 0
        self.state, self.status, self.output_ok, self.crc = {}, {}, True, 0
        self.lost: set[str] = set()
        self.changed_ns = 0
        self.longest_pause = 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._send_all, self._spin)]
        for thread in self._threads:
            thread.start()

    def _on_permit(self, message):
        self.mode = Mode(message.mode)
        self.permits.append((time.monotonic_ns(), message.mode, message.reason))

    def _on_diagnostics(self, message):
        self.rows = {row.name.split(": ")[1]: (row.level[0], row.message) for row in message.status}

    def _spin(self):
        while not self._done.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def _send_all(self):
        deadline = before = time.monotonic()
        while not self._done.is_set():
            deadline = max(deadline + 0.004, time.monotonic() - 0.02)
            time.sleep(max(0.0, deadline - time.monotonic()))
            before, paused = time.monotonic(), time.monotonic() - before
            self.longest_pause = max(self.longest_pause, paused)
            with self._lock:
                self.k += 1
                for name, every in (("state", 1), ("estimate", 1), ("status", 5), ("command", 5), ("operator", 5)):
                    if self.k % every == 0 and name not in self.lost:
                        getattr(self, f"_send_{name}")(conversions.stamp_of(time.time_ns()))

    def change(self, **values):
        """Set attributes between two messages, and remember when."""
        with self._lock:
            for name, value in values.items():
                setattr(self, name, value)
            self.changed_ns = time.monotonic_ns()

    def _send_state(self, stamp):
        self.lowstates += 2
        state = RobotState(
            4 * self.k, time.monotonic_ns(), np.array([1.0, 0, 0, 0]), np.zeros(3), np.array([0, 0, 9.81]),
            SPEC.default_pose, np.zeros(N), np.zeros(N), np.full(N, 40.0), np.zeros(4), 80.0, 28.0, bytes(40),
        )  # fmt: skip
        message = RobotStateMsg()
        fill_robot_state(message, replace(state, **self.state), SPEC, stamp)
        message.joint_names_crc ^= self.crc
        self.states.publish(message)

    def _send_estimate(self, stamp):
        estimate = StateEstimate(
            4 * self.k, time.monotonic_ns(), np.array([1.0, 0, 0, 0]), np.zeros(3), np.zeros(3), np.full(3, 0.05),
            np.zeros(3), np.ones(4), SPEC.default_pose, np.zeros(N),
        )  # fmt: skip
        message = StateEstimateMsg()
        fill_state_estimate(message, estimate, SPEC, stamp)
        self.estimates.publish(message)

    def _send_status(self, stamp):
        mode = self.mode
        status = BridgeStatus(
            PHASES[mode], mode, "", False, mode in (Mode.STAND, Mode.READY, Mode.WALK), False, 0.0, 0.0, 0.0,
            lowstate_count=self.lowstates, loop_rate=500.0, loop_jitter_p99_ms=0.2, guards_expected=2, guards_alive=2,
        )  # fmt: skip
        message = BridgeStatusMsg()
        conversions.fill_bridge_status(message, replace(status, **self.status), stamp)
        self.statuses.publish(message)

    def _send_command(self, stamp):
        self.seq += 1
        gains = SPEC.stand_gains
        command = JointCommand(
            self.seq, 4 * self.k, time.monotonic_ns(), SPEC.default_pose, np.zeros(N), gains.stiffness, gains.damping,
            np.zeros(N),
        )  # fmt: skip
        message = JointCommandMsg()
        conversions.fill_joint_command(message, command, SPEC, stamp)
        message.observation_ok, message.output_ok, message.inference_ms = True, self.output_ok, 1.0
        self.commands.publish(message)

    def _send_operator(self, stamp):
        message = Twist()
        message.linear.x = 0.3
        self.velocities.publish(message)

    def wait(self, condition, timeout=20.0, what="condition"):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"timed out waiting for {what}; {self.permits[-1:]}, {self.rows}"
            time.sleep(0.002)

    def call(self, service_type, name, **fields):
        client = self.node.create_client(service_type, name)
        self.wait(client.service_is_ready, what=name)
        future = client.call_async(service_type.Request(**fields))
        self.wait(future.done, what=f"answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def up(self, *modes):
        """Arm, then request one mode after the other; again where this busy machine has paused the bench itself."""
        for _ in range(10):
            self.longest_pause = 0.0
            if self._try_up(modes):
                return
            assert self.longest_pause > 0.5 * SPEC.safety.state_timeout, self.permits[-1]
            self.recover()
        pytest.skip("this machine is too busy: the bench cannot keep its own rate")

    def _try_up(self, modes):
        self.wait(lambda: self.mode is Mode.FAULT or self.call(Trigger, topics.ARM).success, what="arm")
        for mode in modes:
            wanted = {"STAND": Mode.READY}.get(mode, Mode[mode])
            self.wait(
                lambda mode=mode: self.mode is Mode.FAULT or self.call(SetMode, topics.SET_MODE, mode=mode).success,
                what=mode,
            )
            self.wait(lambda wanted=wanted: self.mode in (wanted, Mode.FAULT), what=wanted.name)
        return self.mode is not Mode.FAULT

    def recover(self):
        """Back to DAMP, with everything well."""
        self.change(state={}, status={}, output_ok=True, crc=0, lost=set())
        self.wait(lambda: self.call(Trigger, topics.RESET).success, what="reset")
        self.wait(lambda: self.mode is Mode.DAMP, what="DAMP")

    def reaction_ms(self):
        """From the last change to the first FAULT permit that arrived after it."""
        self.wait(lambda: self.mode is Mode.FAULT, 5.0, "FAULT")
        since = self.changed_ns
        return min(ns - since for ns, mode, _ in self.permits if mode == Mode.FAULT and ns > since) * 1e-6

    def close(self):
        self._done.set()
        for thread in self._threads:
            thread.join(5.0)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def bench():
    environment = {
        **os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "nfpo_deploy.ros.safety_watchdog", "--ros-args", "-p", "robot:=go2"]
    process = subprocess.Popen(command, env=environment)
    bench = Bench()
    bench.process = process
    try:
        yield bench
    finally:
        process.terminate()
        process.wait(20)
        bench.close()


def test_everything_that_is_new_arrives_from_the_wire_and_leads_to_its_reaction(bench):
    """Each new row once, through real messages; what they lead to in detail is tested without ROS."""
    bench.up("STAND")
    cases = [
        ("foreign_lowcmd", {"status": {"foreign_lowcmd": 3}}, Mode.FAULT),
        ("guard_active", {"status": {"guard_active": True}}, Mode.FAULT),
        ("obedience", {"status": {"phase": GatePhase.TRACKING}}, Mode.FAULT),
        ("height", {"state": {"q": SPEC.crouch_pose}}, Mode.FAULT),
        ("guards", {"status": {"guards_alive": 0}}, Mode.SIT),
        ("network", {"status": {"network_problem": "foreign DDS"}}, Mode.SIT),
        ("bridge_ending", {"status": {"stopping": True}}, Mode.SIT),
    ]
    for name, change, mode in cases:
        bench.permits.clear()
        bench.change(**change)
        bench.wait(lambda mode=mode: bench.mode is mode, 5.0, f"{mode.name} by {name}")
        reason = next(reason for _, value, reason in bench.permits if value == mode)
        assert reason.startswith(f"{name}: "), reason
        if mode is Mode.SIT:
            bench.change(state={}, status={"sit_reached": True})
            bench.wait(lambda: bench.mode is Mode.DAMP, what="DAMP")
            bench.change(status={})
        else:
            bench.recover()
        bench.up("STAND")


def test_policy_output_and_a_lost_operator_end_a_walk(bench):
    bench.up("STAND", "WALK")
    bench.permits.clear()
    bench.change(output_ok=False)
    bench.wait(lambda: bench.mode is Mode.READY, 5.0, "READY")
    assert bench.permits[-1][2].startswith("policy_output: policy output outside training")
    bench.change(output_ok=True)
    bench.wait(lambda: bench.call(SetMode, topics.SET_MODE, mode="walk").success, what="WALK again")
    bench.wait(lambda: bench.mode is Mode.WALK, what="WALK")
    bench.change(lost={"operator"})
    bench.wait(lambda: bench.mode is Mode.READY, 5.0, "READY without an operator")
    bench.wait(lambda: bench.mode is Mode.SIT, 15.0, "SIT without an operator")
    assert bench.permits[-1][2].startswith("operator_gone: no velocity command for 1")


def test_remote_stops_even_before_arming_and_while_it_is_held(bench):
    bench.wait(lambda: bench.rows.get("state_age", (9, ""))[0] == 0, what="the watchdog to see states")
    bench.change(state={"wireless_remote": Remote(buttons=frozenset({"L2", "B"})).to_bytes()})
    bench.wait(lambda: bench.mode is Mode.FAULT, 2.0, "FAULT")
    assert bench.permits[-1][2] == "emergency stop by remote"
    refused = bench.call(Trigger, topics.RESET)
    assert not refused.success and "remote_estop" in refused.message
    bench.recover()


def test_state_of_another_robot_silences_that_stream_and_no_other(bench):
    bench.up("STAND")
    bench.change(crc=0x1234)
    bench.wait(lambda: bench.mode is Mode.FAULT, 2.0, "FAULT")
    assert bench.permits[-1][2].startswith("state_age: robot state stale")
    time.sleep(0.5)
    bench.wait(lambda: "state_age" in bench.rows, what="diagnostics")
    assert bench.rows["bridge_age"][0] == bench.rows["estimate_age"][0] == 0, bench.rows
    bench.recover()


def test_permits_come_at_a_hundred_hertz_and_reactions_within_their_time(bench, record_property):
    """From the change of a message to the FAULT permit at its receiver, over ROS; of silence, from its timeout."""
    bench.up("STAND")
    first, count = time.monotonic_ns(), len(bench.permits)
    time.sleep(2.0)
    rate = (len(bench.permits) - count) / (time.monotonic_ns() - first) * NS
    # 100 on a machine with time to spare.
    assert 60 < rate < 105, rate
    reactions = {"tilt": [], "remote": [], "state": [], "status": []}
    rolled = np.array([np.cos(0.6), np.sin(0.6), 0.0, 0.0])
    changes = {
        "tilt": ({"state": {"quat_wxyz": rolled}}, 0.0),
        "remote": ({"state": {"wireless_remote": Remote(buttons=frozenset({"L2", "B"})).to_bytes()}}, 0.0),
        "state": ({"lost": {"state"}}, SPEC.safety.state_timeout * 1e3),
        "status": ({"lost": {"status"}}, SPEC.safety.bridge_status_timeout * 1e3),
    }
    for _ in range(6):
        for name, (change, timeout) in changes.items():
            bench.change(**change)
            reactions[name].append(bench.reaction_ms() - timeout)
            bench.recover()
            bench.up("STAND")
    text = ", ".join(f"{name} {np.median(ms):.0f} (worst {max(ms):.0f}) ms" for name, ms in reactions.items())
    record_property("reactions", text)
    print(text)
    # The median: other programs share the machine, and the worst one is theirs.
    assert all(np.median(ms) < 50.0 for ms in reactions.values()), text
