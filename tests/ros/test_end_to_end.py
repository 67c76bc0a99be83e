"""The whole graph against the simulated robot over DDS; the simulator's own record is the judge."""

import signal

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from nfpo_msgs.msg import BridgeStatus, SafetyPermit
from sensor_msgs.msg import Imu, JointState
from tf2_msgs.msg import TFMessage

from robots.loader import load_robot

SPEC = load_robot("go2")
POLICY = SPEC.folder / "policies" / "walk" / "policy.onnx"
needs_policy = pytest.mark.skipif(not POLICY.is_file(), reason="no trained policy at robots/go2/policies/walk")


def last_command(truth):
    """Stiffness and damping that the motors obeyed at the end."""
    return truth["command_kp"][-1], truth["command_kd"][-1]


def test_stands_sits_and_serves_standard_topics(start_graph, client, record):
    graph = start_graph(policy="none", record=str(record))
    standard = {"joints": (JointState, "/joint_states"), "imu": (Imu, "/imu/data")}
    standard |= {"odom": (Odometry, "/odom"), "tf": (TFMessage, "/tf")}
    for name, (message_type, topic) in standard.items():
        client.listen(name, message_type, topic)
    assert not client.set_mode("stand").success, "STAND without arming"
    client.stand_up()
    refused = client.set_mode("walk")
    assert not refused.success and "command" in refused.message, refused.message
    client.spin(0.5)
    got = client.newest
    assert tuple(got["joints"].name) == SPEC.joint_names
    assert got["imu"].linear_acceleration.z == pytest.approx(9.81, abs=0.5)
    assert got["odom"].child_frame_id == got["tf"].transforms[0].child_frame_id == "base_link"
    assert got["odom"].pose.pose.position.z == pytest.approx(SPEC.base_height, abs=0.03)
    assert got["status"].phase == BridgeStatus.HOLDING
    # 500 on a machine with time to spare; the tests also run on busy ones.
    assert 250 < got["status"].loop_rate < 510
    assert client.set_mode("sit").success
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), what="DAMP after SIT")
    assert graph.stop() == 0, graph.output

    truth = np.load(record)
    height = truth["qpos"][:, 2]
    assert height.max() == pytest.approx(SPEC.base_height, abs=0.03)
    assert height[-1] < 0.12
    assert truth["lowcmd_crc_errors"][-1] == 0


def test_emergency_stop_damps_and_says_why(start_graph, client, record):
    graph = start_graph(policy="none", record=str(record))
    client.stand_up()
    assert client.trigger("estop").success
    client.wait(lambda: client.newest["status"].phase == BridgeStatus.DAMPING, 2.0, "damping")
    client.wait(lambda: client.diagnosis("mode").level == b"\x02", 2.0, "the fault on /diagnostics")
    assert "emergency stop" in client.diagnosis("mode").message
    assert not client.trigger("arm").success and not client.set_mode("stand").success
    client.spin(2.0)
    reset = client.trigger("reset")
    assert reset.success, reset.message
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), 2.0, "DAMP after reset")
    assert graph.stop() == 0, graph.output

    truth = np.load(record)
    stiff = np.flatnonzero(truth["command_kp"][:, 0] > 1.0)
    after = slice(stiff[-1] + 1, None)
    # Ramped: stiffness passes through values between full and none, and the robot comes down on damped legs.
    fading = truth["command_kp"][stiff[-60] :, 0]
    assert np.any((fading > 5) & (fading < 55)), "the stiffness fell in one step"
    assert np.all(truth["command_kp"][after] <= 1.0)
    assert truth["qpos"][-1, 2] < 0.12
    assert np.abs(truth["qvel"][after, 2]).max() < 1.5


