"""Randomised episodes of a policy in MuJoCo, without ROS: falls, tracking, standing, smoothness, torque.

Observation, policy and joint targets are the robot runtime's own modules; the model is the full-collision one at
1 kHz with elliptic contact cones, which training never saw (it trains on feet and trunk at 200 Hz, pyramidal).
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.observation.rotations import projected_gravity, rotate_inverse
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.types import JointCommand, StateEstimate, VelocityCommand
from robots import RobotSpec, load_robot
from robots.mjcf import build_model

CONTACT_N = 1.0
FALL_HEIGHT_FRACTION = 0.5
"""A base below this part of its standing height has fallen, however level: the robot lies on its belly."""


@dataclass(frozen=True)
class Conditions:
    """What is randomised; ranges are uniform. The defaults are the floor that a shipped walking policy must hold."""

    episode_s: float = 20.0
    friction: tuple[float, float] = (0.4, 1.2)
    payload_kg: tuple[float, float] = (-1.0, 3.0)
    motor_strength: tuple[float, float] = (0.9, 1.1)
    latency_s: tuple[float, float] = (0.0, 0.02)
    """At most one control period."""
    push_speed: float = 0.5
    push_interval_s: float = 5.0
    command_s: float = 5.0
    settle_s: float = 1.0
    """After a new command or a push, this long does not count as settled."""
    gyro_noise: float = 0.02
    """rad/s, one sigma, with a constant bias of the same size."""
    attitude_noise: float = 0.01
    """rad, one sigma, constant over an episode, on roll and pitch."""
    encoder_noise: float = 0.002
    """rad, one sigma; the constant offset of an encoder has three times its size."""
    velocity_noise: float = 0.1
    """rad/s, one sigma."""
    stand_still: bool = False
    """Command zero throughout and push nobody: measures drift and stepping."""
    step_commands: bool = False
    """Give the operator's steps to the policy at once, past the runtime's command limiter: a stress test."""
    sampled: bool = False
    """Draw the policy's noise instead of its deterministic action."""


@dataclass
class EpisodeResult:
    """Sums of one episode; errors are means over control ticks, m/s and rad/s."""

    seed: int
    fell: bool
    seconds: float
    planar_error: float = math.nan
    """Against the command that the policy is given, as the other errors."""
    operator_planar_error: float = math.nan
    """Against what the operator asks, the limiter's ramps included."""
    vx_error: float = math.nan
    vy_error: float = math.nan
    wz_error: float = math.nan
    settled_planar_error: float = math.nan
    settled_wz_error: float = math.nan
    drift_m: float = math.nan
    drift_yaw_rad: float = math.nan
    steps_taken: int = 0
    """Touch-downs after the first second."""
    action_rate: float = math.nan
    """Root mean square change of the joint targets from tick to tick, rad."""
    peak_torque_fraction: float = math.nan
    torque_saturated: float = math.nan
    """Part of joint-steps at the torque limit."""
    peak_joint_velocity_fraction: float = math.nan
    power_w: float = math.nan
    randomization: dict[str, float] = field(default_factory=dict)


