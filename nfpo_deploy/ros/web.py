"""web: the page in a browser that shows the robot and drives it, as a process of its own.

It is a client like any other: it sees what every ROS user sees, drives through the operator node, and calls the
watchdog's services. Whatever happens in here can end this process, and nothing else.
"""

from __future__ import annotations

import math
import os
import queue
import sys
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from nfpo_deploy import realtime
from nfpo_deploy.errors import MessageError, WebError
from nfpo_deploy.operator.speeds import STANDING_STILL, Speeds
from nfpo_deploy.operator.web_link import WebLink
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode
from nfpo_deploy.ros.operator import LATEST
from nfpo_deploy.ros.parameters import Declaration, above_zero, integer_between, not_empty
from nfpo_deploy.ros.requester import Answer, Requester
from nfpo_deploy.types import GatePhase

NICE = 5
SILENT_NS = NS
"""Without a permit for this long the page says that there is no watchdog."""
DEFAULT = Speeds()
WATCHDOG_ROW = "safety_watchdog: "
RECORDER_ROW = "flight_recorder: "
RECORDER_SILENT_NS = 5 * NS
"""A recorder that once reported, once a second, and is silent for this long is dead or hangs."""
LEVELS = {DiagnosticStatus.WARN: "warning", DiagnosticStatus.ERROR: "error", DiagnosticStatus.STALE: "stale"}


