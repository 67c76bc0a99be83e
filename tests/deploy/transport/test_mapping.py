"""Messages to joint order and back: what is wrong is counted and dropped, what is right is exact."""

import dataclasses

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE
from nfpo_deploy.transport.mapping import LowCmdEncoder, LowStateDecoder, TickGaps
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot

SPEC = load_robot("go2")


def sample(tick=1000, crc_offset=0, **motor_fields):
    record = GO_LOW_STATE.new()
    record["tick"] = tick
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    for name, values in motor_fields.items():
        record["motor_state"][name][: len(values)] = values
    return finish(record, crc_offset)


def finish(record, crc_offset=0):
    record["crc"] = (GO_LOW_STATE.crc(record) + crc_offset) % 2**32
    return GO_LOW_STATE.encode(record)


def command(**changes):
    zero = np.zeros(12)
    return dataclasses.replace(MotorCommand(zero, zero, zero, zero, zero), **changes)


def test_a_good_state_is_mapped_to_joint_order():
    order = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
    spec = dataclasses.replace(SPEC, motor_index=order)
    decoder = LowStateDecoder(spec)
    record = GO_LOW_STATE.new()
    record["tick"] = 77
    record["imu_state"]["quaternion"] = (0.5, 0.5, -0.5, 0.5)
    record["imu_state"]["gyroscope"] = (1, 2, 3)
    record["imu_state"]["accelerometer"] = (4, 5, 9.5)
    slots = np.arange(20)
    record["motor_state"]["q"] = slots / 8
    record["motor_state"]["dq"] = -slots
    record["motor_state"]["tau_est"] = slots * 2
    record["motor_state"]["temperature"] = 30 + slots
    record["foot_force"] = (10, 20, 30, 40)
    record["bms_state"]["soc"] = 55
    record["power_v"] = 29.5
    record["wireless_remote"] = np.arange(40)
    state = decoder.to_state(decoder.accept(finish(record)), received_ns=123)
    assert (state.tick, state.received_ns) == (77, 123)
    assert state.quat_wxyz.tolist() == [0.5, 0.5, -0.5, 0.5]
    assert state.gyro_b.tolist() == [1, 2, 3] and state.accel_b.tolist() == [4, 5, 9.5]
    assert state.q.tolist() == (order / 8).tolist()
    assert state.dq.tolist() == (-order).tolist()
    assert state.tau_est.tolist() == (order * 2).tolist()
    assert state.temperature.tolist() == (30 + order).tolist()
    assert state.foot_force.tolist() == [10, 20, 30, 40]
    assert (state.battery_soc, state.voltage) == (55, 29.5)
    assert state.wireless_remote == bytes(range(40))
    assert decoder.accepted == 1


def test_bad_checksum_is_counted_and_dropped():
    decoder = LowStateDecoder(SPEC)
    assert decoder.accept(sample(crc_offset=1)) is None
    assert (decoder.accepted, decoder.crc_errors, decoder.malformed) == (0, 1, 0)


@pytest.mark.parametrize("cut", [0, 4, 1176])
def test_truncated_message_is_malformed(cut):
    decoder = LowStateDecoder(SPEC)
    assert decoder.accept(sample()[:cut]) is None
    assert (decoder.accepted, decoder.crc_errors, decoder.malformed) == (0, 0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["q", "dq", "tau_est"])
def test_non_finite_joint_is_malformed_although_the_checksum_is_right(field, value):
    decoder = LowStateDecoder(SPEC)
    assert decoder.accept(sample(**{field: [0.0] * 11 + [value]})) is None
    assert (decoder.accepted, decoder.crc_errors, decoder.malformed) == (0, 0, 1)


def test_opposite_infinities_do_not_cancel():
    decoder = LowStateDecoder(SPEC)
    assert decoder.accept(sample(q=[np.inf, -np.inf])) is None
    assert decoder.malformed == 1


