"""From the simulator's record and the operator's log to a summary: what was asked, and what the robot did.

Pure: arrays in, numbers out. Truth is the record alone; the log contributes what was asked and when, and what the
nodes say of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.observation.rotations import rotate_inverse
from nfpo_deploy.types import Mode
from robots.loader import RobotSpec
from sim2real_checks.plain_json import without_nan
from sim2real_checks.robot_sim.messages import BOOT_TICK_MS
from sim2real_checks.walk.run_log import EstimateSample, PolicySample, RunLog, SegmentRun

SETTLE_S = 1.0
"""After a new command; a segment shorter than twice this settles in half of its time."""
PATH_STEP_S = 0.5
"""Spacing of the points of a path: about a gait period, so that swaying is no distance."""
LINEAR_TOLERANCE = 0.15
YAW_TOLERANCE = 0.20
"""m/s and rad/s by which the mean velocity of a segment may miss the command."""
FALLEN_HEIGHT = 0.5
"""Fraction of the standing height below which the robot counts as fallen."""
LAID_HEIGHT = 0.05
"""m above its height at the start, folded on the belly, within which the robot has sat down."""
LAID_TILT = 0.3
"""rad; lying on a side is no sitting."""
MIN_REAL_TIME = 0.95
"""Real-time factor of the simulator below which timing says little about the stack."""


class AnalysisError(NfpoError):
    """The record cannot be judged: empty, or of another robot."""


@dataclass(frozen=True)
class Truth:
    """The record as the analysis needs it; n rows, SI units."""

    time: np.ndarray
    """(n,) simulated s."""
    wall_ns: np.ndarray
    """(n,) CLOCK_MONOTONIC ns."""
    position: np.ndarray
    """(n, 3) m, base_link in the world."""
    velocity: np.ndarray
    """(n, 3) vx, vy m/s and wz rad/s in base_link, as commands are given."""
    tilt: np.ndarray
    """(n,) rad between the trunk's z axis and the vertical."""
    yaw: np.ndarray
    """(n,) rad, unwrapped."""
    torque: np.ndarray
    """(n, N) joint torque as a fraction of its limit, absolute."""
    lowcmd_ns: np.ndarray
    lowcmd_count: np.ndarray

    def between(self, start_ns: int, end_ns: int) -> slice:
        """Rows of a time span on CLOCK_MONOTONIC."""
        return slice(int(np.searchsorted(self.wall_ns, start_ns)), int(np.searchsorted(self.wall_ns, end_ns)))


@dataclass(frozen=True)
class SegmentResult:
    """One segment, measured on the truth. Velocities are vx, vy (m/s), wz (rad/s) in base_link."""

    name: str
    start: float
    end: float
    """s of simulated time."""
    command: list[float]
    mean_velocity: list[float]
    """Over the settled part."""
    mean_abs_error: list[float]
    """Mean of |velocity - command| over the settled part: the sway of the gait counts here."""
    planar_error: float
    """Mean length of the planar velocity error over the settled part, m/s."""
    distance: float
    """m along the path."""
    turned: float
    """rad, left is positive."""
    done: bool
    """Whether the mean velocity is within the tolerance."""


@dataclass(frozen=True)
class Timing:
    """How regular the loops were while walking; NaN where nothing was seen. Rates Hz, times ms."""

    lowcmd_rate: float
    """LowCmds that reached the robot."""
    lowcmd_gap_p99: float
    lowcmd_gap_max: float
    """Time between two LowCmds that reached the robot, as finely as the record's rows tell."""
    bridge_rate: float
    bridge_jitter_p99: float
    bridge_overruns: int
    """As the bridge measures itself: medians over its reports, and the worst for jitter."""
    policy_rate: float
    policy_jitter_p99: float
    """Joint commands by their stamps."""
    inference_p50: float
    inference_p99: float
    latency_p50: float
    latency_p99: float
    """From a LowState to the LowCmd that answers it through the policy: median, and worst report of the 99 %."""
    real_time_factor: float
    simulator_lag_max: float
    """Worst lateness of the simulator behind the wall clock."""


@dataclass(frozen=True)
class Summary:
    """The whole run. `problems` is empty when the robot did what was asked."""

    problems: list[str]
    warnings: list[str]
    segments: list[SegmentResult]
    distance: float
    turned: float
    """rad, sum over the segments without regard to the direction."""
    falls: int
    min_height: float
    max_tilt: float
    """m and rad, between standing up and sitting down."""
    sat_down: bool
    final_height: float
    peak_torque: float
    """Fraction of the limit."""
    estimator_rms: list[float]
    """vx, vy m/s, wz rad/s against the truth of the same tick, while walking."""
    estimator_samples: int
    timing: Timing
    gate_limited: int
    """Commands that the gate had to bound, since the start."""
    lowstate_lost: int
    crc_errors: int
    observations_outside: int
    """Joint commands whose observation lay outside the training range."""

    def as_json(self) -> dict[str, Any]:
        """Nested plain values; NaN, which JSON lacks, becomes None."""
        return without_nan(asdict(self))


