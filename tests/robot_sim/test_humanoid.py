"""A simulated G1: its gantry, its messages as Unitree's own classes read them, and commands over the real DDS."""

import time

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_hg.msg import dds_ as hg
from unitree_sdk2py.utils.crc import CRC

from nfpo_deploy.transport import open_transport
from nfpo_deploy.transport.codec import HG_IMU_STATE, HG_LOW_CMD, HG_LOW_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot
from sim2real_checks.robot_sim import Remote, RobotSim, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.control import ControlRefusedError, SimControl
from sim2real_checks.robot_sim.faults import FaultError, parse_fault
from sim2real_checks.robot_sim.gantry import CLEARANCE
from sim2real_checks.robot_sim.messages import LowStateBuilder, SecondaryImuBuilder
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant

DOMAIN = 93
SPEC = load_robot("g1")
ZERO = np.zeros(29)
QUIET = SimConfig(robot="g1", noise=SensorNoise.none(), initial_pose="default")


def step(plant, seconds, pose=None):
    """Let time pass with stand gains towards a pose, or without any torque."""
    gains = SPEC.stand_gains
    for _ in range(round(seconds / 0.001)):
        plant.begin()
        torque = ZERO if pose is None else gains.stiffness * (pose - plant.q) - gains.damping * plant.dq
        plant.finish(np.clip(torque, -SPEC.torque_limit, SPEC.torque_limit))
    plant.begin()


def tilt(plant):
    _, x, y, _ = plant.truth().quat_wxyz
    return np.arccos(1.0 - 2.0 * (x * x + y * y))


@pytest.fixture
def hanging():
    return Plant(SPEC, QUIET)


# --- the gantry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pose", ["default", "crouch"])
def test_it_hangs_upright_above_the_floor_from_the_start(pose):
    plant = Plant(SPEC, SimConfig(robot="g1", initial_pose=pose))
    step(plant, 1.0, getattr(SPEC, f"{pose}_pose"))
    assert plant.truth().position_w[2] == pytest.approx(SPEC.base_height + CLEARANCE, abs=0.03)
    assert not plant.foot_force().any()
    assert tilt(plant) < 0.2 and np.abs(plant.truth().lin_vel_w).max() < 0.1, "at most it swings a little"


def test_it_stands_in_the_slack_rope_once_it_is_let_down(hanging):
    hanging.gantry.hold(hanging.data, lower=CLEARANCE + 0.08)
    step(hanging, 3.0, SPEC.default_pose)
    weight = hanging.model.body_subtreemass[1] * 9.81
    assert hanging.foot_force().sum() > 0.5 * weight and hanging.foot_force().min() > 20
    assert hanging.truth().position_w[2] == pytest.approx(SPEC.base_height, abs=0.04)
    assert tilt(hanging) < 0.25


def test_without_gantry_and_torque_it_falls_and_the_gantry_lifts_it_again(hanging):
    hanging.gantry.let_go(hanging.data)
    step(hanging, 2.0)
    assert hanging.truth().position_w[2] < 0.4
    hanging.gantry.hold(hanging.data, lower=0.0)
    step(hanging, 8.0, SPEC.default_pose)
    assert hanging.truth().position_w[2] == pytest.approx(SPEC.base_height + CLEARANCE, abs=0.05)
    assert not hanging.foot_force().any()


def test_the_rope_never_pushes(hanging):
    hanging.drop(0.3)
    hanging.begin()
    hanging.finish(ZERO)
    hanging.begin()
    torso = int(hanging.model.site_bodyid[hanging.model.site("gantry").id])
    assert not hanging.data.xfrc_applied[torso].any()
    height = hanging.truth().position_w[2]
    step(hanging, 0.1)
    assert hanging.truth().position_w[2] < height - 0.03, "it falls freely into the rope"


def test_a_robot_without_a_place_for_a_gantry_has_none():
    go2 = load_robot("go2")
    assert Plant(go2, SimConfig()).gantry is None
    for options in ({"gantry": "hold"}, {"gantry_release": 1.0}):
        with pytest.raises(SimConfigError, match="gantry: the model of go2 has no site"):
            Plant(go2, SimConfig(**options))


@pytest.mark.parametrize(
    "options", [{"gantry": "maybe"}, {"gantry_release": -1.0}, {"mode_machine": 256}, {"mode_machine": -1}], ids=str
)
def test_wrong_options_are_named(options):
    with pytest.raises(SimConfigError, match=next(iter(options))):
        SimConfig(robot="g1", **options)


# --- messages -------------------------------------------------------------------------------------


def test_the_sdk_reads_the_state_and_agrees_on_its_checksum(hanging):
    motors = MotorBank(SPEC)
    motors.torque = np.arange(29.0) / 8
    motors.temperature = 30.0 + np.arange(29.0)
    hanging.begin()
    builder = LowStateBuilder(SPEC, QUIET, hanging, motors)
    builder.mode_pr = 1
    message = hg.LowState_.deserialize(builder.build(Remote(lx=0.5)))
    assert message.crc == CRC().Crc(message)
    assert (message.mode_machine, message.mode_pr, message.tick) == (5, 1, 1000)
    assert message.imu_state.accelerometer == pytest.approx([0, 0, 9.81], abs=1.0)
    for joint, motor in enumerate(message.motor_state[:29]):
        assert motor.mode == 1 and motor.q == np.float32(hanging.q[joint])
        assert motor.tau_est == joint / 8 and list(motor.temperature) == [30 + joint] * 2
    assert all(motor.mode == 0 and motor.q == 0.0 for motor in message.motor_state[29:])
    assert bytes(message.wireless_remote) == Remote(lx=0.5).to_bytes()


