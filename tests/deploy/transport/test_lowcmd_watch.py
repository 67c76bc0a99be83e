"""Who else commands the motors, over real DDS on loopback: unitree_sdk2py's publisher, a guard, a second bridge."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import open_transport
from robots.loader import load_robot

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_

from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import GO
from nfpo_deploy.transport.lowcmd_watch import BRIDGE, GUARD, LOW_CMD_TOPIC, LowCmdWatch, user_data
from nfpo_deploy.transport.publisher import UNKNOWN, Publisher
from nfpo_deploy.types import MotorCommand

DOMAIN = 37
SPEC = load_robot("go2")
ZERO = np.zeros(12)
COMMAND = MotorCommand(ZERO, ZERO, ZERO, ZERO, ZERO)
SAMPLE = GO_LOW_CMD.encode(GO_LOW_CMD.new())

OTHER = """
    import sys, time
    from nfpo_deploy.transport.dds import DdsParticipant
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

    participant = DdsParticipant("lo", int(sys.argv[1]))
    writer = participant.writer("rt/lowcmd", LowCmd_, sys.argv[2].encode())
    print("ready", flush=True)
    for line in sys.stdin:
        writer.write(bytes.fromhex(sys.argv[3]))
"""
SDK_PROGRAM = """
    import sys
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelPublisher
    from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowCmd_
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    publisher = ChannelPublisher("rt/lowcmd", LowCmd_)
    publisher.Init()
    print("ready", flush=True)
    for line in sys.stdin:
        publisher.Write(unitree_go_msg_dds__LowCmd_())