class Episode:
    """One robot with its own physical parameters, run tick by tick."""

    def __init__(self, spec: RobotSpec, policy: OnnxPolicy, conditions: Conditions, seed: int) -> None:
        """Draw the parameters and let the robot stand.

        Raises:
            ValueError: a latency beyond one control period, which would silently be cut to it.
        """
        import mujoco

        period = 1.0 / policy.manifest.control_rate_hz
        if not 0.0 <= conditions.latency_s[0] <= conditions.latency_s[1] <= period + 1e-9:
            raise ValueError(f"latency_s {conditions.latency_s} must lie within one control period, 0 to {period:g} s")
        self.mujoco, self.spec, self.conditions, self.seed = mujoco, spec, conditions, seed
        self.rng = np.random.default_rng(seed)
        self.runner = PolicyRunner(policy, spec)
        self.ranges = policy.manifest.command_ranges
        self.limiter = VelocityCommandLimiter(self.ranges, spec.safety.operator_timeout)
        c, rng = conditions, self.rng
        self.drawn = {
            "friction": rng.uniform(*c.friction),
            "payload_kg": rng.uniform(*c.payload_kg),
            "motor_strength": rng.uniform(*c.motor_strength),
            "latency_s": rng.uniform(*c.latency_s),
        }
        self.model = build_model(spec.name, collision="full", cone="elliptic", foot_friction=self.drawn["friction"])
        base = self.model.body("base_link").id
        self.model.body_inertia[base] *= 1.0 + self.drawn["payload_kg"] / self.model.body_mass[base]
        self.model.body_mass[base] += self.drawn["payload_kg"]
        self.data = mujoco.MjData(self.model)
        mujoco.mj_setConst(self.model, self.data)
        self.substeps = round(period / self.model.opt.timestep)
        self.q_index = np.array([self.model.joint(name).qposadr[0] for name in spec.joint_names])
        self.v_index = np.array([self.model.joint(name).dofadr[0] for name in spec.joint_names])
        joints = [self.model.joint(name).id for name in spec.joint_names]
        self.actuator = np.array([int(np.flatnonzero(self.model.actuator_trnid[:, 0] == j)[0]) for j in joints])
        self.touch = np.array([self.model.sensor(f.name.replace("_foot", "_touch")).adr[0] for f in spec.feet])
        n = spec.num_joints
        self.gyro_bias = rng.normal(0, c.gyro_noise, 3)
        self.tilt = rng.normal(0, c.attitude_noise, 2)
        self.encoder_bias = rng.normal(0, 3 * c.encoder_noise, n)
        self._place()

    def _place(self) -> None:
        self.data.qpos[:7] = [0, 0, 0.335, 1, 0, 0, 0]
        self.data.qpos[self.q_index] = self.spec.default_pose
        self.mujoco.mj_forward(self.model, self.data)
        # Half a second on stand gains: an episode starts from standing, as on the robot.
        hold = _hold_command(self.spec)
        for _ in range(500):
            self._physics_step(hold)

    def _physics_step(self, command: JointCommand) -> np.ndarray:
        q, dq = self.data.qpos[self.q_index], self.data.qvel[self.v_index]
        torque = command.stiffness * (command.q - q) + command.damping * (command.dq - dq) + command.tau
        limit = self.spec.torque_limit
        torque = np.clip(torque * self.drawn["motor_strength"], -limit, limit)
        self.data.ctrl[self.actuator] = torque
        self.mujoco.mj_step(self.model, self.data)
        return torque

    def _estimate(self, tick: int) -> StateEstimate:
        c, rng, n = self.conditions, self.rng, self.spec.num_joints
        quat = _tilted(self.data.qpos[3:7], *self.tilt)
        return StateEstimate(
            tick=tick,
            received_ns=0,
            quat_wxyz=quat,
            ang_vel_b=self.data.qvel[3:6] + self.gyro_bias + rng.normal(0, c.gyro_noise, 3),
            lin_vel_b=rotate_inverse(self.data.qpos[3:7], self.data.qvel[:3]),
            lin_vel_std=np.zeros(3),
            position_w=self.data.qpos[:3].copy(),
            contact=np.ones(len(self.spec.feet)),
            q=self.data.qpos[self.q_index] + self.encoder_bias + rng.normal(0, c.encoder_noise, n),
            dq=self.data.qvel[self.v_index] + rng.normal(0, c.velocity_noise, n),
        )

    def _draw_command(self) -> VelocityCommand:
        if self.conditions.stand_still or self.rng.random() < 0.1:
            return VelocityCommand(0.0, 0.0, 0.0)
        return VelocityCommand(*(self.rng.uniform(*self.ranges[axis]) for axis in ("vx", "vy", "wz")))

    def run(self) -> EpisodeResult:
        """Run to the end or to a fall."""
        c, spec = self.conditions, self.spec
        dt = self.substeps * self.model.opt.timestep
        delay = round(self.drawn["latency_s"] / self.model.opt.timestep)
        log = _EpisodeLog(spec)
        active, command, unsettled_until, fell = _hold_command(spec), VelocityCommand(0.0, 0.0, 0.0), 0.0, False
        start = self.data.qpos[:7].copy()
        ticks = round(c.episode_s / dt)
        for tick in range(ticks):
            t = tick * dt
            if tick % round(c.command_s / dt) == 0:
                command, unsettled_until = self._draw_command(), t + c.settle_s
            if tick and tick % round(c.push_interval_s / dt) == 0 and not c.stand_still:
                angle = self.rng.uniform(0, 2 * np.pi)
                self.data.qvel[:2] += c.push_speed * np.array([np.cos(angle), np.sin(angle)])
                unsettled_until = t + c.settle_s
            noise = self.rng.standard_normal(spec.num_joints) if c.sampled else None
            given = command if c.step_commands else self._limited(command, t, dt)
            target = self.runner.step(self._estimate(tick), given, noise)
            for substep in range(self.substeps):
                torque = self._physics_step(active if substep < delay else target)
                log.physics(torque, self.data.qvel[self.v_index])
            active = target
            contact = self.data.sensordata[self.touch] > CONTACT_N
            log.tick(t, self.data.qpos, self.data.qvel, given, command, t >= unsettled_until, target.q, contact)
            if self._has_fallen():
                fell = True
                break
        return log.result(self.seed, fell, (tick + 1) * dt, self.drawn, start, self.data.qpos)

    def _limited(self, command: VelocityCommand, t: float, dt: float) -> VelocityCommand:
        now_ns = round(t * 1e9)
        self.limiter.receive(command.vx, command.vy, command.wz, now_ns)
        return self.limiter.step(now_ns, dt)

    def _has_fallen(self) -> bool:
        # MuJoCo puts a robot whose state became infinite back to its start and counts a warning: not a recovery.
        kinds = self.mujoco.mjtWarning
        blown_up = any(
            self.data.warning[kind].number
            for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        )
        tilted = projected_gravity(self.data.qpos[3:7])[2] > -math.cos(self.spec.safety.tilt)
        low = self.data.qpos[2] < FALL_HEIGHT_FRACTION * self.spec.base_height
        return bool(blown_up or tilted or low or not np.all(np.isfinite(self.data.qpos)))