def test_it_is_the_variant_that_it_was_told_to_be(hanging):
    config = SimConfig(robot="g1", mode_machine=2)
    sample = LowStateBuilder(SPEC, config, hanging, MotorBank(SPEC)).build(Remote())
    assert HG_LOW_STATE.decode(sample)["mode_machine"] == 2


def test_the_second_imu_turns_with_the_torso(hanging):
    waist = SPEC.joint_names.index("waist_yaw_joint")
    hanging.data.qpos[7 + waist] = 0.6
    hanging.begin()
    record = HG_IMU_STATE.decode(SecondaryImuBuilder(QUIET, hanging).build())
    base = hanging.imu()[0]
    yaw = [2 * np.arctan2(q[3], q[0]) for q in (record["quaternion"], base)]
    assert yaw[0] - yaw[1] == pytest.approx(0.6, abs=0.03)
    assert SecondaryImuBuilder(SimConfig(), Plant(load_robot("go2"), SimConfig())).build() is None


@pytest.mark.parametrize("message", [{"fault": "voltage", "volts": 5}, {"fault": "battery", "soc": 5}], ids=str)
def test_faults_of_what_its_messages_lack_are_refused(message):
    with pytest.raises(FaultError, match="the messages of a g1 .* do not carry it"):
        parse_fault(message, SPEC)


# --- over DDS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    path = tmp_path_factory.mktemp("g1") / "control"
    config = SimConfig(
        robot="g1", domain_id=DOMAIN, noise=SensorNoise.none(), builtin_mode="", initial_pose="default", control=path
    )
    with RobotSim(config).running() as sim:
        yield sim


@pytest.fixture
def transport(sim):
    transport = open_transport(SPEC, "lo", DOMAIN)
    yield transport
    transport.close()


def drive(transport, command, wait_for, condition):
    """Send a command, at about 100 Hz, until the newest state fulfils a condition."""

    def once():
        transport.write_command(command)
        time.sleep(0.01)
        state = transport.read_state()
        return state if state is not None and condition(state) else None

    return wait_for(once, timeout=20.0)


def hold(pose):
    return MotorCommand(pose, ZERO, SPEC.stand_gains.stiffness, SPEC.stand_gains.damping, ZERO)


def test_it_follows_our_transport_and_nothing_speaks_against_its_identity(transport, wait_for):
    pose = SPEC.default_pose.copy()
    elbow = SPEC.joint_names.index("left_elbow_joint")
    pose[elbow] = 0.2
    state = drive(transport, hold(pose), wait_for, lambda state: abs(state.q[elbow] - 0.2) < 0.1)
    assert state.mode_machine == 5 and np.isnan(state.battery_soc)
    assert transport.identity_problem == "" and transport.statistics.crc_errors == 0


def test_a_command_for_another_variant_is_ignored(sim, wait_for):
    participant = DdsParticipant("lo", DOMAIN)
    try:
        writer = participant.writer("rt/lowcmd", hg.LowCmd_)
        wait_for(lambda: writer.matched)
        encoder = LowCmdEncoder(SPEC)
        encoder.echo(4)
        before, count = sim._lowcmd.ignored, sim._lowcmd.count
        wrong = encoder.encode(hold(SPEC.crouch_pose))
        assert HG_LOW_CMD.decode(wrong)["mode_machine"] == 4
        wait_for(lambda: (writer.write(wrong), time.sleep(0.01), sim._lowcmd.ignored > before)[-1])
        assert sim._lowcmd.count == count
    finally:
        participant.close()


def test_the_second_imu_is_on_the_network(sim, wait_for):
    participant = DdsParticipant("lo", DOMAIN)
    try:
        reader = participant.reader("rt/secondary_imu", hg.IMUState_)
        message = hg.IMUState_.deserialize(wait_for(reader.take)[-1])
        assert np.linalg.norm(message.quaternion) == pytest.approx(1.0, abs=1e-3)
    finally:
        participant.close()


def test_the_gantry_lets_it_down_and_go_when_asked(sim, transport, wait_for):
    with SimControl(sim.config.control, timeout=10.0) as control:
        command = hold(SPEC.default_pose)
        control.send("gantry", lower=CLEARANCE + 0.08)
        drive(transport, command, wait_for, lambda _: sim.truth.position_w[2] < SPEC.base_height + 0.04)
        control.send("gantry", hold=False)
        limp = MotorCommand(ZERO, ZERO, ZERO, SPEC.damp_gains.damping, ZERO)
        drive(transport, limp, wait_for, lambda _: sim.truth.position_w[2] < 0.5)
        control.send("gantry")
        drive(transport, command, wait_for, lambda _: sim.truth.position_w[2] > SPEC.base_height)
        with pytest.raises(ControlRefusedError, match="bad hold"):
            control.send("gantry", hold=3)
