"""The watchdog's monitors: one row each, with what it checks, when it matters and what follows.

A check looks at the observations and answers with a reading. The table at the end is the whole policy of reactions:
change it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from nfpo_deploy.safety import graph_checks as graph
from nfpo_deploy.safety import robot_checks as robot
from nfpo_deploy.safety.mode_machine import ACTIVE
from nfpo_deploy.safety.readings import Check, Context, Level, Reading
from nfpo_deploy.types import Mode

__all__ = ["MONITORS", "Context", "Level", "Monitor", "Reaction", "Reading"]


class Reaction(Enum):
    """What an ERROR or STALE reading leads to in the modes where the monitor is enforced."""

    WARN = "warn"
    STOP_AND_STAND = "stop and stand"
    STOP_AND_SIT = "stop and sit"
    FAULT = "fault"
    ESTOP = "emergency stop"


@dataclass(frozen=True)
class Monitor:
    """One row: a name, a check, the reaction, the modes that enforce it, and what needs it to be well."""

    name: str
    check: Check
    reaction: Reaction
    enforced: frozenset[Mode] = field(default_factory=frozenset)
    needed_for: frozenset[str] = field(default_factory=frozenset)
    """"arm" (reset as well) and "walk": that request is refused while the reading is ERROR or STALE."""
    spotless_for: frozenset[str] = field(default_factory=frozenset)
    """Likewise, but a WARN refuses already."""

    def refuses(self, purpose: str, reading: Reading) -> bool:
        """Whether the reading stands in the way of "arm" or "walk"."""
        if reading.broken:
            return True
        worst_allowed = Level.OK if purpose in self.spotless_for else Level.WARN
        return purpose in self.needed_for and reading.level > worst_allowed


_ALWAYS = frozenset(Mode)
_WALK = frozenset({Mode.WALK})
_READY = frozenset({Mode.READY})
_STANDS = frozenset({Mode.READY, Mode.WALK})
_UP = frozenset({Mode.READY, Mode.WALK, Mode.SIT})
_RAMPS = frozenset({Mode.STAND, Mode.READY, Mode.SIT})
_PERMITTED = ACTIVE | {Mode.DAMP}
_ARM = frozenset({"arm", "walk"})
_TO_ARM = frozenset({"arm"})
_TO_WALK = frozenset({"walk"})

# Order matters within a tick: the first fault that is found is named as the cause.
MONITORS = (
    Monitor("remote_estop", robot.remote_estop, Reaction.ESTOP, _ALWAYS, _ARM),
    Monitor("state_age", robot.state_age, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("state_values", robot.state_values, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("gate", graph.gate, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("bridge_age", graph.bridge_age, Reaction.FAULT, ACTIVE, _ARM),
    # Before what follows from it: a robot that two programs command tilts, falls and saturates.
    Monitor("foreign_lowcmd", graph.foreign_lowcmd, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("guard_active", graph.guard_active, Reaction.FAULT, ACTIVE, _ARM),
    # In DAMP too: a bridge that moves the robot there must not be armed, and someone should hear of it.
    Monitor("obedience", graph.obedience, Reaction.FAULT, _PERMITTED, _ARM),
    Monitor("tilt", robot.tilt, Reaction.FAULT, ACTIVE, _ARM),
    # Not while standing up or sitting down: both begin or end on the belly.
    Monitor("height", robot.height, Reaction.FAULT, _STANDS),
    # Not enforced while standing up: folded legs rest on their stops, the gate knows where the ramp began.
    Monitor("joint_position", robot.joint_position, Reaction.FAULT, _UP, _TO_WALK),
    Monitor("joint_velocity", robot.joint_velocity, Reaction.FAULT, ACTIVE, _ARM),
    Monitor("joint_torque", robot.joint_torque, Reaction.FAULT, ACTIVE, _TO_WALK),
    Monitor("command_age", graph.command_age, Reaction.FAULT, _WALK, _TO_WALK),
    Monitor("command_values", graph.command_values, Reaction.FAULT, _WALK, _TO_WALK),
    Monitor("transition", graph.transition, Reaction.FAULT, _RAMPS),
    Monitor("guards", graph.guards, Reaction.STOP_AND_SIT, ACTIVE, _ARM, spotless_for=_TO_ARM),
    Monitor("bridge_ending", graph.bridge_ending, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("network", graph.network, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("clearance", graph.clearance, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("motor_temperature", robot.motor_temperature, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("battery", robot.battery, Reaction.STOP_AND_SIT, ACTIVE, _ARM),
    Monitor("operator_gone", graph.operator_gone, Reaction.STOP_AND_SIT, _READY),
    Monitor("estimate_age", graph.estimate_age, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("estimate_values", graph.estimate_values, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("observation", graph.observation, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("policy_output", graph.policy_output, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("operator", graph.operator, Reaction.STOP_AND_STAND, _WALK),
    Monitor("state_rate", graph.state_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("command_rate", graph.command_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("bridge_rate", graph.bridge_rate, Reaction.STOP_AND_STAND, _WALK, _TO_WALK),
    Monitor("state_jitter", robot.state_jitter, Reaction.WARN),
    Monitor("estimate_jitter", graph.estimate_jitter, Reaction.WARN),
    Monitor("command_jitter", graph.command_jitter, Reaction.WARN),
    Monitor("loop_jitter", graph.loop_jitter, Reaction.WARN),
    Monitor("inference", graph.inference, Reaction.WARN),
    Monitor("watchdog_rate", graph.watchdog_rate, Reaction.WARN),
    Monitor("permit_delivery", graph.permit_delivery, Reaction.WARN),
    Monitor("overruns", graph.overruns, Reaction.WARN),
    Monitor("wire_errors", graph.wire_errors, Reaction.WARN),
)
