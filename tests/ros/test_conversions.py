import dataclasses

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation

from nfpo_deploy.errors import MessageError
from nfpo_deploy.ros import conversions as c
from nfpo_deploy.types import (
    BridgeStatus,
    GatePhase,
    JointCommand,
    Mode,
    RobotState,
    SafetyPermit,
    StateEstimate,
    VelocityCommand,
)
from robots.loader import load_robot
from tests.ros.messages import fill_robot_state, fill_state_estimate

SPEC = load_robot("go2")
N = SPEC.num_joints
STAMP = c.stamp_of(1_700_000_000_123_456_789)
RNG = np.random.default_rng(1)
QUAT_WXYZ = np.roll(Rotation.from_euler("xyz", [0.1, -0.2, 2.0]).as_quat(), 1)


def robot_state():
    return RobotState(
        tick=123456, received_ns=987654321012, quat_wxyz=QUAT_WXYZ, gyro_b=RNG.normal(size=3),
        accel_b=RNG.normal(size=3), q=RNG.normal(size=N), dq=RNG.normal(size=N), tau_est=RNG.normal(size=N),
        temperature=RNG.normal(40, 5, size=N), foot_force=RNG.normal(size=4), battery_soc=83.0,
        voltage=28.4, wireless_remote=bytes(range(40)), mode_machine=5,
    )  # fmt: skip


def state_estimate():
    return StateEstimate(
        tick=77, received_ns=55, quat_wxyz=QUAT_WXYZ, ang_vel_b=RNG.normal(size=3), lin_vel_b=RNG.normal(size=3),
        lin_vel_std=np.array([0.1, 0.2, 0.3]), position_w=np.array([1.0, 2.0, 0.31]), contact=RNG.random(4),
        q=RNG.normal(size=N), dq=RNG.normal(size=N),
    )  # fmt: skip


def joint_command():
    vectors = {name: RNG.normal(size=N) for name in ("q", "dq", "stiffness", "damping", "tau")}
    return JointCommand(seq=9, state_tick=8, state_received_ns=7, **vectors)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def assert_equal(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00\x43", b"\x00\x01\xff\xff\x00", b"\x00\x01\x00\x00" * 5])
def test_bytes_that_are_no_message_are_refused(data):
    """Some of them end rclpy's decoder, and the process, with a segmentation fault."""
    with pytest.raises(MessageError, match=rf"RobotState: {len(data)} bytes"):
        c.decode_bytes(data, RobotStateMsg)


@pytest.mark.parametrize(
    ("value", "message_type", "fill", "read"),
    [
        (robot_state(), RobotStateMsg, fill_robot_state, c.robot_state_from),
        (state_estimate(), StateEstimateMsg, fill_state_estimate, c.state_estimate_from),
        (joint_command(), JointCommandMsg, c.fill_joint_command, c.joint_command_from),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_values_survive_the_wire_unchanged(value, message_type, fill, read):
    message = message_type()
    fill(message, value, SPEC, STAMP)
    received = over_the_wire(message)
    assert_equal(read(received, SPEC), value)
    assert (received.header.stamp.sec, received.header.stamp.nanosec) == (1_700_000_000, 123_456_789)

    received.joint_names_crc ^= 1
    with pytest.raises(MessageError, match="joint_names_crc"):
        read(received, SPEC)
    received.joint_names_crc ^= 1
    received.q = received.q[:-1]
    with pytest.raises(MessageError, match=r"\.q: expected 12 values, got 11"):
        read(received, SPEC)


def test_reused_message_does_not_change_what_was_read():
    message = RobotStateMsg()
    first = robot_state()
    fill_robot_state(message, first, SPEC, STAMP)
    read = c.robot_state_from(message, SPEC)
    fill_robot_state(message, robot_state(), SPEC, STAMP)
    np.testing.assert_array_equal(read.q, first.q)


def test_what_a_command_comes_from_survives_the_wire():
    message = JointCommandMsg()
    observation = RNG.normal(size=47).astype(np.float32)
    c.fill_policy_input(message, 2**32 + 5, VelocityCommand(0.1, -0.2, 0.3), observation)
    received = over_the_wire(message)
    assert received.step == 5 and received.velocity.tolist() == [0.1, -0.2, 0.3]
    assert np.array_equal(np.array(received.observation, dtype=np.float32), observation)


def test_permit_and_status_keep_their_modes():
    message = SafetyPermitMsg()
    permit = SafetyPermit(4, Mode.SIT, "because")
    c.fill_permit(message, permit, STAMP)
    assert c.permit_from(over_the_wire(message)) == permit
    message.mode = 77
    with pytest.raises(MessageError, match="77 is not one of 0 DAMP"):
        c.permit_from(message)

    status = BridgeStatus(GatePhase.TRACKING, Mode.WALK, "", False, True, False, 0.001, float("inf"), 0.02, 5, 1)
    message = BridgeStatusMsg()
    c.fill_bridge_status(message, status, STAMP)
    assert c.bridge_status_from(over_the_wire(message)) == status


def test_enumerations_of_the_messages_are_ours():
    for mode in Mode:
        assert getattr(SafetyPermitMsg, mode.name) == mode
    for phase in GatePhase:
        assert getattr(BridgeStatusMsg, phase.name) == phase


def test_standard_messages_use_xyzw_and_our_frames():
    state, estimate = robot_state(), state_estimate()
    expected = Rotation.from_euler("xyz", [0.1, -0.2, 2.0]).as_matrix()
    imu, odometry = c.imu_message(state, STAMP), c.odometry_message(estimate, STAMP)
    transform = c.transform_message(estimate, STAMP)
    for q in (imu.orientation, odometry.pose.pose.orientation, transform.transform.rotation):
        np.testing.assert_allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), expected, atol=1e-12)
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
    assert odometry.twist.twist.linear.y == estimate.lin_vel_b[1]
    np.testing.assert_allclose(np.diag(odometry.twist.covariance.reshape(6, 6))[:3], [0.01, 0.04, 0.09])
    joints = c.joint_state_message(state, SPEC, STAMP)
    assert joints.name[3] == "FL_hip_joint" and joints.position[3] == state.q[3]
    assert joints.effort[11] == state.tau_est[11]


def test_velocity_takes_the_planar_part():
    twist = Twist()
    twist.linear.x, twist.linear.y, twist.angular.z = 0.5, -0.1, 0.3
    twist.linear.z = twist.angular.x = 9.0
    assert c.velocity_from(twist).as_array().tolist() == [0.5, -0.1, 0.3]
