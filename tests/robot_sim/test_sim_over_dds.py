"""The simulated robot as a client sees it, and as the record says it was."""

import json
import signal
import time

import numpy as np
import pytest

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_, SportModeState_, WirelessController_

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import open_transport
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE, GO_SPORT_MODE_STATE, GO_WIRELESS_CONTROLLER
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import MotorCommand
from robots.loader import load_robot
from sim2real_checks.robot_sim import Push, Remote, RobotSim, SensorNoise, SimConfig
from sim2real_checks.robot_sim.recorder import load_record

DOMAIN = 15
SPEC = load_robot("go2")
ZERO = np.zeros(12)


def config(**options):
    return SimConfig(domain_id=DOMAIN, **{"builtin_mode": "", "noise": SensorNoise.none(), **options})


@pytest.fixture
def transport():
    transport = open_transport(SPEC, "lo", DOMAIN)
    yield transport
    transport.close()


def first_state(transport, wait_for):
    return wait_for(transport.read_state)


def pose_command(q, stiffness=60.0, damping=5.0):
    return MotorCommand(np.asarray(q), ZERO, np.full(12, stiffness), np.full(12, damping), ZERO)


def stand_up(transport, wait_for, ramp=1.5, hold=0.5):
    """Ramp from the measured pose to the default pose at 200 Hz."""
    start = first_state(transport, wait_for).q
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < ramp + hold:
        part = min(1.0, elapsed / ramp)
        transport.write_command(pose_command((1 - part) * start + part * SPEC.default_pose))
        time.sleep(0.005)


def test_low_state_rate_and_tick(start_sim, wait_for):
    start_sim("--domain-id", DOMAIN)
    participant = DdsParticipant("lo", DOMAIN)
    fast = participant.reader("rt/lowstate", LowState_, depth=256)
    slow = participant.reader("rt/lf/lowstate", LowState_, depth=256)
    wait_for(fast.take)
    slow.take()
    begin, samples, slow_count = time.monotonic(), [], 0
    while (elapsed := time.monotonic() - begin) < 3.0:
        samples += fast.take()
        slow_count += len(slow.take())
        time.sleep(0.01)
    participant.close()
    records = [GO_LOW_STATE.decode(sample) for sample in samples]
    ticks = np.array([int(record["tick"]) for record in records])
    assert len(records) / elapsed == pytest.approx(500, rel=0.06)
    assert set(np.diff(ticks)) == {2}, "one message every 2 ms of simulated time, none lost"
    assert ticks[-1] - ticks[0] == pytest.approx(1000 * elapsed, rel=0.06), "real time"
    assert all(GO_LOW_STATE.crc(record) == record["crc"] for record in records)
    assert slow_count / elapsed == pytest.approx(20, rel=0.15)


def test_lowcmd_is_ignored_until_the_builtin_controller_is_released(transport, wait_for, tmp_path):
    record = tmp_path / "run.npz"
    with RobotSim(config(builtin_mode="normal", record=record)).running() as sim:
        first_state(transport, wait_for)
        for _ in range(20):
            transport.write_command(pose_command(SPEC.default_pose, stiffness=33.0))
            time.sleep(0.005)
        assert sim.truth.position_w[2] < 0.13
        assert transport.release_mode(5.0) == "normal"
        assert transport.release_mode(5.0) == ""
        transport.write_command(pose_command(SPEC.crouch_pose, stiffness=44.0))
        wait_for(lambda: sim._motors.kp[0] == 44.0)
    assert sim.summary.lowcmd_ignored == 20 and sim.summary.lowcmd_count == 1
    columns, _ = load_record(record)
    gains = columns["command_kp"][:, 0]
    assert 33.0 not in gains
    assert gains[columns["builtin_active"] == 1].max() == SPEC.stand_gains.stiffness[0]


def test_last_command_persists_when_the_stream_stops(transport, wait_for):
    with RobotSim(config()).running() as sim:
        stand_up(transport, wait_for)
        time.sleep(1.5)
        assert sim.truth.position_w[2] > 0.25, "still standing on the last command"


def test_with_a_timeout_the_robot_goes_limp_when_the_stream_stops(transport, wait_for):
    with RobotSim(config(lowcmd_timeout=0.1)).running() as sim:
        stand_up(transport, wait_for)
        assert sim.truth.position_w[2] > 0.25
        time.sleep(1.5)
        assert sim.truth.position_w[2] < 0.15
        assert not sim._motors.torque.any()


