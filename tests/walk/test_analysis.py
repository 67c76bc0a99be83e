"""The judgement of a walk, on records made by hand: every expected number follows from how they were made."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nfpo_deploy.types import BridgeStatus, GatePhase, Mode
from robots.loader import load_robot
from sim2real_checks.walk.analysis import (
    AnalysisError,
    command_gaps,
    count_falls,
    estimator_error,
    judge_segment,
    path_length,
    policy_regularity,
    summarise,
    truth_of,
)
from sim2real_checks.walk.plot import write_plot
from sim2real_checks.walk.report import print_summary, write_json
from sim2real_checks.walk.run_log import (
    EstimateSample,
    Finding,
    ModeChange,
    PolicySample,
    RunLog,
    SegmentRun,
    StatusSample,
)
from sim2real_checks.walk.script import Segment

SPEC = load_robot("go2")
HZ = 500
WALL_START = 7_000_000_000_000
STANDING = 0.31
LYING = 0.08
BOOT_TICK = 1000


def ns(seconds: float) -> int:
    return WALL_START + round(seconds * 1e9)


def record(seconds: float, vx: float = 0.0, vy: float = 0.0, wz: float = 0.0, heading: float = 0.0) -> dict:
    """A robot that moves at constant velocity in base_link, upright, LowCmd at 500 Hz, belly to belly."""
    n = round(seconds * HZ)
    time = np.arange(n) / HZ
    yaw = heading + wz * time
    qpos, qvel = np.zeros((n, 19)), np.zeros((n, 18))
    qvel[:, 0] = vx * np.cos(yaw) - vy * np.sin(yaw)
    qvel[:, 1] = vx * np.sin(yaw) + vy * np.cos(yaw)
    qvel[:, 5] = wz
    qpos[1:, :2] = np.cumsum(qvel[:-1, :2], axis=0) / HZ
    qpos[:, 2] = STANDING
    qpos[[0, -1], 2] = LYING
    qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
    wall = np.array([ns(t) for t in time])
    return {
        "time": time, "wall_ns": wall, "qpos": qpos, "qvel": qvel,
        "torque": np.full((n, 12), 4.74, dtype=np.float32),
        "lowcmd_ns": wall - 500_000, "lowcmd_count": np.arange(n),
    }  # fmt: skip


def status(**changes: object) -> BridgeStatus:
    healthy = BridgeStatus(
        phase=GatePhase.TRACKING, permit_mode=Mode.WALK, reason="", tripped=False, stand_reached=True,
        sit_reached=False, state_age=0.001, command_age=0.01, permit_age=0.01, loop_rate=500.0,
        loop_jitter_p99_ms=0.3, latency_p50_ms=4.0, latency_p99_ms=8.0,
    )  # fmt: skip
    return replace(healthy, **changes)


def log_of(*segments: tuple[float, float, Segment]) -> RunLog:
    """A healthy log: stood from the first to the last segment, then sat down."""
    runs = [SegmentRun(segment, ns(start), ns(end)) for start, end, segment in segments]
    start, end = segments[0][0], segments[-1][1]
    moments = np.arange(start, end, 0.02)
    return RunLog(
        segments=runs,
        estimates=[],
        statuses=[StatusSample(ns(t), status()) for t in moments],
        policy=[PolicySample(ns(t), round(t * 1e9), i, 0.5, True) for i, t in enumerate(moments)],
        modes=[ModeChange(ns(0), Mode.DAMP, "start"), ModeChange(ns(start), Mode.WALK, "requested")],
        sat_down=True,
        stood_ns=ns(start),
        sit_ns=ns(end),
    )


FORWARD = Segment("forward", 4.0, vx=0.6)


def judged(columns: dict, log: RunLog):
    return summarise(columns, log, SPEC, 50.0)


@pytest.mark.parametrize("heading", [0.0, math.pi / 2, -2.5])
def test_velocity_is_told_in_the_robots_own_axes(heading: float) -> None:
    truth = truth_of(record(2.0, vx=0.6, vy=-0.1, wz=0.3, heading=heading), SPEC)
    np.testing.assert_allclose(truth.velocity, np.tile([0.6, -0.1, 0.3], (1000, 1)), atol=1e-12)
    assert np.ptp(truth.tilt) == 0.0 and truth.tilt[0] == 0.0


def test_tilt_is_the_angle_to_the_vertical_whatever_the_heading() -> None:
    columns = record(1.0)
    roll, yaw = 0.4, 1.1
    # Turned by yaw about z, then by roll about its own x: the product of the two quaternions, written out.
    columns["qpos"][:, 3:7] = [
        math.cos(yaw / 2) * math.cos(roll / 2), math.cos(yaw / 2) * math.sin(roll / 2),
        math.sin(yaw / 2) * math.sin(roll / 2), math.sin(yaw / 2) * math.cos(roll / 2),
    ]  # fmt: skip
    np.testing.assert_allclose(truth_of(columns, SPEC).tilt, 0.4, atol=1e-12)


def test_a_perfect_walk_has_no_problem() -> None:
    summary = judged(record(6.0, vx=0.6), log_of((1.0, 5.0, FORWARD)))
    assert summary.problems == [] and summary.warnings == []
    (segment,) = summary.segments
    np.testing.assert_allclose(segment.mean_velocity, [0.6, 0, 0], atol=1e-12)
    np.testing.assert_allclose(segment.mean_abs_error, 0.0, atol=1e-12)
    assert segment.distance == pytest.approx(0.6 * 4.0, abs=0.002)
    assert segment.turned == 0.0 and segment.done
    assert summary.falls == 0 and summary.sat_down and summary.min_height == STANDING
    assert summary.peak_torque == pytest.approx(4.74 / 23.7, rel=1e-5)


def test_turning_is_counted_over_more_than_a_turn() -> None:
    summary = judged(record(12.0, wz=0.8), log_of((1.0, 11.0, Segment("turn", 10.0, wz=0.8))))
    assert summary.segments[0].turned == pytest.approx(8.0, abs=0.01)
    assert summary.turned == pytest.approx(8.0, abs=0.01)


def test_the_first_second_of_a_segment_is_for_settling() -> None:
    columns = record(6.0, vx=0.6)
    columns["qvel"][: 2 * HZ, 0] = 0.0
    segment = judge_segment(truth_of(columns, SPEC), SegmentRun(FORWARD, ns(1.0), ns(5.0)))
    assert segment is not None
    np.testing.assert_allclose(segment.mean_velocity, [0.6, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("actual", "asked", "axis"),
    [
        ({"vx": 0.44}, {"vx": 0.6}, "vx was 0.44 m/s where 0.60"),
        ({"vx": 0.6, "vy": 0.16}, {"vx": 0.6}, "vy was 0.16 m/s where 0.00"),
        ({"wz": 0.59}, {"wz": 0.8}, "wz was 0.59 rad/s where 0.80"),
        ({"vx": -0.6}, {"vx": 0.6}, "vx was -0.60 m/s where 0.60"),
    ],
)
def test_a_missed_velocity_is_named(actual: dict, asked: dict, axis: str) -> None:
    summary = judged(record(6.0, **actual), log_of((1.0, 5.0, Segment("leg", 4.0, **asked))))
    assert len(summary.problems) == 1 and f"leg: {axis}" in summary.problems[0]
    assert not summary.segments[0].done


def test_a_velocity_within_the_tolerance_passes() -> None:
    summary = judged(record(6.0, vx=0.46, wz=0.19), log_of((1.0, 5.0, FORWARD)))
    assert summary.problems == []


def test_swaying_is_no_distance() -> None:
    time = np.arange(0, 4.0001, 0.002)
    swaying = np.column_stack([0.5 * time, 0.03 * np.sin(2 * np.pi * 4 * time)])
    assert path_length(time, swaying) == pytest.approx(2.0, abs=0.01)
    angle = np.pi * time / 4
    half_circle = np.column_stack([np.cos(angle), np.sin(angle)])
    assert path_length(time, half_circle) == pytest.approx(np.pi, rel=0.01)


def test_falls_are_counted_once_each() -> None:
    height = np.array([0.3, 0.3, 0.1, 0.1, 0.3, 0.3, 0.3, 0.1])
    tilt = np.array([0.0, 0.0, 0.0, 1.5, 0.0, 1.2, 0.0, 0.0])
    assert count_falls(height, tilt, 0.155, 1.0) == 3
    assert count_falls(height[2:3], tilt[2:3], 0.155, 1.0) == 1
    assert count_falls(height[:2], tilt[:2], 0.155, 1.0) == 0
    assert count_falls(height[:0], tilt[:0], 0.155, 1.0) == 0


def test_a_fall_fails_the_walk_but_lying_before_and_after_does_not() -> None:
    columns = record(6.0, vx=0.6)
    columns["qpos"][: HZ // 2, 2] = LYING
    columns["qpos"][-HZ // 2 :, 2] = LYING
    log = log_of((1.0, 5.0, FORWARD))
    assert judged(columns, log).falls == 0
    columns["qpos"][3 * HZ : 3 * HZ + 50, 2] = 0.1
    summary = judged(columns, log)
    assert summary.falls == 1 and summary.min_height == pytest.approx(0.1)
    assert any("fell 1 times" in problem for problem in summary.problems)


def test_estimates_are_compared_at_their_own_tick() -> None:
    columns = record(6.0)
    columns["qvel"][:, 0] = 0.1 * columns["time"]
    truth = truth_of(columns, SPEC)
    ticks = [2000 + BOOT_TICK, 3000 + BOOT_TICK, 4000 + BOOT_TICK]
    exact = [EstimateSample(tick, 0.1 * (tick - BOOT_TICK) / 1000, 0.0, 0.0) for tick in ticks]
    rms, samples = estimator_error(truth, exact, ns(1.0), ns(5.0))
    assert samples == 3 and rms == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    late = [sample._replace(tick=sample.tick + 500) for sample in exact]
    assert estimator_error(truth, late, ns(1.0), ns(5.0))[0][0] == pytest.approx(0.05)
    off = [sample._replace(vy=error) for sample, error in zip(exact, (0.3, -0.4, 0.0), strict=True)]
    assert estimator_error(truth, off, ns(1.0), ns(5.0))[0][1] == pytest.approx(math.sqrt(0.25 / 3))


def test_estimates_outside_the_walk_do_not_count() -> None:
    truth = truth_of(record(6.0), SPEC)
    early = [EstimateSample(500 + BOOT_TICK, 9.0, 9.0, 9.0)]
    rms, samples = estimator_error(truth, early, ns(1.0), ns(5.0))
    assert samples == 0 and all(math.isnan(value) for value in rms)


def test_policy_jitter_does_not_count_what_the_operator_missed() -> None:
    stamps = np.cumsum([0, 19, 21, 19, 21, 19, 21]) * 1_000_000
    samples = [PolicySample(0, int(stamp), i, 0.5, True) for i, stamp in enumerate(stamps)]
    assert policy_regularity(samples) == pytest.approx((50.0, 1.0))
    steady = [PolicySample(0, 20_000_000 * i, i, 0.5, True) for i in range(20) if i not in (3, 4, 11)]
    assert policy_regularity(steady) == pytest.approx((50.0, 0.0))
    assert all(math.isnan(value) for value in policy_regularity(samples[:1]))


def test_timing_comes_from_the_robots_end() -> None:
    columns = record(6.0, vx=0.6)
    columns["lowcmd_count"] = columns["lowcmd_count"] // 2
    summary = judged(columns, log_of((1.0, 5.0, FORWARD)))
    assert summary.timing.lowcmd_rate == pytest.approx(250.0, rel=1e-3)
    assert ["LowCmd ran at 250 Hz" in problem for problem in summary.problems] == [True]


def test_gaps_are_those_between_commands_that_came() -> None:
    columns = record(6.0, vx=0.6)
    # 15 rows without a new command: 32 ms from the last one to the next.
    columns["lowcmd_ns"][1500:1515] = columns["lowcmd_ns"][1499]
    columns["lowcmd_count"][1500:1515] = columns["lowcmd_count"][1499]
    columns["lowcmd_count"][1515:] -= 15
    timing = judged(columns, log_of((1.0, 5.0, FORWARD))).timing
    assert timing.lowcmd_gap_max == pytest.approx(32.0) and timing.lowcmd_gap_p99 == pytest.approx(2.0)
    wall = np.arange(5) * 10_000_000
    # Five commands in each row of 10 ms, then none for the last 20 ms.
    gaps = command_gaps(wall, np.minimum(wall, 20_000_000), np.minimum(5 * np.arange(5), 10))
    np.testing.assert_allclose(gaps, [2.0, 2.0, 20.0])


def test_a_slow_loop_fails_the_walk() -> None:
    log = log_of((1.0, 5.0, FORWARD))
    log.statuses = [StatusSample(sample.ns, status(loop_rate=440.0, loop_overruns=i)) for i, sample in
                    enumerate(log.statuses)]  # fmt: skip
    summary = judged(record(6.0, vx=0.6), log)
    assert ["bridge loop ran at 440 Hz" in problem for problem in summary.problems] == [True]
    assert summary.timing.bridge_overruns == len(log.statuses) - 1
    log.policy = []
    assert any("policy ran at nan Hz" in problem for problem in judged(record(6.0, vx=0.6), log).problems)


def test_a_simulator_slower_than_real_time_is_told() -> None:
    columns = record(6.0, vx=0.6)
    columns["wall_ns"] = WALL_START + ((columns["wall_ns"] - WALL_START) * 1.25).astype(np.int64)
    log = log_of((1.0, 5.0, FORWARD))
    summary = judged(columns, log)
    assert summary.timing.real_time_factor == pytest.approx(0.8)
    assert summary.timing.simulator_lag_max == pytest.approx(6.0 * 0.25 * 1000, rel=0.01)
    assert any("0.80 of real time" in warning for warning in summary.warnings)


def test_a_fault_fails_the_walk_and_is_told_once() -> None:
    log = log_of((1.0, 5.0, FORWARD))
    log.modes.append(ModeChange(ns(5.1), Mode.FAULT, "tilt: tilt 1.2 rad exceeds 1"))
    assert judged(record(6.0, vx=0.6), log).problems == ["fault: tilt: tilt 1.2 rad exceeds 1"]
    log.problems.append("stopped in FAULT (tilt: tilt 1.2 rad exceeds 1)")
    assert judged(record(6.0, vx=0.6), log).problems == ["stopped in FAULT (tilt: tilt 1.2 rad exceeds 1)"]


def test_not_sitting_fails_the_walk_unless_somebody_drove_on() -> None:
    columns = record(6.0, vx=0.6)
    columns["qpos"][-1, 2] = STANDING
    log = log_of((1.0, 5.0, FORWARD))
    assert judged(columns, log).problems == ["did not sit at the end: base at 0.31 m"]
    log.driven_by_hand = True
    assert judged(columns, log).problems == []


def test_lying_on_the_back_is_not_sitting() -> None:
    columns = record(6.0, vx=0.6)
    columns["qpos"][-1, 3:7] = [0.0, 1.0, 0.0, 0.0]
    assert not judged(columns, log_of((1.0, 5.0, FORWARD))).sat_down


def test_what_the_watchdog_did_not_report_as_sitting_is_not_sitting() -> None:
    log = log_of((1.0, 5.0, FORWARD))
    log.sat_down = False
    assert not judged(record(6.0, vx=0.6), log).sat_down


def test_a_record_that_ends_early_is_told() -> None:
    summary = judged(record(3.0, vx=0.6), log_of((0.5, 2.5, FORWARD), (6.0, 9.0, FORWARD)))
    assert len(summary.segments) == 1
    assert any("record ends before the script" in problem for problem in summary.problems)


def test_a_run_without_a_walk_says_so_and_makes_valid_json() -> None:
    log = RunLog()
    summary = judged(record(2.0), log)
    assert "the robot never walked" in summary.problems
    text = json.dumps(summary.as_json(), allow_nan=False)
    assert json.loads(text)["timing"]["policy_rate"] is None
    log.interrupted = True
    assert judged(record(2.0), log).problems[0].startswith("interrupted")


def test_findings_are_passed_on() -> None:
    log = log_of((1.0, 5.0, FORWARD))
    log.findings.append(Finding(ns(2.0), "overruns", "warning", "70 periods missed"))
    log.policy[60] = log.policy[60]._replace(observation_ok=False)
    summary = judged(record(6.0, vx=0.6), log)
    assert summary.problems == []
    assert summary.observations_outside == 1
    assert summary.warnings[0] == "warning overruns: 70 periods missed" and len(summary.warnings) == 2


def test_bad_records_are_refused() -> None:
    columns = record(1.0)
    with pytest.raises(AnalysisError, match="holds 0 rows"):
        truth_of({name: values[:0] for name, values in columns.items()}, SPEC)
    with pytest.raises(AnalysisError, match="11 joints"):
        truth_of(columns | {"torque": columns["torque"][:, :11]}, SPEC)


@pytest.mark.parametrize("vx", [0.6, 0.1])
def test_report_and_plot_tell_the_verdict(tmp_path: Path, vx: float) -> None:
    columns, log = record(6.0, vx=vx), log_of((1.0, 5.0, FORWARD))
    log.estimates = [EstimateSample(BOOT_TICK + t, vx, 0.0, 0.0) for t in range(1000, 5000, 20)]
    summary = judged(columns, log)
    write_json(tmp_path / "report.json", summary, {"policy": "walk"})
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["passed"] is (vx == 0.6) and content["policy"] == "walk"
    assert content["segments"][0]["mean_velocity"][0] == pytest.approx(vx)
    out = io.StringIO()
    print_summary(Console(file=out, width=140), summary)
    assert ("the robot did what was asked" in out.getvalue()) is (vx == 0.6)
    assert f"+{vx:.2f} +0.00 m/s" in out.getvalue()
    write_plot(tmp_path / "plot.png", truth_of(columns, SPEC), log)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