class _EpisodeLog:
    """Collects an episode's numbers."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self.errors: list[np.ndarray] = []
        self.operator_errors: list[np.ndarray] = []
        self.settled: list[bool] = []
        self.targets: list[np.ndarray] = []
        self.peak_torque = self.peak_velocity = 0.0
        self.saturated = self.energy = 0.0
        self.physics_steps = self.touchdowns = 0
        self.contact: np.ndarray | None = None

    def physics(self, torque: np.ndarray, dq: np.ndarray) -> None:
        fraction = np.abs(torque) / self.spec.torque_limit
        self.peak_torque = max(self.peak_torque, float(fraction.max()))
        self.peak_velocity = max(self.peak_velocity, float((np.abs(dq) / self.spec.velocity_limit).max()))
        self.saturated += float((fraction > 0.999).mean())
        self.energy += float(np.abs(torque * dq).sum())
        self.physics_steps += 1

    def tick(
        self, t: float, qpos: np.ndarray, qvel: np.ndarray, command: VelocityCommand, operator: VelocityCommand,
        settled: bool, target: np.ndarray, contact: np.ndarray,
    ) -> None:  # fmt: skip
        velocity = rotate_inverse(qpos[3:7], qvel[:3])
        actual = np.array([velocity[0], velocity[1], qvel[5]])
        self.errors.append(actual - command.as_array())
        self.operator_errors.append(actual - operator.as_array())
        self.settled.append(settled)
        self.targets.append(target)
        if self.contact is not None and t > 1.0:
            self.touchdowns += int((contact & ~self.contact).sum())
        self.contact = contact

    def result(
        self, seed: int, fell: bool, seconds: float, drawn: dict[str, float], start: np.ndarray, end: np.ndarray
    ) -> EpisodeResult:
        errors, settled = np.array(self.errors), np.array(self.settled)
        planar, absolute = np.linalg.norm(errors[:, :2], axis=1), np.abs(errors)
        change = np.diff(np.array(self.targets), axis=0)
        return EpisodeResult(
            seed=seed, fell=fell, seconds=seconds,
            planar_error=float(planar.mean()),
            operator_planar_error=float(np.linalg.norm(np.array(self.operator_errors)[:, :2], axis=1).mean()),
            vx_error=float(absolute[:, 0].mean()), vy_error=float(absolute[:, 1].mean()),
            wz_error=float(absolute[:, 2].mean()),
            settled_planar_error=float(planar[settled].mean()) if settled.any() else math.nan,
            settled_wz_error=float(absolute[settled, 2].mean()) if settled.any() else math.nan,
            drift_m=float(np.linalg.norm(end[:2] - start[:2])),
            drift_yaw_rad=abs(math.remainder(_yaw(end) - _yaw(start), math.tau)),
            steps_taken=self.touchdowns,
            action_rate=float(np.sqrt(np.square(change).mean())) if len(change) else math.nan,
            peak_torque_fraction=self.peak_torque, torque_saturated=self.saturated / self.physics_steps,
            peak_joint_velocity_fraction=self.peak_velocity, power_w=self.energy / self.physics_steps,
            randomization=drawn,
        )  # fmt: skip


def evaluate(
    policy_path: Path, robot: str, episodes: int, conditions: Conditions, seed: int = 0, workers: int = 2,
    on_progress: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Run randomised episodes on all workers.

    Args:
        policy_path: ONNX file.
        robot: name of a robot folder.
        episodes: how many; episode i uses seed + i, so that results repeat.
        conditions: what is randomised.
        seed: first seed.
        workers: processes.
        on_progress: called with each `EpisodeResult` as it arrives.

    Returns:
        `summary` with the aggregate, `episodes` with every result, `conditions`, `policy_sha256`.

    Raises:
        PolicyError: the policy does not fit the robot.
    """
    policy = OnnxPolicy.load(policy_path, load_robot(robot))
    jobs = [(str(policy_path), robot, conditions, seed + i) for i in range(episodes)]
    results = []
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for result in pool.map(_run_one, jobs):
            results.append(result)
            if on_progress is not None:
                on_progress(result)
    return {
        "policy": policy_path.name,
        "policy_sha256": policy.sha256,
        "robot": robot,
        "conditions": asdict(conditions),
        "summary": summarise(results),
        "episodes": [asdict(r) for r in results],
    }