def test_recorded_torque_obeys_the_pd_law_at_every_physics_step(transport, wait_for, tmp_path):
    record = tmp_path / "run.npz"
    with RobotSim(config(record=record, record_hz=1000)).running():
        first_state(transport, wait_for)
        for i in range(10):
            tau = np.full(12, 30.0 * (i % 3 - 1))
            transport.write_command(MotorCommand(SPEC.default_pose + 0.1 * i, ZERO + 0.5, ZERO + 30, ZERO + 2, tau))
            time.sleep(0.02)
    columns, meta = load_record(record)
    assert meta["joint_names"] == list(SPEC.joint_names)
    active = columns["command_kp"][:, 0] > 0
    assert active.sum() > 100
    q, dq = columns["qpos"][:, 7:], columns["qvel"][:, 6:]
    asked = (columns["command_tau"] + columns["command_kp"] * (columns["command_q"] - q)
             + columns["command_kd"] * (columns["command_dq"] - dq))  # fmt: skip
    limit = np.array([23.7, 23.7, 45.43] * 4)
    expected = np.clip(asked, -limit, limit)[active]
    assert columns["torque"][active] == pytest.approx(expected, abs=1e-3)
    assert (np.abs(asked[active]) > limit).any() and (np.abs(asked[active]) < limit).any(), "both cases occurred"
    assert not columns["torque"][~active].any(), "limp before the first command"
    moving = np.abs(np.diff(columns["torque"][active][:, 1])) > 0
    assert moving.mean() > 0.5, "the torque follows the joint between commands"


def test_bad_commands_are_counted_and_dropped(wait_for):
    participant = DdsParticipant("lo", DOMAIN)
    writer = participant.writer("rt/lowcmd", LowCmd_)
    good = LowCmdEncoder(SPEC).encode(pose_command(SPEC.crouch_pose, stiffness=11.0))
    flipped = bytearray(good)
    flipped[60] ^= 1
    not_finite = GO_LOW_CMD.decode(good).copy()
    not_finite["motor_cmd"]["kp"][3] = np.nan
    not_finite["crc"] = GO_LOW_CMD.crc(not_finite)
    with RobotSim(config()).running() as sim:
        wait_for(lambda: writer.matched)
        for sample in (bytes(flipped), bytes(flipped), GO_LOW_CMD.encode(not_finite)):
            writer.write(sample)
            time.sleep(0.02)
        assert not sim._motors.kp.any()
        writer.write(good)
        wait_for(lambda: sim._motors.kp[0] == 11.0)
    participant.close()
    assert (sim.summary.lowcmd_crc_errors, sim.summary.lowcmd_malformed, sim.summary.lowcmd_count) == (2, 1, 1)


def test_command_latency(transport, wait_for, tmp_path):
    record = tmp_path / "run.npz"
    with RobotSim(config(record=record, record_hz=1000, command_latency=0.05)).running() as sim:
        first_state(transport, wait_for)
        transport.write_command(pose_command(SPEC.crouch_pose))
        wait_for(lambda: sim._motors.kp.any())
        time.sleep(0.01)
    columns, _ = load_record(record)
    received = columns["time"][np.argmax(columns["lowcmd_count"] > 0)]
    obeyed = columns["time"][np.argmax(columns["command_kp"][:, 0] > 0)]
    assert obeyed - received == pytest.approx(0.05, abs=1e-6)


def test_sport_state_equals_the_recorded_truth(wait_for, tmp_path):
    record = tmp_path / "run.npz"
    participant = DdsParticipant("lo", DOMAIN)
    reader = participant.reader("rt/sportmodestate", SportModeState_, depth=512)
    samples = []
    push = Push(0.2, 1.0, 0.5)
    with RobotSim(config(record=record, record_hz=1000, pushes=(push,), duration=1.0)).running() as sim:
        while sim.summary is None:
            samples += reader.take()
            time.sleep(0.01)
    participant.close()
    columns, _ = load_record(record)
    assert len(samples) > 80
    for sample in samples:
        state = GO_SPORT_MODE_STATE.decode(sample)
        seconds = state["stamp"]["sec"] + state["stamp"]["nanosec"] * 1e-9 - 1.0
        row = round(seconds * 1000)
        assert columns["time"][row] == pytest.approx(seconds, abs=1e-6)
        if seconds == pytest.approx(push.time, abs=1e-6):
            continue  # recorded just after the push, published just before
        assert state["position"] == pytest.approx(columns["qpos"][row, :3], abs=1e-5)
        assert state["velocity"] == pytest.approx(columns["qvel"][row, :3], abs=1e-5)
        assert state["imu_state"]["quaternion"] == pytest.approx(columns["qpos"][row, 3:7], abs=1e-5)
    assert columns["qvel"][205:300, 0].max() > 0.3, "the push moved it"


