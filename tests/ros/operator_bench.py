"""A stand-in for the robot and the watchdog, so that a test alone decides what an operator's program sees."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable

import rclpy
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import RobotState, SafetyPermit
from nfpo_msgs.srv import SetMode
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from std_srvs.srv import Trigger

from nfpo_deploy.ros.node_base import command_qos

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ROBOT_DOMAIN, ROS_DOMAIN = 55 + WORKER, 155 + WORKER
"""Benches run beside each other."""
BUTTONS = "R1 L1 Start Select R2 L2 F1 F2 A B X Y Up Right Down Left".split()


def remote_frame(*buttons: str, lx: float = 0.0, ly: float = 0.0, rx: float = 0.0) -> bytes:
    """The remote's 40 bytes, packed here and not by the code under test."""
    keys = sum(1 << BUTTONS.index(name) for name in buttons)
    return struct.pack("<2BH3f4xf16x", 0x55, 0x51, keys, lx, rx, 0.0, ly)


class Bench:
    """Publishes states and permits, answers the services, listens to /cmd_vel; `spin` makes it live."""

    def __init__(self, domain_id: int = ROS_DOMAIN) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("bench", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.remote: bytes | None = remote_frame()
        self.mode = SafetyPermit.WALK
        self.velocities: list[tuple[float, tuple[float, float, float]]] = []
        self.calls: list[str] = []
        self.refusal = ""
        self.tick = 0
        self.inputs: dict[str, tuple[float, float, float]] = {}
        self._publishers: dict[str, object] = {}
        self._states = self.node.create_publisher(RobotState, "/nfpo/robot_state", qos_profile_sensor_data)
        self._permits = self.node.create_publisher(SafetyPermit, "/nfpo/permit", command_qos(0.1))
        self.node.create_subscription(Twist, "/cmd_vel", self._hear, qos_profile_sensor_data)
        for name in ("arm", "estop", "reset"):
            self.node.create_service(
                Trigger, f"/nfpo/{name}", lambda _, response, name=name: self._answer(name, response)
            )
        self.node.create_service(
            SetMode, "/nfpo/set_mode", lambda request, response: self._answer(request.mode, response)
        )
        self.node.create_timer(0.01, self._publish_state)
        self.node.create_timer(0.02, self._publish_permit)
        self.node.create_timer(0.05, self._publish_inputs)

    def _publish_state(self) -> None:
        if self.remote is not None:
            self.tick += 5
            self._states.publish(RobotState(tick=self.tick, wireless_remote=list(self.remote)))

    def _publish_permit(self) -> None:
        self._permits.publish(SafetyPermit(mode=self.mode, reason="bench"))

    def _publish_inputs(self) -> None:
        for source, velocity in self.inputs.items():
            topic = source if source.startswith("/") else f"/nfpo/operator/{source}"
            if topic not in self._publishers:
                self._publishers[topic] = self.node.create_publisher(Twist, topic, 1)
            message = Twist()
            message.linear.x, message.linear.y, message.angular.z = velocity
            self._publishers[topic].publish(message)

    def _hear(self, message: Twist) -> None:
        self.velocities.append((time.monotonic(), (message.linear.x, message.linear.y, message.angular.z)))

    def _answer(self, name: str, response):
        self.calls.append(name)
        response.success, response.message = not self.refusal, self.refusal or "well"
        return response

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def wait(self, condition: Callable[[], object], timeout: float = 10.0, what: str = "condition"):
        end = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < end, f"timed out waiting for {what}; heard {self.velocities[-3:]}"
            self.executor.spin_once(timeout_sec=0.01)
        return value

    def heard(self, seconds: float) -> list[tuple[float, float, float]]:
        """Velocities published within the next `seconds`."""
        self.velocities.clear()
        self.spin(seconds)
        return [velocity for _, velocity in self.velocities]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


def start(module: str, *arguments: str, **parameters: object) -> subprocess.Popen[str]:
    """A node of ours as a process on the bench's domain."""
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    ros = ["--ros-args", *words] if words else []
    environment = os.environ | {"ROS_DOMAIN_ID": str(ROS_DOMAIN), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments, *ros],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def stop(process: subprocess.Popen[str]) -> str:
    """End it and return its output."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.communicate(timeout=15)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]
