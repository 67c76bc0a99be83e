"""Names of topics and services, in one place."""

ROBOT_STATE = "/nfpo/robot_state"
STATE_ESTIMATE = "/nfpo/state_estimate"
JOINT_COMMAND = "/nfpo/joint_command"
PERMIT = "/nfpo/permit"
BRIDGE_STATUS = "/nfpo/bridge_status"

JOINT_STATES = "/joint_states"
IMU = "/imu/data"
ODOMETRY = "/odom"
TF = "/tf"
VELOCITY_COMMAND = "/cmd_vel"
DIAGNOSTICS = "/diagnostics"

OPERATOR_INPUT = "/nfpo/operator/"
"""Followed by a source's name: velocities that the operator node arbitrates."""
OPERATOR_DRIVER = "/nfpo/operator/driver"

ARM = "/nfpo/arm"
ESTOP = "/nfpo/estop"
RESET = "/nfpo/reset"
SET_MODE = "/nfpo/set_mode"
