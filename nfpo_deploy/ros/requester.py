"""Asks the watchdog for what an operator wants, and never waits for it.

A loop calls `send` and `poll`; whoever owns the node spins it. A watchdog that hangs or is gone costs the loop nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from nfpo_msgs.srv import SetMode
from rclpy.node import Node
from std_srvs.srv import Trigger

from nfpo_deploy.operator.requests import STARTS_MOTION, STEPS, Request
from nfpo_deploy.ros import topics

ANSWER_TIMEOUT_NS = 2_000_000_000
"""After this long nobody waits for an answer any more, and no further step of the request is taken."""
ESTOP_EVERY_NS = 200_000_000
ESTOP_GIVE_UP_NS = 5_000_000_000
_SERVICES = {"arm": topics.ARM, "estop": topics.ESTOP, "reset": topics.RESET, "set_mode": topics.SET_MODE}


class Answer(NamedTuple):
    """What came of a request."""

    request: Request
    accepted: bool
    message: str


@dataclass
class _Pending:
    request: Request
    step: int
    service: str
    future: Any
    deadline_ns: int


class Requester:
    """Service clients of one node. `send` and `poll` belong to one thread. Times are CLOCK_MONOTONIC ns."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clients: dict[str, Any] = {
            name: node.create_client(SetMode if name == "set_mode" else Trigger, topic)
            for name, topic in _SERVICES.items()
        }
        self._pending: list[_Pending] = []
        self._answers: deque[Answer] = deque()
        self._estops: list[Any] = []
        self._estop_next_ns = 0
        self._estop_end_ns = 0

    def close(self) -> None:
        """Destroy the clients."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients = {}

    @property
    def stopping(self) -> bool:
        """Whether an emergency stop was asked for and is not yet confirmed."""
        return bool(self._estop_end_ns)

    def send(self, request: Request, now_ns: int) -> None:
        """Ask; the answer comes out of `poll`. An emergency stop is repeated until it is confirmed, nothing else is.

        What starts motion is refused while another such request has no answer: a watchdog that hung must not find a
        queue of old wishes when it wakes up.
        """
        if request is Request.ESTOP:
            if not self._estop_end_ns:
                self._estop_next_ns, self._estop_end_ns = now_ns, now_ns + ESTOP_GIVE_UP_NS
            self._repeat_estop(now_ns)
            return
        waiting = [pending.request for pending in self._pending if pending.request in STARTS_MOTION]
        if request in STARTS_MOTION and waiting:
            self._answers.append(Answer(request, False, f"still waiting for the answer to {waiting[0].value}"))
            return
        self._start(request, 0, now_ns, now_ns + ANSWER_TIMEOUT_NS)

    def poll(self, now_ns: int) -> list[Answer]:
        """Answers that have come, and requests that have waited too long, since the last call."""
        self._poll_estop(now_ns)
        pending, self._pending = self._pending, []
        for call in pending:
            if call.future.done():
                self._take(call, now_ns)
            elif now_ns > call.deadline_ns:
                self._clients[call.service].remove_pending_request(call.future)
                seconds = ANSWER_TIMEOUT_NS / 1e9
                text = f"{call.service}: no answer of the watchdog within {seconds:g} s"
                self._answers.append(Answer(call.request, False, text))
            else:
                self._pending.append(call)
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def _start(self, request: Request, step: int, now_ns: int, deadline_ns: int) -> None:
        service, mode = STEPS[request][step]
        client = self._clients[service]
        if not client.service_is_ready():
            self._answers.append(Answer(request, False, f"{service}: there is no watchdog on this ROS domain"))
            return
        call = client.call_async(SetMode.Request(mode=mode) if mode else Trigger.Request())
        self._pending.append(_Pending(request, step, service, call, deadline_ns))

    def _take(self, call: _Pending, now_ns: int) -> None:
        try:
            response = call.future.result()
        except Exception as error:  # the middleware's own, for example when the graph shuts down
            self._answers.append(Answer(call.request, False, f"{call.service}: {error}"))
            return
        last = call.step + 1 == len(STEPS[call.request])
        if response.success and not last:
            # One deadline for all steps: a stand-up must not begin long after it was asked for.
            self._start(call.request, call.step + 1, now_ns, call.deadline_ns)
        else:
            self._answers.append(Answer(call.request, response.success, response.message))

    def _poll_estop(self, now_ns: int) -> None:
        if not self._estop_end_ns:
            return
        if any(future.done() and future.exception() is None and future.result().success for future in self._estops):
            self._end_estop(Answer(Request.ESTOP, True, "emergency stop confirmed"))
        elif now_ns > self._estop_end_ns:
            self._end_estop(Answer(Request.ESTOP, False, "the watchdog does not answer: use the remote, L2+B"))
        else:
            self._repeat_estop(now_ns)

    def _repeat_estop(self, now_ns: int) -> None:
        if now_ns >= self._estop_next_ns:
            self._estop_next_ns = now_ns + ESTOP_EVERY_NS
            self._estops.append(self._clients["estop"].call_async(Trigger.Request()))

    def _end_estop(self, answer: Answer) -> None:
        for future in self._estops:
            self._clients["estop"].remove_pending_request(future)
        self._estops.clear()
        self._estop_end_ns = 0
        self._answers.append(answer)