class WebNode(LoopNode):
    """Lifecycle node `web`."""

    NAME = "web"
    PARAMETERS = (
        Declaration("rate_hz", 20.0, "rate at which velocities go out, Hz", above_zero),
        Declaration("status_every", 2, "cycles between two statuses to the browsers", integer_between(1, 4)),
        Declaration("host", "127.0.0.1", "address to bind to; any but loopback needs a token", not_empty),
        Declaration("port", 8080, "TCP port; 0 lets the system choose", integer_between(0, 65535)),
        Declaration("token_file", "", "file with the token, for nobody else to read; none: generated where needed"),
        Declaration("view", True, "offer the 3D view"),
        Declaration("forward", DEFAULT.forward, "speed of the whole pad, m/s", above_zero),
        Declaration("backward", DEFAULT.backward, "speed of the whole pad, m/s", above_zero),
        Declaration("sideways", DEFAULT.sideways, "speed of the whole pad, m/s", above_zero),
        Declaration("turn", DEFAULT.turn, "speed of the whole pad, rad/s", above_zero),
    )

    def setup(self) -> None:
        settings = self.settings
        self._server: Any = None
        self._view: Any = None
        self._speeds = Speeds(*(settings[name] for name in ("forward", "backward", "sideways", "turn")))
        self._permits = self.poll(SafetyPermitMsg, topics.PERMIT, SENSOR_QOS)
        self._statuses = self.poll(BridgeStatusMsg, topics.BRIDGE_STATUS, SENSOR_QOS)
        self._diagnostics = self.poll(DiagnosticArray, topics.DIAGNOSTICS, QoSProfile(depth=20))
        self._joints = self.poll(JointState, topics.JOINT_STATES, SENSOR_QOS)
        self._odometry = self.poll(Odometry, topics.ODOMETRY, SENSOR_QOS)
        self._asked = self.poll(Twist, topics.VELOCITY_COMMAND, SENSOR_QOS)
        self._drivers = self.poll(String, topics.OPERATOR_DRIVER, LATEST)
        self._velocity = self.publish_on(Twist, topics.OPERATOR_INPUT + "web", 1)
        self._requester = Requester(self)
        self._link = WebLink()
        self._view = self._make_view() if settings["view"] else None
        self._server = self._make_server()
        self._message = Twist()
        self._asked_by: dict[Any, tuple[int | None, int]] = {}
        self._shown: dict[str, Any] = {}
        self._permit_ns = 0
        self._recorder_ns = 0
        self._watchdog_problems: list[dict[str, str]] = []
        self._recorder_problems: list[dict[str, str]] = []
        self._number = 0
        self._count = 0

    def _make_view(self) -> Any:
        try:
            from nfpo_deploy.web.view import RobotView

            return RobotView(self.spec)
        except (ImportError, OSError, WebError) as error:
            self.get_logger().warning(f"no 3D view: {error}")
            return None

    def _make_server(self) -> Any:
        try:
            from nfpo_deploy.web.access import Access, choose_token
            from nfpo_deploy.web.server import WebServer
        except ImportError as error:
            raise WebError(f'the web page needs {error.name}: pip install "nfpo[web]"') from error
        host, port = self.settings["host"], self.settings["port"]
        token = choose_token(host, self.settings["token_file"])
        server = WebServer(host, port, Access(token), self._link, self._view.port if self._view else None)
        server.start()
        shown = f"[{host}]" if ":" in host else host
        generated = f"?token={token}" if token and not self.settings["token_file"] else ""
        # Printed and not logged: the log is recorded and published, and this may carry the token.
        print(f"web page: http://{shown}:{server.port}/{generated}", flush=True)
        return server

    def teardown(self) -> None:
        for owned, end in (("_server", "stop"), ("_view", "stop"), ("_requester", "close")):
            # A set-up that was refused half-way has not made all of them.
            if (part := self.__dict__.pop(owned, None)) is not None:
                getattr(part, end)()

    def start(self) -> None:
        for subscription in self._owned:
            subscription.newest()

    def tick(self, now_ns: int) -> None:
        if not self._server.running:
            raise WebError("the page's server has ended")
        self._pass_requests(now_ns)
        present, velocity = self._link.output(now_ns)
        if present:
            wanted = velocity or STANDING_STILL
            message = self._message
            message.linear.x, message.linear.y, message.angular.z = wanted.vx, wanted.vy, wanted.wz
            self._velocity.publish(message)
        self._count += 1
        if self._server.pages and self._count % self.settings["status_every"] == 0:
            self._observe(now_ns)
            self._number += 1
            self._link.sent(self._number, now_ns)
            self._server.broadcast(self._status(now_ns))

    def _pass_requests(self, now_ns: int) -> None:
        while True:
            try:
                page, number, request = self._server.requests.get_nowait()
            except queue.Empty:
                break
            self.get_logger().info(f"the web page asks: {request.value}")
            self._asked_by[request] = (page, number)
            self._requester.send(request, now_ns)
        for answer in self._requester.poll(now_ns):
            self._pass_answer(answer)

    def _pass_answer(self, answer: Answer) -> None:
        page, number = self._asked_by.pop(answer.request, (None, 0))
        self._server.answer(
            page,
            {
                "answer": answer.request.value,
                "number": number,
                "accepted": answer.accepted,
                "message": answer.message,
            },
        )

    # What the browsers are shown.

    def _observe(self, now_ns: int) -> None:
        shown = self._shown
        if (permit := self._permits.newest()) is not None:
            try:
                granted = conversions.permit_from(permit)
                shown["mode"], shown["reason"], self._permit_ns = granted.mode.name, granted.reason, now_ns
            except MessageError as error:
                self.report_message_error(error)
        elif now_ns - self._permit_ns > SILENT_NS:
            shown["mode"], shown["reason"] = "", "the watchdog is silent"
        if (status := self._statuses.newest()) is not None:
            shown["bridge"] = _bridge(status)
        while (array := self._diagnostics.take()) is not None:
            self._take_recorder(array, now_ns)
            self._take_diagnostics(array)
        if (driver := self._drivers.newest()) is not None:
            shown["driver"] = driver.data
        asked = self._asked.newest()
        shown["asked"] = _velocity(asked) if asked is not None else None
        joints, odometry = self._joints.newest(), self._odometry.newest()
        if odometry is not None:
            shown["measured"] = _velocity(odometry.twist.twist)
            shown["height"] = _number(odometry.pose.pose.position.z)
            if joints is not None and self._view is not None:
                self._draw(odometry, joints)

    def _draw(self, odometry: Odometry, joints: JointState) -> None:
        position, turned = odometry.pose.pose.position, odometry.pose.pose.orientation
        where = np.array([position.x, position.y, position.z, turned.w, turned.x, turned.y, turned.z])
        angles = np.asarray(joints.position)
        if angles.shape == (self.spec.num_joints,) and np.all(np.isfinite(where)) and np.all(np.isfinite(angles)):
            self._view.update(where[:3], where[3:], angles)

    def _take_recorder(self, array: DiagnosticArray, now_ns: int) -> None:
        rows = {row.name.removesuffix(": log"): row for row in array.status if row.name.startswith(RECORDER_ROW)}
        if rows:
            self._recorder_ns, self._recorder_problems = now_ns, _problems(rows)

    def _recording_problems(self, now_ns: int) -> list[dict[str, str]]:
        if self._recorder_ns and now_ns - self._recorder_ns > RECORDER_SILENT_NS:
            return [{"name": "flight_recorder", "level": "stale", "message": "silent: nothing is recorded any more"}]
        return self._recorder_problems

    def _take_diagnostics(self, array: DiagnosticArray) -> None:
        rows = {row.name.removeprefix(WATCHDOG_ROW): row for row in array.status if row.name.startswith(WATCHDOG_ROW)}
        if "mode" not in rows:
            return
        seen = {name: {pair.key: pair.value for pair in row.values} for name, row in rows.items()}
        causes = seen["mode"]
        self._shown["causes"] = [causes.get("first_cause", "")] + [
            cause for key, cause in causes.items() if key.startswith("later_cause_")
        ]
        self._shown["armed"] = causes.get("armed") == "True"
        self._shown["battery"] = seen.get("battery", {}).get("seen", "")
        self._shown["temperature"] = seen.get("motor_temperature", {}).get("seen", "")
        self._watchdog_problems = _problems({name: row for name, row in rows.items() if name != "mode"})

    def _status(self, now_ns: int) -> dict[str, Any]:
        return self._shown | {
            "problems": self._watchdog_problems + self._recording_problems(now_ns),
            "status": self._number,
            "robot": self.spec.name,
            "speeds": self._speeds.ranges,
            "listening": self._velocity.get_subscription_count() > 0,
            "stopping": self._requester.stopping,
        }