def truth_of(columns: Mapping[str, np.ndarray], spec: RobotSpec) -> Truth:
    """Columns of a record (`load_record`) to what the analysis needs.

    Raises:
        AnalysisError: an empty record or one of another robot.
    """
    qpos, qvel, torque = columns["qpos"], columns["qvel"], columns["torque"]
    if len(qpos) < 2:
        raise AnalysisError(f"the simulator's record holds {len(qpos)} rows; it ended before it began")
    if torque.shape[1] != spec.num_joints:
        raise AnalysisError(f"the record has {torque.shape[1]} joints, {spec.name} has {spec.num_joints}")
    quat = qpos[:, 3:7]
    w, x, y, z = quat.T
    linear = rotate_inverse(quat, qvel[:, :3])
    return Truth(
        time=columns["time"],
        wall_ns=columns["wall_ns"].astype(np.int64),
        position=qpos[:, :3],
        velocity=np.column_stack([linear[:, :2], qvel[:, 5]]),
        # z component of the trunk's z axis: R33 = 1 - 2(x² + y²).
        tilt=np.arccos(np.clip(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0)),
        yaw=np.unwrap(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))),
        torque=np.abs(torque) / spec.torque_limit,
        lowcmd_ns=columns["lowcmd_ns"].astype(np.int64),
        lowcmd_count=columns["lowcmd_count"].astype(np.int64),
    )


def summarise(columns: Mapping[str, np.ndarray], log: RunLog, spec: RobotSpec, nominal_policy_rate: float) -> Summary:
    """Judge a run.

    Args:
        columns: of the simulator's record, as `load_record` returns them.
        log: what the operator saw.
        spec: the robot.
        nominal_policy_rate: Hz that the policy must keep.

    Raises:
        AnalysisError: the record cannot be judged.
    """
    truth = truth_of(columns, spec)
    segments = [result for run in log.segments if (result := judge_segment(truth, run)) is not None]
    up = _upright_span(truth, log)
    falls = count_falls(truth.position[up, 2], truth.tilt[up], FALLEN_HEIGHT * spec.base_height, spec.safety.tilt)
    walking = (log.segments[0].start_ns, log.segments[-1].end_ns) if log.segments else (0, 0)
    rms, samples = estimator_error(truth, log.estimates, *walking)
    timing = timing_of(truth, log, *walking)
    last = log.statuses[-1].status if log.statuses else None
    height_gain = truth.position[-1, 2] - truth.position[0, 2]
    summary = Summary(
        problems=[], warnings=[], segments=segments,
        distance=sum(s.distance for s in segments), turned=sum(abs(s.turned) for s in segments),
        falls=falls,
        min_height=_extreme(truth.position[up, 2], np.min), max_tilt=_extreme(truth.tilt[up], np.max),
        sat_down=log.sat_down and bool(height_gain < LAID_HEIGHT and truth.tilt[-1] < LAID_TILT),
        final_height=float(truth.position[-1, 2]),
        peak_torque=_extreme(truth.torque[up], np.max),
        estimator_rms=rms, estimator_samples=samples, timing=timing,
        gate_limited=last.limited_count if last else 0,
        lowstate_lost=last.lowstate_lost if last else 0,
        crc_errors=last.lowstate_crc_errors if last else 0,
        observations_outside=sum(not sample.observation_ok for sample in _within(log.policy, *walking)),
    )  # fmt: skip
    summary.problems.extend(find_problems(summary, log, spec, nominal_policy_rate))
    summary.warnings.extend(_warnings(summary, log))
    return summary


def judge_segment(truth: Truth, run: SegmentRun) -> SegmentResult | None:
    """Measure one segment; None where the record holds no settled part of it."""
    rows = truth.between(run.start_ns, run.end_ns)
    settle_ns = round(min(SETTLE_S, run.segment.duration / 2) * 1e9)
    settled = truth.between(run.start_ns + settle_ns, run.end_ns)
    if settled.stop - settled.start < 2:
        return None
    command = run.segment.velocity
    error = truth.velocity[settled] - command
    mean = truth.velocity[settled].mean(axis=0)
    missed = np.abs(mean - command)
    return SegmentResult(
        name=run.segment.name,
        start=float(truth.time[rows.start]), end=float(truth.time[rows.stop - 1]),
        command=command.tolist(), mean_velocity=mean.tolist(),
        mean_abs_error=np.abs(error).mean(axis=0).tolist(),
        planar_error=float(np.linalg.norm(error[:, :2], axis=1).mean()),
        distance=path_length(truth.time[rows], truth.position[rows, :2]),
        turned=float(truth.yaw[rows.stop - 1] - truth.yaw[rows.start]),
        done=bool(missed[:2].max() <= LINEAR_TOLERANCE and missed[2] <= YAW_TOLERANCE),
    )  # fmt: skip


