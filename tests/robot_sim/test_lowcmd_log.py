"""The log of every LowCmd and the record's files: right numbers, flat memory, old and killed records."""

import signal
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

from nfpo_deploy.transport.codec import GO_LOW_CMD, POS_STOP, VEL_STOP
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot
from sim2real_checks.robot_sim import RobotSim, SensorNoise, SimConfig
from sim2real_checks.robot_sim.lowcmd_log import BAD_CRC, HEARD, IGNORED, MALFORMED
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant
from sim2real_checks.robot_sim.recorder import Recorder, load_record, row_dtype

DOMAIN = 40
SPEC = load_robot("go2")
ZERO = np.zeros(12)
DATA = Path(__file__).parent / "data"


def sample_of(q, dq=ZERO, kp=ZERO, kd=ZERO, tau=ZERO, mode=1):
    """A LowCmd that our encoder would refuse to make in part, such as one with sentinels."""
    record = GO_LOW_CMD.new()
    for name, values in (("q", q), ("dq", dq), ("kp", kp), ("kd", kd), ("tau", tau), ("mode", mode)):
        record["motor_cmd"][name][:12] = values
    record["motor_cmd"]["kp"][12:] = 1000.0  # slots of motors that the robot does not have count for nothing
    record["crc"] = GO_LOW_CMD.crc(record)
    return GO_LOW_CMD.encode(record)


def test_log_of_every_lowcmd(tmp_path, wait_for):
    record = tmp_path / "run.npz"
    config = SimConfig(domain_id=DOMAIN, builtin_mode="normal", noise=SensorNoise.none(), record=record)
    participants = [DdsParticipant("lo", DOMAIN) for _ in range(2)]
    writers = [
        participant.writer("rt/lowcmd", LowCmd_, user_data=name)
        for participant, name in zip(participants, (b"one 7", b""), strict=True)
    ]
    sent = []
    with RobotSim(config).running() as sim:
        wait_for(lambda: all(writer.matched for writer in writers))
        wait_for(lambda: sim.truth.time > 0.5 and np.abs(sim.truth.dq).max() < 0.005, timeout=60)
        q = sim.truth.q  # it lies still: the built-in controller holds the pose
        one_off = q + np.eye(12)[4] * 0.5

        def send(writer, sample):
            before = time.monotonic_ns()
            writers[writer].write(sample)
            count = len(sent) + 1
            wait_for(lambda: sum((sim._lowcmd.count, sim._lowcmd.ignored, sim._lowcmd.crc_errors,
                                  sim._lowcmd.malformed)) == count)  # fmt: skip
            sent.append((before, time.monotonic_ns()))

        send(0, sample_of(one_off, kp=10.0, kd=2.0))
        send(1, sample_of(q, kp=np.arange(12), tau=-np.arange(12)))
        send(0, sample_of(POS_STOP, dq=VEL_STOP, kp=10.0, kd=2.0, tau=3.0))
        send(1, sample_of(one_off, dq=1.5, kd=2.0))
        send(1, sample_of(one_off, kp=10.0, kd=2.0, tau=5.0, mode=0))
        broken = bytearray(sample_of(q))
        broken[60] ^= 1
        send(0, bytes(broken))
        send(0, sample_of(q, kp=np.nan))
        sim._builtin.release()
        send(1, LowCmdEncoder(SPEC).encode(MotorCommand(q, ZERO, ZERO, ZERO + 3.0, ZERO)))
    for participant in participants:
        participant.close()
    log, _ = load_record(record)
    assert log["lowcmd_writers"].tolist() == ["one 7", ""]
    assert log["lowcmd_log_writer"].tolist() == [0, 1, 0, 1, 1, 0, 0, 1]
    assert log["lowcmd_log_fate"].tolist() == [IGNORED] * 5 + [BAD_CRC, MALFORMED, HEARD]
    for (before, after), received in zip(sent, log["lowcmd_log_ns"], strict=True):
        assert before < received < after
    nan = np.nan
    expected = {
        "kp_sum": [120, 66, 0, 0, 0, nan, nan, 0],
        "kd_sum": [24, 0, 0, 24, 0, nan, nan, 36],
        "q_err": [0.5, 0, 0, 0, 0, nan, nan, 0],  # only where a position gain acts
        "tau_max": [0, 11, 3, 0, 0, nan, nan, 0],
        "torque_max": [5, 11, 3, 3, 0, nan, nan],  # the last one met a robot that had begun to move
    }
    for name, values in expected.items():
        seen = log[f"lowcmd_log_{name}"][: len(values)]
        assert seen == pytest.approx(values, abs=0.05, nan_ok=True), name


