"""Randomised episodes: repeatable, really randomised, and honest about falls, errors and torque."""

import math
from dataclasses import asdict, replace

import mujoco
import numpy as np
import pytest

from nfpo_deploy.errors import PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.types import VelocityCommand
from robots.mjcf import build_model
from sim2real_checks.evaluate import Conditions, Episode, EpisodeResult, evaluate, summarise

SHORT = Conditions(episode_s=1.0, command_s=0.4, push_interval_s=0.3, settle_s=0.1)
IDEAL = Conditions(
    episode_s=1.0, friction=(0.8, 0.8), payload_kg=(0.0, 0.0), motor_strength=(1.0, 1.0), latency_s=(0.0, 0.0),
    push_speed=0.0, gyro_noise=0.0, attitude_noise=0.0, encoder_noise=0.0, velocity_noise=0.0,
)  # fmt: skip


class RecordedEpisode(Episode):
    """Keeps what each physics step was given and made."""

    def __init__(self, *args):
        self.steps = []
        super().__init__(*args)

    def _physics_step(self, command):
        before = (self.data.qpos.copy(), self.data.qvel.copy())
        torque = super()._physics_step(command)
        self.steps.append((command, before, torque, self.data.qvel.copy()))
        return torque

    def run(self):
        self.steps.clear()
        return super().run()


# --- repeatable -----------------------------------------------------------------------------------


def test_a_seed_repeats_its_episode_exactly_and_another_does_not(spec, policy):
    first, again, other = (Episode(spec, policy, SHORT, seed).run() for seed in (5, 5, 6))
    assert asdict(first) == asdict(again)
    assert first.randomization != other.randomization
    assert first.planar_error != other.planar_error


def test_results_do_not_depend_on_the_number_of_workers(shipped):
    seen = []
    one = evaluate(shipped, "go2", 3, SHORT, seed=7, workers=1, on_progress=seen.append)
    two = evaluate(shipped, "go2", 3, SHORT, seed=7, workers=2)
    assert one == two
    assert [r.seed for r in seen] == [e["seed"] for e in one["episodes"]] == [7, 8, 9]
    assert one["summary"]["episodes"] == 3
    assert one["conditions"]["command_s"] == 0.4
    assert one["robot"] == "go2"
    assert len(one["policy_sha256"]) == 64


def test_a_policy_that_does_not_fit_is_refused_before_any_episode(tmp_path):
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    with pytest.raises(PolicyError, match=r"empty\.onnx"):
        evaluate(path, "go2", 2, SHORT)


def test_sampling_changes_the_motion(spec, policy):
    plain = Episode(spec, policy, IDEAL, 1).run()
    sampled = Episode(spec, policy, replace(IDEAL, sampled=True), 1).run()
    assert sampled.action_rate > plain.action_rate


# --- really randomised ----------------------------------------------------------------------------


def test_draws_stay_in_their_ranges_and_use_them(spec, policy):
    drawn = [Episode(spec, policy, Conditions(), seed).drawn for seed in range(25)]
    for key in ("friction", "payload_kg", "motor_strength", "latency_s"):
        low, high = getattr(Conditions(), key)
        values = np.array([d[key] for d in drawn])
        assert low <= values.min() < low + 0.25 * (high - low)
        assert high - 0.25 * (high - low) < values.max() <= high


def test_friction_and_payload_reach_the_model(spec, policy):
    conditions = replace(IDEAL, friction=(0.55, 0.55), payload_kg=(2.5, 2.5))
    model = Episode(spec, policy, conditions, 0).model
    plain = build_model("go2", collision="full", cone="elliptic")
    base = plain.body("base_link").id
    assert model.body_mass[base] == pytest.approx(plain.body_mass[base] + 2.5)
    assert model.body_mass.sum() == pytest.approx(plain.body_mass.sum() + 2.5)
    np.testing.assert_allclose(
        model.body_inertia[base] / plain.body_inertia[base], 1 + 2.5 / plain.body_mass[base], rtol=1e-12
    )
    for foot in spec.feet:
        assert model.geom(foot.name).friction[0] == pytest.approx(0.55)


def test_payload_weighs_on_the_feet(spec, holding_policy):
    stiff = OnnxPolicy.load(holding_policy(100.0, 5.0), spec)
    total = []
    for payload in (0.0, 3.0):
        episode = Episode(spec, stiff, replace(IDEAL, payload_kg=(payload, payload), stand_still=True), 0)
        episode.run()
        total.append(episode.data.sensordata[episode.touch].sum())
    mass = build_model("go2").body_mass.sum()
    np.testing.assert_allclose(total, [mass * 9.81, (mass + 3.0) * 9.81], rtol=0.02)


