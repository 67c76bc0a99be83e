"""`nfpo preflight --wiggle`: the part that touches the wire. Lock, guards, channel, 500 Hz loop, and the way out.

It takes the bridge's place for a minute: the same name (so that neither runs beside the other), the same gate, the same
channel, the same guards. The robot's built-in controller is not released here; while it is active nothing is moved.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import FrameType

import numpy as np

from nfpo_deploy import realtime
from nfpo_deploy.errors import SafetyError
from nfpo_deploy.graph import Graph, guard_processes
from nfpo_deploy.guard.link import BRIDGE_ROLE, GuardRoll, Mailbox
from nfpo_deploy.ros.loop import RateLoop
from nfpo_deploy.supervisor import Supervisor
from nfpo_deploy.transport import Transport, open_transport
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.transport.peers import PeerVersions
from nfpo_deploy.types import RobotState
from robots.loader import RobotSpec
from sim2real_checks.preflight.finding import Finding
from sim2real_checks.preflight.judge_wiggle import judge_start, judge_wiggle
from sim2real_checks.preflight.wiggle_stack import DAMPED_S, HZ, NS, Surroundings, WiggleStack

GUARDS = 2
GUARDS_S = 15.0
"""Until both guards must have reported."""
LISTEN_S = 1.0
"""As the bridge listens for other programs before its first command."""
REST_S = 0.5
SERVICE_S = 2.5
STALE_COMMAND_NS = 10_000_000
FOREIGN_MEMORY_NS = NS
DISMISSAL_DELAY_S = 0.02
"""These three as in the bridge."""
ASIDE_S = 0.2


def wiggle(spec: RobotSpec, interface: str, domain_id: int) -> list[Finding]:
    """Move one joint after another and judge what was seen; takes most of a minute.

    SIGINT, SIGTERM and SIGHUP end it in damping; so does whatever makes the gate trip or arming impossible.

    Raises:
        SafetyError: a bridge or guard of this project runs, the guards do not start, or the robot is in no state to be
            moved.
        TransportError: the channel cannot be opened or fails, or another program commands the motors.
    """
    os.environ.setdefault(realtime.VARIABLE, realtime.DEFAULT_PRIORITY)
    mailbox = Mailbox(BRIDGE_ROLE, interface, domain_id)
    try:
        roll = GuardRoll(mailbox, spec.safety.guard_status_timeout)
        with _signals() as received, _guards(spec, interface, domain_id, roll):
            realtime.take_core(BRIDGE_ROLE)
            _refuse_controller(interface, domain_id)
            transport = open_transport(spec, interface, domain_id)
            try:
                realtime.adopt_priority(lower_by=-1)
                stack = _move(spec, transport, roll, received)
            finally:
                transport.close()
                realtime.drop_priority()
    finally:
        mailbox.close()
    return judge_wiggle(stack.motion.strokes, spec, stack.stop)


def _move(spec: RobotSpec, transport: Transport, roll: GuardRoll, received: list[str]) -> WiggleStack:
    """Listen, look at the robot, then run the stack to its end. Until the stack runs nothing is sent."""
    transport.refuse_company(LISTEN_S)
    states = _look(transport)
    problem = transport.identity_problem or judge_start(states, spec)
    if problem:
        raise SafetyError(f"the robot may not be moved: {problem}")
    stack = WiggleStack(spec, np.mean([state.q for state in states], axis=0), GUARDS)
    aside = Aside(transport.peer_versions(), spec)
    aside.start()
    gc.collect()
    gc.disable()  # a collection may take longer than the gate lets its caller pause
    try:
        _Loop(stack, transport, roll, aside, received).run()
    finally:
        gc.enable()
        aside.end()
    return stack


def _refuse_controller(interface: str, domain_id: int) -> None:
    """Ask once more: whoever was asked for consent may have taken his time; SafetyError where one is active."""
    participant = DdsParticipant(interface, domain_id)
    try:
        active = MotionSwitcherClient(participant).check_mode(SERVICE_S)
    finally:
        participant.close()
    if active:
        raise SafetyError(f"built-in controller {active!r} is active, expected none: release it with the robot's app")


def _look(transport: Transport) -> list[RobotState]:
    """States of `REST_S`; SafetyError where half of them do not come."""
    loop, states = RateLoop(HZ), []
    deadline = time.monotonic() + REST_S
    while time.monotonic() < deadline:
        loop.wait()
        state = transport.read_state()
        if state is not None:
            states.append(state)
    if len(states) < 0.5 * REST_S * HZ:
        raise SafetyError(
            f"{len(states)} robot states in {REST_S:g} s, expected {REST_S * HZ:.0f}: run nfpo preflight without "
            "--wiggle and repair what it names"
        )
    return states


class _Loop:
    """The bridge's cycle around a stack."""

    def __init__(
        self, stack: WiggleStack, transport: Transport, roll: GuardRoll, aside: Aside, received: list[str]
    ) -> None:
        self._stack, self._transport, self._roll = stack, transport, roll
        self._aside, self._received = aside, received
        self._foreign = (0, "")

    def run(self) -> None:
        """Until the robot is damped; an exception damps it, too, and is raised again."""
        try:
            self._until_over("")
        except Exception as error:
            self._until_over(f"internal error: {error!r}")
            raise
        time.sleep(DISMISSAL_DELAY_S)
        self._roll.dismiss()

    def _until_over(self, stop: str) -> None:
        loop = RateLoop(HZ)
        deadline = time.monotonic() + DAMPED_S + 1.0
        while not self._stack.over:
            loop.wait()
            self._cycle(stop)
            self._aside.joint = self._stack.joint
            if stop and time.monotonic() > deadline:
                return

    def _cycle(self, stop: str) -> None:
        stack, transport = self._stack, self._transport
        fresh = transport.read_state()
        now_ns = time.monotonic_ns()
        around = self._around(now_ns, stop)
        command = stack.cycle(now_ns, fresh, around)
        if (late_ns := time.monotonic_ns()) - now_ns > STALE_COMMAND_NS:
            # Suspended between deciding and sending: what was decided is no longer true.
            command = stack.cycle(late_ns, None, around)
        if stack.gate.write:
            transport.write_command(command)

    def _around(self, now_ns: int, stop: str) -> Surroundings:
        self._roll.poll(now_ns)
        guards = self._roll.alive(now_ns)
        return Surroundings(
            guards_alive=len(guards),
            guard_active=any(guard.active for guard in guards),
            foreign_lowcmd=self._transport.statistics.foreign_lowcmd,
            network_problem=self._aside.problem,
            problem=self._transport.identity_problem or self._foreign_problem(now_ns),
            stop=stop or next(iter(self._received), ""),
        )

    def _foreign_problem(self, now_ns: int) -> str:
        last_ns = self._transport.last_foreign_ns
        if not last_ns or now_ns - last_ns > FOREIGN_MEMORY_NS:
            self._foreign = (0, "")
        elif not self._foreign[1]:
            # Looked up once: naming a process takes longer than a cycle should.
            self._foreign = (last_ns, self._transport.foreign_publisher)
        return self._foreign[1]


