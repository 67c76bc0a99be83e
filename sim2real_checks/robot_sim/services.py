"""RPC servers of the simulated robot: motion switcher, and the sport requests that precede low-level control.

They are polled by the simulation loop, so the simulated robot needs no thread and no lock.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from nfpo_deploy.transport import motion_switcher
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.rpc import request_topic, response_topic
from sim2real_checks.robot_sim.builtin import BuiltinController
from sim2real_checks.robot_sim.config import MODE_NAMES
from sim2real_checks.robot_sim.plant import Plant

log = logging.getLogger("robot_sim")

OK = 0
NOT_IMPLEMENTED = 3203
"""RPC_ERR_SERVER_API_NOT_IMPL of Unitree's SDK."""
BAD_PARAMETER = 7001
UNKNOWN_MODE = 7004
_INTERNAL_API_VERSION = 1
_RESPONSE_PATIENCE_S = 1.0
_SPORT_DAMP, _SPORT_STOP_MOVE, _SPORT_STAND_UP, _SPORT_STAND_DOWN = 1001, 1003, 1004, 1005

Handler = Callable[[str], tuple[int, str]]


class RpcServer:
    """Answers one service's requests from a table of handlers: api id → function of the parameter string."""

    def __init__(self, participant: DdsParticipant, service: str, version: str, handlers: dict[int, Handler]) -> None:
        from unitree_sdk2py.idl.unitree_api.msg import dds_ as api

        self._api = api
        self._version = version
        self._handlers = handlers
        self._responses = participant.writer(response_topic(service), api.Response_)
        self._requests = participant.reader(request_topic(service), api.Request_)
        self._waiting: list[tuple[float, object]] = []

    def poll(self) -> None:
        """Answer what has come."""
        for sample in self._requests.take():
            try:
                request = self._api.Request_.deserialize(sample)
            except Exception as error:  # what the SDK's codec raises for garbage has no common base
                log.warning("request that cannot be read: %s", error)
                continue
            code, data = self._handle(request.header.identity.api_id, request.parameter)
            if not request.header.policy.noreply:
                header = self._api.ResponseHeader_(request.header.identity, self._api.ResponseStatus_(code))
                self._waiting.append((time.monotonic(), self._api.Response_(header, data, [])))
        if self._waiting:
            self._send()

    def _handle(self, api_id: int, parameter: str) -> tuple[int, str]:
        if api_id == _INTERNAL_API_VERSION:
            return OK, self._version
        handler = self._handlers.get(api_id)
        return (NOT_IMPLEMENTED, "") if handler is None else handler(parameter)

    def _send(self) -> None:
        # A client's request can arrive before its response reader was discovered; an answer sent then is
        # lost.
        ready = self._responses.matched > 0
        now = time.monotonic()
        for since, response in self._waiting:
            if ready:
                self._responses.write_message(response)
            elif now - since < _RESPONSE_PATIENCE_S:
                return
        self._waiting.clear()


def motion_switcher_server(participant: DdsParticipant, builtin: BuiltinController, plant: Plant) -> RpcServer:
    """The service that clients ask to release the built-in controller."""

    def check(_: str) -> tuple[int, str]:
        return OK, json.dumps({"form": "0", "name": builtin.mode})

    def select(parameter: str) -> tuple[int, str]:
        try:
            name = json.loads(parameter)["name"]
        except (ValueError, KeyError, TypeError):
            return BAD_PARAMETER, ""
        if name not in MODE_NAMES:
            return UNKNOWN_MODE, ""
        builtin.select(name, plant.q, plant.time)
        return OK, ""

    def release(_: str) -> tuple[int, str]:
        if builtin.active:
            builtin.release()
        return OK, ""

    handlers = {
        motion_switcher.CHECK_MODE: check,
        motion_switcher.SELECT_MODE: select,
        motion_switcher.RELEASE_MODE: release,
    }
    return RpcServer(participant, motion_switcher.SERVICE, "1.0.0.1", handlers)


def sport_server(participant: DdsParticipant, builtin: BuiltinController, plant: Plant) -> RpcServer:
    """The sport service: damp, stop, stand up or down; refuses the rest, and everything after a release."""

    def only_if_active(action: Callable[[], None]) -> Handler:
        def handle(_: str) -> tuple[int, str]:
            if not builtin.active:
                return NOT_IMPLEMENTED, ""
            action()
            return OK, ""

        return handle

    handlers = {
        _SPORT_DAMP: only_if_active(builtin.damp),
        _SPORT_STOP_MOVE: only_if_active(lambda: None),
        _SPORT_STAND_UP: only_if_active(lambda: builtin.stand_up(plant.q, plant.time)),
        _SPORT_STAND_DOWN: only_if_active(lambda: builtin.stand_down(plant.q, plant.time)),
    }
    return RpcServer(participant, "sport", "1.0.0.1", handlers)
