"""flight_recorder: writes every topic of the graph and the raw wire to disk, and keeps what surrounds an incident.

It only listens, with queues that nobody waits for, so its death or a full disk harms neither robot nor graph. Messages
are taken serialised at 50 Hz out of deep queues; nothing but permits and bridge statuses is decoded.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rcl_interfaces.msg import Log
from rclpy.lifecycle import State, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from nfpo_deploy.errors import MessageError, TransportError
from nfpo_deploy.flight_log.folder import check_folder, default_folder
from nfpo_deploy.flight_log.incident import IncidentRules, Trigger
from nfpo_deploy.flight_log.recorder import FlightLog, LogSettings
from nfpo_deploy.flight_log.segment import Entry
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import LoopNode
from nfpo_deploy.ros.parameters import Declaration, above_zero, integer_between, not_empty
from nfpo_deploy.ros.recorder_taps import RosTap, WireRecorder
from nfpo_deploy.transport.dds_version import require_supported_dds
from nfpo_deploy.transport.wire_tap import LOW_CMD, LOW_STATE, WireTap

ROSOUT = "/rosout"
PREFIX = "/nfpo/"
DEPTH = 4096
"""Eight seconds of a 500 Hz stream: how long this process may be kept from running without losing a message."""
BELOW_NODES = 5
"""How far its real-time priority is below that of the nodes: a busy computer must not blind it, nor it them."""
QUIET_DIAGNOSTICS_NS = 10 * NS
"""How long a loss stays a warning."""
QUEUE = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""Best effort, so that no writer, reliable ones included, ever waits for the recorder."""
LATCHED = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS: dict[str, tuple[type, QoSProfile]] = {
    topics.ROBOT_STATE: (RobotStateMsg, QUEUE),
    topics.STATE_ESTIMATE: (StateEstimateMsg, QUEUE),
    topics.JOINT_COMMAND: (JointCommandMsg, QUEUE),
    topics.PERMIT: (SafetyPermitMsg, QUEUE),
    topics.BRIDGE_STATUS: (BridgeStatusMsg, QUEUE),
    topics.VELOCITY_COMMAND: (Twist, QUEUE),
    topics.DIAGNOSTICS: (DiagnosticArray, QUEUE),
    ROSOUT: (Log, LATCHED),
}
DISCOVERY_PERIOD_S = 1.0
QUIET_NS = NS // 2