class Aside(threading.Thread):
    """What must not delay the loop: looking at the network, and printing which leg should move.

    Attributes:
        joint: index of the joint whose turn it is; set by the loop.
        problem: what is wrong on the network; empty when nothing is.
    """

    def __init__(self, peers: PeerVersions, spec: RobotSpec) -> None:
        super().__init__(name="wiggle_aside", daemon=True)
        self.joint: int | None = None
        self.problem = ""
        self._peers, self._spec = peers, spec
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        said = None
        while not self._ended.wait(ASIDE_S):
            self._peers.poll()
            self.problem = self._peers.problem
            joint = self.joint
            if joint is not None and joint != said:
                said = joint
                print(
                    f"{self._spec.joint_names[joint]}: {leg_of(joint, self._spec)} moves", file=sys.stderr, flush=True
                )

    def end(self) -> None:
        """Stop and wait."""
        self._ended.set()
        self.join()


def leg_of(joint: int, spec: RobotSpec) -> str:
    """Which part of the robot a joint belongs to, for people: "front left leg"."""
    for foot in spec.feet:
        if joint in foot.joint_indices:
            end = {1: "front ", 0: "", -1: "rear "}[foot.end]
            return f"{end}{'left' if foot.side > 0 else 'right'} leg"
    return "no leg"


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Names of the signals that asked for the end, oldest first; the loop looks at them."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(f"{signal.Signals(number).name} received")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _guards(spec: RobotSpec, interface: str, domain_id: int, roll: GuardRoll) -> Iterator[None]:
    """Both guards run, and have reported; in the end they stay until nothing is left to guard."""
    told: deque[str] = deque(maxlen=20)

    def hear(name: str, line: str) -> None:
        told.append(f"{name}: {line}")
        if "damping" in line:
            print(told[-1], file=sys.stderr, flush=True)

    graph = Graph("wiggle", tuple(guard_processes(spec.name, interface, domain_id)), {})
    supervisor = Supervisor(graph, hear)
    supervisor.start()
    try:
        deadline = time.monotonic() + GUARDS_S
        while len(roll.alive(time.monotonic_ns())) < GUARDS:
            roll.poll(time.monotonic_ns())
            if not supervisor.check() or time.monotonic() > deadline:
                raise SafetyError(f"the guards did not start within {GUARDS_S:g} s: {'; '.join(told) or 'silence'}")
            time.sleep(0.02)
        yield
    finally:
        supervisor.stop("the wiggle has ended")
