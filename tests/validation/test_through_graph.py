"""Scenarios through the ROS 2 graph: which ones can run there, and that a record becomes the trace that it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("nfpo_msgs", reason="ros2_ws is not built: ros2_ws/build.sh")

from nfpo_deploy.types import BridgeStatus, GatePhase, Mode
from sim2real_checks.robot_sim.messages import BOOT_TICK_MS
from sim2real_checks.validation.graph_trace import trace_of
from sim2real_checks.validation.run import run_scenario
from sim2real_checks.validation.scenario import Command, Disturbance, Physics, Scenario, Terrain, load_set
from sim2real_checks.validation.scores import score
from sim2real_checks.validation.through_graph import MOST, choose, fits_graph
from sim2real_checks.walk.run_log import EstimateSample, StatusSample

STATUS = BridgeStatus(GatePhase.TRACKING, Mode.WALK, "", False, True, False, 0.0, 0.0, 0.0)
WALK = Scenario("walk vx=0.4", duration=2.0, commands=(Command(0.5, vx=0.4),))


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True), ({"required": False}, False), ({"terrain": Terrain("stairs")}, False),
        ({"terrain": Terrain(friction=0.4)}, False), ({"physics": Physics(cone="pyramidal")}, False),
        ({"disturbances": (Disturbance("weak_motor", joint="FL_calf_joint"),)}, True),
        ({"disturbances": (Disturbance("push"),)}, False),
    ],
)  # fmt: skip
def test_what_the_simulated_robot_on_the_network_can_be(change, fits):
    assert fits_graph(Scenario("x", **change)) is fits


def test_one_of_each_entry_comes_before_two_of_one():
    chosen = choose(load_set("go2_quick").scenarios)
    bases = [scenario.name.split(" vx=")[0].split(" vy=")[0].split(" wz=")[0] for scenario in chosen]
    assert len(chosen) == MOST == len(set(bases))
    many = [Scenario(f"walk vx={i}") for i in range(5)] + [Scenario("turn wz=1")]
    assert [s.name for s in choose(many, 3)] == ["walk vx=0", "walk vx=1", "turn wz=1"]


@pytest.fixture(scope="module")
def walked(spec, policy):
    return run_scenario(spec, policy, WALK, 0)


def test_a_record_of_the_same_motion_has_the_same_scores(spec, policy, walked):
    """The in-process trace, written as the simulator would have recorded it, 3 s after other rows."""
    rows, before = len(walked.time), 1500
    qpos = np.column_stack([walked.position, walked.quat, walked.q])
    columns = {
        "time": np.arange(before + rows) / 500, "wall_ns": 10**9 + np.arange(before + rows) * 2_000_000,
        "qpos": np.vstack([np.tile(qpos[0], (before, 1)), qpos]),
        "qvel": np.vstack([np.zeros((before, 18)), np.column_stack([walked.lin_vel, walked.ang_vel, walked.dq])]),
        "torque": np.vstack([np.zeros((before, 12)), walked.torque]),
        "command_q": np.vstack([np.zeros((before, 12)), walked.target]),
        "foot_force": np.vstack([np.zeros((before, 4)), walked.foot_force]),
    }  # fmt: skip
    ticks = BOOT_TICK_MS + 3000 + 2 * np.arange(1, rows)
    estimates = [EstimateSample(int(t), *v[:2], 0.0) for t, v in zip(ticks, walked.estimated_velocity[1:], strict=True)]
    span = (int(columns["wall_ns"][before]), int(columns["wall_ns"][-1]) + 1)
    statuses = [StatusSample(span[0], STATUS), StatusSample(span[1], replace(STATUS, limited_count=50))]
    trace = trace_of(columns, span, WALK, policy, spec, (estimates, statuses))

    assert np.abs(trace.foot_position - walked.foot_position).max() < 1e-3
    assert np.abs(trace.given - walked.given).max() < 0.05
    ours, theirs = score(trace, WALK, policy), score(walked, WALK, policy)
    # The operator of the graph speaks at 20 Hz, that of the process at every tick.
    assert ours["planar_error"] == pytest.approx(theirs["planar_error"], abs=0.005)
    for name in ("tilt", "torque_rms", "torque_peak", "slip", "impact", "power_mean", "heat"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.05), name
    assert ours["action_rate"] == pytest.approx(theirs["action_rate"], rel=0.15)
    assert ours["limited"] == pytest.approx(50 / rows, rel=0.01)
    # Of two axes, where the in-process score has three.
    assert 0 < ours["estimator_error"] < 2 * theirs["estimator_error"]


def test_a_span_without_rows_never_walked(spec, policy):
    columns = {name: np.zeros((0, width)) for name, width in (("qpos", 19), ("qvel", 18))}
    columns |= {name: np.zeros(0) for name in ("time", "wall_ns")}
    trace = trace_of(columns, (1, 2), WALK, policy, spec, ([], []))
    assert not trace.columns
