"""A MuJoCo robot that speaks the Unitree protocol: a client cannot tell it from a robot."""

from sim2real_checks.robot_sim.config import Push, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.remote import Remote, RemoteEvent
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
