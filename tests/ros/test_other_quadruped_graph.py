"""A B2 through the whole graph, without a policy: it stands up, holds, is damped on an emergency stop, and sits."""

import numpy as np
import pytest
from nfpo_msgs.msg import SafetyPermit

pytest.importorskip("mujoco", reason="the simulator is not installed")

from nfpo_deploy.types import GatePhase
from robots.loader import load_robot

SPEC = load_robot("b2")
# The trunk's collision box is 0.15 m high, and the robot lies on it.
LYING = 0.075
# A walk of the joints from crouch to stand within `stand_duration` needs 0.4 rad/s; a drop makes more than ten.
SOFT_FALL = 4.0


def test_it_stands_up_is_damped_on_demand_and_sits(start_graph, client, record):
    graph = start_graph(robot="b2", policy="none", record=str(record))
    client.stand_up()
    assert client.newest["status"].phase == GatePhase.HOLDING
    assert client.newest["estimate"].position_w[2] == pytest.approx(SPEC.base_height, abs=0.03)
    assert client.trigger("estop").success
    client.wait(lambda: client.newest["status"].phase == GatePhase.DAMPING, 2.0, "damping")
    client.spin(3.0)
    assert client.trigger("reset").success
    client.stand_up()
    assert client.set_mode("sit").success
    client.wait(lambda: client.in_mode(SafetyPermit.DAMP), what="DAMP after SIT")
    assert graph.stop() == 0, graph.output

    truth = np.load(record)
    height, time = truth["qpos"][:, 2], truth["time"]
    assert height.max() == pytest.approx(SPEC.base_height, abs=0.03)
    # Between the two times that it stood the emergency stop had brought it all the way down, and not in free fall.
    stood = time[height > 0.95 * SPEC.base_height]
    gap = int(np.argmax(np.diff(stood)))
    down = (time > stood[gap]) & (time < stood[gap + 1])
    assert height[down].min() == pytest.approx(LYING, abs=0.02)
    assert np.abs(truth["qvel"][down, 6:]).max() < SOFT_FALL
    assert np.all(np.abs(truth["torque"]) <= SPEC.torque_limit + 1e-6)
    assert truth["lowcmd_crc_errors"][-1] == 0
