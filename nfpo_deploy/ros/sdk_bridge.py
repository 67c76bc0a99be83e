"""sdk_bridge: owns the robot's channel and the gate, the only place where motor commands are made.

Every cycle (500 Hz): read the newest LowState, let the gate decide, write LowCmd, then publish. Stopping the
node in any orderly way (deactivate, shutdown, SIGINT, SIGTERM, SIGHUP) sits a healthy robot down and damps it for a
while, because the robot keeps obeying the last command that it got; a second signal damps at once.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from sensor_msgs.msg import Imu, JointState

from nfpo_deploy.errors import MessageError, SafetyError, TransportError
from nfpo_deploy.factory_mode import FactoryMode
from nfpo_deploy.graph import LOOPBACK, NO_POLICY, resolve_policy
from nfpo_deploy.guard.link import BRIDGE_ROLE, GuardRoll, Mailbox
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.loop import NS, RateLoop, Samples
from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.node_base import SENSOR_QOS, LoopNode, command_qos
from nfpo_deploy.ros.parameters import Declaration, above_zero, integer_between, not_empty
from nfpo_deploy.ros.state_wire import RobotStateWire
from nfpo_deploy.safety.clearing import Clearing
from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.transport import Transport, open_transport
from nfpo_deploy.types import BridgeStatus, GatePhase, JointCommand, Mode, MotorCommand, RobotState, SafetyPermit

FAILURE_DAMPING_S = 1.0
ENDING_SLACK_S = 2.0
DISMISSAL_DELAY_S = 0.02
"""Between the last LowCmd and the word to the guards: they must have read it, and not yet miss the next."""
STALE_COMMAND_NS = 10_000_000
"""A command older than this when it could be sent is decided again; the gate takes 0.03 ms."""
FOREIGN_MEMORY_NS = NS
"""A foreign command counts as present for this long: a program at 1 Hz is one, too."""
PEERS_PERIOD_S = 0.2
PASSIVE = (GatePhase.DAMPING, GatePhase.ZERO_TORQUE)


class SdkBridge(LoopNode):
    """Lifecycle node `sdk_bridge`."""

    NAME = "sdk_bridge"
    PARAMETERS = (
        Declaration("interface", "lo", "network interface of the robot; lo for the simulator", not_empty),
        Declaration("domain_id", 0, "DDS domain of the robot; real robots use 0", integer_between(0, 232)),
        Declaration("rate_hz", 500.0, "rate of the loop and of LowCmd, Hz", above_zero),
        Declaration("status_rate_hz", 50.0, "rate of the bridge status, Hz", above_zero),
        Declaration("state_rate_hz", 250.0, "rate of the robot state, Hz; the gate sees every LowState", above_zero),
        Declaration("standard_rate_hz", 100.0, "rate of /joint_states and /imu/data, Hz", above_zero),
        Declaration("policy", NO_POLICY, "what will run: ONNX file, name of a policy of the robot, or none", not_empty),
        Declaration("simulated", False, "the robot is simulated: its policy needs no clearance"),
        Declaration("clearance_override", "", "reason for running a policy that is not cleared; empty to insist"),
        Declaration("release_mode", True, "release the robot's built-in controller when activated"),
        Declaration("release_timeout_s", 15.0, "how long to try to release it, or to restore it, s", above_zero),
        Declaration("restore_mode", False, "start the controller that was released again, when the bridge ends"),
        Declaration(
            "listen_s", 1.0, "how long to listen for other programs' commands before the first own, s", above_zero
        ),
        Declaration("guards", 2, "guard processes without which the robot may not be armed", integer_between(1, 2)),
        Declaration("stop_damping_s", 3.0, "how long to damp before the loop ends, s", above_zero),
    )

    def setup(self) -> None:
        settings, spec = self.settings, self.spec
        self._gate = Gate(spec, settings["rate_hz"])
        self._clearing = self._look_at_clearance()
        # The name is the lock: a second bridge for this robot ends here, before it has touched anything.
        self._mailbox = Mailbox(BRIDGE_ROLE, settings["interface"], settings["domain_id"])
        self._roll = GuardRoll(self._mailbox, spec.safety.guard_status_timeout)
        self._factory_mode = FactoryMode(settings["interface"], settings["domain_id"])
        self._transport: Transport = open_transport(spec, settings["interface"], settings["domain_id"])
        self._peers = self._transport.peer_versions()
        self._network_problem = ""
        self._peers_timer: Any = self.create_timer(PEERS_PERIOD_S, self._look_at_peers)
        self._states = self.publish_on(RobotStateMsg, topics.ROBOT_STATE, SENSOR_QOS)
        self._statuses = self.publish_on(BridgeStatusMsg, topics.BRIDGE_STATUS, SENSOR_QOS)
        self._joint_states = self.publish_on(JointState, topics.JOINT_STATES, SENSOR_QOS)
        self._imu = self.publish_on(Imu, topics.IMU, SENSOR_QOS)
        self._permits = self.poll(SafetyPermitMsg, topics.PERMIT, command_qos(spec.safety.permit_timeout))
        self._commands = self.poll(JointCommandMsg, topics.JOINT_COMMAND, command_qos(spec.safety.command_timeout))
        self._state_wire, self._status_message = RobotStateWire(spec), BridgeStatusMsg()
        self._status_every = max(1, round(settings["rate_hz"] / settings["status_rate_hz"]))
        # Half a cycle less than the period: a state that comes early is that period's, too.
        self._state_gap_ns = round(NS / settings["state_rate_hz"] - 0.5 * NS / settings["rate_hz"])
        self._standard_period_ns = round(NS / settings["standard_rate_hz"])
        self._latencies = Samples(250)
        self._forget()

    def _forget(self) -> None:
        self._state: RobotState | None = None
        self._permit: SafetyPermit | None = None
        self._permit_ns = 0
        self._command: JointCommand | None = None
        self._command_ns = 0
        self._unanswered = False
        self._cycle = self._next_state_ns = 0
        self._next_standard_ns = 0
        self._ending_since_ns = 0
        self._passive_since_ns = 0
        self._company = (0, "")
        self._loop_statistics = (0.0, 0.0)
        self._latency = (math.nan, math.nan)

    def start(self) -> None:
        # Nothing that was received or counted before belongs to this activation.
        self._forget()
        for subscription in (self._permits, self._commands):
            subscription.newest()
        self._gate = Gate(self.spec, self.settings["rate_hz"])
        self._take_over()
        self._transport.refuse_company(self.settings["listen_s"])

    def _look_at_clearance(self) -> Clearing:
        settings = self.settings
        if settings["simulated"] and settings["interface"] != LOOPBACK:
            raise SafetyError(f"simulated is true on interface {settings['interface']!r}: only {LOOPBACK} has no robot")
        policy = None if settings["policy"] == NO_POLICY else resolve_policy(settings["policy"], self.spec)
        clearing = Clearing(self.spec, policy, settings["simulated"], settings["clearance_override"])
        plain = not (clearing.missing or clearing.override)
        (self.get_logger().info if plain else self.get_logger().error)(clearing.note)
        return clearing

    def _take_over(self) -> None:
        if not self.settings["release_mode"]:
            return
        try:
            released = self._transport.release_mode(self.settings["release_timeout_s"], self._factory_mode.remember)
        except TransportError as error:
            raise TransportError(f"{error}; where no such controller exists, set release_mode to false") from error
        if released:
            self.get_logger().info(f"released the robot's built-in controller {released!r}")

    def tick(self, now_ns: int) -> None:
        self._cycle_once(self._receive_permit, self._receive_command)

    def stopping(self, now_ns: int) -> bool:
        if not self._ending_since_ns:
            self._ending_since_ns = now_ns
            how = "the robot is damped first" if self._gate.phase in PASSIVE else "the robot sits down first"
            self.get_logger().info(f"stopping: {how}")
        self._cycle_once(self._permit_of_ending, lambda: None)
        passive_ns = now_ns - self._passive_since_ns if self._passive_since_ns else 0
        if passive_ns < self.settings["stop_damping_s"] * NS and self._gate.phase != GatePhase.ZERO_TORQUE:
            return False
        self._leave()
        return True

    def _leave(self) -> None:
        """Nothing is sent any more: the guards may go, and the robot's own controller may come."""
        time.sleep(DISMISSAL_DELAY_S)
        self._roll.dismiss()
        if not self.settings["restore_mode"]:
            return
        try:
            name = self._factory_mode.recall()
            if name:
                self._transport.restore_mode(name, self.settings["release_timeout_s"])
                self._factory_mode.forget()
                self.get_logger().info(f"started the robot's built-in controller {name!r} again")
        except (TransportError, SafetyError) as error:
            self.get_logger().error(f"{error}. Later: nfpo restore --interface {self.settings['interface']}")

    def after_failure(self) -> None:
        # The loop's own code has failed, so only the parts that move motors run here.
        loop = RateLoop(self.settings["rate_hz"])
        for _ in range(round(FAILURE_DAMPING_S * self.settings["rate_hz"])):
            now_ns = loop.wait()
            self._state = self._transport.read_state() or self._state
            self._grant(Mode.DAMP)
            self._write(self._gate_step(now_ns))

    def teardown(self) -> None:
        if getattr(self, "_peers_timer", None) is not None:
            self.destroy_timer(self._peers_timer)
            self._peers_timer = None
        for name in ("_transport", "_mailbox"):
            resource = getattr(self, name, None)
            if resource is not None:
                resource.close()
                setattr(self, name, None)

    # One cycle.

    def _cycle_once(self, receive_permit: Any, receive_command: Any) -> None:
        fresh = self._transport.read_state()
        self._state = fresh or self._state
        receive_permit()
        receive_command()
        now_ns = time.monotonic_ns()
        command = self._gate_step(now_ns)
        if (late_ns := time.monotonic_ns()) - now_ns > STALE_COMMAND_NS:
            # Suspended between deciding and sending: what was decided is no longer true.
            now_ns, command = late_ns, self._gate_step(late_ns)
        self._write(command)
        if self._unanswered:
            self._unanswered = False
            if self._command is not None and self._gate.phase == GatePhase.TRACKING:
                self._latencies.add((time.monotonic_ns() - self._command.state_received_ns) * 1e-6)
        passive = self._gate.phase in PASSIVE
        self._passive_since_ns = (self._passive_since_ns or now_ns) if passive else 0
        # Publishing comes last: no command waits for it.
        if fresh is not None and now_ns >= self._next_state_ns:
            # By time, not by count: where states come in bursts, every burst is news to the others.
            self._next_state_ns = now_ns + self._state_gap_ns
            self._publish_state(fresh, now_ns)
        self._cycle += 1
        if self._cycle % self._status_every == 0:
            self._publish_status(now_ns)

    def _gate_step(self, now_ns: int) -> MotorCommand:
        return self._gate.step(
            now_ns, self._state, self._permit, self._permit_ns, self._command, self._command_ns,
            self._transport.identity_problem or self._foreign_problem(now_ns) or self._clearing.missing,
        )  # fmt: skip

    def _foreign_problem(self, now_ns: int) -> str:
        """The other program that commands the motors, while there is one."""
        last_ns = self._transport.last_foreign_ns
        if not last_ns or now_ns - last_ns > FOREIGN_MEMORY_NS:
            self._company = (0, "")
        elif not self._company[1]:
            # Looked up once: naming a process takes longer than a cycle should.
            self._company = (last_ns, self._transport.foreign_publisher)
        return self._company[1]

    def _write(self, command: MotorCommand) -> None:
        if self._gate.write:
            self._transport.write_command(command)

    def _receive_permit(self) -> None:
        message = self._permits.newest()
        if message is not None:
            try:
                self._permit, self._permit_ns = conversions.permit_from(message), time.monotonic_ns()
            except MessageError as error:
                self._permit = None
                self.report_message_error(error)

    def _receive_command(self) -> None:
        message = self._commands.newest()
        if message is not None:
            if not self._clearing.admits(message.policy_id, time.monotonic_ns()):
                return
            try:
                self._command = conversions.joint_command_from(message, self.spec)
                self._command_ns = time.monotonic_ns()
                self._unanswered = True
            except MessageError as error:
                self._command = None
                self.report_message_error(error)

    def _permit_of_ending(self) -> None:
        """Grant ourselves the way down, whether or not the watchdog still lives; its FAULT and DAMP are obeyed."""
        before = self._permit
        self._receive_permit()
        stopped = self._permit is not before and (self._permit is None or self._permit.mode in (Mode.DAMP, Mode.FAULT))
        self._permit = before
        self._grant(Mode.DAMP if stopped else self._mode_of_ending())

    def _mode_of_ending(self) -> Mode:
        gate, safety = self._gate, self.spec.safety
        mode = self._permit.mode if self._permit is not None else Mode.DAMP
        longest = safety.settle_duration + safety.sit_duration + ENDING_SLACK_S
        late = time.monotonic_ns() - self._ending_since_ns > longest * NS
        if self.hurry() or late or gate.tripped or gate.sit_reached or gate.phase in PASSIVE:
            return Mode.DAMP
        if mode in (Mode.STAND, Mode.SIT) or gate.phase == GatePhase.HOLDING:
            return Mode.SIT
        return Mode.READY

    def _grant(self, mode: Mode) -> None:
        seq = self._permit.seq + 1 if self._permit is not None else 1
        self._permit = SafetyPermit(seq, mode, "the bridge is stopping")
        self._permit_ns = time.monotonic_ns()

    def _look_at_peers(self) -> None:
        self._peers.poll()
        problem = self._peers.problem
        if problem and problem != self._network_problem:
            self.get_logger().error(problem)
        self._network_problem = problem

    # What others see.

    def _publish_state(self, state: RobotState, now_ns: int) -> None:
        stamp_ns = self.stamp_ns()
        self._states.publish(self._state_wire.encode(state, stamp_ns))
        if now_ns >= self._next_standard_ns:
            self._next_standard_ns = now_ns + self._standard_period_ns
            stamp = conversions.stamp_of(stamp_ns)
            self._joint_states.publish(conversions.joint_state_message(state, self.spec, stamp))
            self._imu.publish(conversions.imu_message(state, stamp))

    def _publish_status(self, now_ns: int) -> None:
        if self._cycle % (self._status_every * 10) == 0:
            self._loop_statistics = self.loop.statistics()
            self._latency = (self._latencies.percentile(50), self._latencies.percentile(99))
        status = self._status(now_ns)
        conversions.fill_bridge_status(self._status_message, status, conversions.stamp_of(self.stamp_ns()))
        self._statuses.publish(self._status_message)

    def _status(self, now_ns: int) -> BridgeStatus:
        gate, counts = self._gate, self._transport.statistics
        self._roll.poll(now_ns)
        guards = self._roll.alive(now_ns)
        rate, jitter = self._loop_statistics
        return BridgeStatus(
            phase=gate.phase,
            permit_mode=self._permit.mode if self._permit is not None else Mode.DAMP,
            reason=gate.reason,
            last_trip=gate.last_trip,
            tripped=gate.tripped,
            stand_reached=gate.stand_reached,
            sit_reached=gate.sit_reached,
            state_age=_age(now_ns, self._state.received_ns if self._state else None),
            command_age=_age(now_ns, self._command_ns if self._command else None),
            permit_age=_age(now_ns, self._permit_ns if self._permit else None),
            lowstate_count=counts.lowstate_count,
            lowstate_crc_errors=counts.crc_errors,
            lowstate_lost=counts.lost,
            lowcmd_count=counts.lowcmd_count,
            limited_count=gate.limited_count,
            loop_rate=rate,
            loop_jitter_p99_ms=jitter,
            loop_overruns=self.loop.overruns,
            latency_p50_ms=self._latency[0],
            latency_p99_ms=self._latency[1],
            guards_expected=self.settings["guards"],
            guards_alive=len(guards),
            guard_active=any(guard.active for guard in guards),
            foreign_lowcmd=counts.foreign_lowcmd,
            network_problem=self._network_problem,
            clearance_problem=self._clearing.problem(now_ns),
            clearance_override=self._clearing.override,
            stopping=self._ending_since_ns > 0,
        )


def _age(now_ns: int, then_ns: int | None) -> float:
    return (now_ns - then_ns) / NS if then_ns else float("inf")


def main() -> None:
    """Entry point of the process."""
    # Below the guards, above the nodes that tell it what to do.
    sys.exit(run_nodes([SdkBridge], lower_by=-1))


if __name__ == "__main__":
    main()