def test_unused_motor_slots_may_hold_anything():
    decoder = LowStateDecoder(SPEC)
    assert decoder.accept(sample(q=[0.0] * 12 + [np.nan] * 8)) is not None


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (1.1, 0, 0, 0), (np.nan, 0, 0, 0), (1e30, 0, 0, 0)])
def test_orientation_that_is_not_a_rotation_is_malformed(quaternion):
    decoder = LowStateDecoder(SPEC)
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = quaternion
    assert decoder.accept(finish(record)) is None
    assert decoder.malformed == 1


@pytest.mark.parametrize("field", ["gyroscope", "accelerometer"])
def test_non_finite_imu_is_malformed(field):
    decoder = LowStateDecoder(SPEC)
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["imu_state"][field][1] = np.nan
    assert decoder.accept(finish(record)) is None
    assert decoder.malformed == 1


def test_lost_messages_are_counted_from_gaps_in_the_tick():
    gaps = TickGaps()
    ticks = list(range(1000, 1200, 2))
    for tick in ticks:
        gaps.observe(tick)
    assert gaps.total == 0
    gaps.observe(ticks[-1] + 8)  # 1200, 1202 and 1204 are missing
    assert gaps.total == 3
    gaps.observe(5)  # the robot restarted
    gaps.observe(7)
    assert gaps.total == 3


def test_tick_that_wraps_around_is_no_loss():
    gaps = TickGaps()
    for tick in range(2**32 - 200, 2**32 + 200, 2):
        gaps.observe(tick % 2**32)
    assert gaps.total == 0


def test_command_fills_the_motor_slots_and_nothing_else():
    order = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
    encoder = LowCmdEncoder(dataclasses.replace(SPEC, motor_index=order, motor_mode=np.arange(12) + 1))
    joints = np.arange(12.0)
    cmd = MotorCommand(joints / 4, -joints, joints * 3, joints / 2, joints + 0.5)
    record = GO_LOW_CMD.decode(encoder.encode(cmd))
    assert record["head"].tolist() == [0xFE, 0xEF] and record["level_flag"] == 0xFF and record["gpio"] == 0
    slots = record["motor_cmd"]
    for field, expected in (("q", cmd.q), ("dq", cmd.dq), ("kp", cmd.stiffness), ("kd", cmd.damping), ("tau", cmd.tau)):
        assert slots[field][order].tolist() == expected.tolist(), field
    assert slots["mode"][order].tolist() == list(range(1, 13)) and not slots["mode"][12:].any()
    assert np.all(slots["q"][12:] == np.float32(2.146e9)) and np.all(slots["dq"][12:] == 16000)
    assert not slots["kp"][12:].any() and not slots["kd"][12:].any() and not slots["tau"][12:].any()
    assert record["crc"] == GO_LOW_CMD.crc(record)


def test_damping_command_has_no_velocity_sentinel():
    """VelStopF with kd > 0 would ask for 16000 rad/s."""
    record = GO_LOW_CMD.decode(LowCmdEncoder(SPEC).encode(command(damping=np.full(12, 3.0))))
    slots = record["motor_cmd"][:12]
    assert np.all(slots["kd"] == 3) and not slots["dq"].any() and not slots["kp"].any()


@pytest.mark.parametrize("field", ["q", "dq", "stiffness", "damping", "tau"])
@pytest.mark.parametrize("bad", [np.full(12, np.nan), np.full(12, 1e39), np.zeros(11), np.zeros((12, 1))])
def test_command_that_is_not_finite_or_of_the_wrong_shape_is_refused(field, bad):
    encoder = LowCmdEncoder(SPEC)
    with pytest.raises(TransportError, match=f"not sent: {field}"):
        encoder.encode(command(**{field: bad}))
    record = GO_LOW_CMD.decode(encoder.encode(command()))
    assert np.isfinite(record["motor_cmd"]["q"]).all(), "a refused command leaves nothing behind"
