"""Faults of body, motors, command side and machine: what the recorded truth shows while they last, and afterwards."""

import time

import numpy as np
import pytest

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, WirelessController_

from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_WIRELESS_CONTROLLER
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot
from sim2real_checks.robot_sim import RobotSim, SensorNoise, SimConfig
from sim2real_checks.robot_sim.control import SimControl
from sim2real_checks.robot_sim.lowcmd_log import HEARD, LOST
from sim2real_checks.robot_sim.recorder import load_record

DOMAIN = 32
SPEC = load_robot("go2")
ZERO = np.zeros(12)
JOINT = "FL_thigh_joint"
J = SPEC.joint_names.index(JOINT)
LIMIT = SPEC.torque_limit


def pose_command(q, stiffness=60.0, damping=5.0):
    return MotorCommand(np.asarray(q), ZERO, np.full(12, stiffness), np.full(12, damping), ZERO)


class Session:
    """A running robot, a commander on the network, and afterwards the record."""

    def __init__(self, folder, wait_for, **options):
        self.record = folder / "run.npz"
        config = {"domain_id": DOMAIN, "builtin_mode": "", "noise": SensorNoise.none(), "record": self.record,
                  "record_hz": 1000, "control": folder / "control", **options}  # fmt: skip
        self.sim = RobotSim(SimConfig(**config))
        self.participant = DdsParticipant("lo", DOMAIN)
        self.writer = self.participant.writer("rt/lowcmd", LowCmd_, user_data=b"test 1")
        self.encoder = LowCmdEncoder(SPEC)
        self.wait_for = wait_for
        self.columns = None

    def __enter__(self):
        self._running = self.sim.running()
        self._running.__enter__()
        self.control = SimControl(self.sim.config.control, timeout=20)
        self.wait_for(lambda: self.writer.matched)
        return self

    def __exit__(self, *error):
        self.control.close()
        self._running.__exit__(*error)
        self.participant.close()
        if error == (None, None, None):
            self.columns, _ = load_record(self.record)

    def command(self, q, **gains):
        self.writer.write(self.encoder.encode(pose_command(q, **gains)))

    def wait(self, seconds):
        """Let simulated time pass."""
        end = self.sim.truth.time + seconds
        self.wait_for(lambda: self.sim.truth.time >= end, timeout=60)

    def during(self, answer, duration):
        """Rows of the record inside a fault: (N,) bool. Its fault column must say the same."""
        time = self.columns["time"]
        inside = (time > answer["sim_time"] - 1e-6) & (time < answer["sim_time"] + duration - 1e-6)
        assert (self.columns["fault"] == inside).all()
        return inside

    def asked(self):
        """Torque that the PD law asks for in each row, before limits."""
        c = self.columns
        return (c["command_tau"] + c["command_kp"] * (c["command_q"] - c["qpos"][:, 7:])
                + c["command_kd"] * (c["command_dq"] - c["qvel"][:, 6:]))  # fmt: skip


@pytest.fixture
def session(tmp_path, wait_for):
    return Session(tmp_path, wait_for)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"fault": "weak_motor", "factor": 0.25}, lambda asked: 0.25 * np.clip(asked, -LIMIT[J], LIMIT[J])),
        ({"fault": "limp_motor"}, lambda asked: 0.0 * asked),
        ({"fault": "runaway_motor", "torque": 8.0}, lambda asked: np.clip(asked + 8.0, -LIMIT[J], LIMIT[J])),
        ({"fault": "runaway_motor", "torque": -100.0}, lambda asked: np.clip(asked - 100.0, -LIMIT[J], LIMIT[J])),
    ],
)
def test_motor_fault_changes_the_torque_of_one_joint_for_its_time(session, fault, expected):
    with session:
        session.command(SPEC.default_pose)
        session.wait(0.3)
        answer = session.control.request(duration=0.2, joint=JOINT, **fault)
        session.wait(0.4)
    inside = session.during(answer, 0.2)
    assert inside.sum() == 200
    asked = session.asked()
    healthy = np.clip(asked, -LIMIT, LIMIT)
    torque, others = session.columns["torque"], np.arange(12) != J
    assert torque[:, others] == pytest.approx(healthy[:, others], abs=1e-3)
    assert torque[~inside, J] == pytest.approx(healthy[~inside, J], abs=1e-3)
    assert torque[inside, J] == pytest.approx(expected(asked[inside, J]), abs=1e-3)
    assert np.abs(torque[inside, J] - healthy[inside, J]).max() > 1, "it made a difference"


def test_a_motor_runs_away_even_before_it_was_commanded(session):
    with session:
        answer = session.control.request("runaway_motor", 0.1, joint=JOINT, torque=5.0)
        session.wait(0.2)
    inside = session.during(answer, 0.1)
    assert (session.columns["torque"][inside, J] == 5.0).all() and not session.columns["torque"][~inside].any()


