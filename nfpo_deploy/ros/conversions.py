"""ROS messages to the runtime's values and back.

Our own messages carry quaternions as wxyz; only the standard ones use xyzw, and only here is that converted.
`fill_*` write into a message that the caller keeps, because building one costs more than publishing it.
"""

from __future__ import annotations

from array import array
from dataclasses import fields
from enum import IntEnum
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped, Twist, Vector3
from nav_msgs.msg import Odometry
from nfpo_msgs.msg import BridgeStatus as BridgeStatusMsg
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu, JointState

from nfpo_deploy.errors import MessageError
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
from robots.loader import RobotSpec

BASE_FRAME = "base_link"
ODOM_FRAME = "odom"
_SHORTEST_BYTES = 8
"""A message without a body, whose four bytes of encapsulation announce padding, makes rclpy's decoder read past its
end: measured with ros-rclpy of Kilted, a segmentation fault (tests/fuzz)."""


def stamp_of(nanoseconds: int) -> Time:
    """ROS time from nanoseconds since its epoch."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def decode_bytes(data: bytes, message_type: type) -> Any:
    """Message of these serialised bytes, from whoever sent them.

    Raises:
        MessageError: ROS cannot decode them.
    """
    problem = f"{message_type.__name__}: {len(data)} bytes that ROS cannot decode"
    if len(data) < _SHORTEST_BYTES:
        raise MessageError(f"{problem}: too short")
    try:
        return deserialize_message(data, message_type)
    except Exception as error:  # rclpy's own kinds of error, and no common base
        raise MessageError(f"{problem}: {error}") from None


def check_joint_order(message: Any, spec: RobotSpec, what: str) -> None:
    """Refuse a message whose joints are not the robot's.

    Raises:
        MessageError: another joint order or robot.
    """
    check_joint_names_crc(message.joint_names_crc, spec, what)


def check_joint_names_crc(crc: int, spec: RobotSpec, what: str) -> None:
    """As `check_joint_order`, of the number alone."""
    if crc != spec.joint_names_crc:
        raise MessageError(
            f"{what}: joint_names_crc is 0x{crc:08x}, robot {spec.name!r} expects 0x{spec.joint_names_crc:08x}; "
            "start every node with the same robot"
        )


def _floats(values: np.ndarray) -> array:
    # array.array is what generated messages take without looking at every element.
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def _vector(values: Any, n: int, what: str) -> np.ndarray:
    result = np.array(values, dtype=np.float64)
    if result.shape != (n,):
        raise MessageError(f"{what}: expected {n} values, got {len(result)}; both sides must use the same robot")
    return result


def robot_state_from(message: RobotStateMsg, spec: RobotSpec) -> RobotState:
    """Decode a robot state.

    Raises:
        MessageError: other joint order, wrong length.
    """
    check_joint_order(message, spec, "RobotState")
    n = spec.num_joints
    return RobotState(
        tick=message.tick,
        received_ns=message.received_ns,
        quat_wxyz=np.array(message.quat_wxyz, dtype=np.float64),
        gyro_b=np.array(message.gyro_b, dtype=np.float64),
        accel_b=np.array(message.accel_b, dtype=np.float64),
        q=_vector(message.q, n, "RobotState.q"),
        dq=_vector(message.dq, n, "RobotState.dq"),
        tau_est=_vector(message.tau_est, n, "RobotState.tau_est"),
        temperature=_vector(message.temperature, n, "RobotState.temperature"),
        foot_force=_vector(message.foot_force, len(spec.feet), "RobotState.foot_force"),
        battery_soc=message.battery_soc,
        voltage=message.voltage,
        wireless_remote=bytes(message.wireless_remote),
        mode_machine=message.mode_machine,
    )


def state_estimate_from(message: StateEstimateMsg, spec: RobotSpec) -> StateEstimate:
    """Decode a state estimate; raises `MessageError` as `robot_state_from`."""
    check_joint_order(message, spec, "StateEstimate")
    return StateEstimate(
        tick=message.tick,
        received_ns=message.received_ns,
        quat_wxyz=np.array(message.quat_wxyz, dtype=np.float64),
        ang_vel_b=np.array(message.ang_vel_b, dtype=np.float64),
        lin_vel_b=np.array(message.lin_vel_b, dtype=np.float64),
        lin_vel_std=np.array(message.lin_vel_std, dtype=np.float64),
        position_w=np.array(message.position_w, dtype=np.float64),
        contact=_vector(message.contact, len(spec.feet), "StateEstimate.contact"),
        q=_vector(message.q, spec.num_joints, "StateEstimate.q"),
        dq=_vector(message.dq, spec.num_joints, "StateEstimate.dq"),
    )


def fill_joint_command(message: JointCommandMsg, command: JointCommand, spec: RobotSpec, stamp: Time) -> None:
    """Write one joint command into a message; `inference_ms` and `observation_ok` are the caller's."""
    message.header.stamp = stamp
    message.seq = command.seq & 0xFFFFFFFF
    message.state_tick = command.state_tick & 0xFFFFFFFF
    message.state_received_ns = command.state_received_ns
    message.joint_names_crc = spec.joint_names_crc
    for field in ("q", "dq", "stiffness", "damping", "tau"):
        setattr(message, field, _floats(getattr(command, field)))


