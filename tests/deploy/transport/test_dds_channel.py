"""Transport and RPC client over real DDS on loopback, against unitree_sdk2py's own publisher, reader and server."""

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import open_transport
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot

pytest.importorskip("unitree_sdk2py")

from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from nfpo_deploy.transport.unitree import UnitreeTransport

CHANNEL_DOMAIN = 13
SERVER_DOMAIN = 14
SPEC = load_robot("go2")


@pytest.fixture
def transport():
    transport = open_transport(SPEC, "lo", CHANNEL_DOMAIN)
    yield transport
    transport.close()


def start_python(source, *args):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, args)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    process.stdin.close()
    return process.wait(timeout=10)


SDK_ROBOT = """
    import json, sys, time
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber
    from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowState_
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_
    from unitree_sdk2py.utils.crc import CRC

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    publisher = ChannelPublisher("rt/lowstate", LowState_)
    publisher.Init()
    commands = []
    subscriber = ChannelSubscriber("rt/lowcmd", LowCmd_)
    subscriber.Init(commands.append, 10)
    state = unitree_go_msg_dds__LowState_()
    state.imu_state.quaternion = [1.0, 0.0, 0.0, 0.0]
    for i in range(300):
        state.tick = 1000 + 2 * i
        state.motor_state[4].q = 0.75
        state.crc = CRC().Crc(state) + (i % 3 == 2)
        publisher.Write(state)
        time.sleep(0.005)
        if commands:
            break
    last = commands[-1] if commands else None
    if last is not None:
        crc_ok = CRC().Crc(last) == last.crc
        print(json.dumps([crc_ok, list(last.head), last.motor_cmd[4].q, last.motor_cmd[4].kp, last.motor_cmd[12].mode]))
"""


def test_states_and_commands_pass_between_transport_and_sdk(transport):
    robot = start_python(SDK_ROBOT, CHANNEL_DOMAIN)
    deadline = time.monotonic() + 10
    states = []
    while len(states) < 20 and time.monotonic() < deadline:
        before = time.monotonic_ns()
        state = transport.read_state()
        if state is not None:
            assert before <= state.received_ns <= time.monotonic_ns()
            states.append(state)
        time.sleep(0.002)
    assert len(states) == 20
    assert all(state.q[4] == 0.75 for state in states)
    ticks = [state.tick for state in states]
    assert ticks == sorted(set(ticks))
    assert all((tick - 1000) // 2 % 3 != 2 for tick in ticks), "those have a bad checksum"
    assert transport.statistics.crc_errors >= 5
    assert transport.statistics.lowstate_count >= 20
    zero = np.zeros(12)
    while robot.poll() is None and time.monotonic() < deadline:
        transport.write_command(MotorCommand(np.full(12, 0.25), zero, np.full(12, 40.0), zero, zero))
        time.sleep(0.002)
    crc_ok, head, q, kp, unused_mode = json.loads(robot.stdout.readline())
    finish(robot)
    assert crc_ok and head == [0xFE, 0xEF]
    assert (q, kp, unused_mode) == (0.25, 40.0, 0)
    assert transport.statistics.lowcmd_count > 0


def test_nothing_received_is_none(transport):
    assert transport.read_state() is None


@pytest.mark.parametrize("interface", ["", "eth99"])
def test_unknown_interface_is_refused_and_the_existing_ones_are_listed(interface):
    with pytest.raises(TransportError, match=r"existing interfaces: .*\blo\b"):
        open_transport(SPEC, interface, CHANNEL_DOMAIN)


@pytest.mark.parametrize("domain_id", [-1, 233])
def test_impossible_domain_is_refused(domain_id):
    with pytest.raises(TransportError, match=r"0\.\.232"):
        open_transport(SPEC, "lo", domain_id)


def test_an_unknown_message_family_is_refused_by_name():
    import dataclasses

    spec = dataclasses.replace(SPEC, message_family="unitree_xx")
    with pytest.raises(TransportError, match="unitree_xx.*known: unitree_go, unitree_hg"):
        open_transport(spec, "lo", CHANNEL_DOMAIN)


def test_closing_twice_and_opening_again(transport):
    transport.close()
    transport.close()
    again = open_transport(SPEC, "lo", CHANNEL_DOMAIN)
    assert isinstance(again, UnitreeTransport)
    again.close()


def test_closed_participant_opens_nothing():
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

    participant = DdsParticipant("lo", CHANNEL_DOMAIN)
    participant.close()
    with pytest.raises(TransportError, match="closed"):
        participant.writer("rt/lowcmd", LowCmd_)


SDK_SWITCHER = """
    import json, sys
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize
    from unitree_sdk2py.rpc.server import Server

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    names = json.loads(sys.argv[2])  # what CheckMode answers, one after the other

    class Switcher(Server):
        def Init(self):
            self._SetApiVersion("1.0.0.1")
            self._RegistHandler(1001, self.check, False)
            self._RegistHandler(1002, lambda parameter: (7004, ""), False)
            self._RegistHandler(1003, lambda parameter: (0, ""), False)

        def check(self, parameter):
            assert json.loads(parameter) == {}
            return 0, json.dumps({"form": "0", "name": names.pop(0) if len(names) > 1 else names[0]})

    server = Switcher("motion_switcher")
    server.Init()
    server.Start()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def switcher():
    processes, participants = [], []

    def start(names):
        processes.append(start_python(SDK_SWITCHER, SERVER_DOMAIN, json.dumps(names)))
        while processes[-1].stdout.readline().strip() != "ready":
            assert processes[-1].poll() is None
        participants.append(DdsParticipant("lo", SERVER_DOMAIN))
        return MotionSwitcherClient(participants[-1])

    yield start
    for participant in participants:
        participant.close()
    for process in processes:
        finish(process)


def test_release_against_the_sdk_server_repeats_until_nothing_is_active(switcher):
    client = switcher(["normal", "normal", ""])
    assert client.release_mode(5.0) == "normal"
    assert client.check_mode(5.0) == ""


def test_controller_that_is_never_released_times_out(switcher):
    client = switcher(["ai"])
    with pytest.raises(TransportError, match="'ai' was not released within"):
        client.release_mode(1.0)
    with pytest.raises(TransportError, match="code 7004"):
        client.select_mode("nonsense", 5.0)


def test_missing_service_is_reported_in_time(transport):
    start = time.monotonic()
    with pytest.raises(TransportError, match="no service 'motion_switcher' found within 0.3 s"):
        transport.release_mode(0.3)
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_timeout_must_be_above_zero(transport, timeout):
    with pytest.raises(TransportError, match="above zero"):
        transport.release_mode(timeout)
