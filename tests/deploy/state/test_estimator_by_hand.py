"""The state estimator on motions that are worked out here, without a simulator."""

from dataclasses import replace

import numpy as np

from nfpo_deploy.state.estimator import StateEstimator
from nfpo_deploy.state.kinematics import LegKinematics
from nfpo_deploy.types import RobotState
from robots.loader import load_robot

SPEC = load_robot("go2")
LEGS = LegKinematics(SPEC)
DT = 0.002


def _state(k, q, dq, accel_b=(0.0, 0.0, 9.81), pitch=0.0, gyro_b=(0.0, 0.0, 0.0)):
    """Sensors of a robot whose feet each carry 37 N, a quarter of its weight."""
    up_b = np.array([-np.sin(pitch), 0.0, np.cos(pitch)])
    tau = -np.concatenate([J.T @ (37.0 * up_b) for J in LEGS.forward(q, dq).jacobian])
    return RobotState(
        tick=2 * k, received_ns=2_000_000 * k,
        quat_wxyz=np.array([np.cos(pitch / 2), 0.0, np.sin(pitch / 2), 0.0]),
        gyro_b=np.array(gyro_b), accel_b=np.array(accel_b), q=q, dq=dq, tau_est=tau,
        temperature=np.full(12, 25.0), foot_force=np.zeros(4), battery_soc=90.0, voltage=29.0,
        wireless_remote=bytes(40),
    )  # fmt: skip


def test_velocity_is_that_of_base_link_not_of_the_imu():
    """The base pitches about its own origin over feet that stay put: the IMU moves, base_link does not.

    Feet without radius do not roll.
    """
    spec = replace(SPEC, leg_geometry=replace(SPEC.leg_geometry, foot_radius=1e-9))
    feet_w = LEGS.forward(SPEC.default_pose, np.zeros(12)).position
    omega, swing, step = 2 * np.pi, 0.15, 1e-5

    def pitch(t):
        angle = swing * np.sin(omega * t)
        c, s = np.cos(angle), np.sin(angle)
        return angle, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    estimator, fastest = StateEstimator(spec), 0.0
    for k in range(1500):
        t = DT * k
        angle, rotation = pitch(t)
        imu = [pitch(t + d)[1] @ spec.imu_position for d in (-step, 0.0, step)]
        accel_w = (imu[0] - 2 * imu[1] + imu[2]) / step**2 + [0, 0, 9.81]
        q, ahead = (LEGS.inverse(feet_w @ pitch(t + d)[1]) for d in (0.0, step))
        rate = np.array([0.0, swing * omega * np.cos(omega * t), 0.0])
        estimate = estimator.update(_state(k, q, (ahead - q) / step, rotation.T @ accel_w, angle, rate))
        if k > 250:
            fastest = max(fastest, np.linalg.norm(np.cross(rate, spec.imu_position)))
            assert np.abs(estimate.lin_vel_b).max() < 0.003
    assert fastest > 0.04


def _rolling_rates(q, velocity):
    """Joint rates (12,) that move a level base at `velocity` (3,) while all four feet roll without slip.

    The touching point, one radius below the centre, stands still: J dq + v + omega_calf x (-r up) = 0. The calf
    turns by the hip's rate about x, and by thigh's plus calf's about y turned by the hip angle.
    """
    radius_down = np.array([0.0, 0.0, -SPEC.leg_geometry.foot_radius])
    dq = np.zeros(12)
    for J, foot in zip(LEGS.forward(q, dq).jacobian, SPEC.feet, strict=True):
        hip = q[foot.joint_indices[0]]
        pitch_axis = np.array([0.0, np.cos(hip), np.sin(hip)])
        axes = (np.array([1.0, 0.0, 0.0]), pitch_axis, pitch_axis)
        turning = np.stack([np.cross(axis, radius_down) for axis in axes], axis=1)
        dq[list(foot.joint_indices)] = np.linalg.solve(J + turning, -velocity)
    return dq


def test_rolling_of_the_feet_is_no_velocity_error():
    """Accelerate to 0.4 m/s over rolling feet. Without the rolling term the legs would say over 5 % less or more."""
    estimator, q = StateEstimator(SPEC), SPEC.default_pose.copy()
    for k in range(400):
        accel = 2.0 if 150 <= k < 250 else 0.0
        speed = 2.0 * DT * min(max(k - 150, 0), 100)
        dq = _rolling_rates(q, np.array([speed, 0.0, 0.0]))
        estimate = estimator.update(_state(k, q, dq, (accel, 0.0, 9.81)))
        q = q + DT * dq
        if k > 100:
            assert np.abs(estimate.lin_vel_b - [speed, 0.0, 0.0]).max() < 0.008
    assert speed > 0.39


def test_one_slipping_foot_is_gated_out():
    """The front right foot shoots out at 0.8 m/s for 0.1 s, loaded all the while; the base stands."""
    estimator = StateEstimator(SPEC)
    home = LEGS.forward(SPEC.default_pose, np.zeros(12)).position
    rejected, largest = False, 0.0
    for k in range(500):
        slip, speed = (0.8 * DT * min(max(k - 300, 0), 50), 0.8 * (300 <= k < 350))
        feet = home.copy()
        feet[0, 1] -= slip
        q = LEGS.inverse(feet)
        feet[0, 1] -= 1e-6
        dq = (LEGS.inverse(feet) - q) / 1e-6 * speed
        estimate = estimator.update(_state(k, q, dq))
        rejected |= bool(estimator.filter.trust[0] == 0.0 and estimate.contact[0] > 0.9)
        largest = max(largest, np.abs(estimate.lin_vel_b).max())
    assert rejected
    assert largest < 0.02


def test_two_feet_that_contradict_the_prediction_are_believed_in_the_end():
    """The robot is set moving unseen: sensors lost for 60 ms, and after that all feet tell of 0.5 m/s."""
    estimator, q = StateEstimator(SPEC), SPEC.default_pose.copy()
    for k in range(300):
        estimator.update(_state(k, q, np.zeros(12)))
    for k in range(330, 450):
        dq = _rolling_rates(q, np.array([0.5, 0.0, 0.0]))
        estimate = estimator.update(_state(k, q, dq))
        q = q + DT * dq
    np.testing.assert_allclose(estimate.lin_vel_b, [0.5, 0.0, 0.0], atol=0.05)
