"""Run one scenario: stand the robot up, let it walk under the scenario's commands, note what happens."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.types import Mode, MotorCommand, RobotState, VelocityCommand
from robots.loader import RobotSpec
from sim2real_checks.validation.bodies import ScenarioRobot
from sim2real_checks.validation.scenario import Command, Scenario
from sim2real_checks.validation.stack import BRIDGE_HZ, DeployedStack
from sim2real_checks.validation.terrain import ground_height, slope_normal
from sim2real_checks.validation.trace import Recorder, Trace

ASK_EVERY = 25
"""Cycles between two attempts of the operator to go on to the next mode."""
GET_UP_S = 12.0
STILL = VelocityCommand(0.0, 0.0, 0.0)
FALLEN_HEIGHT = 0.5
"""Part of the standing height above the ground below which the trunk has fallen."""


def operator_command(commands: tuple[Command, ...], t: float) -> VelocityCommand:
    """What the operator asks for at `t` s; zero before the first command."""
    index = bisect_right([command.at for command in commands], t + 1e-9) - 1
    if index < 0:
        return STILL
    now = commands[index]
    before = commands[index - 1] if index else Command(0.0)
    part = min(1.0, (t - now.at) / now.ramp) if now.ramp else 1.0
    old, new = (np.array([c.vx, c.vy, c.wz]) for c in (before, now))
    return VelocityCommand(*(float(v) for v in old + part * (new - old)))


def run_scenario(
    spec: RobotSpec,
    policy: OnnxPolicy,
    scenario: Scenario,
    seed: int,
    tamper: Callable[[DeployedStack], None] | None = None,
    model: Path | None = None,
) -> Trace:
    """Run to the end of the scenario, to a fall, or until the watchdog takes walking away.

    Args:
        spec: the robot.
        policy: that walks.
        scenario: what happens.
        seed: of noise, biases, rough ground and dropped samples; the same seed gives the same trace.
        tamper: breaks the software on purpose.
        model: MJCF file of the robot in place of ours.

    Raises:
        ScenarioError: the scenario does not fit the robot.
        ModelError: the model does not fit the robot.
    """
    robot, stack = ScenarioRobot(spec, scenario, seed, model), DeployedStack(spec, policy)
    if tamper is not None:
        tamper(stack)
    recorder = Recorder(spec, round(scenario.duration * BRIDGE_HZ))
    trace = recorder.trace
    state, trace.ended = _get_up(robot, stack)
    if trace.ended:
        trace.mode = stack.mode.name
        return recorder.finish()
    for k in range(round(scenario.duration * BRIDGE_HZ)):
        t = k / BRIDGE_HZ
        robot.disturb(t)
        asked = operator_command(scenario.commands, t)
        state = robot.advance(stack.cycle(state, asked))
        recorder.row(t, robot, stack, asked)
        trace.fell = has_fallen(robot, scenario)
        if trace.fell or stack.mode is not Mode.WALK:
            trace.ended = f"fell after {t:.1f} s" if trace.fell else f"{stack.mode.name}: {stack.watchdog.reason}"
            break
    trace.mode = stack.mode.name
    return recorder.finish()


def _get_up(robot: ScenarioRobot, stack: DeployedStack) -> tuple[RobotState | None, str]:
    """From DAMP to WALK, as an operator would; returns the last state and what prevented it."""
    next_mode = {Mode.DAMP: Mode.STAND, Mode.READY: Mode.WALK}
    zero = np.zeros(robot.spec.num_joints)
    state, answer = robot.advance(MotorCommand(zero, zero, zero, zero, zero)), ""
    for k in range(round(GET_UP_S * BRIDGE_HZ)):
        if stack.mode is Mode.WALK:
            return state, ""
        if stack.mode is Mode.FAULT:
            return state, f"FAULT: {stack.watchdog.reason}"
        if k % ASK_EVERY == 0 and stack.mode in next_mode:
            answer = stack.ask(next_mode[stack.mode])[1]
        state = robot.advance(stack.cycle(state, STILL))
    return state, f"did not get as far as walking within {GET_UP_S:g} s, it is in {stack.mode.name}: {answer}"


def has_fallen(robot: ScenarioRobot, scenario: Scenario) -> bool:
    """Whether the trunk is tilted beyond the watchdog's limit, or lies on the ground, or the simulation broke."""
    truth = robot.plant.truth()
    w, x, y, z = truth.quat_wxyz
    up = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    normal = slope_normal(scenario.terrain)
    height = float(truth.position_w @ normal) - ground_height(scenario.terrain, float(truth.position_w[0]))
    low = height < FALLEN_HEIGHT * robot.spec.base_height
    return bool(not np.isfinite(truth.position_w).all() or up[2] < math.cos(robot.spec.safety.tilt) or low)
