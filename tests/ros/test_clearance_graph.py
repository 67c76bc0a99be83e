"""Hardware, as far as the bridge can tell, follows only policies that validation cleared."""

import hashlib
import shutil

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nfpo_msgs.msg import JointCommand, SafetyPermit

from nfpo_deploy.contract.clearance import Clearance, write_clearance
from nfpo_deploy.graph import resolve_policy
from nfpo_deploy.ros import conversions, topics
from nfpo_deploy.ros.node_base import command_qos
from robots.loader import load_robot

SPEC = load_robot("go2")


@pytest.fixture
def policy(tmp_path):
    """The shipped policy, without its clearance."""
    return shutil.copy(resolve_policy("walk", SPEC), tmp_path / "mine.onnx")


def clear(policy):
    digest, scenarios = hashlib.sha256(policy.read_bytes()).hexdigest(), hashlib.sha256(b"set").hexdigest()
    write_clearance(
        policy, Clearance(digest, "go2", SPEC.sha256, SPEC.model_sha256, "s", scenarios, "gone", 1, 0, "today"), b"set"
    )


def hear_all(client):
    client.wait(lambda: {"status", "estimate"} <= set(client.newest), 25.0, "the graph")


def test_policy_without_clearance_is_not_armed(start_graph, client, policy):
    graph = start_graph(policy=str(policy), hardware=True)
    hear_all(client)
    client.wait(lambda: client.newest["status"].guards_alive == 2, what="guards")
    client.refused("arm", "mine.clearance.json", "nfpo validate")
    assert not client.set_mode("stand").success
    assert "clearance_override:=" in graph.output


def test_override_is_logged_and_shown(start_graph, client, policy):
    graph = start_graph(policy=str(policy), hardware=True, clearance_override="hangs on a crane")
    client.stand_up()
    assert "clearance OVERRIDDEN: hangs on a crane" in graph.output
    client.wait(lambda: client.diagnosis("clearance"), what="a diagnosis")
    row = client.diagnosis("clearance")
    assert row.level == DiagnosticStatus.WARN and "hangs on a crane" in row.message


def test_cleared_policy_stands_until_another_one_commands_too(start_graph, client, policy):
    clear(policy)
    graph = start_graph(policy=str(policy), hardware=True)
    client.stand_up()
    assert "cleared by 1 scenarios of s" in graph.output
    client.wait(lambda: client.set_mode("walk").success, what="WALK")
    client.velocity = (0.0, 0.0, 0.0)
    client.spin(1.0)
    assert client.in_mode(SafetyPermit.WALK), client.describe()

    own = client.newest["command"]
    intruder = client.node.create_publisher(
        JointCommand, topics.JOINT_COMMAND, command_qos(SPEC.safety.command_timeout)
    )
    own.policy_id ^= 1
    own.header.stamp = conversions.stamp_of(0)
    client.node.create_timer(0.02, lambda: intruder.publish(own))
    client.wait(lambda: client.newest["permit"].mode in (SafetyPermit.STAND, SafetyPermit.SIT), what="a stop")
    assert "sends joint commands, cleared is" in client.newest["permit"].reason
