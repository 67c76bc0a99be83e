"""Each node's lifecycle in this process: what is refused, what is reversible, what stays up."""

import subprocess
import sys
import threading
import time

import pytest
import rclpy
from nfpo_msgs.msg import SafetyPermit
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from nfpo_deploy.ros.policy_inference import PolicyInference
from nfpo_deploy.ros.safety_watchdog import SafetyWatchdog
from nfpo_deploy.ros.sdk_bridge import SdkBridge
from nfpo_deploy.ros.state_estimator import StateEstimatorNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def make_node():
    """Build nodes on the client's domain, served by an executor as in their own process."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=25)
    executor = SingleThreadedExecutor(context=context)
    nodes, done = [], threading.Event()

    def serve():
        while not done.is_set():
            executor.spin_once(timeout_sec=0.05)

    def make(node_type, **parameters):
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = node_type(context=context, parameter_overrides=overrides)
        nodes.append(node)
        executor.add_node(node)
        return node

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield make
    for node in nodes:
        node.trigger_shutdown()
    done.set()
    thread.join()
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("node_type", "parameters", "message"),
    [
        (SafetyWatchdog, {"rate_hz": -1.0}, "rate_hz: expected a number above zero, got -1.0"),
        (SafetyWatchdog, {"rate_hz": "fast"}, "rate_hz: expected float, got 'fast'"),
        (StateEstimatorNode, {"robot": "go9"}, "unknown robot 'go9'; available: b2, g1, go2"),
        (SdkBridge, {"interface": "nosuch0"}, "nosuch0"),
        (SdkBridge, {"domain_id": 300}, "domain_id: expected 0 to 232, got 300"),
        (PolicyInference, {"policy": "/nowhere/p.onnx"}, "no policy at /nowhere/p.onnx"),
    ],
)
def test_bad_configuration_is_refused_and_can_be_repaired(make_node, node_type, parameters, message):
    node = make_node(node_type, **parameters)
    assert node.trigger_configure() == FAILURE
    assert message in node.failure
    assert node.NAME in node.failure and "cannot be configured" in node.failure
    if node_type is SafetyWatchdog:
        node.set_parameters([Parameter("rate_hz", value=50.0)])
        assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize("node_type", [SafetyWatchdog, StateEstimatorNode])
def test_whole_lifecycle_twice(make_node, node_type):
    node = make_node(node_type)
    before = threading.active_count()
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        assert node.active
        time.sleep(0.1)
        assert node.trigger_deactivate() == SUCCESS
        assert not node.active and threading.active_count() == before
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS


def test_parameters_are_fixed_while_configured(make_node):
    node = make_node(SafetyWatchdog)
    assert node.trigger_configure() == SUCCESS
    (result,) = node.set_parameters([Parameter("rate_hz", value=10.0)])
    assert not result.successful and "clean up the node first" in result.reason
    assert node.get_parameter("rate_hz").value == 100.0
    assert node.trigger_cleanup() == SUCCESS
    (result,) = node.set_parameters([Parameter("rate_hz", value=10.0)])
    assert result.successful


def test_only_an_active_watchdog_grants_permits(make_node, client):
    node = make_node(SafetyWatchdog)
    assert node.trigger_configure() == SUCCESS
    answer = client.trigger("arm")
    assert not answer.success and "not active" in answer.message
    client.spin(0.3)
    assert "permit" not in client.newest
    assert node.trigger_activate() == SUCCESS
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), 3.0, "a permit")
    refused = client.trigger("arm")
    assert not refused.success and "state_age" in refused.message, refused.message
    assert client.trigger("estop").success
    client.wait(lambda: client.in_mode(SafetyPermit.FAULT), 1.0, "FAULT")
    assert node.trigger_deactivate() == SUCCESS
    client.spin(0.2)  # what was on its way
    client.newest.clear()
    client.spin(0.3)
    assert "permit" not in client.newest


def test_failed_loop_is_reported(make_node):
    class Broken(SafetyWatchdog):
        def tick(self, now_ns):
            raise ZeroDivisionError("on purpose")

    node = make_node(Broken)
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    end = time.monotonic() + 3
    while not node.loop_failed:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert node.failure == "safety_watchdog: the loop failed: ZeroDivisionError: on purpose"


def test_process_that_cannot_start_says_why_and_fails(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    command = [sys.executable, "-m", "nfpo_deploy.ros.policy_inference", "--ros-args"]
    command += ["-p", f"policy:={tmp_path / 'broken.onnx'}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "policy_inference cannot be configured" in result.stderr
    assert "broken.onnx is not a valid ONNX policy" in result.stderr
