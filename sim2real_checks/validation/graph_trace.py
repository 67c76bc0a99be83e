"""A trace from what a run through the ROS 2 graph left: the simulator's record and what the operator saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots.loader import RobotSpec
from robots.mjcf import build_spec
from sim2real_checks.robot_sim.messages import BOOT_TICK_MS
from sim2real_checks.validation.run import operator_command
from sim2real_checks.validation.scenario import Scenario
from sim2real_checks.validation.stack import BRIDGE_HZ
from sim2real_checks.validation.trace import Trace
from sim2real_checks.walk.run_log import EstimateSample, StatusSample

NS = 1_000_000_000
COMMAND_HZ = 20
"""/cmd_vel of the operator that walks the scenarios."""


def trace_of(
    columns: Mapping[str, np.ndarray],
    span_ns: tuple[int, int],
    scenario: Scenario,
    policy: OnnxPolicy,
    spec: RobotSpec,
    seen: tuple[Sequence[EstimateSample], Sequence[StatusSample]],
) -> Trace:
    """The rows of one scenario, as an in-process run has them.

    Args:
        columns: of the record, at `BRIDGE_HZ`.
        span_ns: from, to on CLOCK_MONOTONIC.
        scenario: that was walked.
        policy: that walked.
        spec: the robot.
        seen: estimates and bridge statuses that the operator saw.
    """
    low, high = np.searchsorted(columns["wall_ns"], span_ns)
    rows = {name: values[low:high] for name, values in columns.items() if len(values) == len(columns["time"])}
    trace = Trace(spec)
    count = len(rows["time"])
    if not count:
        return trace
    q, dq, feet = _joints_and_feet(rows, spec)
    time = rows["time"] - rows["time"][0]
    asked = np.array([operator_command(scenario.commands, float(t)).as_array() for t in time])
    trace.columns = {
        "time": time, "position": rows["qpos"][:, :3], "quat": rows["qpos"][:, 3:7], "lin_vel": rows["qvel"][:, :3],
        "ang_vel": rows["qvel"][:, 3:6], "q": q, "dq": dq, "torque": rows["torque"].astype(np.float64),
        "target": rows["command_q"].astype(np.float64), "foot_position": feet,
        "foot_force": rows["foot_force"].astype(np.float64), "asked": asked,
        "given": _given(scenario, policy, spec, count), "estimated_velocity": _estimates(rows, seen[0]),
        "observation_ok": np.ones(count), "limited": _limited(rows["wall_ns"], seen[1]),
    }  # fmt: skip
    every = round(BRIDGE_HZ / policy.manifest.control_rate_hz)
    order = np.argsort(policy.manifest.joint_order(spec))
    targets = trace.target[::every][:, order]
    trace.actions = (targets - policy.manifest.default_pose) / policy.manifest.action_scale
    return trace


def _joints_and_feet(rows: Mapping[str, np.ndarray], spec: RobotSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joint angles and speeds (T, N) in the robot's order, and feet (T, F, 3) in the world."""
    model = build_spec(spec.name).compile()
    data = mujoco.MjData(model)
    joints = [model.joint(name) for name in spec.joint_names]
    sites = [model.site(foot.name).id for foot in spec.feet]
    feet = np.zeros((len(rows["time"]), len(sites), 3))
    for i, qpos in enumerate(rows["qpos"]):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        feet[i] = data.site_xpos[sites]
    q = rows["qpos"][:, [int(joint.qposadr[0]) for joint in joints]]
    return q, rows["qvel"][:, [int(joint.dofadr[0]) for joint in joints]], feet


def _given(scenario: Scenario, policy: OnnxPolicy, spec: RobotSpec, count: int) -> np.ndarray:
    """(T, 3) what the limiter of the policy node makes of the operator's words, which it hears at `COMMAND_HZ`."""
    limiter = VelocityCommandLimiter(policy.manifest.command_ranges, spec.safety.operator_timeout)
    rate = policy.manifest.control_rate_hz
    given, now = np.zeros((count, 3)), np.zeros(3)
    for k in range(count):
        t_ns = NS + round(k * NS / BRIDGE_HZ)
        if k % (BRIDGE_HZ // COMMAND_HZ) == 0:
            asked = operator_command(scenario.commands, k / BRIDGE_HZ)
            limiter.receive(asked.vx, asked.vy, asked.wz, t_ns)
        if k % round(BRIDGE_HZ / rate) == 0:
            now = limiter.step(t_ns, 1.0 / rate).as_array()
        given[k] = now
    return given


def _estimates(rows: Mapping[str, np.ndarray], estimates: Sequence[EstimateSample]) -> np.ndarray:
    """(T, 3) estimated velocity, m/s; vertical and where nothing was seen: NaN."""
    result = np.full((len(rows["time"]), 3), math.nan)
    seen = np.array([(e.tick, e.vx, e.vy) for e in estimates], dtype=np.float64).reshape(-1, 3)
    # The robot's tick is its clock in ms; the record keeps the same clock in s.
    at = np.searchsorted(rows["time"], (seen[:, 0] - BOOT_TICK_MS) * 1e-3)
    inside = (at > 0) & (at < len(result))
    result[at[inside], :2] = seen[inside, 1:]
    return result


def _limited(wall_ns: np.ndarray, statuses: Sequence[StatusSample]) -> np.ndarray:
    """(T,) how many of the gate's commands were bounded so far."""
    if not statuses:
        return np.full(len(wall_ns), math.nan)
    times = np.array([status.ns for status in statuses])
    return np.interp(wall_ns, times, [float(status.status.limited_count) for status in statuses])