def test_remote_reaches_clients_on_both_topics(wait_for):
    participant = DdsParticipant("lo", DOMAIN)
    states = participant.reader("rt/lowstate", LowState_)
    sticks = participant.reader("rt/wirelesscontroller", WirelessController_)
    with RobotSim(config()).running() as sim:
        sim.remote = Remote(ly=0.5, buttons=frozenset({"L2", "B"}))

        def newest(reader, codec):
            samples = reader.take()
            return codec.decode(samples[-1]) if samples else None

        def pressed():
            record = newest(sticks, GO_WIRELESS_CONTROLLER)
            return record if record is not None and record["keys"] else None

        record = wait_for(pressed)
        assert record["keys"] == 1 << 5 | 1 << 9 and record["ly"] == 0.5
        states.take()
        time.sleep(0.05)
        frame = newest(states, GO_LOW_STATE)["wireless_remote"].tobytes()
        assert frame[2] == 1 << 5 and frame[3] == 1 << 1
        assert np.frombuffer(frame[20:24], "<f4")[0] == 0.5
    participant.close()


def test_second_robot_on_the_same_domain_is_refused(start_sim):
    start_sim("--domain-id", DOMAIN)
    with pytest.raises(TransportError, match=f"already on DDS domain {DOMAIN}"):
        RobotSim(config(duration=1.0)).run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_stop_completes_the_record(start_sim, tmp_path, number):
    record = tmp_path / "run.csv"
    sim = start_sim("--domain-id", DOMAIN, "--record", record)
    time.sleep(0.5)
    status, output = sim.stop(number)
    assert status == 0 and "real-time factor" in output
    lines = record.read_text().splitlines()
    assert lines[0].startswith("time,wall_ns,qpos_0,qpos_1") and len(lines) > 50
    assert len(lines[-1].split(",")) == len(lines[0].split(","))
    assert not list(tmp_path.glob("*.partial"))


def test_record_of_a_killed_run_can_still_be_read(start_sim, tmp_path):
    record = tmp_path / "run.npz"
    sim = start_sim("--domain-id", DOMAIN, "--record", record, "--seed", 3)
    time.sleep(1.0)
    sim.stop(signal.SIGKILL)
    assert not record.exists()
    columns, meta = load_record(tmp_path / "run.npz.partial")
    assert len(columns["time"]) > 50 and meta["config"]["seed"] == "3"
    assert np.diff(columns["time"]) == pytest.approx(0.005)


def test_scripted_pushes_and_remote_from_the_command_line(start_sim, wait_for, tmp_path):
    record = tmp_path / "run.npz"
    sim = start_sim("--domain-id", DOMAIN, "--record", record, "--duration", 1, "--push", "0.3,0.8,0",
                    "--push", "0.6,0,-0.8", "--remote", "0.1,A,lx=-0.25", "--builtin-mode", "")  # fmt: skip
    participant = DdsParticipant("lo", DOMAIN)
    states, frames = participant.reader("rt/lowstate", LowState_, depth=64), []
    while sim.process.poll() is None:
        frames += [GO_LOW_STATE.decode(sample)["wireless_remote"].tobytes() for sample in states.take()]
        time.sleep(0.02)
    participant.close()
    assert sim.process.returncode == 0
    columns, meta = load_record(record)
    assert json.loads(json.dumps(meta))["robot"] == "go2"
    vx, vy = columns["qvel"][:, 0], columns["qvel"][:, 1]
    before = columns["time"] < 0.3
    assert np.abs(vx[before]).max() < 0.15 and vx[columns["time"] < 0.4].max() > 0.5
    assert vy[columns["time"] > 0.6].min() < -0.5
    assert frames[-1][3] == 1 and np.frombuffer(frames[-1][4:8], "<f4")[0] == -0.25