def path_length(time: np.ndarray, position: np.ndarray) -> float:
    """Length (m) of the path through points `PATH_STEP_S` apart, ends included."""
    count = max(2, 1 + math.ceil((time[-1] - time[0]) / PATH_STEP_S - 1e-9))
    moments = np.linspace(time[0], time[-1], count)
    points = np.column_stack([np.interp(moments, time, position[:, axis]) for axis in range(2)])
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def count_falls(height: np.ndarray, tilt: np.ndarray, min_height: float, max_tilt: float) -> int:
    """How often the robot went from up to down; starting down counts too."""
    down = (height < min_height) | (tilt > max_tilt)
    return int(down[:1].sum() + (down[1:] & ~down[:-1]).sum())


def estimator_error(
    truth: Truth, estimates: Sequence[EstimateSample], start_ns: int, end_ns: int
) -> tuple[list[float], int]:
    """Root-mean-square of estimate minus truth at the same tick (vx, vy, wz), and how many samples it has."""
    rows = truth.between(start_ns, end_ns)
    if not estimates or rows.stop - rows.start < 2:
        return [math.nan] * 3, 0
    values = np.array(estimates, dtype=np.float64)
    # The robot's tick is its clock in ms; the record keeps the same clock in s.
    time = (values[:, 0] - BOOT_TICK_MS) * 1e-3
    inside = (time >= truth.time[rows.start]) & (time <= truth.time[rows.stop - 1])
    if not inside.any():
        return [math.nan] * 3, 0
    true = np.column_stack([np.interp(time[inside], truth.time, truth.velocity[:, axis]) for axis in range(3)])
    return np.sqrt(np.square(values[inside, 1:] - true).mean(axis=0)).tolist(), int(inside.sum())


def timing_of(truth: Truth, log: RunLog, start_ns: int, end_ns: int) -> Timing:
    """Rates, jitter and latency between two moments; the real-time factor is that of the whole record."""
    rows = truth.between(start_ns, end_ns)
    rate = gap_p99 = gap_max = math.nan
    if rows.stop - rows.start >= 2:
        wall = truth.wall_ns[rows]
        rate = float(truth.lowcmd_count[rows][-1] - truth.lowcmd_count[rows][0]) * 1e9 / (wall[-1] - wall[0])
        gaps = command_gaps(wall, truth.lowcmd_ns[rows], truth.lowcmd_count[rows])
        gap_p99, gap_max = float(np.percentile(gaps, 99)), float(gaps.max())
    statuses = [sample.status for sample in _within(log.statuses, start_ns, end_ns)]
    policy = _within(log.policy, start_ns, end_ns)
    policy_rate, policy_jitter = policy_regularity(policy)
    inference = [sample.inference_ms for sample in policy]
    elapsed, wall_elapsed = truth.time - truth.time[0], (truth.wall_ns - truth.wall_ns[0]) * 1e-9
    return Timing(
        lowcmd_rate=rate, lowcmd_gap_p99=gap_p99, lowcmd_gap_max=gap_max,
        bridge_rate=_statistic([s.loop_rate for s in statuses], 50),
        bridge_jitter_p99=_statistic([s.loop_jitter_p99_ms for s in statuses], 100),
        bridge_overruns=statuses[-1].loop_overruns - statuses[0].loop_overruns if statuses else 0,
        policy_rate=policy_rate, policy_jitter_p99=policy_jitter,
        inference_p50=_statistic(inference, 50), inference_p99=_statistic(inference, 99),
        latency_p50=_statistic([s.latency_p50_ms for s in statuses], 50),
        latency_p99=_statistic([s.latency_p99_ms for s in statuses], 100),
        real_time_factor=float(elapsed[-1] / max(wall_elapsed[-1], 1e-9)),
        simulator_lag_max=float((wall_elapsed - elapsed).max() * 1e3),
    )  # fmt: skip


