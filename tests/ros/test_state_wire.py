"""Bytes of the two fast streams against ROS' own encoder and decoder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from nfpo_msgs.msg import RobotState as RobotStateMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rclpy.serialization import deserialize_message, serialize_message

from nfpo_deploy.errors import MessageError
from nfpo_deploy.ros import conversions as c
from nfpo_deploy.ros.state_wire import RobotStateWire, StateEstimateWire
from tests.ros.messages import fill_robot_state, fill_state_estimate
from tests.ros.test_conversions import SPEC, assert_equal, robot_state, state_estimate

STAMP_NS = 1_700_000_000_123_456_789
KINDS = {
    "state": (robot_state, RobotStateMsg, fill_robot_state, c.robot_state_from, RobotStateWire),
    "estimate": (state_estimate, StateEstimateMsg, fill_state_estimate, c.state_estimate_from, StateEstimateWire),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, message_type, fill, read, wire = KINDS[request.param]

    def by_ros(value):
        message = message_type()
        fill(message, value, SPEC, c.stamp_of(STAMP_NS))
        return message

    return make, message_type, by_ros, read, wire(SPEC)


def test_ros_reads_what_is_encoded(kind):
    make, message_type, by_ros, read, wire = kind
    for _ in range(5):
        value = make()
        message = deserialize_message(wire.encode(value, STAMP_NS), message_type)
        assert message == by_ros(value)
        assert_equal(read(message, SPEC), value)


def test_what_ros_encodes_is_read(kind):
    make, _, by_ros, _, wire = kind
    value = make()
    data = serialize_message(by_ros(value))
    assert wire._layout.read(data) is not None, "the fast way must fit what ROS sends"
    assert_equal(wire.decode(data), value)
    assert_equal(wire.decode(data + b"\x00" * (-len(data) % 4)), value)


def test_extreme_numbers_pass_unchanged(kind):
    make, _, _, _, wire = kind
    value = dataclasses.replace(
        make(), tick=2**32 - 1, received_ns=2**63, q=np.full(SPEC.num_joints, np.nan),
        dq=np.array([np.inf, -np.inf, 5e-324, 1e308, -0.0] + [0.0] * (SPEC.num_joints - 5)),
    )  # fmt: skip
    assert_equal(wire.decode(wire.encode(value, STAMP_NS)), value)


def test_what_was_read_is_nobody_elses(kind):
    make, _, _, _, wire = kind
    first = make()
    data = wire.encode(first, STAMP_NS)
    read = wire.decode(data)
    wire.encode(make(), STAMP_NS)
    assert_equal(read, first)
    read.q[0] = 1.0  # writable, and aligned for whoever computes with it
    assert read.q.flags.aligned and read.q.flags.owndata


def test_another_senders_frame_is_left_to_ros(kind):
    make, _, by_ros, _, wire = kind
    value = make()
    message = by_ros(value)
    message.header.frame_id = "go2/some_other_frame"
    data = serialize_message(message)
    assert wire._layout.read(data) is None
    assert_equal(wire.decode(data), value)


def test_other_robots_and_lengths_are_refused_by_name(kind):
    make, _, by_ros, _, wire = kind
    message = by_ros(make())
    message.joint_names_crc ^= 1
    with pytest.raises(MessageError, match="joint_names_crc .* start every node with the same robot"):
        wire.decode(serialize_message(message))
    message.joint_names_crc ^= 1
    message.q = message.q[:-1]
    with pytest.raises(MessageError, match=r"\.q: expected 12 values, got 11"):
        wire.decode(serialize_message(message))


def test_damaged_bytes_end_in_a_named_error_or_in_a_value(kind):
    make, _, _, _, wire = kind
    good = wire.encode(make(), STAMP_NS)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        try:
            wire.decode(bytes(data[: rng.integers(0, len(data) + 1)] if rng.random() < 0.3 else data))
        except MessageError:
            refused += 1
    assert refused > 100


def test_both_ways_agree_on_damaged_bytes(kind):
    """A changed byte that the fast way accepts means the same to ROS."""
    make, message_type, _, read, wire = kind
    good = wire.encode(make(), STAMP_NS)
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(500):
        data = bytearray(good)
        data[rng.integers(4, len(data))] = rng.integers(256)
        if wire._layout.read(bytes(data)) is None:
            continue
        compared += 1
        try:
            slow = read(deserialize_message(bytes(data), message_type), SPEC)
        except MessageError:
            with pytest.raises(MessageError):
                wire.decode(bytes(data))
            continue
        assert_equal(wire.decode(bytes(data)), slow)
    assert compared > 300