@pytest.mark.parametrize("latency_ms", [0, 7, 20])
def test_a_command_acts_after_its_latency_and_not_before(spec, policy, latency_ms):
    conditions = replace(IDEAL, episode_s=0.2, latency_s=(latency_ms / 1000,) * 2)
    episode = RecordedEpisode(spec, policy, conditions, 0)
    episode.run()
    period = 20  # physics steps of 1 ms in a control period of 50 Hz
    commands = [step[0] for step in episode.steps]
    assert len(commands) == 10 * period
    seq = np.array([command.seq for command in commands])
    expected = [k + 1 if step >= latency_ms else k for k in range(10) for step in range(period)]
    np.testing.assert_array_equal(seq, expected)


def test_a_latency_beyond_one_control_period_is_refused_rather_than_cut(spec, policy):
    with pytest.raises(ValueError, match=r"latency_s.*0\.05.*control period"):
        Episode(spec, policy, replace(IDEAL, latency_s=(0.0, 0.05)), 0)


def test_pushes_change_the_base_velocity_by_their_speed_and_nothing_else(spec, policy):
    episode = RecordedEpisode(spec, policy, replace(IDEAL, push_speed=0.4, push_interval_s=0.3), 2)
    episode.run()
    jumps = [now[1][1] - after[3] for after, now in zip(episode.steps, episode.steps[1:], strict=False)]
    pushed = [i + 1 for i, jump in enumerate(jumps) if np.any(jump != 0)]
    assert pushed == [300, 600, 900]
    for i in pushed:
        assert np.linalg.norm(jumps[i - 1][:2]) == pytest.approx(0.4)
        assert not jumps[i - 1][2:].any()


def test_motor_strength_scales_torque_up_to_the_limit(spec, policy):
    episode = RecordedEpisode(spec, policy, replace(IDEAL, episode_s=0.2, motor_strength=(0.9, 0.9)), 0)
    episode.run()
    for command, (qpos, qvel), torque, _ in episode.steps:
        pd = command.stiffness * (command.q - qpos[7:]) - command.damping * qvel[6:]
        np.testing.assert_allclose(torque, np.clip(0.9 * pd, -spec.torque_limit, spec.torque_limit), atol=1e-9)