def test_blocked_joint_does_not_move_while_the_others_do(session):
    with session:
        answer = session.control.request("block_joint", 0.8, joint=JOINT)
        session.command(SPEC.default_pose)
        session.wait(1.6)
    inside = session.during(answer, 0.8)
    q = session.columns["qpos"][:, 7:]
    start = np.argmax(inside)
    assert np.abs(q[inside, J] - q[start, J]).max() < 1e-6
    assert np.ptp(q[inside], axis=0)[[4 - 1, 1]].max() > 0.1, "the joints beside it and across moved"
    assert np.abs(session.asked()[inside, J]).max() > 5, "although its motor pulled"
    assert q[start, J] - q[-1, J] > 0.2, "free again"


def test_a_blocked_leg_carries_the_robot(session):
    """A locked joint must push back on the body: with all joints locked and the motors limp, the robot stands."""
    with session:
        session.command(SPEC.default_pose)
        session.wait(1.0)
        height = session.sim.truth.position_w[2]
        for name in SPEC.joint_names:
            session.control.request("block_joint", joint=name)
        session.command(SPEC.default_pose, stiffness=0.0, damping=0.0)
        session.wait(0.5)
        assert session.sim.truth.position_w[2] == pytest.approx(height, abs=0.01) and height > 0.25
        session.control.clear()
        session.wait(0.7)
        assert session.sim.truth.position_w[2] < 0.2


def test_push(session):
    with session:
        session.wait(0.2)
        answer = session.control.request("push", vx=1.5, vy=-0.5)
        session.wait(0.1)
    rows = session.columns
    first = int(np.argmax(session.during(answer, 0.002)))
    change = rows["qvel"][first, :2] - rows["qvel"][first - 1, :2]
    assert change == pytest.approx([1.5, -0.5], abs=0.02)


def test_drop(session):
    with session:
        session.command(SPEC.crouch_pose)
        session.wait(0.5)
        answer = session.control.request("drop", height=0.4)
        session.wait(0.6)
    z = session.columns["qpos"][:, 2]
    first = int(np.argmax(session.during(answer, 0.002)))
    assert z[first] - z[first - 1] == pytest.approx(0.4, abs=0.001)
    assert z[first] - z[first + 200] == pytest.approx(9.81 / 2 * 0.2**2, abs=0.02)
    assert z[-1] < 0.2


def test_lay_down(session):
    with session:
        sideways = SPEC.default_pose.copy()
        sideways[[2, 8]] = SPEC.position_lower[[2, 8]]
        session.command(sideways)
        session.wait(1.0)
        answer = session.control.request("lay_down")
        session.wait(0.05)
    qpos = session.columns["qpos"]
    first = int(np.argmax(session.during(answer, 0.002)))
    before, after = qpos[first - 1], qpos[first]
    assert after[:2] == pytest.approx(before[:2], abs=0.02), "on the spot"
    assert np.abs(before[4:6]).max() > 0.1 and after[4:6] == pytest.approx([0.0, 0.0], abs=0.02) and after[2] < 0.15
    assert after[7:] == pytest.approx(SPEC.crouch_pose, abs=0.05)


def test_lift(session):
    with session:
        session.command(SPEC.default_pose)
        session.wait(0.8)
        answer = session.control.request("lift", 1.5, height=0.3)
        session.wait(2.5)
    inside = np.flatnonzero(session.during(answer, 1.5))
    z, force = session.columns["qpos"][:, 2], session.columns["foot_force"]
    assert z[inside[-1]] - z[inside[0]] == pytest.approx(0.3, abs=0.02)
    assert not force[inside[-100:]].any() and np.abs(session.columns["qpos"][inside[-1], 4:6]).max() < 0.1
    assert z[-1] == pytest.approx(z[inside[0]], abs=0.03) and force[-1].sum() > 100, "back on its feet"


def test_lowcmd_delay(session):
    with session:
        answer = session.control.request("lowcmd_delay", 0.5, seconds=0.1)
        session.command(SPEC.crouch_pose, stiffness=11.0)
        session.wait(0.2)
        session.command(SPEC.crouch_pose, stiffness=22.0)
        session.wait(0.2)
        session.command(SPEC.crouch_pose, stiffness=33.0)
        session.wait(0.3)
        session.command(SPEC.crouch_pose, stiffness=44.0)
        session.wait(0.05)
    columns = session.columns
    gains, count, time = columns["command_kp"][:, 0], columns["lowcmd_count"], columns["time"]
    lateness = [
        time[np.argmax(gains == gain)] - time[np.argmax(count == i)]
        for i, gain in ((1, 11.0), (2, 22.0), (3, 33.0), (4, 44.0))
    ]
    assert lateness[:2] == pytest.approx([0.1, 0.1], abs=1e-6)
    end = answer["sim_time"] + 0.5
    third = end - time[np.argmax(count == 3)]
    assert lateness[2] == pytest.approx(min(third, 0.1), abs=0.002), "what is under way at the end arrives then"
    assert lateness[3] == pytest.approx(0.0, abs=1e-6)


