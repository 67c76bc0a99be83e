"""Unitree's request/response protocol over DDS: rt/api/<service>/request and rt/api/<service>/response.

The message types are those of unitree_sdk2py. Its own RPC client is not used, because it holds one domain for
the whole process, writes a trace file to /tmp and starts threads that never end.
"""

from __future__ import annotations

import time
from typing import Any

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds import DdsParticipant

POLL_S = 0.005
RESEND_S = 0.5
"""A request without an answer is sent again after this time, under the same id."""


def request_topic(service: str) -> str:
    """Topic on which a service listens."""
    return f"rt/api/{service}/request"


def response_topic(service: str) -> str:
    """Topic on which a service answers."""
    return f"rt/api/{service}/response"


class RpcClient:
    """Blocking client of one service on an existing participant."""

    def __init__(self, participant: DdsParticipant, service: str) -> None:
        from unitree_sdk2py.idl.unitree_api.msg.dds_ import Request_, Response_

        self.service = service
        self._requests = participant.writer(request_topic(service), Request_)
        self._responses = participant.reader(response_topic(service), Response_)
        self._response_type = Response_

    def call(self, api_id: int, parameter: str, timeout_s: float) -> tuple[int, str]:
        """Send one request and wait for its answer; for requests that may be carried out twice.

        A reader of the service can still be unaware of our writer when ours is aware of it, and drops what comes
        until then. Hence an unanswered request is repeated.

        Returns:
            The service's status code (0 is success) and its data.

        Raises: TransportError: no such service, or no answer within `timeout_s` seconds; `timeout_s` not
            above zero.
        """
        if not timeout_s > 0:
            raise TransportError(f"timeout of a call to {self.service!r} must be above zero, got {timeout_s}")
        deadline = time.monotonic() + timeout_s
        self._wait_for_service(deadline, timeout_s)
        request_id = time.monotonic_ns()
        request, send_at = _request(request_id, api_id, parameter), 0.0
        while (now := time.monotonic()) < deadline:
            if now >= send_at:
                self._requests.write_message(request)
                send_at = now + RESEND_S
            for sample in self._responses.take():
                response = self._decode(sample)
                if response is not None and response.header.identity.id == request_id:
                    return response.header.status.code, response.data
            time.sleep(POLL_S)
        raise TransportError(f"service {self.service!r} did not answer request {api_id} within {timeout_s} s")

    def _decode(self, sample: bytes) -> Any:
        try:
            return self._response_type.deserialize(sample)
        except Exception:
            # Anybody may publish here, and the package's decoder raises whatever its buffers meet. What cannot be read
            # is no answer.
            return None

    def _wait_for_service(self, deadline: float, timeout_s: float) -> None:
        # Both directions must have found each other: a response sent earlier would be lost.
        while not (self._requests.matched and self._responses.matched):
            if time.monotonic() >= deadline:
                raise TransportError(
                    f"no service {self.service!r} found within {timeout_s} s; is the robot on, and is this "
                    "its network interface and DDS domain?"
                )
            time.sleep(POLL_S)


def _request(request_id: int, api_id: int, parameter: str) -> object:
    from unitree_sdk2py.idl.unitree_api.msg import dds_ as api

    header = api.RequestHeader_(
        api.RequestIdentity_(request_id, api_id), api.RequestLease_(0), api.RequestPolicy_(0, False)
    )
    return api.Request_(header, parameter, [])