def summarise(results: list[EpisodeResult]) -> dict[str, float]:
    """Aggregate: falls, and means over episodes weighted by their length; peaks are over all episodes."""
    weights = np.array([r.seconds for r in results])

    def mean(name: str) -> float:
        values = np.array([getattr(r, name) for r in results])
        usable = np.isfinite(values)
        return float(np.average(values[usable], weights=weights[usable])) if usable.any() else math.nan

    names = (
        "planar_error", "operator_planar_error", "vx_error", "vy_error", "wz_error",
        "settled_planar_error", "settled_wz_error",
        "drift_m", "drift_yaw_rad", "action_rate", "torque_saturated", "power_w",
    )  # fmt: skip
    summary: dict[str, float] = {
        "episodes": len(results),
        "falls": sum(r.fell for r in results),
        "no_fall_fraction": 1.0 - sum(r.fell for r in results) / len(results),
        "max_drift_m": max(r.drift_m for r in results),
        "steps_taken_mean": float(np.mean([r.steps_taken for r in results])),
        "peak_torque_fraction": max(r.peak_torque_fraction for r in results),
        "median_peak_torque_fraction": float(np.median([r.peak_torque_fraction for r in results])),
        "peak_joint_velocity_fraction": max(r.peak_joint_velocity_fraction for r in results),
    }
    summary["axis_error"] = (mean("vx_error") + mean("vy_error")) / 2
    return summary | {name: mean(name) for name in names}


_CACHE: dict[tuple[str, str], tuple[RobotSpec, OnnxPolicy]] = {}


def _run_one(job: tuple[str, str, Conditions, int]) -> EpisodeResult:
    path, robot, conditions, seed = job
    if (path, robot) not in _CACHE:
        spec = load_robot(robot)
        _CACHE[(path, robot)] = (spec, OnnxPolicy.load(path, spec))
    return Episode(*_CACHE[(path, robot)], conditions, seed).run()


def _hold_command(spec: RobotSpec) -> JointCommand:
    zeros = np.zeros(spec.num_joints)
    gains = spec.stand_gains
    return JointCommand(0, 0, 0, spec.default_pose, zeros, gains.stiffness, gains.damping, zeros)


def _tilted(quat: np.ndarray, roll: float, pitch: float) -> np.ndarray:
    """Attitude with small constant roll and pitch errors (rad) of the IMU, applied in the body frame."""
    w, x, y, z = quat
    a, b = roll / 2, pitch / 2
    tilted = np.array([w - x * a - y * b, x + w * a - z * b, y + w * b + z * a, z + x * b - y * a])
    return tilted / np.linalg.norm(tilted)


def _yaw(qpos: np.ndarray) -> float:
    w, x, y, z = qpos[3:7]
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