def test_log_becomes_a_second_file_beside_a_csv(start_sim, tmp_path):
    record = tmp_path / "run.csv"
    sim = start_sim("--domain-id", DOMAIN, "--record", record, "--builtin-mode", "")
    participant = DdsParticipant("lo", DOMAIN)
    writer = participant.writer("rt/lowcmd", LowCmd_)
    while not writer.matched:
        time.sleep(0.01)
    for _ in range(5):
        writer.write(sample_of(SPEC.crouch_pose, kd=1.0))
        time.sleep(0.05)
    status, _ = sim.stop()
    participant.close()
    assert status == 0
    lines = (tmp_path / "run.lowcmd.csv").read_text().splitlines()
    assert lines[0] == "ns,writer,fate,kp_sum,kd_sum,q_err,tau_max,torque_max" and len(lines) == 6
    assert lines[1].split(",")[1:5] == ["0", "0", "0.0", "12.0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.lowcmd.csv"]


def test_log_of_a_killed_run_can_still_be_read(start_sim, tmp_path):
    record = tmp_path / "run.npz"
    sim = start_sim("--domain-id", DOMAIN, "--record", record, "--record-hz", 1000, "--builtin-mode", "")
    participant = DdsParticipant("lo", DOMAIN)
    writer = participant.writer("rt/lowcmd", LowCmd_)
    while not writer.matched:
        time.sleep(0.01)
    for _ in range(200):
        writer.write(sample_of(SPEC.crouch_pose, kp=1.0))
        time.sleep(0.005)
    sim.stop(signal.SIGKILL)
    participant.close()
    columns, meta = load_record(tmp_path / "run.npz.partial")
    assert meta["robot"] == "go2" and np.diff(columns["time"]) == pytest.approx(0.001)
    assert len(columns["lowcmd_log_ns"]) > 100 and (columns["lowcmd_log_kp_sum"] == 12).all()
    assert "lowcmd_writers" not in columns
    with pytest.raises(ValueError, match="not the rows of a record"):
        load_record(tmp_path / "run.npz.lowcmd.partial")


@pytest.mark.parametrize("name", ["before_faults.npz", "killed_before_faults.npz.partial"])
def test_records_of_older_versions_can_be_read(name):
    columns, meta = load_record(DATA / name)
    assert columns["wall_ns"].tolist() == [1000, 1001, 1002, 1003] and columns["qpos"].shape == (4, 19)
    assert meta["joint_names"] == list(SPEC.joint_names)
    assert "fault" not in columns and "lowcmd_log_ns" not in columns


def test_memory_stays_flat_while_rows_are_appended(tmp_path):
    plant, motors = Plant(SPEC, SimConfig()), MotorBank(SPEC)
    recorder = Recorder(tmp_path / "run.npz", row_dtype(19, 18, 12, 4), {})
    log = recorder.open_lowcmd_log(SPEC)
    motor_cmd = GO_LOW_CMD.decode(sample_of(SPEC.crouch_pose, kp=1.0))["motor_cmd"]

    class Reader:
        def publisher(self, handle):
            raise AssertionError("asked once for each writer, and it is known already")

    log._ids[5] = 0
    append = [
        lambda i: recorder.append(plant, motors, i),
        lambda i: log.append(i, Reader(), 5, HEARD, motor_cmd, plant),
    ]
    for write in append:
        write(0)
    tracemalloc.start()
    for i in range(1, 20000):
        for write in append:
            write(i)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000, f"{peak} bytes for 20000 rows of 0.7 kB"
    recorder.close()
    columns, _ = load_record(tmp_path / "run.npz")
    assert columns["wall_ns"].tolist() == columns["lowcmd_log_ns"].tolist() == list(range(20000))