def command_gaps(wall_ns: np.ndarray, received_ns: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Milliseconds between LowCmds; where several came within one row, their mean. The last gap is still open."""
    fresh = np.concatenate([[True], np.diff(count) > 0])
    gaps = np.diff(received_ns[fresh]) / np.diff(count[fresh])
    return np.append(gaps, wall_ns[-1] - received_ns[-1]) * 1e-6


def policy_regularity(samples: Sequence[PolicySample]) -> tuple[float, float]:
    """Rate (Hz, by sequence numbers) and 99th percentile of |period - mean period| (ms) of joint commands."""
    if len(samples) < 2:
        return math.nan, math.nan
    stamps = np.array([sample.stamp_ns for sample in samples], dtype=np.int64)
    seq = np.array([sample.seq for sample in samples], dtype=np.int64)
    rate = float(seq[-1] - seq[0]) * 1e9 / max(int(stamps[-1] - stamps[0]), 1)
    # Commands that the operator missed must not look like long periods.
    steps = np.diff(seq)
    periods = np.diff(stamps)[steps > 0] / steps[steps > 0] * 1e-6
    return rate, float(np.percentile(np.abs(periods - 1e3 / rate), 99)) if rate > 0 and len(periods) else math.nan


def find_problems(summary: Summary, log: RunLog, spec: RobotSpec, nominal_policy_rate: float) -> list[str]:
    """Why the run failed, the first cause first; empty when the robot did what was asked."""
    problems = list(log.problems)
    for change in log.modes:
        # The driver may have stumbled over the same fault.
        if change.mode is Mode.FAULT and not any(change.reason in problem for problem in problems):
            problems.append(f"fault: {change.reason}")
    if log.interrupted:
        problems.append("interrupted before the script had ended")
    if not log.segments and not problems:
        problems.append("the robot never walked")
    if summary.falls:
        problems.append(
            f"fell {summary.falls} times: height down to {summary.min_height:.2f} m, "
            f"tilt up to {summary.max_tilt:.2f} rad"
        )
    for segment in summary.segments:
        problems += _missed_velocity(segment)
    if len(summary.segments) < len(log.segments):
        problems.append("the simulator's record ends before the script does")
    if not summary.sat_down and not log.driven_by_hand:
        problems.append(f"did not sit at the end: base at {summary.final_height:.2f} m")
    if log.segments:
        problems += _wrong_rates(summary.timing, spec.safety.rate_warning, nominal_policy_rate)
    return problems


def _missed_velocity(segment: SegmentResult) -> list[str]:
    found = []
    axes = zip("vx vy wz".split(), segment.mean_velocity, segment.command, strict=True)
    for axis, actual, wanted in axes:
        tolerance, unit = (YAW_TOLERANCE, "rad/s") if axis == "wz" else (LINEAR_TOLERANCE, "m/s")
        if not abs(actual - wanted) <= tolerance:
            found.append(
                f"{segment.name}: {axis} was {actual:.2f} {unit} where {wanted:.2f} was asked (allowed ±{tolerance:g})"
            )
    return found


def _wrong_rates(timing: Timing, fraction: float, nominal_policy_rate: float) -> list[str]:
    found = []
    for name, rate, nominal in (
        ("LowCmd", timing.lowcmd_rate, 500.0),
        ("bridge loop", timing.bridge_rate, 500.0),
        ("policy", timing.policy_rate, nominal_policy_rate),
    ):
        if not fraction * nominal <= rate <= nominal / fraction:
            found.append(f"{name} ran at {rate:.0f} Hz where {nominal:.0f} Hz is right: is this computer busy?")
    return found


def _warnings(summary: Summary, log: RunLog) -> list[str]:
    found = [f"{finding.level} {finding.name}: {finding.message}" for finding in log.findings]
    if summary.timing.real_time_factor < MIN_REAL_TIME:
        found.append(f"the simulator ran at {summary.timing.real_time_factor:.2f} of real time")
    if summary.observations_outside:
        found.append(f"{summary.observations_outside} observations outside the policy's training range")
    return found


def _upright_span(truth: Truth, log: RunLog) -> slice:
    """Rows in which the robot should be up."""
    if not log.stood_ns:
        return slice(0, 0)
    end = log.sit_ns or (log.segments[-1].end_ns if log.segments else log.stood_ns)
    return truth.between(log.stood_ns, max(end, log.stood_ns))


def _within(samples: Sequence[Any], start_ns: int, end_ns: int) -> list[Any]:
    return [sample for sample in samples if start_ns <= sample.ns <= end_ns]


def _statistic(values: Sequence[float], percent: float) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.percentile(finite, percent)) if finite else math.nan


def _extreme(values: np.ndarray, which: Any) -> float:
    return float(which(values)) if values.size else math.nan
