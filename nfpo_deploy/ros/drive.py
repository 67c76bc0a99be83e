"""The loop of `nfpo drive`: keys in, velocity and requests out, one line of status."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import time
from types import FrameType
from typing import Any

import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.operator import keyboard
from nfpo_deploy.operator.keyboard import HeldKeys, Teleop
from nfpo_deploy.operator.requests import Recovery, Request
from nfpo_deploy.operator.speeds import Speeds
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS, RateLoop
from nfpo_deploy.ros.node_base import SENSOR_QOS, PolledSubscription
from nfpo_deploy.ros.requester import Requester
from nfpo_deploy.types import Mode

RATE_HZ = 40.0
PUBLISH_EVERY = 2
"""/cmd_vel at 20 Hz."""
LAST_WORDS = 5
SHOW_EVERY = 4
GRAPH_WAIT_S = 5.0
MATCH_WAIT_S = 1.0
"""How long the operator node's subscription may take to be discovered once the node was."""
DISCOVERY_WAIT_S = 4.0
"""How long the operator node may take to be discovered once the graph was heard: past it, nobody would arbitrate."""
PERMIT_LOST_NS = NS
MESSAGE_NS = 4 * NS
KEYBOARD = topics.OPERATOR_INPUT + "keyboard"
HELP = (
    "hold a key to move: w/s faster forward/backward, a/d turn left/right, q/e step left/right, any other keeps going\n"
    "space stop   x stand   c sit   r recover: stand up and walk   esc EMERGENCY STOP   Ctrl-C leave, the robot stops\n"
)
REQUESTS = {"x": Request.READY, "c": Request.SIT}


