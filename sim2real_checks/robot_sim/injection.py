"""The faults that are active in a running simulator: when they begin and end, and whom they touch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.robot_sim.config import LOW_STATE_HZ, SimConfig
from sim2real_checks.robot_sim.faults import CLEAR, Fault, FaultError, parse_fault, remote_of
from sim2real_checks.robot_sim.foreign import ForeignController
from sim2real_checks.robot_sim.inbox import LowCmdInbox
from sim2real_checks.robot_sim.lowstate_faults import LowStateStream
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant
from sim2real_checks.robot_sim.remote import Remote

log = logging.getLogger("robot_sim")

LOWSTATE_PLACES = ("sensors", "firmware", "wire", "network")


@dataclass
class ActiveFault:
    """A fault that was asked for. Times: s of the simulation; of CLOCK_MONOTONIC for a hang."""

    fault: Fault
    end: float
    applied_ns: int = 0
    """CLOCK_MONOTONIC when it took effect; 0 before."""
    sim_time: float = 0.0
    """s when it took effect."""
    problem: str = ""
    """Why it could not take effect."""


class FaultBoard:
    """Begins and ends faults, and tells the parts of the robot about them.

    Whenever anything changes, every part is set anew from the faults that are active, so that nothing stays behind.

    Attributes:
        stream: what LowStates pass on their way out.
        remote: the wireless remote, where a fault holds it; else None.
    """

    def __init__(self, spec: RobotSpec, config: SimConfig, motors: MotorBank, plant: Plant, inbox: LowCmdInbox) -> None:
        self.stream = LowStateStream(spec)
        self.remote: Remote | None = None
        self._spec = spec
        self._config = config
        self._motors = motors
        self._plant = plant
        self._inbox = inbox
        self._active: dict[Any, ActiveFault] = {}
        self._foreign: ForeignController | None = None
        self._left: list[ForeignController] = []

    @property
    def time(self) -> float:
        """Of the simulation, s."""
        return self._plant.time

    @property
    def count(self) -> int:
        """How many faults are active."""
        return len(self._active)

    @property
    def names(self) -> list[str]:
        """Of the active faults, in the order of their beginning."""
        return [active.fault.name for active in self._active.values()]

    @property
    def hanging(self) -> bool:
        """Whether the robot stands still now."""
        active = self._find("hang")
        if active is not None and time.monotonic() >= active.end:
            self._end([active])
            return False
        return active is not None

    def request(self, message: Any) -> ActiveFault | None:
        """Carry out a request; None for one that clears.

        Raises:
            FaultError: it cannot be carried out.
        """
        if isinstance(message, dict) and message.get("fault") == CLEAR:
            extra = sorted(set(message) - {"fault", "id"})
            if extra:
                raise FaultError(f"{CLEAR} ends all faults and takes no parameters, got {extra}")
            self.clear()
            return None
        fault = parse_fault(message, self._spec)
        if fault.name == "gantry" and self._plant.gantry is None:
            raise FaultError(f"gantry: a {self._spec.name} has none; its model has no site to hold it by")
        return self._begin(fault)

    def clear(self) -> None:
        """End all faults."""
        self._end(list(self._active.values()))

    def step(self) -> None:
        """Once per LowState: end what is over, and let the foreign controller speak."""
        now = self._plant.time
        over = [active for active in self._active.values() if active.fault.name != "hang" and active.end <= now + 1e-9]
        if over:
            self._end(over)
        if self._foreign is not None:
            self._speak(self._foreign, now)

    def close(self) -> None:
        """End all faults and wait until foreign controllers have left the network."""
        self.clear()
        for foreign in self._left:
            foreign.join()

    def _begin(self, fault: Fault) -> ActiveFault:
        now = self._plant.time
        replaced = self._active.pop(fault.key, None)
        if replaced is not None and not replaced.applied_ns:
            replaced.problem = "another one came before it had sent anything"
        active = self._active[fault.key] = ActiveFault(fault, _end_of(fault, now))
        place = fault.kind.place
        if place in LOWSTATE_PLACES:
            self.stream.add(fault)
        if place == "body":
            self._touch(fault)
        elif fault.name == "lowcmd_loss":
            self._inbox.random = np.random.default_rng(fault.values["seed"])
        elif fault.name == "foreign_controller":
            self._open_foreign()
        self._refresh()
        if fault.name != "foreign_controller":
            active.applied_ns, active.sim_time = time.monotonic_ns(), now
        log.info("fault %s begins at %.3f s", fault.name, now)
        return active

    def _touch(self, fault: Fault) -> None:
        """What happens to the body when a fault begins."""
        plant, values = self._plant, fault.values
        if fault.name == "push":
            plant.push(values["vx"], values["vy"])
        elif fault.name == "drop":
            plant.drop(values["height"])
        elif fault.name == "lift":
            plant.lift(values["height"])
        elif fault.name == "lay_down":
            plant.lay_down()
        elif fault.name == "gantry" and plant.gantry is not None:
            if values["hold"]:
                plant.gantry.hold(plant.data, values["lower"])
            else:
                plant.gantry.let_go(plant.data)

    def _end(self, faults: Iterable[ActiveFault]) -> None:
        for active in faults:
            fault = active.fault
            self._active.pop(fault.key, None)
            if fault.kind.place in LOWSTATE_PLACES:
                self.stream.remove(fault.key)
            elif fault.name == "lift":
                self._plant.lift(None)
            elif fault.name == "foreign_controller":
                self._close_foreign()
                if not active.applied_ns:
                    active.problem = active.problem or "it ended before it had sent anything"
            log.info("fault %s ends at %.3f s", fault.name, self._plant.time)
        self._refresh()

    def _refresh(self) -> None:
        """Set motors, joints, command side and remote from what is active."""
        motors, inbox = self._motors, self._inbox
        motors.factor[:] = 1.0
        motors.runaway[:] = 0.0
        inbox.delay = inbox.loss = 0.0
        self.remote = None
        blocked = []
        for active in self._active.values():
            name, values = active.fault.name, active.fault.values
            if name in ("weak_motor", "limp_motor"):
                motors.factor[values["joint"]] *= values.get("factor", 0.0)
            elif name == "runaway_motor":
                motors.runaway[values["joint"]] = values["torque"]
            elif name == "block_joint":
                blocked.append(values["joint"])
            elif name == "lowcmd_delay":
                inbox.delay = values["seconds"]
            elif name == "lowcmd_loss":
                inbox.loss = values["p"]
            elif name == "remote":
                self.remote = remote_of(values)
        self._plant.lock(blocked)

    def _find(self, name: str) -> ActiveFault | None:
        return self._active.get((name, None))

    def _open_foreign(self) -> None:
        self._close_foreign()
        self._foreign = ForeignController(self._spec, self._config.interface, self._config.domain_id)

    def _close_foreign(self) -> None:
        if self._foreign is not None:
            self._foreign.close()
            self._left.append(self._foreign)
            self._foreign = None

    def _speak(self, foreign: ForeignController, now: float) -> None:
        active = self._find("foreign_controller")
        if active is None:
            return
        sent = foreign.step()
        if foreign.problem:
            active.problem = foreign.problem
            self._end([active])
        elif sent and not active.applied_ns:
            active.applied_ns, active.sim_time = time.monotonic_ns(), now
            # Until now it was on its way to the network.
            active.end = _end_of(active.fault, now)


def _end_of(fault: Fault, now: float) -> float:
    if fault.kind.momentary:
        return now + 1.0 / LOW_STATE_HZ
    if fault.duration is None:
        return float("inf")
    return (time.monotonic() if fault.name == "hang" else now) + fault.duration