def test_frozen_robot_faults_with_its_reason(start_graph, client):
    graph = start_graph(policy="none")
    client.stand_up()
    graph.signal("robot_sim", signal.SIGSTOP)
    try:
        client.wait(lambda: client.in_mode(SafetyPermit.FAULT), 2.0, "FAULT")
        reason = client.newest["permit"].reason
        assert "state" in reason, reason
        client.wait(lambda: client.newest["status"].phase == BridgeStatus.DAMPING, 1.0, "damping")
        client.wait(lambda: client.diagnosis("state_age").level != b"\x00", 1.0, "/diagnostics")
        assert reason in client.diagnosis("mode").message
        refused = client.trigger("reset")
        assert not refused.success and "state_age" in refused.message
    finally:
        graph.signal("robot_sim", signal.SIGCONT)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_stopped_bridge_leaves_a_damped_robot(start_graph, client, record, number):
    graph = start_graph(policy="none", record=str(record), damping=3.0)
    client.stand_up()
    graph.signal("sdk_bridge", number)
    # A bridge that ends was not asked to by the supervisor: for the graph that is a failure.
    assert graph.wait_until_stopped() == 1
    assert "sdk_bridge ended" in graph.supervisor.reason

    truth = np.load(record)
    stiffness, damping = last_command(truth)
    np.testing.assert_array_equal(stiffness, 0)
    np.testing.assert_allclose(damping, SPEC.damp_gains.damping)
    damped = truth["time"][-1] - truth["time"][np.flatnonzero(truth["command_kp"][:, 0] > 0)[-1]]
    assert damped > 2.0, "one last packet is not damping"
    assert truth["qpos"][-1, 2] < 0.12


@pytest.mark.parametrize("name", ["safety_watchdog", pytest.param("state_estimator", marks=pytest.mark.slow)])
def test_killed_node_ends_the_graph_with_a_damped_robot(start_graph, client, record, name):
    graph = start_graph(policy="none", record=str(record))
    client.stand_up()
    graph.signal(name, signal.SIGKILL)
    assert graph.wait_until_stopped() == 1
    assert f"{name} ended with signal SIGKILL" in graph.supervisor.reason
    truth = np.load(record)
    assert np.all(last_command(truth)[0] == 0)
    assert truth["qpos"][-1, 2] < 0.12


@needs_policy
@pytest.mark.parametrize("composed", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_walks_forward_as_asked(start_graph, client, record, composed):
    graph = start_graph(record=str(record), composed=composed)
    client.velocity = (0.0, 0.0, 0.0)
    client.stand_up()
    client.wait(lambda: "command" in client.newest, 2.0, "joint commands in READY")
    walk = client.wait(lambda: (answer := client.set_mode("walk")).success and answer, 3.0, "WALK")
    assert walk.success
    client.velocity = (0.5, 0.0, 0.0)
    client.spin(4.0)
    assert client.in_mode(SafetyPermit.WALK), client.describe()
    status = client.newest["status"]
    assert status.phase == BridgeStatus.TRACKING and 0 < status.latency_p50_ms < 20
    # An operator who falls silent stops the robot.
    client.velocity = None
    client.wait(lambda: client.in_mode(SafetyPermit.READY), 5.0, "READY without an operator")
    assert client.set_mode("sit").success
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), what="DAMP after SIT")
    assert graph.stop() == 0, graph.output

    truth = np.load(record)
    forward = truth["qpos"][-1, 0] - truth["qpos"][0, 0]
    assert 1.2 < forward < 3.0, f"walked {forward:.2f} m at 0.5 m/s for about 4.5 s"
    standing = truth["qpos"][np.abs(truth["qvel"][:, 0]) > 0.3, 2]
    assert standing.min() > 0.2, "the body came down while walking"


def test_wrong_policy_is_refused_before_anything_starts(tmp_path, start_graph):
    from nfpo_deploy.errors import PolicyError

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(PolicyError, match=r"broken\.onnx is not a valid ONNX"):
        start_graph(policy=str(broken))


@pytest.mark.slow
def test_deactivated_bridge_damps_and_can_be_activated_again(start_graph, client, record):
    graph = start_graph(policy="none", record=str(record))
    client.stand_up()
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = {"transition": Transition(id=transition)}
        assert client.call(ChangeState, "/sdk_bridge/change_state", **request).success
    # An orderly end is no fault: the robot sat down, and may be armed again.
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), 2.0, "DAMP")
    client.stand_up()
    assert graph.stop() == 0, graph.output
    truth = np.load(record)
    stiff = truth["command_kp"][:, 0] > 1.0
    rises = np.flatnonzero(np.diff(stiff.astype(int)) > 0)
    assert len(rises) == 2, "stood up twice, damped in between"
    assert truth["qpos"][rises[1], 2] < 0.12
