"""Robots as data: one folder for each, and the loader that validates it."""

from robots.loader import (
    Foot,
    Gains,
    LegChain,
    LegGeometry,
    RobotSpec,
    RobotSpecError,
    SafetyLimits,
    available_robots,
    load_robot,
    load_robot_file,
)

__all__ = [
    "Foot",
    "Gains",
    "LegChain",
    "LegGeometry",
    "RobotSpec",
    "RobotSpecError",
    "SafetyLimits",
    "available_robots",
    "load_robot",
    "load_robot_file",
]
