"""The motor-side PD law against numbers worked out by hand."""

import numpy as np
import pytest

from nfpo_deploy.transport.codec import GO_LOW_CMD, POS_STOP, VEL_STOP
from robots.loader import load_robot
from sim2real_checks.robot_sim.motors import AMBIENT, HEATING, MotorBank

SPEC = load_robot("go2")


def motor_cmd(mode=1, **fields):
    record = GO_LOW_CMD.new()
    record["motor_cmd"]["mode"] = mode
    for name, value in fields.items():
        record["motor_cmd"][name] = value
    return record["motor_cmd"]


def test_pd_law():
    # 1.5 + 20 (1.0 - 0.5) + 2 (1.0 - 0.25) = 13.0
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(q=1.0, dq=1.0, kp=20.0, kd=2.0, tau=1.5))
    assert motors.step(np.full(12, 0.5), np.full(12, 0.25)).tolist() == [13.0] * 12


def test_the_law_follows_the_measurement_without_a_new_command():
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(kp=10.0))
    assert motors.step(np.full(12, -0.5), np.zeros(12)).tolist() == [5.0] * 12
    assert motors.step(np.full(12, 0.25), np.zeros(12)).tolist() == [-2.5] * 12


@pytest.mark.parametrize("sign", [1, -1])
def test_torque_is_clipped_to_the_limit_of_each_joint(sign):
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(tau=sign * 1000.0))
    expected = [sign * limit for limit in [23.7, 23.7, 45.43] * 4]
    assert motors.step(np.zeros(12), np.zeros(12)).tolist() == expected


def test_strength_scales_what_the_motor_makes():
    motors = MotorBank(SPEC, strength=0.9)
    motors.command_slots(motor_cmd(tau=10.0))
    assert motors.step(np.zeros(12), np.zeros(12)) == pytest.approx(np.full(12, 9.0))


@pytest.mark.parametrize("mode", [0, 2, 0x0A])
def test_motor_in_another_mode_is_off(mode):
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(mode=mode, q=1.0, kp=20.0, tau=5.0))
    assert motors.step(np.zeros(12), np.zeros(12)).tolist() == [0.0] * 12


def test_position_sentinel_leaves_damping_and_feed_forward():
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(q=POS_STOP, kp=20.0, kd=2.0, tau=1.0))
    assert motors.step(np.zeros(12), np.full(12, 2.0)).tolist() == [-3.0] * 12  # 1 - 2·2


def test_velocity_sentinel_leaves_stiffness_and_feed_forward():
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(q=0.5, dq=VEL_STOP, kp=20.0, kd=2.0, tau=1.0))
    assert motors.step(np.zeros(12), np.full(12, 2.0)).tolist() == [11.0] * 12  # 1 + 20·0.5


def test_slots_are_read_by_motor_index():
    import dataclasses

    order = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
    motors = MotorBank(dataclasses.replace(SPEC, motor_index=order))
    motors.command_slots(motor_cmd(tau=np.arange(20)))
    assert motors.step(np.zeros(12), np.zeros(12)).tolist() == order.tolist()


def test_motors_are_limp_at_first_and_after_off():
    motors = MotorBank(SPEC)
    assert not motors.step(np.ones(12), np.ones(12)).any()
    motors.command_slots(motor_cmd(tau=5.0))
    motors.off()
    assert not motors.step(np.ones(12), np.ones(12)).any()


def test_temperature_rises_towards_its_steady_value():
    motors = MotorBank(SPEC)
    motors.command_slots(motor_cmd(tau=1000.0))
    motors.step(np.zeros(12), np.zeros(12))
    assert motors.temperature.tolist() == [AMBIENT] * 12
    for _ in range(2000):
        motors.warm(1.0)
    assert motors.temperature == pytest.approx(np.full(12, AMBIENT + HEATING), abs=0.1)
