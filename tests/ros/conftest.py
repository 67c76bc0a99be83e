"""A graph in its own processes, and a ROS client beside it, both on domains of their own."""

import os
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("nfpo_msgs", reason="ros2_ws is not built: ros2_ws/build.sh")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus, JointCommand, SafetyPermit, StateEstimate
from nfpo_msgs.srv import SetMode
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from std_srvs.srv import Trigger

from nfpo_deploy.graph import build_graph
from nfpo_deploy.supervisor import Supervisor

ROBOT_DOMAIN, ROS_DOMAIN = 24, 25
TOPICS = {
    "status": (BridgeStatus, "/nfpo/bridge_status"),
    "permit": (SafetyPermit, "/nfpo/permit"),
    "estimate": (StateEstimate, "/nfpo/state_estimate"),
    "command": (JointCommand, "/nfpo/joint_command"),
}


class Client:
    """Newest message of each topic, service calls and a steady velocity command."""

    def __init__(self, domain_id):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("test_client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.newest = {}
        self._rows = {}
        self.velocity = None
        self._publisher = self.node.create_publisher(Twist, "/cmd_vel", 1)
        self.node.create_timer(0.05, self._publish)
        for name, (message_type, topic) in TOPICS.items():
            self.listen(name, message_type, topic)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, 10)

    def listen(self, name, message_type, topic):
        self.node.create_subscription(
            message_type, topic, lambda message: self.newest.__setitem__(name, message), qos_profile_sensor_data
        )

    def _publish(self):
        if self.velocity is not None:
            message = Twist()
            message.linear.x, message.linear.y, message.angular.z = self.velocity
            self._publisher.publish(message)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def wait(self, condition, timeout=15.0, what="condition"):
        """Spin until `condition()` holds; returns its value."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < end, f"timed out waiting for {what}; {self.describe()}"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def describe(self):
        permit, status = self.newest.get("permit"), self.newest.get("status")
        return (
            f"mode {permit and (permit.mode, permit.reason)}, gate {status and (status.phase, status.reason)}, "
            f"heard of {sorted(self.newest)}"
        )

    def call(self, service_type, name, **fields):
        client = self.node.create_client(service_type, name)
        self.wait(client.service_is_ready, what=name)
        future = client.call_async(service_type.Request(**fields))
        self.wait(future.done, what=f"answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def trigger(self, name):
        return self.call(Trigger, f"/nfpo/{name}")

    def refused(self, name, *words):
        """Ask until the refusal names all `words`; each node learns of the others in its own time."""

        def names_them():
            answer = self.trigger(name)
            assert not answer.success, f"{name} was granted"
            last[:] = [answer.message]
            return all(word in answer.message for word in words)

        last = []
        try:
            self.wait(names_them, what=f"a refusal that names {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}; last answer {last}") from None

    def set_mode(self, mode):
        return self.call(SetMode, "/nfpo/set_mode", mode=mode)

    def in_mode(self, mode):
        return "permit" in self.newest and self.newest["permit"].mode == mode

    def stand_up(self):
        self.wait(lambda: "status" in self.newest and "estimate" in self.newest, timeout=25.0, what="the graph")
        # What arming needs is complete a moment after the last node has come up.
        self.wait(lambda: self.trigger("arm").success, what="arm")
        self.wait(lambda: self.set_mode("stand").success, what="STAND")
        self.wait(lambda: self.in_mode(SafetyPermit.READY), what="READY")

    def diagnosis(self, name):
        return self._rows.get(f"safety_watchdog: {name}")

    def _take_diagnostics(self, message):
        # Several nodes publish their rows here.
        self._rows.update({row.name: row for row in message.status})

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def client():
    client = Client(ROS_DOMAIN)
    yield client
    client.close()


class RunningGraph:
    """A supervised graph with its output.

    `hardware` lets the bridge take the simulated robot for a real one; `damping` is how long it damps before it ends.
    """

    def __init__(self, hardware=False, damping=0.5, **arguments):
        words = {"sim": "true", "domain_id": str(ROBOT_DOMAIN), "ros_domain_id": str(ROS_DOMAIN), **arguments}
        self.lines = []
        graph = build_graph("go2_walk", words)
        if hardware:
            graph.process("sdk_bridge").parameters["sdk_bridge"]["simulated"] = False
        bridge = next(process for process in graph.processes if "sdk_bridge" in process.parameters)
        bridge.parameters["sdk_bridge"]["stop_damping_s"] = damping
        self.supervisor = Supervisor(graph, lambda name, line: self.lines.append(f"[{name}] {line}"))
        self.supervisor.start()
        # The supervisor must be watched all the time, as it is by its command.
        self._watcher = threading.Thread(target=self.supervisor.watch, daemon=True)
        self._watcher.start()

    def stop(self):
        self.supervisor.request_stop("end of the test")
        return self.wait_until_stopped()

    def wait_until_stopped(self, timeout=30.0):
        self._watcher.join(timeout)
        assert not self._watcher.is_alive(), "\n".join(self.lines)
        return self.supervisor.exit_status

    def signal(self, name, number):
        os.kill(self.supervisor.process_id(name), number)

    @property
    def output(self):
        return "\n".join(self.lines)


@pytest.fixture
def start_graph(tmp_path):
    started = []

    def start(**arguments):
        started.append(RunningGraph(**arguments))
        return started[-1]

    yield start
    for graph in started:
        # What is left at the end of a test need not sit down first.
        graph.supervisor.hurry()
        graph.stop()


@pytest.fixture
def robot_domain() -> int:
    return ROBOT_DOMAIN


@pytest.fixture
def ros_domain() -> int:
    return ROS_DOMAIN


@pytest.fixture
def record(tmp_path) -> Path:
    return tmp_path / "truth.npz"
