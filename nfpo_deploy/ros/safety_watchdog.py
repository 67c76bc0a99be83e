"""safety_watchdog: sees every stream, owns the mode, grants the permit to move and tells why not.

Services: /nfpo/arm, /nfpo/estop, /nfpo/reset (std_srvs/Trigger), /nfpo/set_mode (nfpo_msgs/SetMode).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from nfpo_msgs.srv import SetMode
from std_srvs.srv import Trigger

from nfpo_deploy.errors import MessageError
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode, PolledSubscription, command_qos
from nfpo_deploy.ros.parameters import Declaration, above_zero
from nfpo_deploy.ros.state_wire import RobotStateWire, StateEstimateWire
from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.types import Mode

STOP_PERMITS = 5
LONGEST_ENDING_S = 8.0
"""Walking ends and the robot sits within four seconds; a bridge that does not get there shall damp."""


class SafetyWatchdog(LoopNode):
    """Lifecycle node `safety_watchdog`."""

    NAME = "safety_watchdog"
    PARAMETERS = (
        Declaration("rate_hz", 100.0, "rate of the checks and of the permit, Hz", above_zero),
        Declaration("control_rate_hz", 50.0, "rate that the policy must keep, Hz", above_zero),
        Declaration("bridge_rate_hz", 500.0, "rate that the bridge must keep, Hz", above_zero),
        Declaration("diagnostics_rate_hz", 5.0, "rate of /diagnostics, Hz", above_zero),
    )

    def setup(self) -> None:
        settings, spec = self.settings, self.spec
        rates = [settings[name] for name in ("rate_hz", "control_rate_hz", "bridge_rate_hz")]
        self._watchdog = Watchdog(spec, *rates)
        self._state_wire, self._estimate_wire = RobotStateWire(spec), StateEstimateWire(spec)
        qos = command_qos(spec.safety.command_timeout)
        self._intake: tuple[tuple[PolledSubscription, Callable[[Any, int], None]], ...] = (
            (self.poll(RobotStateMsg, topics.ROBOT_STATE, SENSOR_QOS, raw=True), self._take_state),
            (self.poll(StateEstimateMsg, topics.STATE_ESTIMATE, SENSOR_QOS, raw=True), self._take_estimate),
            (self.poll(BridgeStatusMsg, topics.BRIDGE_STATUS, SENSOR_QOS), self._take_status),
            (self.poll(JointCommandMsg, topics.JOINT_COMMAND, qos), self._take_command),
            (self.poll(Twist, topics.VELOCITY_COMMAND, SENSOR_QOS), self._take_velocity),
        )
        self._permits = self.publish_on(SafetyPermitMsg, topics.PERMIT, command_qos(spec.safety.permit_timeout))
        self._diagnostics = self.publish_on(DiagnosticArray, topics.DIAGNOSTICS, 1)
        self._message = SafetyPermitMsg()
        self._diagnostics_period_ns = round(NS / settings["diagnostics_rate_hz"])
        self._next_diagnostics_ns = 0
        self._last_mode = (Mode.DAMP, "")
        self._stop_ticks = 0
        self._ending_since_ns = 0
        self._services = [
            self.create_service(Trigger, topics.ARM, self._on_arm),
            self.create_service(Trigger, topics.ESTOP, self._on_estop),
            self.create_service(Trigger, topics.RESET, self._on_reset),
            self.create_service(SetMode, topics.SET_MODE, self._on_set_mode),
        ]

    def start(self) -> None:
        # A watchdog that was inactive has seen nothing, so it starts as after power-up: DAMP, disarmed.
        settings = self.settings
        rates = [settings[name] for name in ("rate_hz", "control_rate_hz", "bridge_rate_hz")]
        self._watchdog = Watchdog(self.spec, *rates)
        self._stop_ticks = 0
        self._ending_since_ns = 0
        for subscription in self._owned:
            subscription.newest()

    def teardown(self) -> None:
        for service in getattr(self, "_services", []):
            self.destroy_service(service)
        self._services = []

    def tick(self, now_ns: int) -> None:
        self._observe(time.monotonic_ns())
        now_ns = time.monotonic_ns()
        permit = self._watchdog.tick(now_ns)
        conversions.fill_permit(self._message, permit, conversions.stamp_of(self.stamp_ns()))
        self._permits.publish(self._message)
        if (permit.mode, permit.reason) != self._last_mode:
            self._last_mode = (permit.mode, permit.reason)
            self._log(permit.mode, permit.reason)
            # A change is worth telling at once.
            self._next_diagnostics_ns = now_ns
        if now_ns >= self._next_diagnostics_ns:
            self._next_diagnostics_ns = now_ns + self._diagnostics_period_ns
            self._publish_diagnostics(now_ns)

    def stopping(self, now_ns: int) -> bool:
        # It watches on until the robot is down: a healthy robot sits, and only then nobody needs to look any more.
        self._ending_since_ns = self._ending_since_ns or now_ns
        down = self._watchdog.wind_down("the watchdog is being stopped", now_ns)
        if not down and (self.hurry() or now_ns - self._ending_since_ns > LONGEST_ENDING_S * NS):
            self._watchdog.trip("the watchdog was stopped", now_ns)
        self._stop_ticks += down
        self.tick(now_ns)
        return self._stop_ticks >= STOP_PERMITS

    def _log(self, mode: Mode, reason: str) -> None:
        # Two calls, because rclpy allows each place in the code one severity only.
        if mode is Mode.FAULT:
            self.get_logger().error(f"FAULT: {reason}")
        else:
            self.get_logger().info(f"{mode.name}: {reason}")

    # What arrives.

    def _observe(self, now_ns: int) -> None:
        for subscription, take in self._intake:
            message = subscription.newest()
            if message is not None:
                try:
                    take(message, now_ns)
                except MessageError as error:
                    # Not observing it lets its stream go stale, which has its own consequences.
                    self.report_message_error(error)

    def _take_state(self, data: bytes, now_ns: int) -> None:
        self._watchdog.observe_state(self._state_wire.decode(data), now_ns)

    def _take_estimate(self, data: bytes, now_ns: int) -> None:
        self._watchdog.observe_estimate(self._estimate_wire.decode(data), now_ns)

    def _take_status(self, message: BridgeStatusMsg, now_ns: int) -> None:
        self._watchdog.observe_bridge_status(conversions.bridge_status_from(message), now_ns)

    def _take_command(self, message: JointCommandMsg, now_ns: int) -> None:
        command = conversions.joint_command_from(message, self.spec)
        self._watchdog.observe_command(command, now_ns, message.observation_ok, message.inference_ms, message.output_ok)

    def _take_velocity(self, message: Twist, now_ns: int) -> None:
        self._watchdog.observe_operator(conversions.velocity_from(message), now_ns)

    # What operators ask for.

    def _on_arm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda now_ns: self._watchdog.arm(now_ns))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda now_ns: self._watchdog.reset(now_ns))

    def _on_set_mode(self, request: SetMode.Request, response: SetMode.Response) -> SetMode.Response:
        return self._answer(response, lambda now_ns: self._watchdog.request(request.mode, now_ns))

    def _on_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        # Accepted in every lifecycle state: without an active watchdog there is no permit, which stops as well.
        self._watchdog.estop(time.monotonic_ns(), "service call")
        response.success, response.message = True, "FAULT: emergency stop"
        return response

    def _answer(self, response: Any, ask: Any) -> Any:
        if not self.active:
            response.success, response.message = False, "the watchdog is not active"
            return response
        response.success, response.message = ask(time.monotonic_ns())
        return response

    # What others see.

    def _publish_diagnostics(self, now_ns: int) -> None:
        array = DiagnosticArray()
        array.header.stamp = conversions.stamp_of(self.stamp_ns())
        for row in self._watchdog.diagnostics(now_ns):
            array.status.append(
                DiagnosticStatus(
                    level=bytes([int(row.level)]),
                    name=f"{self.NAME}: {row.name}",
                    message=row.message,
                    hardware_id=self.spec.name,
                    values=[KeyValue(key=key, value=str(value)) for key, value in row.values.items()],
                )
            )
        self._diagnostics.publish(array)


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([SafetyWatchdog]))


if __name__ == "__main__":
    main()