def test_an_ideal_robot_is_measured_as_it_is(spec, policy):
    episode = Episode(spec, policy, IDEAL, 0)
    episode.data.qpos[3:7] = [0.5, 0.5, 0.5, 0.5]
    episode.data.qvel[:6] = [1.0, 2.0, 3.0, 0.1, 0.2, 0.3]
    estimate = episode._estimate(4)
    np.testing.assert_allclose(estimate.quat_wxyz, [0.5] * 4, atol=1e-12)
    # This quaternion turns x to y, y to z, z to x; so body x shows the world's y component.
    np.testing.assert_allclose(estimate.lin_vel_b, [2.0, 3.0, 1.0], atol=1e-12)
    np.testing.assert_array_equal(estimate.ang_vel_b, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(estimate.q, episode.data.qpos[7:])
    np.testing.assert_array_equal(estimate.dq, episode.data.qvel[6:])


def test_sensor_errors_have_the_sizes_that_the_conditions_say(spec, policy):
    c = Conditions()
    offsets = {"gyro": [], "attitude": [], "encoder": []}
    whites = {"gyro": [], "encoder": [], "velocity": []}
    for seed in range(40):
        episode = Episode(spec, policy, c, seed)
        samples = [episode._estimate(k) for k in range(40)]
        gyro = np.array([s.ang_vel_b for s in samples]) - episode.data.qvel[3:6]
        q = np.array([s.q for s in samples]) - episode.data.qpos[7:]
        dq = np.array([s.dq for s in samples]) - episode.data.qvel[6:]
        inverse, error = np.empty(4), np.empty(4)
        mujoco.mju_negQuat(inverse, episode.data.qpos[3:7])
        mujoco.mju_mulQuat(error, inverse, samples[0].quat_wxyz)
        offsets["gyro"].append(gyro.mean(axis=0))
        offsets["encoder"].append(q.mean(axis=0))
        offsets["attitude"].append(2 * error[1:3])
        assert abs(error[3]) < 1e-12
        whites["gyro"].append(gyro.std(axis=0, ddof=1))
        whites["encoder"].append(q.std(axis=0, ddof=1))
        whites["velocity"].append(dq.std(axis=0, ddof=1))
    # 80 to 480 draws: a deviation is known to within about 10 %.
    assert np.std(offsets["gyro"]) == pytest.approx(c.gyro_noise, rel=0.3)
    assert np.std(offsets["encoder"]) == pytest.approx(3 * c.encoder_noise, rel=0.2)
    assert np.std(offsets["attitude"]) == pytest.approx(c.attitude_noise, rel=0.3)
    assert np.mean(whites["gyro"]) == pytest.approx(c.gyro_noise, rel=0.1)
    assert np.mean(whites["encoder"]) == pytest.approx(c.encoder_noise, rel=0.1)
    assert np.mean(whites["velocity"]) == pytest.approx(c.velocity_noise, rel=0.1)


def test_standing_still_means_no_command_and_no_push(spec, policy):
    conditions = replace(SHORT, push_speed=3.0, stand_still=True)
    episode = RecordedEpisode(spec, policy, conditions, 3)
    result = episode.run()
    jumps = [now[1][1] - after[3] for after, now in zip(episode.steps, episode.steps[1:], strict=False)]
    assert not np.any(jumps)
    # A robot told to stand: its error is its own speed.
    assert result.planar_error < 0.2


# --- honest ---------------------------------------------------------------------------------------


def test_a_toppled_robot_has_fallen(spec, policy):
    episode = Episode(spec, policy, IDEAL, 0)
    episode.data.qpos[2:7] = [0.3, 0.0, 1.0, 0.0, 0.0]
    mujoco.mj_forward(episode.model, episode.data)
    result = episode.run()
    assert result.fell
    assert result.seconds == pytest.approx(0.02)


def test_a_kick_in_the_side_is_a_fall_at_the_time_of_the_kick(spec, policy):
    result = Episode(spec, policy, replace(IDEAL, episode_s=3.0, push_speed=8.0, push_interval_s=1.0), 0).run()
    assert result.fell
    assert 1.0 < result.seconds < 3.0


def test_a_robot_that_lies_level_on_its_belly_has_fallen(spec, holding_policy):
    limp = OnnxPolicy.load(holding_policy(0.5, 1.0), spec)
    episode = Episode(spec, limp, replace(IDEAL, episode_s=3.0, stand_still=True), 0)
    result = episode.run()
    assert result.fell
    assert 0.1 < result.seconds < 3.0
    upright = 1 - 2 * (episode.data.qpos[4] ** 2 + episode.data.qpos[5] ** 2)
    assert upright > math.cos(spec.safety.tilt)


def test_a_simulation_that_blew_up_is_a_fall(spec, policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working folder

    class Exploding(Episode):
        countdown = 800

        def _physics_step(self, command):
            self.countdown -= 1
            if self.countdown == 0:
                self.data.qvel[0] = 1e12
            return super()._physics_step(command)

    result = Exploding(spec, policy, IDEAL, 0).run()
    assert result.fell
    assert result.seconds == pytest.approx(0.3, abs=0.021)


def test_a_robot_that_holds_still_is_reported_as_standing(spec, holding_policy):
    stiff = OnnxPolicy.load(holding_policy(60.0, 5.0), spec)
    result = Episode(spec, stiff, replace(IDEAL, episode_s=2.0, stand_still=True), 0).run()
    assert not result.fell
    assert result.seconds == pytest.approx(2.0)
    assert result.steps_taken == 0
    assert result.drift_m < 0.01
    assert result.drift_yaw_rad < 0.01
    assert result.action_rate == 0.0
    assert result.planar_error < 0.02
    assert 0.05 < result.peak_torque_fraction < 0.9
    assert result.torque_saturated == 0.0


def test_a_robot_that_stands_instead_of_walking_has_the_command_as_its_error(spec, holding_policy):
    stiff = OnnxPolicy.load(holding_policy(60.0, 5.0), spec)

    class Commanded(Episode):
        def _draw_command(self):
            return VelocityCommand(0.3, -0.4, 0.7)

    result = Commanded(spec, stiff, replace(IDEAL, settle_s=0.2, step_commands=True), 0).run()
    assert result.vx_error == pytest.approx(0.3, abs=0.01)
    assert result.vy_error == pytest.approx(0.4, abs=0.01)
    assert result.planar_error == pytest.approx(0.5, abs=0.01)
    assert result.wz_error == pytest.approx(0.7, abs=0.01)
    assert result.settled_planar_error == pytest.approx(0.5, abs=0.01)
    assert result.settled_wz_error == pytest.approx(0.7, abs=0.01)


def test_yaw_drift_is_the_short_way_round(spec, holding_policy):
    stiff = OnnxPolicy.load(holding_policy(60.0, 5.0), spec)
    episode = Episode(spec, stiff, replace(IDEAL, stand_still=True), 0)
    half = math.pi / 2 - 0.0005  # heading 1 mrad short of ±π
    episode.data.qpos[3:7] = [math.cos(half), 0, 0, math.sin(half)]
    episode.data.qvel[5] = 0.3
    result = episode.run()
    assert not result.fell
    assert result.drift_yaw_rad < 0.3


# --- summary --------------------------------------------------------------------------------------


def result_of(seed, seconds, **changes):
    values = dict(
        fell=False, planar_error=0.1, vx_error=0.05, vy_error=0.07, wz_error=0.2, settled_planar_error=0.06,
        settled_wz_error=0.08, drift_m=0.5, drift_yaw_rad=0.1, steps_taken=10, action_rate=0.02,
        peak_torque_fraction=0.5, torque_saturated=0.01, peak_joint_velocity_fraction=0.4, power_w=50.0,
    )  # fmt: skip
    return EpisodeResult(seed=seed, seconds=seconds, **(values | changes))


def test_summary_by_hand():
    summary = summarise(
        [
            result_of(1, 20.0),
            result_of(
                2, 5.0, fell=True, planar_error=0.6, vx_error=0.55, vy_error=0.02, wz_error=0.7, drift_m=2.0,
                settled_planar_error=math.nan, steps_taken=4, peak_torque_fraction=1.0, power_w=150.0,
            ),
            result_of(3, 15.0, planar_error=0.2, peak_torque_fraction=0.7, peak_joint_velocity_fraction=0.9),
        ]
    )  # fmt: skip
    assert (summary["episodes"], summary["falls"]) == (3, 1)
    assert summary["no_fall_fraction"] == pytest.approx(2 / 3)
    # (20·0.1 + 5·0.6 + 15·0.2) / 40
    assert summary["planar_error"] == pytest.approx(0.2)
    # (35·0.05 + 5·0.55) / 40 = 0.1125 and (35·0.07 + 5·0.02) / 40 = 0.06375
    assert summary["vx_error"] == pytest.approx(0.1125)
    assert summary["vy_error"] == pytest.approx(0.06375)
    assert summary["axis_error"] == pytest.approx((0.1125 + 0.06375) / 2)
    assert summary["wz_error"] == pytest.approx((35 * 0.2 + 5 * 0.7) / 40)
    # The episode that fell before it settled has no settled error and no weight in it.
    assert summary["settled_planar_error"] == pytest.approx(0.06)
    assert summary["max_drift_m"] == 2.0
    assert summary["drift_m"] == pytest.approx((35 * 0.5 + 5 * 2.0) / 40)
    assert summary["steps_taken_mean"] == pytest.approx(8.0)
    assert (summary["peak_torque_fraction"], summary["median_peak_torque_fraction"]) == (1.0, 0.7)
    assert summary["peak_joint_velocity_fraction"] == 0.9
    assert summary["power_w"] == pytest.approx((35 * 50 + 5 * 150) / 40)


def test_a_measure_that_no_episode_has_is_not_a_number():
    summary = summarise([result_of(1, 1.0, settled_wz_error=math.nan)])
    assert math.isnan(summary["settled_wz_error"])
    assert summary["no_fall_fraction"] == 1.0


def test_commands_pass_the_runtime_s_limiter_unless_steps_are_asked_for(spec, holding_policy):
    """From rest to 0.3 m/s at 2 m/s²: over 1 s the mean given command is 0.3·(1 − 0.15/2), ticks aside."""
    stiff = OnnxPolicy.load(holding_policy(60.0, 5.0), spec)

    class Commanded(Episode):
        def _draw_command(self):
            return VelocityCommand(0.3, 0.0, 0.0)

    result = Commanded(spec, stiff, replace(IDEAL, episode_s=1.0), 0).run()
    assert result.vx_error == pytest.approx(0.3 * 0.925, abs=0.01)
    assert result.operator_planar_error == pytest.approx(0.3, abs=0.01)
