"""Recorded simulated runs: what the sensors said and what was so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nfpo_deploy.types import RobotState
from robots.loader import load_robot
from sim2real_checks.inprocess import InProcessRobot
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.scripted_trot import ScriptedTrot, TrotGait, stand_command

SPEC = load_robot("go2")


@dataclass
class Run:
    """Sensor states at 500 Hz, and at the same instants the true values, one row each."""

    states: list[RobotState]
    lin_vel_b: np.ndarray
    position_w: np.ndarray
    contact: np.ndarray


def simulate(duration, gait=None, shove=None):
    """Stand for 0.5 s, then trot (stand on without `gait`); `shove` is (start s, end s, force N)."""
    config = SimConfig(robot="go2", initial_pose="default", seed=1)
    robot = InProcessRobot(SPEC, config)
    trot = None if gait is None else ScriptedTrot(SPEC, gait)
    states, velocity, position, contact = [], [], [], []
    for k in range(round(duration * 500)):
        now = k * 0.002
        if shove is not None:
            robot.shove(shove[2] if shove[0] <= now < shove[1] else (0.0, 0.0, 0.0))
        walking = trot is not None and now >= 0.5
        states.append(robot.advance(trot.command(now - 0.5) if walking else stand_command(SPEC)))
        velocity.append(robot.true_lin_vel_b)
        position.append(robot.truth.position_w)
        contact.append(robot.true_contact)
    return Run(states, np.array(velocity), np.array(position), np.array(contact))


@pytest.fixture(scope="session")
def standing():
    return simulate(3.0)


@pytest.fixture(scope="session")
def trotting():
    return simulate(5.0, TrotGait(vx=0.4))


@pytest.fixture(scope="session")
def turning():
    return simulate(3.5, TrotGait(vx=0.2, vy=0.2, wz=0.6))


@pytest.fixture(scope="session")
def shoved():
    return simulate(3.5, TrotGait(vx=0.3), shove=(3.0, 3.1, (60.0, 80.0, 0.0)))