def test_lowcmd_loss(session):
    with session:
        session.control.request("lowcmd_loss", p=1.0)
        session.command(SPEC.crouch_pose, stiffness=11.0)
        session.wait(0.05)
        assert not session.sim._motors.kp.any()
        session.control.request("lowcmd_loss", p=0.5, seed=3)
        for i in range(200):
            session.command(SPEC.crouch_pose, stiffness=20.0 + i)
            session.wait_for(lambda count=i + 2: session.sim._lowcmd.count + session.sim._lowcmd.lost == count)
        session.control.clear()
        session.command(SPEC.crouch_pose, stiffness=5.0)
        session.wait_for(lambda: session.sim._motors.kp[0] == 5.0)
    fate, sums = session.columns["lowcmd_log_fate"], session.columns["lowcmd_log_kp_sum"] / 12
    assert sums == pytest.approx([11.0, *range(20, 220), 5.0]), "the log has those that were lost too"
    assert fate[0] == LOST and fate[-1] == HEARD and set(fate) == {LOST, HEARD}
    assert 70 < (fate == LOST).sum() < 130
    assert session.sim.summary.lowcmd_count == (fate == HEARD).sum()


def test_remote_on_its_own_topic(session):
    reader = session.participant.reader("rt/wirelesscontroller", WirelessController_, depth=256)
    with session:
        session.wait(0.1)
        reader.take()
        session.control.request("remote", 0.3, buttons=["A"], rx=0.25)
        session.wait(0.5)
        frames = [GO_WIRELESS_CONTROLLER.decode(sample) for sample in reader.take()]
    pressed = [int(frame["keys"]) == 1 << 8 and float(frame["rx"]) == 0.25 for frame in frames]
    assert sum(pressed) == 30, "0.3 s at 100 Hz"
    assert pressed == sorted(pressed[: pressed.index(True)]) + [True] * 30 + [False] * (
        len(frames) - pressed.index(True) - 30
    )


def test_hang_stops_the_physics_and_keeps_listening(session):
    with session:
        session.command(SPEC.default_pose, stiffness=10.0)
        session.wait(0.1)
        session.control.request("hang")
        moment = session.sim.truth.time
        for i in range(20):
            session.command(SPEC.default_pose, stiffness=20.0 + i)
            session.wait_for(lambda count=i + 2: session.sim._lowcmd.count == count)
        time.sleep(0.1)
        assert session.sim.truth.time == pytest.approx(moment, abs=0.004)
        session.control.clear()
        session.wait(0.2)
    rows = session.columns
    gap = int(np.argmax(np.diff(rows["wall_ns"])))
    assert np.diff(rows["wall_ns"])[gap] > 0.1e9
    assert np.diff(rows["time"]) == pytest.approx(0.001, abs=1e-9), "simulated time has no hole"
    assert np.abs(np.diff(rows["qpos"][gap - 1 : gap + 2], axis=0)).max() < 0.05
    assert rows["command_kp"][gap, 0] == 10.0 and rows["command_kp"][gap + 1, 0] == 39.0, "it obeys what came last"
    heard = rows["lowcmd_log_ns"][rows["lowcmd_log_kp_sum"] > 12 * 19]
    assert (heard > rows["wall_ns"][gap]).all() and (heard < rows["wall_ns"][gap + 1]).all() and len(heard) == 20


def test_foreign_controller_commands_a_stand_beside_ours(session):
    reader = session.participant.reader("rt/lowcmd", LowCmd_, depth=4096, ignore_own=True)
    with session:
        session.command(SPEC.crouch_pose, stiffness=33.0)
        session.wait(0.1)
        assert reader.matched == 0 and not reader.take()
        session.control.request("foreign_controller", 0.4)
        samples = []
        session.wait_for(lambda: samples.extend(reader.take()) or samples)
        for _ in range(40):
            session.command(SPEC.crouch_pose, stiffness=33.0)
            session.wait(0.004)
        session.wait(0.6)
        samples.extend(reader.take())
        session.wait_for(lambda: reader.matched == 0)
    records = [GO_LOW_CMD.decode(sample) for sample in samples]
    assert len(records) == 200, "500 a second for 0.4 s"
    assert all(GO_LOW_CMD.crc(record) == record["crc"] for record in records)
    assert records[0]["motor_cmd"]["q"][:12] == pytest.approx(SPEC.default_pose, abs=1e-6)
    assert records[0]["motor_cmd"]["kp"][:12].tolist() == SPEC.stand_gains.stiffness.tolist()
    gains = session.columns["command_kp"][:, 0]
    assert ((np.diff(gains) != 0).sum()) > 10, "the motors obey whoever spoke last"
    writers, log = session.columns["lowcmd_writers"], session.columns["lowcmd_log_writer"]
    assert writers.tolist() == ["test 1", ""] and (log == 1).sum() == 200 and (log == 0).sum() == 41


def test_foreign_controller_can_return_and_last_until_cleared(session):
    reader = session.participant.reader("rt/lowcmd", LowCmd_, depth=4096, ignore_own=True)
    with session:
        for _ in range(2):
            answer = session.control.request("foreign_controller")
            assert answer["active"] == ["foreign_controller"]
            session.wait_for(reader.take)
            session.control.clear()
            session.wait_for(lambda: reader.matched == 0)
            reader.take()
            session.wait(0.05)
            assert not reader.take()
    assert session.columns["lowcmd_writers"].tolist() == ["", ""]