def fill_policy_input(message: JointCommandMsg, step: int, velocity: VelocityCommand, observation: np.ndarray) -> None:
    """Write what a joint command comes from, beside the state: with it, a log can be replayed exactly.

    Args:
        message: to be published.
        step: ticks since the policy forgot its past, this one included.
        velocity: that the policy was given.
        observation: (D,) float32.
    """
    message.step = step & 0xFFFFFFFF
    message.velocity = velocity.as_array()
    message.observation = array("f", observation.tobytes())


def joint_command_from(message: JointCommandMsg, spec: RobotSpec) -> JointCommand:
    """Decode a joint command; raises `MessageError` as `robot_state_from`."""
    check_joint_order(message, spec, "JointCommand")
    names = ("q", "dq", "stiffness", "damping", "tau")
    vectors = {name: _vector(getattr(message, name), spec.num_joints, f"JointCommand.{name}") for name in names}
    return JointCommand(
        seq=message.seq,
        state_tick=message.state_tick,
        state_received_ns=message.state_received_ns,
        **vectors,
    )


def fill_permit(message: SafetyPermitMsg, permit: SafetyPermit, stamp: Time) -> None:
    """Write one permit into a message."""
    message.header.stamp = stamp
    message.seq = permit.seq & 0xFFFFFFFF
    message.mode = int(permit.mode)
    message.reason = permit.reason


def permit_from(message: SafetyPermitMsg) -> SafetyPermit:
    """Decode a permit.

    Raises:
        MessageError: a mode that this version does not know.
    """
    try:
        mode = Mode(message.mode)
    except ValueError:
        known = ", ".join(f"{m.value} {m.name}" for m in Mode)
        raise MessageError(f"SafetyPermit.mode: {message.mode} is not one of {known}") from None
    return SafetyPermit(seq=message.seq, mode=mode, reason=message.reason)


def fill_bridge_status(message: BridgeStatusMsg, status: BridgeStatus, stamp: Time) -> None:
    """Write one bridge status into a message; the fields have the same names on both sides."""
    message.header.stamp = stamp
    for field in fields(BridgeStatus):
        value = getattr(status, field.name)
        setattr(message, field.name, int(value) if isinstance(value, IntEnum) else value)


def bridge_status_from(message: BridgeStatusMsg) -> BridgeStatus:
    """Decode a bridge status.

    Raises:
        MessageError: a phase or mode that this version does not know.
    """
    values = {field.name: getattr(message, field.name) for field in fields(BridgeStatus)}
    try:
        values["phase"], values["permit_mode"] = GatePhase(message.phase), Mode(message.permit_mode)
    except ValueError as error:
        raise MessageError(f"BridgeStatus: {error}; all nodes must run the same version") from None
    return BridgeStatus(**values)


def velocity_from(message: Twist) -> VelocityCommand:
    """Planar part of a Twist in base_link, m/s and rad/s; not checked for finiteness, the limiter does that."""
    return VelocityCommand(message.linear.x, message.linear.y, message.angular.z)


def quaternion_xyzw(quat_wxyz: np.ndarray) -> Quaternion:
    """Convert our wxyz quaternion to the message's xyzw."""
    w, x, y, z = (float(value) for value in quat_wxyz)
    return Quaternion(x=x, y=y, z=z, w=w)


def _vector3(values: np.ndarray) -> Vector3:
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def joint_state_message(state: RobotState, spec: RobotSpec, stamp: Time) -> JointState:
    """Return the joints for standard tools: rad, rad/s, N·m."""
    message = JointState(name=list(spec.joint_names))
    message.header.stamp = stamp
    message.position, message.velocity = _floats(state.q), _floats(state.dq)
    message.effort = _floats(state.tau_est)
    return message


def imu_message(state: RobotState, stamp: Time) -> Imu:
    """IMU for standard tools (REP-145): orientation of base_link in the world, gravity included."""
    message = Imu(orientation=quaternion_xyzw(state.quat_wxyz))
    message.header.stamp = stamp
    # The robot's IMU axes are parallel to base_link and its quaternion is that of the body.
    message.header.frame_id = BASE_FRAME
    message.angular_velocity = _vector3(state.gyro_b)
    message.linear_acceleration = _vector3(state.accel_b)
    return message


def odometry_message(estimate: StateEstimate, stamp: Time) -> Odometry:
    """Odometry (REP-105): pose in odom, twist in base_link, with the filter's own velocity variance."""
    message = Odometry(child_frame_id=BASE_FRAME)
    message.header.stamp = stamp
    message.header.frame_id = ODOM_FRAME
    position = message.pose.pose.position
    position.x, position.y, position.z = (float(value) for value in estimate.position_w)
    message.pose.pose.orientation = quaternion_xyzw(estimate.quat_wxyz)
    message.twist.twist.linear = _vector3(estimate.lin_vel_b)
    message.twist.twist.angular = _vector3(estimate.ang_vel_b)
    covariance = np.zeros(36)
    covariance[[0, 7, 14]] = np.square(estimate.lin_vel_std)
    message.twist.covariance = covariance
    return message


def transform_message(estimate: StateEstimate, stamp: Time) -> TransformStamped:
    """Transform odom → base_link."""
    message = TransformStamped(child_frame_id=BASE_FRAME)
    message.header.stamp = stamp
    message.header.frame_id = ODOM_FRAME
    message.transform.translation = _vector3(estimate.position_w)
    message.transform.rotation = quaternion_xyzw(estimate.quat_wxyz)
    return message