"""


class Program:
    """A process that writes one LowCmd for each line that it is given."""

    def __init__(self, source, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), str(DOMAIN), *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline().strip() == "ready"

    def send(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=15)


@pytest.fixture
def start():
    programs = []

    def run(source, *args):
        programs.append(Program(source, *args))
        return programs[-1]

    yield run
    for program in programs:
        program.stop()


@pytest.fixture
def participant():
    participant = DdsParticipant("lo", DOMAIN)
    yield participant
    participant.close()


@pytest.fixture
def transport():
    transport = open_transport(SPEC, "lo", DOMAIN)
    yield transport
    transport.close()


def until(condition, action, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        action()
        time.sleep(0.01)


def both(*actions):
    return lambda: [action() for action in actions]


def test_foreign_program_is_counted_and_named(start, transport):
    sdk = start(SDK_PROGRAM)
    before = time.monotonic_ns()
    until(lambda: transport.statistics.foreign_lowcmd >= 3, both(sdk.send, transport.read_state))
    assert before < transport.last_foreign_ns <= time.monotonic_ns()
    assert f"(pid {sdk.process.pid})" in transport.foreign_publisher
    assert f"on host {os.uname().nodename}" in transport.foreign_publisher
    assert sys.executable in transport.foreign_publisher, "a program of this host is named with its command line"
    assert transport.last_guard_ns == 0 and transport.statistics.guard_lowcmd == 0


def test_own_commands_and_guards_are_not_foreign_but_a_second_bridge_is(start, transport):
    guard = start(OTHER, user_data(GUARD).decode(), SAMPLE.hex())
    cycle = both(guard.send, lambda: transport.write_command(COMMAND), transport.read_state)
    until(lambda: transport.statistics.guard_lowcmd >= 3, cycle)
    assert transport.statistics.foreign_lowcmd == 0 and transport.foreign_publisher == ""
    assert transport.last_foreign_ns == 0 < transport.last_guard_ns
    second = start(OTHER, user_data(BRIDGE).decode(), SAMPLE.hex())
    until(lambda: transport.statistics.foreign_lowcmd >= 1, both(second.send, transport.read_state))
    assert f"(pid {second.process.pid})" in transport.foreign_publisher


def test_two_transports_of_one_process_are_foreign_to_each_other(transport):
    """Own commands are told by their UserData, not by the process."""
    second = open_transport(SPEC, "lo", DOMAIN)
    until(
        lambda: transport.statistics.foreign_lowcmd > 0,
        both(lambda: second.write_command(COMMAND), transport.read_state),
    )
    second.close()


def test_guard_sees_bridges_guards_and_strangers_apart(start, participant):
    own = user_data(GUARD)
    writer = participant.writer(LOW_CMD_TOPIC, LowCmd_, own)
    watch = LowCmdWatch(participant, own, GO)
    others = [start(OTHER, role.decode(), SAMPLE.hex()) for role in (user_data(GUARD), user_data(BRIDGE))]
    sdk = start(SDK_PROGRAM)
    until(
        lambda: min(watch.guard_count, watch.bridge_count, watch.foreign_count) >= 2,
        both(*(one.send for one in (*others, sdk)), lambda: writer.write(SAMPLE), watch.poll),
    )
    assert watch.bridge.pid == str(others[1].process.pid)
    assert watch.foreign.pid == str(sdk.process.pid) and watch.foreign.user_data == b""
    assert watch.guard_last_ns and watch.bridge_last_ns and watch.last_foreign_ns


def test_silent_program_is_known_before_it_sends(start, participant):
    watch = LowCmdWatch(participant, user_data(BRIDGE), GO)
    start(OTHER, user_data(GUARD).decode(), SAMPLE.hex())
    sdk = start(SDK_PROGRAM)
    until(lambda: watch.others(), lambda: None)
    assert [publisher.pid for publisher in watch.others()] == [str(sdk.process.pid)]
    assert watch.foreign_count == 0 and watch.describe() == ""


def test_company_is_refused_by_name_and_silence_is_not(start, transport):
    begin = time.monotonic()
    transport.refuse_company(0.3)
    assert 0.3 <= time.monotonic() - begin < 5.0
    sdk = start(SDK_PROGRAM)
    until(lambda: transport.statistics.foreign_lowcmd, both(sdk.send, transport.read_state))
    transport.refuse_company(0.2)  # what was sent before does not count
    feeder = subprocess.Popen(
        [sys.executable, "-c", "import time\nwhile True: print(flush=True), time.sleep(0.05)"],
        stdout=sdk.process.stdin,
    )
    try:
        with pytest.raises(TransportError, match=rf"another program publishes rt/lowcmd: .*pid {sdk.process.pid}"):
            transport.refuse_company(10.0)
    finally:
        feeder.kill()
        feeder.wait()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_listening_time_must_be_finite_and_above_zero(transport, seconds):
    with pytest.raises(TransportError, match="above zero"):
        transport.refuse_company(seconds)
    with pytest.raises(TransportError, match="above zero"):
        transport.restore_mode("normal", seconds)


def test_publisher_of_a_sample_and_of_a_stranger(start, participant):
    reader = participant.reader(LOW_CMD_TOPIC, LowCmd_)
    program = start(OTHER, "nfpo-guard and \x1b[2J more", SAMPLE.hex())
    samples = []
    until(lambda: samples, both(program.send, lambda: samples.extend(reader.take_with_handles())))
    data, handle = samples[0]
    assert data == SAMPLE
    publisher = reader.publisher(handle)
    assert publisher is reader.publisher(handle), "looked up once"
    assert publisher.user_data == b"nfpo-guard and \x1b[2J more"
    assert (publisher.pid, publisher.host) == (str(program.process.pid), os.uname().nodename)
    assert len(publisher.guid) == 32 and len(publisher.participant) == 32 and publisher.guid != publisher.participant
    assert publisher.guid[:24] == publisher.participant[:24]
    assert reader.publisher(handle + 1) == Publisher()
    assert Publisher().describe().count(UNKNOWN) == 4


def test_polling_is_cheap(participant):
    watch = LowCmdWatch(participant, user_data(BRIDGE), GO)
    costs = []
    for _ in range(2000):
        begin = time.thread_time_ns()
        watch.poll()
        costs.append(time.thread_time_ns() - begin)
    assert np.median(costs) < 50_000, "2.5 % of a cycle of the bridge, on a busy computer"


TWO_ROBOTS = """
    import sys, time
    from nfpo_deploy.transport.dds import DdsParticipant
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_

    writer = DdsParticipant("lo", int(sys.argv[1])).writer("rt/lowstate", LowState_)
    print("ready", flush=True)
    for line in sys.stdin:
        writer.write(bytes.fromhex(sys.argv[2]))
"""


def test_two_robots_on_one_network(start, transport):
    record = GO_LOW_STATE.new()
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["crc"] = GO_LOW_STATE.crc(record)
    robots = [start(TWO_ROBOTS, GO_LOW_STATE.encode(record).hex()) for _ in range(2)]
    until(lambda: transport.statistics.lowstate_count > 20, both(robots[0].send, transport.read_state))
    assert transport.identity_problem == ""
    until(lambda: transport.identity_problem, both(robots[0].send, robots[1].send, transport.read_state))
    assert all(f"pid {robot.process.pid}" in transport.identity_problem for robot in robots)


def test_type_information_is_hidden_and_put_back():
    """Our topics carry none; the SDK's class is as it was, for the SDK's own use."""
    before = LowState_.__idl__._xt_bytedata
    participant = DdsParticipant("lo", DOMAIN)
    participant.reader("rt/lowstate", LowState_)
    participant.close()
    assert LowState_.__idl__._xt_bytedata == before
    assert "fill_type_data" not in vars(LowState_.__idl__)
    assert LowState_.__idl__.get_type_info() is not None
