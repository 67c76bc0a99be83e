"""Death and suspension of the bridge, alone and with a guard: the simulator's own record is the judge."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from nfpo_msgs.msg import BridgeStatus, SafetyPermit

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.factory_mode import FactoryMode
from nfpo_deploy.guard.link import BRIDGE_ROLE, Mailbox, Report, encode_report
from robots.loader import load_robot

SPEC = load_robot("go2")
# The promise is 0.1 s; the tests also run on busy machines, and say what they saw.
REACTION_S = 0.1
FINE = "--record-hz 1000"


def fading(truth, fault_ns):
    """Seconds from the fault to the first LowCmd of the descent to zero stiffness, and to its end."""
    after = truth["wall_ns"] >= fault_ns
    stiffness = truth["command_kp"].sum(axis=1)[after]
    seconds = (truth["wall_ns"][after] - fault_ns) * 1e-9
    gone = int(np.flatnonzero(stiffness == 0)[0])
    full = np.flatnonzero(stiffness[:gone] >= stiffness[0] - 1e-6)
    return seconds[full[-1] + 1], seconds[gone]


def assert_damped_and_down(truth, fault_ns):
    first, last = fading(truth, fault_ns)
    assert first < REACTION_S, f"first safe LowCmd after {first * 1e3:.0f} ms"
    assert last - first == pytest.approx(SPEC.safety.damp_ramp, abs=0.03)
    after = truth["wall_ns"] >= fault_ns + round(last * 1e9)
    assert np.all(truth["command_kp"][after] == 0)
    assert truth["qpos"][-1, 2] < 0.12, "the robot did not come down"
    # Damped, not dropped: a free fall from 0.3 m ends with 2.1 m/s.
    assert np.abs(truth["qvel"][after, 2]).max() < 1.2


@pytest.mark.parametrize(
    "victims",
    [
        ["sdk_bridge"],
        pytest.param(["sdk_bridge", "guard"], marks=pytest.mark.slow),
        pytest.param(["sdk_bridge", "guard_backup"], marks=pytest.mark.slow),
        pytest.param(["sdk_bridge", "safety_watchdog"], marks=pytest.mark.slow),
    ],
)
def test_killed_bridge_is_replaced_by_a_guard(start_graph, client, record, victims):
    graph = start_graph(policy="none", record=str(record), sim_options=FINE)
    client.stand_up()
    fault_ns = time.monotonic_ns()
    for name in victims:
        graph.signal(name, signal.SIGKILL)
    assert graph.wait_until_stopped() == 1
    assert "SIGKILL" in graph.supervisor.reason
    assert_damped_and_down(np.load(record), fault_ns)
    assert "the bridge fell silent: damping the robot" in graph.output


def test_suspended_bridge_is_replaced_and_may_come_back(start_graph, client, record):
    graph = start_graph(policy="none", record=str(record), sim_options=FINE)
    client.stand_up()
    fault_ns = time.monotonic_ns()
    graph.signal("sdk_bridge", signal.SIGSTOP)
    client.spin(1.0)
    graph.signal("sdk_bridge", signal.SIGCONT)
    client.wait(lambda: "stepped back" in graph.output, 3.0, "the guard to step back")
    client.wait(lambda: client.in_mode(SafetyPermit.FAULT), 3.0, "FAULT")
    client.wait(lambda: client.newest["status"].phase == BridgeStatus.DAMPING, 3.0, "damping by the bridge")
    client.spin(2.0)
    # After a reset everything is as before.
    client.wait(lambda: client.trigger("reset").success, what="reset")
    client.stand_up()
    assert graph.stop() == 0, graph.output
    truth = np.load(record)
    first, last = fading(truth, fault_ns)
    assert first < REACTION_S
    resting = (truth["wall_ns"] > fault_ns + round(last * 1e9)) & (truth["wall_ns"] < fault_ns + 3_000_000_000)
    assert np.all(truth["command_kp"][resting] == 0), "stiffness came back with the bridge"


def test_robot_may_not_be_armed_without_its_guards(start_graph, client):
    graph = start_graph(policy="none")
    client.wait(lambda: client.newest.get("status") and client.newest["status"].guards_alive == 2, 25.0, "guards")
    graph.signal("guard_backup", signal.SIGSTOP)
    client.wait(lambda: client.newest["status"].guards_alive == 1, 3.0, "the loss of a guard")
    client.spin(0.1)  # the watchdog hears it in its next cycle
    client.refused("arm", "guard")
    graph.signal("guard_backup", signal.SIGCONT)
    client.wait(lambda: client.trigger("arm").success, 5.0, "arming with both guards")


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP))],
)
def test_healthy_robot_sits_down_when_everything_is_asked_to_end_at_once(start_graph, client, record, number):
    """As `ros2 launch` does on Ctrl-C, a closed terminal with SIGHUP and a shutdown with SIGTERM."""
    graph = start_graph(policy="none", record=str(record), sim_options=FINE, damping=3.0)
    client.stand_up()
    for process in graph.supervisor.graph.processes:
        if process.name != "robot_sim":
            graph.signal(process.name, number)
    graph.wait_until_stopped()
    truth = np.load(record)
    stiff = truth["command_kp"][:, 0] > 0
    down = np.flatnonzero(stiff)[-1]
    # It lay before it was let go, and was damped for seconds afterwards.
    assert truth["qpos"][down, 2] < 0.13, "let go while standing"
    assert np.abs(truth["qvel"][: down + 1, 2]).max() < 0.5
    assert truth["time"][-1] - truth["time"][down] > 2.0
    assert truth["command_kd"][-1, 0] == pytest.approx(SPEC.damp_gains.damping[0])
    assert "damping the robot" not in graph.output, "a guard stepped in although the bridge ended in good order"


def test_second_signal_damps_at_once(start_graph, client, record):
    graph = start_graph(policy="none", record=str(record), sim_options=FINE)
    client.stand_up()
    graph.signal("sdk_bridge", signal.SIGINT)
    time.sleep(0.5)
    second_ns = time.monotonic_ns()
    graph.signal("sdk_bridge", signal.SIGINT)
    graph.wait_until_stopped()
    assert fading(np.load(record), second_ns)[0] < 0.1


def test_killed_launcher_leaves_a_robot_that_sat_down(client, record, robot_domain, ros_domain):
    sim = subprocess.Popen(
        [sys.executable, "-m", "sim2real_checks.robot_sim", "--domain-id", str(robot_domain), "--record", str(record)],
        start_new_session=True,
    )
    words = ["policy:=none", "interface:=lo", f"domain_id:={robot_domain}", f"ros_domain_id:={ros_domain}"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "nfpo_deploy.cli", "launch", "go2_walk", *words],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        client.stand_up()
        launcher.kill()
        launcher.wait()
        # Nobody reads their output any more either.
        launcher.stdout.close()
        client.spin(8.0)
    finally:
        launcher.kill()
        sim.send_signal(signal.SIGINT)
        sim.wait(30)
    truth = np.load(record)
    down = np.flatnonzero(truth["command_kp"][:, 0] > 0)[-1]
    assert truth["qpos"][down, 2] < 0.13, "let go while standing"
    assert truth["qpos"][-1, 2] < 0.12


def test_second_stack_for_the_same_robot_is_refused(start_graph, client):
    first = start_graph(policy="none")
    client.stand_up()
    second = start_graph(policy="none", sim="false", interface="lo", ros_domain_id="26")
    assert second.wait_until_stopped() == 1
    assert "already serves the robot" in second.output
    client.spin(0.5)
    assert client.in_mode(SafetyPermit.READY), f"the second stack disturbed the first: {client.describe()}"
    assert not first.supervisor.reason


@pytest.mark.slow
def test_released_controller_is_remembered_and_given_back(start_graph, client, tmp_path, monkeypatch, robot_domain):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    memory = FactoryMode("lo", robot_domain)
    graph = start_graph(policy="none", restore_mode="true", sim_options="--builtin-mode ai")
    client.stand_up()
    assert memory.recall() == "ai"
    assert memory.path.is_relative_to(tmp_path)
    graph.signal("sdk_bridge", signal.SIGTERM)
    graph.wait_until_stopped()
    assert "started the robot's built-in controller 'ai' again" in graph.output
    assert memory.recall() == ""


def test_robot_of_a_killed_stack_is_given_back_by_command(start_graph, client, tmp_path, monkeypatch, robot_domain):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    sim = subprocess.Popen(
        [sys.executable, "-m", "sim2real_checks.robot_sim", "--domain-id", str(robot_domain)], start_new_session=True
    )
    try:
        graph = start_graph(policy="none", sim="false", interface="lo")
        client.stand_up()
        restore = [sys.executable, "-m", "nfpo_deploy.cli", "restore", "--interface", "lo"]
        restore += ["--domain-id", str(robot_domain)]
        refused = subprocess.run(restore, capture_output=True, text=True)
        assert refused.returncode == 1 and "already serves the robot" in refused.stderr
        graph.signal("sdk_bridge", signal.SIGKILL)
        graph.wait_until_stopped(40)
        done = subprocess.run(restore, capture_output=True, text=True)
        assert done.returncode == 0 and "'normal' is active" in done.stdout, done.stderr
        again = subprocess.run(restore, capture_output=True, text=True)
        assert again.returncode == 1 and "no built-in controller is remembered" in again.stderr
    finally:
        sim.send_signal(signal.SIGINT)
        sim.wait(30)


def test_a_heartbeat_from_nowhere_is_no_guard():
    mailbox = Mailbox(BRIDGE_ROLE, "lo", 199)
    try:
        sender = Mailbox("guard", "lo", 199)
        for data in (b"", b"nfpo", b"\xff" * 14, encode_report(Report(0, False, 1))[:-1]):
            sender.send(BRIDGE_ROLE, data)
        from nfpo_deploy.guard.link import GuardRoll

        roll = GuardRoll(mailbox, 0.5)
        roll.poll(10**9)
        assert roll.alive(10**9) == []
        sender.send(BRIDGE_ROLE, encode_report(Report(0, True, os.getpid())))
        roll.poll(10**9)
        assert [report.active for report in roll.alive(10**9)] == [True]
        assert roll.alive(10**9 + 600_000_000) == []
        with pytest.raises(SafetyError, match="already serves"):
            Mailbox(BRIDGE_ROLE, "lo", 199)
        sender.close()
    finally:
        mailbox.close()
