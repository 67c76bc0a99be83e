"""A robot of the unitree_hg family that is written with Unitree's SDK alone, and our transport and guard before it."""

import dataclasses
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nfpo_deploy.transport import open_transport
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot

pytest.importorskip("unitree_sdk2py")

from nfpo_deploy.guard.wire import GuardWire

DOMAIN = 92
SLOTS = np.arange(12) + 15
SPEC = dataclasses.replace(
    load_robot("go2"),
    message_family="unitree_hg",
    motor_index=SLOTS,
    motor_mode=np.ones(12, dtype=int),
    mode_machines=(5, 2),
)
JOINTS = np.arange(12.0)
COMMAND = MotorCommand(JOINTS / 4, -JOINTS, JOINTS * 3, JOINTS / 2, JOINTS + 0.5)

# For each line on stdin it sends one LowState; for each LowCmd with a good checksum it prints what it was told.
ROBOT = """
    import sys
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber
    from unitree_sdk2py.idl.default import unitree_hg_msg_dds__LowState_
    from unitree_sdk2py.idl.unitree_hg.msg.dds_ import LowCmd_, LowState_
    from unitree_sdk2py.utils.crc import CRC

    def hear(command):
        if command.crc == CRC().Crc(command):
            motor = command.motor_cmd[26]
            print(command.mode_pr, command.mode_machine, motor.mode, motor.q, motor.kp, motor.kd, flush=True)

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    publisher = ChannelPublisher("rt/lowstate", LowState_)
    publisher.Init()
    subscriber = ChannelSubscriber("rt/lowcmd", LowCmd_)
    subscriber.Init(hear, 1)
    state = unitree_hg_msg_dds__LowState_()
    state.mode_machine = 2
    state.imu_state.quaternion = [1.0, 0.0, 0.0, 0.0]
    print("ready", flush=True)
    for line in sys.stdin:
        state.tick += 2
        state.motor_state[26].q = 0.75
        state.crc = CRC().Crc(state)
        publisher.Write(state)
"""


@pytest.fixture
def robot():
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ROBOT), str(DOMAIN)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "ready"
    yield process
    process.stdin.close()
    process.wait(timeout=15)


def until(condition, action, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        action()
        time.sleep(0.01)
    return value


def beat(robot):
    robot.stdin.write("go\n")
    robot.stdin.flush()


def test_the_sdks_robot_is_read_and_obeys_commands_that_name_its_variant(robot):
    transport = open_transport(SPEC, "lo", DOMAIN)
    try:
        state = until(transport.read_state, lambda: beat(robot))
        assert state.mode_machine == 2 and state.q[11] == 0.75
        assert transport.statistics.crc_errors == transport.statistics.malformed == 0
        for _ in range(20):
            transport.write_command(COMMAND)
            time.sleep(0.01)
        told = robot.stdout.readline().split()
        assert [float(word) for word in told] == [0, 2, 1, 2.75, 33.0, 5.5]
        assert transport.statistics.foreign_lowcmd == 0
    finally:
        transport.close()


def test_a_guard_repeats_the_variant_that_the_bridge_named(robot):
    transport, guard = open_transport(SPEC, "lo", DOMAIN), GuardWire(SPEC, "lo", DOMAIN, rank=0)
    damping = dataclasses.replace(COMMAND, stiffness=np.zeros(12), damping=np.full(12, 3.0))
    try:
        until(transport.read_state, lambda: beat(robot))
        heard = until(guard.heard, lambda: transport.write_command(COMMAND))
        assert heard[-1].command.q.tolist() == COMMAND.q.tolist()
        for _ in range(20):
            guard.write(damping)
            time.sleep(0.01)
        told = until(lambda: _last_of_guard(robot), lambda: guard.write(damping))
        assert told[:3] == [0, 2, 1] and told[4:] == [0.0, 3.0]
        until(lambda: transport.statistics.guard_lowcmd, transport.read_state)
    finally:
        guard.close()
        transport.close()


def _last_of_guard(robot):
    told = [float(word) for word in robot.stdout.readline().split()]
    return told if told[5] == 3.0 else None
