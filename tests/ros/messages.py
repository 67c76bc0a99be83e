"""States and estimates as message objects, filled field by field: what another sender would publish."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg

from nfpo_deploy.ros.conversions import BASE_FRAME, ODOM_FRAME
from nfpo_deploy.types import RobotState, StateEstimate
from robots.loader import RobotSpec


def fill_robot_state(message: RobotStateMsg, state: RobotState, spec: RobotSpec, stamp: Time) -> None:
    """Write one robot state into a message."""
    message.header.stamp = stamp
    message.header.frame_id = BASE_FRAME
    message.received_ns = state.received_ns
    message.tick = state.tick & 0xFFFFFFFF
    message.joint_names_crc = spec.joint_names_crc
    message.quat_wxyz = state.quat_wxyz
    message.gyro_b = state.gyro_b
    message.accel_b = state.accel_b
    message.q = array("d", state.q)
    message.dq = array("d", state.dq)
    message.tau_est = array("d", state.tau_est)
    message.temperature = array("d", state.temperature)
    message.foot_force = array("d", state.foot_force)
    message.battery_soc = float(state.battery_soc)
    message.voltage = float(state.voltage)
    message.wireless_remote = np.frombuffer(state.wireless_remote, dtype=np.uint8)
    message.mode_machine = state.mode_machine


def fill_state_estimate(message: StateEstimateMsg, estimate: StateEstimate, spec: RobotSpec, stamp: Time) -> None:
    """Write one state estimate into a message."""
    message.header.stamp = stamp
    message.header.frame_id = ODOM_FRAME
    message.received_ns = estimate.received_ns
    message.tick = estimate.tick & 0xFFFFFFFF
    message.joint_names_crc = spec.joint_names_crc
    message.quat_wxyz = estimate.quat_wxyz
    message.ang_vel_b = estimate.ang_vel_b
    message.lin_vel_b = estimate.lin_vel_b
    message.lin_vel_std = estimate.lin_vel_std
    message.position_w = estimate.position_w
    message.contact = array("d", estimate.contact)
    message.q = array("d", estimate.q)
    message.dq = array("d", estimate.dq)
