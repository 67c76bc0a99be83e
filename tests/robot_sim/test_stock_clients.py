"""Programs that are not ours against the simulated robot: unitree_sdk2py's clients and the C++ far-unitree-sdk."""

import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

pytest.importorskip("unitree_sdk2py")

from nfpo_deploy.transport.codec import GO_LOW_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from robots.loader import load_robot

SDK_DOMAIN = 16
FAR_DOMAIN = 17
SPEC = load_robot("go2")


def run_python(source, *args, timeout=60):
    """Run a client in a process of its own and return what its last line of output says (JSON)."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, args)],
        stdout=subprocess.PIPE, text=True, timeout=timeout, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    return json.loads(result.stdout.strip().splitlines()[-1])


STOCK_SWITCHER_CLIENT = """
    import json, sys
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize
    from unitree_sdk2py.comm.motion_switcher.motion_switcher_client import MotionSwitcherClient
    from unitree_sdk2py.go2.sport.sport_client import SportClient

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    sport, switcher = SportClient(), MotionSwitcherClient()
    for client in (sport, switcher):
        client.SetTimeout(5.0)
        client.Init()
    seen = [switcher.CheckMode(), sport.StandDown(), sport.Hello(), switcher.GetServerApiVersion(),
            switcher.ReleaseMode(), switcher.CheckMode(), sport.StandDown(), switcher.SelectMode("advanced"),
            switcher.CheckMode(), switcher.SelectMode("nonsense"), switcher.SelectMode(None), switcher.ReleaseMode(),
            switcher.CheckMode()]
    print(json.dumps(seen))
"""


def test_stock_motion_switcher_and_sport_client(start_sim):
    start_sim("--domain-id", SDK_DOMAIN)
    mode = {"form": "0", "name": "normal"}
    advanced, none = {**mode, "name": "advanced"}, {**mode, "name": ""}
    seen = run_python(STOCK_SWITCHER_CLIENT, SDK_DOMAIN)
    assert seen == [
        [0, mode], 0, 3203, [0, "1.0.0.1"],
        [0, None], [0, none], 3203, [0, None],
        [0, advanced], [7004, None], [7004, None], [0, None],
        [0, none],
    ]  # fmt: skip


STOCK_SUBSCRIBER = """
    import json, sys, time
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelSubscriber
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_, SportModeState_
    from unitree_sdk2py.utils.crc import CRC

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    states, sports = [], []
    low, sport = ChannelSubscriber("rt/lowstate", LowState_), ChannelSubscriber("rt/sportmodestate", SportModeState_)
    low.Init(states.append, 10)
    sport.Init(sports.append, 10)
    time.sleep(2.0)
    good = sum(CRC().Crc(state) == state.crc for state in states)
    last = states[-1]
    print(json.dumps([len(states), good, last.motor_state[2].q, last.power_v, list(last.head), sports[-1].position[2]]))
"""


def test_stock_subscriber_accepts_every_low_state(start_sim):
    start_sim("--domain-id", SDK_DOMAIN)
    count, good, q, voltage, head, height = run_python(STOCK_SUBSCRIBER, SDK_DOMAIN)
    assert count > 500 and good == count
    assert q == pytest.approx(SPEC.crouch_pose[2], abs=0.15)
    assert 25 < voltage < 34 and head == [0xFE, 0xEF]
    assert 0.05 < height < 0.12


# Cyclone's ExternalDomainId keeps the client, which always takes domain 0, away from other participants.
FAR_CONFIG = f"""<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface name="lo"/></Interfaces></General>
<Discovery><ExternalDomainId>{FAR_DOMAIN}</ExternalDomainId></Discovery></Domain></CycloneDDS>"""

FAR_CLIENT = """
    import json, os, sys, time
    import unitree_interface

    target, ramp = json.loads(sys.argv[2]), float(sys.argv[3])
    robot = unitree_interface.UnitreeInterface.create_go2("lo", dds_config=sys.argv[1])
    deadline = time.monotonic() + float(sys.argv[4])
    while not any(robot.read_low_state().motor.q) and time.monotonic() < deadline:
        time.sleep(0.01)
    start = robot.read_low_state().motor.q
    command = robot.create_zero_command()
    begin = time.monotonic()
    while time.monotonic() - begin < ramp:
        part = min(1.0, 2 * (time.monotonic() - begin) / ramp)
        command.q_target = [(1 - part) * a + part * b for a, b in zip(start, target)]
        command.kp, command.kd = [60.0] * 12, [5.0] * 12
        command.dq_target, command.tau_ff = [0.0] * 12, [0.0] * 12
        robot.write_low_command(command)
        time.sleep(0.002)
    state = robot.read_low_state()
    print(json.dumps([list(start), list(state.motor.q), list(state.imu.accel), list(state.motor.temperature)]))
    sys.stdout.flush()
    os._exit(0)  # the binding's threads do not end by themselves
"""


def test_cpp_client_stands_the_robot_up(start_sim):
    pytest.importorskip("unitree_interface")
    sim = start_sim("--domain-id", FAR_DOMAIN, "--builtin-mode", "", "--no-noise")
    target = SPEC.default_pose.tolist()
    start, end, accel, temperature = run_python(FAR_CLIENT, FAR_CONFIG, json.dumps(target), 3.0, 10)
    status, output = sim.stop()
    assert status == 0
    assert np.abs(np.array(start) - SPEC.crouch_pose).max() < 0.3
    assert np.abs(np.array(end) - target).max() < 0.15
    assert accel[2] == pytest.approx(9.81, abs=0.3) and temperature == [25] * 12
    obeyed = int(output.split("LowCmd: ")[1].split(" obeyed")[0])
    assert obeyed > 800
    assert "0 bad CRC, 0 malformed" in output, "the C++ client's checksum is the one we compute"


@pytest.mark.parametrize("crc_error", [0, 1])
def test_cpp_client_drops_a_state_with_a_bad_checksum(crc_error):
    """The control of the test above: what the C++ client accepts proves our checksum only if it checks it."""
    pytest.importorskip("unitree_interface")
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_

    participant = DdsParticipant("lo", FAR_DOMAIN)
    writer = participant.writer("rt/lowstate", LowState_)
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["motor_state"]["q"] = 0.5
    record["crc"] = GO_LOW_STATE.crc(record) ^ crc_error
    sample = GO_LOW_STATE.encode(record)
    client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FAR_CLIENT), FAR_CONFIG, "[0,0,0,0,0,0,0,0,0,0,0,0]", "0.1", "2"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while client.poll() is None:
        writer.write(sample)
        time.sleep(0.005)
    participant.close()
    start = json.loads(client.stdout.read().strip().splitlines()[-1])[0]
    assert start == ([0.0] * 12 if crc_error else [0.5] * 12)
