"""The simulated body at rest and its sensors, without a network."""

import numpy as np
import pytest

from nfpo_deploy.transport.codec import GO_LOW_STATE, GO_SPORT_MODE_STATE
from robots.loader import load_robot
from sim2real_checks.robot_sim import Remote, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.messages import LowStateBuilder, SportStateBuilder, roll_pitch_yaw
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant

SPEC = load_robot("go2")
WEIGHT = 15.206 * 9.81


def hold(plant, pose, seconds):
    for _ in range(round(seconds / 0.001)):
        plant.begin()
        plant.finish(60 * (pose - plant.q) - 5 * plant.dq)
    plant.begin()


def build(plant, config, motors=None):
    builder = LowStateBuilder(SPEC, config, plant, motors or MotorBank(SPEC))
    return builder, GO_LOW_STATE.decode(builder.build(Remote()))


@pytest.fixture(scope="module")
def standing():
    plant = Plant(SPEC, SimConfig(initial_pose="default"))
    hold(plant, SPEC.default_pose, 1.0)
    return plant


def test_robot_starts_at_rest_on_its_belly():
    plant = Plant(SPEC, SimConfig())
    truth = plant.truth()
    assert truth.time == 0.0
    assert 0.05 < truth.position_w[2] < 0.12
    assert np.abs(truth.q - SPEC.crouch_pose).max() < 0.15
    assert np.abs(truth.quat_wxyz - [1, 0, 0, 0]).max() < 0.06


def test_imu_and_feet_of_the_standing_robot(standing):
    _, record = build(standing, SimConfig(noise=SensorNoise.none()))
    assert record["imu_state"]["accelerometer"] == pytest.approx([0, 0, 9.81], abs=0.1)
    assert record["imu_state"]["gyroscope"] == pytest.approx([0, 0, 0], abs=0.01)
    assert record["imu_state"]["rpy"] == pytest.approx([0, 0, 0], abs=0.02)
    assert record["foot_force"].sum() == pytest.approx(WEIGHT, abs=4)
    assert record["foot_force"].min() > 20


def test_perfect_sensors_show_the_truth(standing):
    motors = MotorBank(SPEC)
    motors.torque = np.arange(12.0)
    _, record = build(standing, SimConfig(noise=SensorNoise.none(), battery_soc=42), motors)
    slots = record["motor_state"]
    assert np.array_equal(slots["q"][:12], standing.data.qpos[7:].astype(np.float32))
    assert np.array_equal(slots["dq"][:12], standing.data.qvel[6:].astype(np.float32))
    assert slots["tau_est"][:12].tolist() == list(range(12))
    assert np.array_equal(record["imu_state"]["quaternion"], standing.data.qpos[3:7].astype(np.float32))
    assert record["bms_state"]["soc"] == 42
    assert record["power_v"] == pytest.approx(8 * record["bms_state"]["cell_vol"][0] / 1000, abs=0.01)
    assert slots["mode"].tolist() == [1] * 12 + [0] * 8
    assert record["crc"] == GO_LOW_STATE.crc(record)


def test_noise_has_the_configured_size_and_depends_on_the_seed(standing):
    noise = SensorNoise(q=0.02, dq=0.3, gyro=0.05, accel=0.2, orientation=0.01, tau=0.4)
    builder, first = build(standing, SimConfig(noise=noise, seed=1))
    records = [GO_LOW_STATE.decode(builder.build(Remote())) for _ in range(400)]
    spread = {
        "q": np.std([r["motor_state"]["q"][:12] - standing.q for r in records]),
        "dq": np.std([r["motor_state"]["dq"][:12] - standing.dq for r in records]),
        "tau": np.std([r["motor_state"]["tau_est"][:12] for r in records]),
        "gyro": np.std([r["imu_state"]["gyroscope"] for r in records], axis=0).mean(),
        "accel": np.std([r["imu_state"]["accelerometer"] for r in records], axis=0).mean(),
        # A rotation by a small angle changes the quaternion's vector part by half of it.
        "orientation": 2 * np.std([r["imu_state"]["quaternion"][1:] for r in records], axis=0).mean(),
    }
    assert spread == pytest.approx(vars(noise), rel=0.1)
    _, again = build(standing, SimConfig(noise=noise, seed=1))
    _, other = build(standing, SimConfig(noise=noise, seed=2))
    assert again["motor_state"]["q"].tolist() == first["motor_state"]["q"].tolist()
    assert other["motor_state"]["q"].tolist() != first["motor_state"]["q"].tolist()


def test_sensor_latency_delays_the_whole_message():
    plant = Plant(SPEC, SimConfig())
    config = SimConfig(sensor_latency=0.02, noise=SensorNoise.none())
    builder = LowStateBuilder(SPEC, config, plant, MotorBank(SPEC))
    truth, seen = {}, {}
    for step in range(100):
        plant.begin()
        if step % 2 == 0:
            truth[step] = plant.q.astype(np.float32)
            sample = builder.build(Remote())
            if sample is not None:
                seen[step] = GO_LOW_STATE.decode(sample)
        plant.finish(np.zeros(12))
    assert min(seen) == 20
    for step, record in seen.items():
        assert record["tick"] == 1000 + step - 20
        assert record["motor_state"]["q"][:12].tolist() == truth[step - 20].tolist()


def test_sport_state_is_the_truth_in_the_world_frame():
    plant = Plant(SPEC, SimConfig())
    plant.push(0.6, -0.3)
    plant.data.qvel[3:6] = (0.1, 0.2, 0.9)
    plant.data.qpos[3:7] = (np.cos(0.6), 0, 0, np.sin(0.6))  # yaw 1.2 rad
    plant.begin()
    record = GO_SPORT_MODE_STATE.decode(SportStateBuilder(SPEC, plant).build(plant.truth(), 5))
    assert record["velocity"] == pytest.approx([0.6, -0.3, 0], abs=1e-6)
    assert record["position"] == pytest.approx(plant.data.qpos[:3])
    assert record["imu_state"]["rpy"] == pytest.approx([0, 0, 1.2], abs=1e-6)
    assert record["yaw_speed"] == pytest.approx(0.9, abs=1e-6)
    assert record["mode"] == 5
    front_right = record["foot_position_body"][:3]
    assert front_right[0] > 0.1 and front_right[1] < -0.05, "feet are in base_link, whatever the yaw"


@pytest.mark.parametrize("angles", [(0.3, -0.4, 2.0), (-1.0, 0.2, -3.0), (0.0, 1.5, 0.5)])
def test_roll_pitch_yaw_agrees_with_scipy(angles):
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_euler("ZYX", angles[::-1]).as_quat()
    assert roll_pitch_yaw(np.array([w, x, y, z])) == pytest.approx(angles)


def test_payload_changes_the_mass_and_an_impossible_one_is_refused():
    light, heavy = (Plant(SPEC, SimConfig(payload=mass)) for mass in (0.0, 3.0))
    assert heavy.model.body_mass.sum() - light.model.body_mass.sum() == pytest.approx(3.0)
    with pytest.raises(SimConfigError, match="payload must be above -6.9"):
        Plant(SPEC, SimConfig(payload=-10.0))