def _problems(rows: dict[str, DiagnosticStatus]) -> list[dict[str, str]]:
    return [
        {"name": name, "level": LEVELS[row.level], "message": row.message}
        for name, row in rows.items()
        if row.level in LEVELS
    ]


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def _velocity(twist: Twist) -> list[float | None]:
    return [_number(twist.linear.x), _number(twist.linear.y), _number(twist.angular.z)]


def _bridge(status: BridgeStatusMsg) -> dict[str, Any]:
    known = {phase.value: phase.name for phase in GatePhase}
    numbers = ("loop_rate", "loop_jitter_p99_ms", "latency_p50_ms", "latency_p99_ms", "state_age")
    counts = (
        "loop_overruns", "lowstate_lost", "lowstate_crc_errors", "limited_count", "guards_alive", "guards_expected",
        "foreign_lowcmd",
    )  # fmt: skip
    return {
        "phase": known.get(status.phase, "?"),
        "reason": status.reason,
        "network_problem": status.network_problem,
        "guard_active": status.guard_active,
        **{name: _number(getattr(status, name)) for name in numbers},
        **{name: int(getattr(status, name)) for name in counts},
    }


def main() -> None:
    """Entry point of the process."""
    # Browsers must never take time from the loops that keep the robot up.
    os.environ[realtime.VARIABLE] = "0"
    os.nice(NICE)
    sys.exit(run_nodes([WebNode]))


if __name__ == "__main__":
    main()
