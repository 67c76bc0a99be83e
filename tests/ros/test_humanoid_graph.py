"""Humanoids through the whole graph, without a policy: they stand up in the gantry, are let down, and fold."""

import pytest
from nfpo_msgs.msg import SafetyPermit

pytest.importorskip("mujoco", reason="the simulator is not installed")

from nfpo_deploy.types import GatePhase
from robots.loader import load_robot
from sim2real_checks.robot_sim.control import SimControl
from sim2real_checks.robot_sim.gantry import CLEARANCE


@pytest.mark.parametrize("robot", ["g1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("h1", "h1_2"))])
def test_it_stands_up_in_the_gantry_and_is_damped_when_it_falls(start_graph, client, tmp_path, robot):
    graph = start_graph(robot=robot, policy="none", sim_options=f"--control {tmp_path / 'sim'}")
    client.stand_up()
    assert client.newest["status"].phase == GatePhase.HOLDING
    with SimControl(tmp_path / "sim", timeout=10.0) as control:
        control.send("gantry", lower=CLEARANCE + 0.08)
        height = client.wait(
            lambda: client.newest["estimate"].contact[0] > 0.9 and client.newest["estimate"].position_w[2],
            what="the floor",
        )
        assert height == pytest.approx(load_robot(robot).base_height, abs=0.06)
        client.spin(1.0)
        assert client.in_mode(SafetyPermit.READY), client.describe()
        control.send("gantry", hold=False)
        client.wait(lambda: client.in_mode(SafetyPermit.FAULT), what="the fall", timeout=20.0)
    assert "tilt" in client.newest["permit"].reason or "trunk" in client.newest["permit"].reason
    client.wait(lambda: client.newest["status"].phase == GatePhase.DAMPING, what="damping")
    assert graph.stop() == 0, graph.output
