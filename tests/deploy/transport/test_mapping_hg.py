"""The unitree_hg family against Unitree's own classes and checksum: what they write we read, and the reverse."""

import dataclasses

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.codec import GO_LOW_STATE
from nfpo_deploy.transport.family import FAMILIES, GO, HG, family_of
from nfpo_deploy.transport.mapping import LowCmdDecoder, LowCmdEncoder, LowStateDecoder
from nfpo_deploy.types import MotorCommand
from robots.loader import MOTOR_SLOTS, load_robot

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.default import unitree_hg_msg_dds__LowState_
from unitree_sdk2py.idl.unitree_go.msg import dds_ as go
from unitree_sdk2py.idl.unitree_hg.msg import dds_ as hg
from unitree_sdk2py.utils.crc import CRC

# Joints that do not lie where they would by accident, in a robot of two variants.
SLOTS = np.array([3, 4, 5, 0, 1, 2, 20, 21, 22, 34, 33, 15])
SPEC = dataclasses.replace(
    load_robot("go2"),
    message_family="unitree_hg",
    motor_index=SLOTS,
    motor_mode=np.ones(12, dtype=int),
    mode_machines=(5, 2),
)
JOINTS = np.arange(12.0)
COMMAND = MotorCommand(JOINTS / 4, -JOINTS, JOINTS * 3, JOINTS / 2, JOINTS + 0.5)


def sdk_state(mode_machine=5):
    """A LowState made with Unitree's class and Unitree's checksum."""
    message = unitree_hg_msg_dds__LowState_()
    message.tick, message.mode_machine = 77, mode_machine
    message.imu_state.quaternion = [0.5, 0.5, -0.5, 0.5]
    message.imu_state.gyroscope = [1.0, 2.0, 3.0]
    message.imu_state.accelerometer = [4.0, 5.0, 9.5]
    for slot, motor in enumerate(message.motor_state):
        motor.q, motor.dq, motor.tau_est = slot / 8, -float(slot), slot * 2.0
        motor.temperature = [30 + slot, 90 - slot]
    message.wireless_remote = list(range(40))
    message.crc = CRC().Crc(message)
    return message


def test_a_state_made_by_the_sdk_is_mapped_to_joint_order():
    decoder = LowStateDecoder(SPEC)
    state = decoder.to_state(decoder.accept(sdk_state().serialize()), received_ns=123)
    assert (state.tick, state.received_ns, state.mode_machine) == (77, 123, 5)
    assert state.quat_wxyz.tolist() == [0.5, 0.5, -0.5, 0.5]
    assert state.gyro_b.tolist() == [1, 2, 3] and state.accel_b.tolist() == [4, 5, 9.5]
    assert state.q.tolist() == (SLOTS / 8).tolist()
    assert state.dq.tolist() == (-SLOTS).tolist()
    assert state.tau_est.tolist() == (SLOTS * 2).tolist()
    assert state.wireless_remote == bytes(range(40))
    assert (decoder.accepted, decoder.crc_errors, decoder.malformed) == (1, 0, 0)


def test_the_hotter_of_two_sensors_counts():
    decoder = LowStateDecoder(SPEC)
    state = decoder.to_state(decoder.accept(sdk_state().serialize()), 1)
    assert state.temperature.tolist() == np.maximum(30 + SLOTS, 90 - SLOTS).tolist()


def test_what_this_family_does_not_report_is_unknown_and_not_zero():
    decoder = LowStateDecoder(SPEC)
    state = decoder.to_state(decoder.accept(sdk_state().serialize()), 1)
    assert np.isnan(state.battery_soc) and np.isnan(state.voltage)
    assert state.foot_force.tolist() == [0.0] * len(SPEC.feet)


def test_a_wrong_checksum_and_a_message_of_the_other_family_are_dropped():
    decoder, message = LowStateDecoder(SPEC), sdk_state()
    message.crc ^= 1
    assert decoder.accept(message.serialize()) is None
    assert decoder.accept(GO_LOW_STATE.encode(GO_LOW_STATE.new())) is None
    assert (decoder.accepted, decoder.crc_errors, decoder.malformed) == (0, 1, 1)


def test_a_command_is_what_the_sdk_reads_with_its_own_checksum():
    message = hg.LowCmd_.deserialize(LowCmdEncoder(SPEC).encode(COMMAND))
    assert (message.mode_pr, message.mode_machine) == (0, 5)
    assert message.crc == CRC().Crc(message)
    for joint, slot in enumerate(SLOTS):
        motor = message.motor_cmd[slot]
        sent = [getattr(COMMAND, name)[joint] for name in ("q", "dq", "stiffness", "damping", "tau")]
        assert [motor.q, motor.dq, motor.kp, motor.kd, motor.tau] == sent
        assert motor.mode == 1
    for slot in set(range(35)) - set(SLOTS.tolist()):
        motor = message.motor_cmd[slot]
        assert [motor.mode, motor.q, motor.dq, motor.kp, motor.kd, motor.tau] == [0] * 6


def test_commands_name_the_robots_own_variant():
    encoder, decoder = LowCmdEncoder(SPEC), LowCmdDecoder(SPEC)
    assert decoder.mode_machine == 5, "the spec's first until a robot was heard"
    encoder.echo(2)
    command = decoder.decode(encoder.encode(COMMAND))
    assert decoder.mode_machine == 2
    for field in dataclasses.fields(MotorCommand):
        assert getattr(command, field.name).tolist() == getattr(COMMAND, field.name).tolist()


def test_a_family_without_variants_echoes_none():
    encoder = LowCmdEncoder(load_robot("go2"))
    before = encoder.encode(COMMAND)
    encoder.echo(5)
    assert encoder.encode(COMMAND) == before


@pytest.mark.parametrize(("family", "types"), [(GO, go), (HG, hg)], ids=["go", "hg"])
def test_a_family_names_the_sdks_types_and_as_many_motors_as_they_have(family, types):
    assert (family.low_state_type(), family.low_cmd_type()) == (types.LowState_, types.LowCmd_)
    assert len(family.low_state.new()["motor_state"]) == len(family.low_cmd.new()["motor_cmd"])
    assert len(family.low_cmd.new()["motor_cmd"]) == MOTOR_SLOTS[family.name]


def test_an_unknown_family_is_refused_with_the_known_ones():
    assert family_of(SPEC) is HG and set(FAMILIES) == set(MOTOR_SLOTS)
    with pytest.raises(TransportError, match="'unitree_xx'; known: unitree_go, unitree_hg"):
        family_of(dataclasses.replace(SPEC, message_family="unitree_xx"))