class GraphSide:
    """What the driver sees of the graph and says to it; nothing here waits."""

    def __init__(self, ros_domain_id: int) -> None:
        """Join the graph.

        Raises:
            NfpoError: no graph on the domain, or one whose operator node takes no keyboard.
        """
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=ros_domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self._node: Any = rclpy.create_node(
            "keyboard", context=self._context, enable_rosout=False, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._permits = PolledSubscription(self._node, SafetyPermitMsg, topics.PERMIT, SENSOR_QOS)
        self._odometry = PolledSubscription(self._node, Odometry, topics.ODOMETRY, SENSOR_QOS)
        self._publisher = self._node.create_publisher(Twist, KEYBOARD, 1)
        self.requester = Requester(self._node)
        self._permit_ns = 0
        self.mode: Mode | None = None
        self.reason = ""
        self.velocity = (math.nan,) * 3
        try:
            self.route = self._find_route(ros_domain_id)
        except NfpoError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _find_route(self, ros_domain_id: int) -> str:
        """Through the operator node, or where a graph has none directly; settled once, so that it never surprises."""
        if not self._wait(lambda: self.mode is not None, GRAPH_WAIT_S):
            raise NfpoError(
                f"no graph on ROS domain {ros_domain_id}: no permit of its watchdog within {GRAPH_WAIT_S:g} s; start "
                "one with nfpo launch, or give its --ros-domain-id"
            )
        # Discovery is no faster because the watchdog was found already; a node is seen by name before it listens.
        self._wait(lambda: self._listeners() > 0 or self._operator_there(), DISCOVERY_WAIT_S)
        if self._wait(lambda: self._listeners() > 0, MATCH_WAIT_S if self._operator_there() else 0.0):
            return KEYBOARD
        if self._operator_there():
            raise NfpoError("the graph's operator node takes no keyboard; add it to the parameter 'sources'")
        self._node.destroy_publisher(self._publisher)
        self._publisher = self._node.create_publisher(Twist, topics.VELOCITY_COMMAND, 1)
        return topics.VELOCITY_COMMAND

    def _listeners(self) -> int:
        return int(self._publisher.get_subscription_count())

    def _operator_there(self) -> bool:
        return "operator" in self._node.get_node_names()

    def _wait(self, condition: Any, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
            self.poll(time.monotonic_ns())
        return True

    def poll(self, now_ns: int) -> None:
        """Take what has arrived."""
        self._executor.spin_once(timeout_sec=0.0)
        if (permit := self._permits.newest()) is not None:
            self.mode, self.reason, self._permit_ns = conversions.permit_from(permit).mode, permit.reason, now_ns
        elif now_ns - self._permit_ns > PERMIT_LOST_NS:
            self.mode, self.reason = None, "the watchdog is silent"
        if (odometry := self._odometry.newest()) is not None:
            twist = odometry.twist.twist
            self.velocity = (twist.linear.x, twist.linear.y, twist.angular.z)

    def say(self, velocity: tuple[float, float, float]) -> None:
        """Publish a velocity."""
        message = Twist()
        message.linear.x, message.linear.y, message.angular.z = velocity
        self._publisher.publish(message)


class Driver:
    """Keys to velocity and requests."""

    def __init__(self, graph: GraphSide, speeds: Speeds) -> None:
        self._graph = graph
        self._teleop = Teleop(speeds.ranges)
        self._keys = HeldKeys(self._teleop)
        self._recovery = Recovery()
        self._message, self._message_ns = "", 0
        self._silent = False
        self._count = 0

    def step(self, keys: list[str], now_ns: int) -> None:
        """One cycle of the loop."""
        self._graph.poll(now_ns)
        for key in keys:
            self._press(key, now_ns)
        wanted = self._recovery.step(self._graph.mode, now_ns)
        if wanted is not None:
            self._graph.requester.send(wanted, now_ns)
        for answer in self._graph.requester.poll(now_ns):
            self._recovery.answered(answer.request, answer.accepted, now_ns)
            self._tell(f"{answer.request.value}: {answer.message}", now_ns)
        command = self._keys.command(now_ns)
        if self._count % PUBLISH_EVERY == 0 and not self._silent:
            self._graph.say(command)
        if self._count % SHOW_EVERY == 0:
            self._show(command, now_ns)
        self._count += 1

    def _press(self, key: str, now_ns: int) -> None:
        requester = self._graph.requester
        self._keys.press(" " if key in REQUESTS else key, now_ns)
        if self._teleop.estop:
            self._teleop.estop = False
            # Silence as well: should the call not get through, the watchdog and the policy stop by themselves.
            self._silent = True
            self._recovery.cancel()
            requester.send(Request.ESTOP, now_ns)
            self._tell("EMERGENCY STOP", now_ns)
        elif self._teleop.restart:
            self._teleop.restart = False
            self._silent = False
            self._recovery.start(now_ns)
        elif key in REQUESTS:
            self._recovery.cancel()
            requester.send(REQUESTS[key], now_ns)

    def _tell(self, message: str, now_ns: int) -> None:
        self._message, self._message_ns = message, now_ns

    def _show(self, command: tuple[float, float, float], now_ns: int) -> None:
        graph = self._graph
        asked, measured = ("{:+.2f} {:+.2f} {:+.2f}".format(*values) for values in (command, graph.velocity))
        parts = [f"{'NO GRAPH' if graph.mode is None else graph.mode.name} ({graph.reason})"]
        if graph.requester.stopping:
            parts.insert(0, "EMERGENCY STOP NOT CONFIRMED")
        elif now_ns - self._message_ns < MESSAGE_NS:
            parts.insert(0, self._message)
        if not self._silent:
            parts.append(f"asked {asked}, is {measured} (m/s, m/s, rad/s)")
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r" + " | ".join(parts).replace("\n", " ")[:width] + "\x1b[K")
        sys.stdout.flush()


def drive(ros_domain_id: int, speeds: Speeds) -> int:
    """Drive until Ctrl-C, SIGTERM or the end of the terminal; returns the exit status.

    Raises:
        NfpoError: as `GraphSide`.
    """
    print(f"looking for the graph on ROS domain {ros_domain_id} …", flush=True)
    graph = GraphSide(ros_domain_id)
    driver, loop = Driver(graph, speeds), RateLoop(RATE_HZ)
    # The terminal must get its settings back.
    signal.signal(signal.SIGTERM, _exit)
    try:
        with keyboard.raw_keyboard():
            # Said only now: what was typed before is discarded, and nobody may believe that it was read.
            print(f"{HELP}driving over {graph.route}", flush=True)
            loop.reset()
            while True:
                now_ns = loop.wait()
                driver.step(keyboard.pressed_keys(), now_ns)
    except KeyboardInterrupt:
        for _ in range(LAST_WORDS):
            # Several times: who leaves right after speaking is not always heard.
            graph.say((0.0, 0.0, 0.0))
            loop.wait()
        print("\nleaving: the robot stops, stands, and sits down when nobody else drives it")
        return 0
    except EOFError:
        return 1
    finally:
        graph.close()


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
