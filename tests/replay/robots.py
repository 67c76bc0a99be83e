"""Simulated robots with planted parameters, recorded as a real one would be."""

from __future__ import annotations

import math

import numpy as np

from nfpo_deploy.types import MotorCommand
from sim2real_checks.replay.recording import COMMANDED, Recording
from sim2real_checks.robot_sim.recorder import Recorder, row_dtype
from sim2real_checks.validation import run
from sim2real_checks.validation.bodies import ScenarioRobot
from sim2real_checks.validation.scenario import Actuation, Scenario, Sensing

from .flights import fly

HZ = 500.0


class RobotWithRotors(ScenarioRobot):
    """A scenario's robot whose motors have rotors of another inertia, and joints of other viscous friction."""

    armature: float | None = None
    damping: float | None = None

    def __init__(self, spec, scenario, seed, model=None):
        super().__init__(spec, scenario, seed, model)
        for name in ("armature", "damping"):
            value = getattr(self, name)
            if value is not None:
                getattr(self.plant.model, f"dof_{name}")[self.plant._qvel] = value


def robot_with(**values):
    return type("Planted", (RobotWithRotors,), values)


def hang(spec, seconds=12.0, actuation=None, seed=0, sensing=None, record=None, **rotors):
    """A robot that a hand holds in the air while its legs follow sine sweeps; returns its recording.

    `record` names a file for a record as the simulator's own.
    """
    scenario = Scenario("hang", actuation=actuation or Actuation(), sensing=sensing or Sensing())
    robot = robot_with(**rotors)(spec, scenario, seed)
    robot.plant.lift(0.35)
    n, rows, model = spec.num_joints, [], robot.plant.model
    recorder = Recorder(record, row_dtype(model.nq, model.nv, n, 4), {"robot": spec.name}) if record else None
    phases = np.random.default_rng(5).uniform(0.0, 2.0 * math.pi, n)
    stiffness, damping, zero = np.full(n, 25.0), np.full(n, 0.6), np.zeros(n)
    target = spec.default_pose
    for k in range(round(seconds * HZ)):
        t = k / HZ
        if k % 10 == 0:
            # 1 to 5 Hz and back, held for 20 ms each as a policy's targets are.
            angle = 2.0 * math.pi * (3.0 * t - 2.0 * 6.0 / (2.0 * math.pi) * math.sin(2.0 * math.pi * t / 6.0))
            target = spec.default_pose + 0.22 * min(1.0, t) * np.sin(angle + phases)
        command = MotorCommand(target, zero, stiffness, damping, zero)
        state = robot.advance(command)
        if state is not None:
            rows.append((t + 1.0 / HZ, state, target))
        if recorder is not None and k % 5 in (0, 2):  # 200 Hz on the average
            recorder.append(robot.plant, robot.motors, 0)
    if recorder is not None:
        recorder.close()
    time = np.array([row[0] for row in rows])
    states = {name: np.array([getattr(row[1], name) for row in rows]) for name in (
        "q", "dq", "tau_est", "quat_wxyz", "gyro_b", "accel_b")}  # fmt: skip
    targets = np.array([row[2] for row in rows])
    constant = {"kp": stiffness, "kd": damping, "dq": zero, "tau": zero}
    commands = {name: targets if name == "q" else np.tile(constant[name], (len(rows), 1)) for name in COMMANDED}
    return Recording(
        name="hanging", spec=spec, time=time, tau=states.pop("tau_est"), **states, accel_at=spec.imu_position,
        contact=np.zeros((len(rows), len(spec.feet))), command_time=time - 1.0 / HZ, command=commands,
        active=time > 1.5,
    )  # fmt: skip


def walk(spec, policy, scenario, monkeypatch, seed=0, **rotors):
    """A walk's messages, with everything that the wire shows."""
    monkeypatch.setattr(run, "ScenarioRobot", robot_with(**rotors))
    return fly(spec, policy, scenario, seed, states=True)
