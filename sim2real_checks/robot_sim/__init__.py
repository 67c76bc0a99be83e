"""A MuJoCo robot that speaks the Unitree protocol: a client cannot tell it from a robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim2real_checks.robot_sim.config import Push, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.remote import Remote, RemoteEvent

if TYPE_CHECKING:
    from sim2real_checks.robot_sim.sim import RobotSim, SimSummary

__all__ = [
    "Push",
    "Remote",
    "RemoteEvent",
    "RobotSim",
    "SensorNoise",
    "SimConfig",
    "SimConfigError",
    "SimSummary",
]


def __getattr__(name: str) -> Any:
    # Importing the simulator imports MuJoCo, and render.py must choose MuJoCo's renderer before that.
    if name in ("RobotSim", "SimSummary"):
        from sim2real_checks.robot_sim import sim

        return getattr(sim, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
