"""What policy_inference publishes, recorded as the flight recorder does, is replayed to the last bit.

The node's own tick runs here on queues in place of a middleware, so that every message arrives when the test says.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import JointCommand as JointCommandMsg
from nfpo_msgs.msg import SafetyPermit as SafetyPermitMsg
from nfpo_msgs.msg import StateEstimate as StateEstimateMsg
from rclpy.serialization import serialize_message

from nfpo_deploy.command.velocity import VelocityCommandLimiter
from nfpo_deploy.contract.clearance import policy_id
from nfpo_deploy.flight_log.schemas import definition_of
from nfpo_deploy.flight_log.segment import Channel, Entry, Segment
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.policy.runner import PolicyRunner
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.policy_inference import PolicyInference
from nfpo_deploy.ros.state_wire import StateEstimateWire
from nfpo_deploy.types import Mode, StateEstimate
from robots.loader import load_robot
from sim2real_checks.replay.flight import read_flight
from sim2real_checks.replay.operator_input import follow
from sim2real_checks.replay.rerun import rerun
from tests.ros.messages import fill_state_estimate

SPEC = load_robot("go2")
SHIPPED = Path(__file__).parents[2] / "robots/go2/policies/walk/policy.onnx"
NS, PERIOD_NS = 10**9, 20_000_000


class Queue(deque):
    """A polled subscription and a publisher at once."""

    def newest(self):
        return self.popleft() if self else None

    publish = deque.append


class Bytes(Queue):
    """A polled subscription that gives the messages' bytes."""

    def newest(self):
        message = super().newest()
        return None if message is None else serialize_message(message)


class Node(PolicyInference):
    """policy_inference without a middleware."""

    def __init__(self, policy):
        manifest = policy.manifest
        self.spec = SPEC
        self._rate_hz = manifest.control_rate_hz
        self._runner = PolicyRunner(policy, SPEC)
        self._limiter = VelocityCommandLimiter(manifest.command_ranges, SPEC.safety.operator_timeout)
        self._estimates, self._permits, self._velocities, self._commands = Bytes(), Queue(), Queue(), Queue()
        self._estimate_wire = StateEstimateWire(SPEC)
        self._message = JointCommandMsg(policy_id=policy_id(policy.sha256))
        self._estimate_timeout_ns = self._permit_timeout_ns = NS
        self._forget()

    def stamp_ns(self):
        return time.time_ns()


def test_the_nodes_own_messages_are_replayed_exactly(tmp_path):
    policy = OnnxPolicy.load(SHIPPED, SPEC)
    node, rng = Node(policy), np.random.default_rng(3)
    channels = {
        kind: Channel(topic, definition_of(kind))
        for kind, topic in (
            (StateEstimateMsg, topics.STATE_ESTIMATE), (SafetyPermitMsg, topics.PERMIT),
            (Twist, topics.VELOCITY_COMMAND), (JointCommandMsg, topics.JOINT_COMMAND),
        )
    }  # fmt: skip
    segment = Segment(tmp_path / "flight.mcap", 0, {"nfpo": {"robot": "go2", "policy_sha256": policy.sha256}})
    modes = [Mode.DAMP] * 5 + [Mode.READY] * 20 + [Mode.WALK] * 60 + [Mode.READY] * 10 + [Mode.WALK] * 40
    for k, mode in enumerate(modes):
        now_ns = (k + 1) * PERIOD_NS
        sent = []

        def send(queue, message, delay_ns, sent=sent, now_ns=now_ns):
            queue.append(message)
            sent.append((10**18 + now_ns + delay_ns, message))

        twist, permit, estimate = Twist(), SafetyPermitMsg(mode=int(mode)), StateEstimateMsg()
        twist.linear.x, twist.angular.z = 0.5, -0.2 if k > 60 else 0.3
        send(node._permits, permit, -3000)
        send(node._velocities, twist, -2000)
        fill_state_estimate(estimate, random_estimate(rng, k), SPEC, conversions.stamp_of(now_ns))
        send(node._estimates, estimate, -1000)
        node.tick(now_ns)
        if (command := node._commands.newest()) is not None:
            sent.append((10**18 + now_ns + 500_000, command))
        # At once, as the middleware does: the node fills the same message again.
        for time_ns, message in sent:
            segment.add(Entry(channels[type(message)], time_ns, time_ns, k, serialize_message(message)))
    segment.flush()
    segment.finish(1)
    flight = read_flight([tmp_path / "flight.mcap"])
    result = rerun(flight, policy, tolerance=0.0)
    assert result.ticks == result.compared == 130 and result.first is None and result.foreign == 0
    assert [command.step for command in flight.commands][19:22] == [20, 1, 2]
    operator = follow(flight, policy.manifest)
    assert operator.explained == operator.ticks == 100


def random_estimate(rng, k):
    """A state estimate near standing, received now: the node asks the real clock for its age."""
    quat = np.array([1.0, 0.0, 0.0, 0.0]) + rng.normal(0.0, 0.05, 4)
    return StateEstimate(
        tick=k, received_ns=time.monotonic_ns(), quat_wxyz=quat / np.linalg.norm(quat), ang_vel_b=rng.normal(size=3),
        lin_vel_b=rng.normal(size=3), lin_vel_std=np.full(3, 0.1), position_w=np.zeros(3), contact=rng.random(4),
        q=SPEC.default_pose + rng.normal(0.0, 0.1, 12), dq=rng.normal(size=12),
    )  # fmt: skip
