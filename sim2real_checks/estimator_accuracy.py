"""How well the state estimator knows the base's velocity: closed loop in MuJoCo, against the simulator's truth.

    python -m sim2real_checks.estimator_accuracy
    python -m sim2real_checks.estimator_accuracy --policy robots/go2/policies/walk/policy.onnx

Prints errors for each part of a short drive and writes a plot and a JSON file. Exits with 1 if the
root-mean-square error of any axis while walking exceeds the limit.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.state.estimator import StateEstimator
from nfpo_deploy.types import MotorCommand, StateEstimate, VelocityCommand
from robots.loader import RobotSpec, load_robot
from sim2real_checks.inprocess import STATE_PERIOD, InProcessRobot, SensorErrors
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.scripted_trot import ScriptedTrot, TrotGait, stand_command

STANDING = "stand"
_SETTLING_S = 0.5
# Command vx, vy m/s and wz rad/s, and a shove N in the world frame for 0.1 s of every second.
Shove = tuple[float, float, float]
_NO_SHOVE = (0.0, 0.0, 0.0)
DRIVE: tuple[tuple[str, VelocityCommand, Shove], ...] = (
    (STANDING, VelocityCommand(0.0, 0.0, 0.0), _NO_SHOVE),
    ("forward", VelocityCommand(0.5, 0.0, 0.0), _NO_SHOVE),
    ("sideways", VelocityCommand(0.0, 0.3, 0.0), _NO_SHOVE),
    ("turn", VelocityCommand(0.2, 0.0, 0.8), _NO_SHOVE),
    ("backward", VelocityCommand(-0.4, 0.0, 0.0), _NO_SHOVE),
    ("shoved", VelocityCommand(0.4, 0.0, 0.0), (50.0, 60.0, 0.0)),
)
Driver = Callable[[float, StateEstimate], MotorCommand]


@dataclass(frozen=True)
class Options:
    """Accuracy of the state estimator against MuJoCo's truth.

    Example: python -m sim2real_checks.estimator_accuracy --policy robots/go2/policies/walk/policy.onnx
    """

    robot: str = "go2"
    policy: Path | None = None
    """Policy that walks, fed by the estimate as on the robot; without one a scripted trot walks."""
    out: Path = Path("out/estimator_accuracy")
    """Folder of the plot and the JSON file."""
    duration: float = 4.0
    """s of each part of the drive."""
    seed: int = 0
    foot_friction: float = 0.8
    payload: float = 0.0
    """kg on the base."""
    every: int = 2
    """The estimator gets each so-manieth LowState of 500 a second; 2 is what the graph gives it."""
    limit: float = 0.10
    """m/s, largest root-mean-square error accepted on any axis while walking."""

    def __post_init__(self) -> None:
        for name in ("duration", "limit", "every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above zero, got {getattr(self, name)!r}")


@dataclass
class Track:
    """What was estimated and what was so, one row for each state."""

    part: list[str] = field(default_factory=list)
    estimate: list[StateEstimate] = field(default_factory=list)
    lin_vel_b: list[np.ndarray] = field(default_factory=list)
    position_w: list[np.ndarray] = field(default_factory=list)
    contact: list[np.ndarray] = field(default_factory=list)
    update_s: list[float] = field(default_factory=list)

    def error(self) -> np.ndarray:
        """(T, 3) m/s, estimated minus true velocity in base_link."""
        return np.array([e.lin_vel_b for e in self.estimate]) - np.array(self.lin_vel_b)

    def contact_right(self) -> np.ndarray:
        """(T, F) whether each contact was judged as it was."""
        return (np.array([e.contact for e in self.estimate]) > 0.5) == np.array(self.contact)


def record(
    robot: InProcessRobot,
    estimator: StateEstimator,
    parts: tuple[tuple[str, Driver, Shove], ...],
    duration: float,
    every: int = 1,
) -> Track:
    """Drive `robot` through `parts`, `duration` s each; `estimator` in the loop gets every `every`-th state."""
    track = Track()
    estimate = estimator.update(robot.advance(stand_command(robot.spec)))
    for name, driver, shove in parts:
        for k in range(round(duration / STATE_PERIOD)):
            now = k * STATE_PERIOD
            robot.shove(shove if now % 1.0 >= 0.9 else _NO_SHOVE)
            state = robot.advance(driver(now, estimate))
            if k % every == 0:
                start = time.perf_counter()
                estimate = estimator.update(state)
                track.update_s.append(time.perf_counter() - start)
            track.part.append(name)
            track.estimate.append(estimate)
            track.lin_vel_b.append(robot.true_lin_vel_b)
            track.position_w.append(robot.truth.position_w)
            track.contact.append(robot.true_contact)
    return track


def trot_driver(spec: RobotSpec, command: VelocityCommand) -> Driver:
    """Scripted trot at a command; stands at zero."""
    if not command.as_array().any():
        return lambda now, estimate: stand_command(spec)
    trot = ScriptedTrot(spec, TrotGait(vx=command.vx, vy=command.vy, wz=command.wz))
    return lambda now, estimate: trot.command(now)


class PolicyDriver:
    """A policy at its control rate, fed by the estimator."""

    def __init__(self, runner: PolicyRunner, command: VelocityCommand) -> None:
        self._runner = runner
        self._command = command
        self._period = 1.0 / runner.manifest.control_rate_hz
        self._due = 0.0
        self._held: MotorCommand | None = None

    def __call__(self, now: float, estimate: StateEstimate) -> MotorCommand:
        if self._held is None or now >= self._due - 0.5 * STATE_PERIOD:
            self._due += self._period
            joint = self._runner.step(estimate, self._command)
            self._held = MotorCommand(joint.q, joint.dq, joint.stiffness, joint.damping, joint.tau)
        return self._held


def drivers(spec: RobotSpec, policy: Path | None) -> tuple[tuple[str, Driver, Shove], ...]:
    """The parts of `DRIVE` for a policy, or for the scripted trot."""
    if policy is None:
        return tuple((name, trot_driver(spec, command), shove) for name, command, shove in DRIVE)
    runner = PolicyRunner(OnnxPolicy.load(policy, spec), spec)
    return tuple((name, PolicyDriver(runner, command), shove) for name, command, shove in DRIVE)


def summarise(track: Track) -> dict:
    """Numbers of the whole walk and of each part; the first 0.5 s of standing is left out."""
    error, right = track.error(), track.contact_right()
    part = np.array(track.part)
    settled = np.arange(len(part)) >= round(_SETTLING_S / STATE_PERIOD)
    std = np.array([e.lin_vel_std for e in track.estimate])
    speed = np.array(track.lin_vel_b)
    masks = {name: (part == name) & settled for name in dict.fromkeys(track.part)}
    masks["walking"] = (part != STANDING) & settled
    rows = {
        name: {
            "rms": np.sqrt(np.mean(error[mask] ** 2, axis=0)).tolist(),
            "mean": error[mask].mean(axis=0).tolist(),
            "largest": np.abs(error[mask]).max(axis=0).tolist(),
            "within_2_std": float(np.mean(np.abs(error[mask]) < 2 * std[mask])),
            "contact_accuracy": float(right[mask].mean()),
            "true_speed": speed[mask].mean(axis=0).tolist(),
        }
        for name, mask in masks.items()
    }
    update_us = np.array(track.update_s) * 1e6
    truth, estimate = np.array(track.position_w), np.array([e.position_w for e in track.estimate])
    drift = (estimate[-1] - estimate[0]) - (truth[-1] - truth[0])
    return {
        "parts": rows,
        "position_drift": drift.tolist(),
        "path_length": float(np.linalg.norm(np.diff(truth[:, :2], axis=0), axis=1).sum()),
        "lowest_base": float(truth[:, 2].min()),
        "update_us": {"median": float(np.median(update_us)), "p99": float(np.percentile(update_us, 99))},
    }


def plot(track: Track, path: Path) -> None:
    """Velocity of each axis, estimated over true, and the contacts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    t = np.arange(len(track.part)) * STATE_PERIOD
    truth = np.array(track.lin_vel_b)
    estimate = np.array([e.lin_vel_b for e in track.estimate])
    std = np.array([e.lin_vel_std for e in track.estimate])
    figure, axes = plt.subplots(4, 1, figsize=(12, 10), sharex=True, constrained_layout=True)
    for i, label in enumerate(("forward", "left", "up")):
        axes[i].fill_between(
            t, estimate[:, i] - 2 * std[:, i], estimate[:, i] + 2 * std[:, i], alpha=0.25, label="±2 std"
        )
        axes[i].plot(t, estimate[:, i], lw=1, label="estimate")
        axes[i].plot(t, truth[:, i], "k", lw=0.7, label="truth")
        axes[i].set_ylabel(f"{label} (m/s)")
        axes[i].grid(alpha=0.3)
    axes[0].legend(loc="upper right", ncols=3)
    probability = np.array([e.contact for e in track.estimate])
    for leg in range(probability.shape[1]):
        axes[3].plot(t, leg + 0.8 * probability[:, leg], lw=0.8)
        axes[3].plot(t, leg + 0.8 * np.array(track.contact)[:, leg], "k:", lw=0.7)
    axes[3].set_ylabel("contact of each foot\n(dotted: truth)")
    axes[3].set_xlabel("time (s)")
    for k in range(1, len(track.part)):
        if track.part[k] != track.part[k - 1]:
            axes[0].annotate(track.part[k], (t[k], 1.02), xycoords=("data", "axes fraction"))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def print_summary(summary: dict) -> None:
    """One line for each part."""
    print(
        f"{'part':10s} {'rms x':>7s} {'y':>7s} {'z':>7s} {'largest':>8s} {'in 2 std':>8s} {'contacts':>8s}  true speed"
    )
    for name, row in summary["parts"].items():
        rms = " ".join(f"{value:7.3f}" for value in row["rms"])
        speed = " ".join(f"{value:+.2f}" for value in row["true_speed"])
        print(
            f"{name:10s} {rms} {max(row['largest']):8.2f} {row['within_2_std']:8.1%} "
            f"{row['contact_accuracy']:8.1%}  {speed}"
        )
    drift = " ".join(f"{value:+.3f}" for value in summary["position_drift"])
    print(f"odometry drift {drift} m over {summary['path_length']:.1f} m of path")
    cost = summary["update_us"]
    print(f"update: median {cost['median']:.0f} µs, 99th percentile {cost['p99']:.0f} µs")


def main(argv: list[str] | None = None) -> int:
    """Run the check; 0 if the estimator is accurate enough."""
    options = tyro.cli(Options, args=argv, prog="python -m sim2real_checks.estimator_accuracy")
    spec = load_robot(options.robot)
    config = SimConfig(
        robot=options.robot,
        initial_pose="default",
        seed=options.seed,
        foot_friction=options.foot_friction,
        payload=options.payload,
    )
    robot = InProcessRobot(spec, config, SensorErrors())
    estimator = StateEstimator(spec, options.every * STATE_PERIOD)
    track = record(robot, estimator, drivers(spec, options.policy), options.duration, options.every)
    summary = summarise(track)
    print_summary(summary)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "estimator_accuracy.json").write_text(json.dumps(summary, indent=2))
    plot(track, options.out / "estimator_accuracy.png")
    print(f"plot and numbers: {options.out}")
    worst = max(summary["parts"]["walking"]["rms"])
    if not worst <= options.limit:
        print(f"FAILED: rms error {worst:.3f} m/s while walking exceeds {options.limit} m/s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