class FlightRecorder(LoopNode):
    """Lifecycle node `flight_recorder`."""

    NAME = "flight_recorder"
    PARAMETERS = (
        Declaration("rate_hz", 50.0, "how often the queues are emptied, Hz", above_zero),
        Declaration("log_dir", "", "folder of the log; $NFPO_LOG_DIR or ~/.local/state/nfpo/flight_log where empty"),
        Declaration("interface", "lo", "network interface of the robot; lo for the simulator", not_empty),
        Declaration("domain_id", 0, "DDS domain of the robot; real robots use 0", integer_between(0, 232)),
        Declaration("policy", "", "policy file in use, for the record; empty where there is none"),
        Declaration("record_lowstate", True, "record the raw rt/lowstate, too: it goes on when the bridge is dead"),
        Declaration("extra_topics", "", "further topics to record, separated by commas; /nfpo/* always are"),
        Declaration("segment_s", 30.0, "length of one file, s", above_zero),
        Declaration("ring_s", 300.0, "how much is kept when nothing happens, s", above_zero),
        Declaration("ring_mb", 1000.0, "and how much at most, MB", above_zero),
        Declaration("min_free_mb", 500.0, "room to leave on the disk, MB", above_zero),
        Declaration("before_s", 30.0, "how long before an incident is kept, s", above_zero),
        Declaration("after_s", 10.0, "how long after an incident is kept, s", above_zero),
        Declaration("max_incidents", 20, "oldest incidents beyond it are removed", integer_between(1, 10000)),
        Declaration("bridge_silence_s", 0.5, "a bridge silent for this long is an incident, s", above_zero),
        Declaration("diagnostics_rate_hz", 1.0, "rate of this node's rows on /diagnostics, Hz", above_zero),
        Declaration("stop_wait_s", 12.0, "how long to go on until the robot is down, when asked to end, s", above_zero),
    )

    def setup(self) -> None:
        settings = self.settings
        self._log: FlightLog | None = None
        self._wire_tap: WireTap | None = None
        self._discovery: Any = None
        self._root = Path(settings["log_dir"]).expanduser().absolute() if settings["log_dir"] else default_folder()
        names = ("segment_s", "ring_s", "ring_mb", "min_free_mb", "before_s", "after_s", "max_incidents")
        self._log_settings = LogSettings(**{name: settings[name] for name in names})
        check_folder(self._root)
        wire_topics = (LOW_CMD, LOW_STATE) if settings["record_lowstate"] else (LOW_CMD,)
        self._wire_tap = WireTap(self.spec, settings["interface"], settings["domain_id"], wire_topics, DEPTH)
        self._wire = WireRecorder(self._wire_tap, wire_topics)
        self._taps: list[RosTap] = []
        for topic, (message_type, qos) in TOPICS.items():
            self._listen(topic, message_type, qos)
        self._wanted = {name.strip() for name in settings["extra_topics"].split(",") if name.strip()}
        self._unknown: set[str] = set()
        self._discovery = self.create_timer(DISCOVERY_PERIOD_S, self._discover)
        self._diagnostics = self.publish_on(DiagnosticArray, topics.DIAGNOSTICS, 1)
        self._diagnostics_period_ns = round(NS / settings["diagnostics_rate_hz"])
        self._leaving = False

    def start(self) -> None:
        # What waited in the queues before is not this recording's.
        for tap in self._taps:
            if tap.topic != ROSOUT:
                tap.newest()
        self._rules = IncidentRules(self.settings["bridge_silence_s"])
        self._decoders: dict[str, Callable[[bytes, int], Trigger | None]] = {
            topics.PERMIT: self._on_permit,
            topics.BRIDGE_STATUS: self._on_bridge_status,
        }
        self._bridge_ns = 0
        self._next_diagnostics_ns = 0
        self._stop_by_ns = 0
        self._wire_problem = ""
        self._lost_total = self._lost_ns = 0
        self._log = FlightLog(self._root, self._log_settings, self._provenance(), self._report)
        self.get_logger().info(f"recording to {self._log.session}")

    def tick(self, now_ns: int) -> None:
        log = self._log
        assert log is not None  # made before the loop starts
        for tap in list(self._taps):
            decode = self._decoders.get(tap.topic)
            entries = tap.take()
            log.write(entries)
            if decode is not None:
                for entry in entries:
                    self._observe(decode, entry)
        self._record_wire(log)
        now_ns = time.monotonic_ns()
        self._raise(self._rules.check(now_ns, time.time_ns(), self._bridge_has_left))
        if now_ns >= self._next_diagnostics_ns:
            self._next_diagnostics_ns = now_ns + self._diagnostics_period_ns
            self._publish_diagnostics(log)

    def stopping(self, now_ns: int) -> bool:
        # `ros2 launch` interrupts all nodes at once: how the robot comes down belongs to the record.
        if not self._stop_by_ns:
            self._stop_by_ns = now_ns + round(self.settings["stop_wait_s"] * NS)
        self.tick(now_ns)
        heard_ns = max(self._bridge_ns, self._wire.ours_ns)
        if self._leaving and not self.hurry() and now_ns < self._stop_by_ns and now_ns - heard_ns < QUIET_NS:
            return False
        self._close_log()
        return True

    def after_failure(self) -> None:
        self._close_log()

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        self._leaving = True
        return super().on_shutdown(state)

    def teardown(self) -> None:
        if getattr(self, "_discovery", None) is not None:
            self.destroy_timer(self._discovery)
            self._discovery = None
        wire_tap, self._wire_tap = getattr(self, "_wire_tap", None), None
        if wire_tap is not None:
            wire_tap.close()
        self._taps = []
        self._close_log()

    def _report(self, text: str) -> None:
        self.get_logger().warning(text)

    def _close_log(self) -> None:
        log, self._log = getattr(self, "_log", None), None
        if log is not None:
            log.close()

    # What is recorded.

    def _listen(self, topic: str, message_type: type, qos: QoSProfile) -> None:
        tap = RosTap(self, topic, message_type, qos)
        self._owned.append(tap)  # type: ignore[arg-type]
        self._taps.append(tap)

    def _discover(self) -> None:
        """Record topics that were not known beforehand; on the slow thread."""
        known = {tap.topic for tap in self._taps} | self._unknown
        for topic, types in self.get_topic_names_and_types():
            if topic in known or not (topic.startswith(PREFIX) or topic in self._wanted):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            try:
                package, _, name = types[0].split("/")
                message_type = getattr(importlib.import_module(f"{package}.msg"), name)
            except (ImportError, AttributeError, ValueError):
                self._unknown.add(topic)
                self.get_logger().warning(f"{topic} is not recorded: type {types[0]} is not installed here")
                continue
            latched = all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
            self._listen(topic, message_type, LATCHED if latched else QUEUE)

    def _record_wire(self, log: FlightLog) -> None:
        try:
            log.write(self._wire.take())
            self._wire_problem = ""
        except TransportError as error:
            if not self._wire_problem:
                self.get_logger().error(str(error))
            self._wire_problem = str(error)

    def _observe(self, decode: Callable[[bytes, int], Trigger | None], entry: Entry) -> None:
        try:
            self._raise(decode(entry.data, entry.log_ns))
        except MessageError as error:
            self.report_message_error(error)
        except Exception as error:  # bytes from outside: recorded as they are
            self.report_message_error(MessageError(f"{entry.channel.topic} cannot be decoded: {error}"))

    def _on_permit(self, data: bytes, utc_ns: int) -> Trigger | None:
        permit = conversions.permit_from(conversions.decode_bytes(data, SafetyPermitMsg))
        return self._rules.permit(permit.mode, permit.reason, time.monotonic_ns(), utc_ns)

    def _on_bridge_status(self, data: bytes, utc_ns: int) -> Trigger | None:
        status = conversions.decode_bytes(data, BridgeStatusMsg)
        self._bridge_ns = time.monotonic_ns()
        return self._rules.bridge(status.tripped, status.reason, status.stopping, self._bridge_ns, utc_ns)

    def _bridge_has_left(self) -> bool:
        # A bridge that was killed or hangs is still in the graph; one that ended has taken its leave.
        return self.count_publishers(topics.BRIDGE_STATUS) == 0

    def _raise(self, trigger: Trigger | None) -> None:
        if trigger is not None and self._log is not None:
            self._log.incident(trigger)

    # What is said of it.

    def _provenance(self) -> dict[str, Any]:
        spec, policy = self.spec, self.settings["policy"]
        return {
            "robot": spec.name,
            "robot_sha256": spec.sha256,
            "model_sha256": spec.model_sha256,
            "policy": policy,
            "policy_sha256": _sha256(policy),
            "nfpo": _version("nfpo"),
            "mcap": _version("mcap"),
            "cyclonedds": require_supported_dds(),
            "rclpy": _version("rclpy"),
            "ros_distro": os.environ.get("ROS_DISTRO", ""),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "host": platform.node(),
            "domain_id": self.settings["domain_id"],
            "interface": self.settings["interface"],
        }

    def _publish_diagnostics(self, log: FlightLog) -> None:
        statistics = log.statistics
        problem = statistics.problem or statistics.incident_problem or self._wire_problem
        lost = sum(tap.lost for tap in self._taps)
        overflows = self._wire_tap.overflows if self._wire_tap is not None else 0
        values = {
            "session": log.session,
            "messages": statistics.messages,
            "written_mb": f"{statistics.bytes_written / 1e6:.1f}",
            "waiting_mb": f"{log.backlog_bytes / 1e6:.2f}",
            "dropped": log.dropped,
            "lost": lost,
            "wire_overflows": overflows,
            "longest_sync_ms": f"{statistics.sync_ms:.1f}",
            "incidents": statistics.incidents,
            "loop_overruns": self.loop.overruns,
        }
        level, message = DiagnosticStatus.OK, "recording"
        if problem:
            level, message = DiagnosticStatus.ERROR, problem
        elif self._lost_of_late(log.dropped + lost + overflows):
            level, message = DiagnosticStatus.WARN, "recording; messages were lost"
        row = DiagnosticStatus(
            level=level,
            name=f"{self.NAME}: log",
            message=message,
            hardware_id=self.spec.name,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[row])
        array.header.stamp = conversions.stamp_of(self.stamp_ns())
        self._diagnostics.publish(array)
        statistics.sync_ms = 0.0

    def _lost_of_late(self, total: int) -> bool:
        now_ns = time.monotonic_ns()
        if total > self._lost_total:
            self._lost_total, self._lost_ns = total, now_ns
        return self._lost_ns > 0 and now_ns - self._lost_ns < QUIET_DIAGNOSTICS_NS


def _sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([FlightRecorder], lower_by=BELOW_NODES))


if __name__ == "__main__":
    main()
