"""Flight logs and records of the simulator become the same arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.types import MotorCommand
from sim2real_checks.inprocess import InProcessRobot, SensorErrors
from sim2real_checks.replay.compare_command import compare
from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.recording import load_recording
from sim2real_checks.robot_sim.recorder import Recorder, row_dtype

from .flights import UTC_NS, without


@pytest.fixture(scope="module")
def wire(spec, policy, tmp_path_factory):
    from sim2real_checks.validation.scenario import Command, Scenario

    from .flights import fly

    return fly(spec, policy, Scenario("walk", duration=0.6, commands=(Command(0.0, vx=0.5),)), states=True)


def test_a_flight_log_becomes_arrays(wire, tmp_path):
    recording = load_recording([wire.write(tmp_path / "flight.mcap")], "flight")
    states = [(now, values) for name, now, values in wire.rows if name == "state"]
    assert len(recording.time) == len(states) > 1000 and not recording.problems
    times = np.array([now for now, _ in states])
    assert np.abs(recording.time - (times - times[0]) * 1e-9).max() < 1e-9
    for ours, theirs in {"q": "q", "dq": "dq", "tau": "tau_est", "gyro_b": "gyro_b", "accel_b": "accel_b"}.items():
        assert np.array_equal(getattr(recording, ours), [values[theirs] for _, values in states]), ours
    assert len(recording.command_time) == len(wire.raw)
    sent = [entry.publish_ns - UTC_NS - times[0] for entry in wire.raw]
    assert np.abs(recording.command_time - np.array(sent) * 1e-9).max() < 1e-9
    # The newest command at a state is the one that answers it, sent in the same cycle.
    assert np.array_equal(recording.commanded("q")[700], recording.command["q"][700])
    permits = [(now, values["mode"]) for name, now, values in wire.rows if name == "permit"]
    walking = next(now for now, mode in permits if mode == 3)
    assert np.array_equal(recording.active, times >= walking)
    assert recording.accel_at.tolist() == wire.spec.imu_position.tolist()


def test_contact_is_that_of_the_estimate_of_the_same_state(wire, tmp_path):
    recording = load_recording([wire.write(tmp_path / "flight.mcap")], "flight")
    received = [values["received_ns"] for name, _, values in wire.rows if name == "state"]
    for values in [values for name, _, values in wire.rows if name == "estimate"][100::97]:
        assert recording.contact[received.index(values["received_ns"])].tolist() == values["contact"]
    assert np.isnan(recording.contact[0]).all()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda name, values: name != "state", "holds no states of the robot"),
        (lambda name, values: name == "state", "the joints are never held stiff"),
    ],
)
def test_logs_that_lack_something_are_refused_by_name(wire, tmp_path, kept, message):
    from .flights import Flight

    rows = [row for row in wire.rows if kept(row[0], row[2])]
    raw = wire.raw if "holds" in message else wire.raw[:1]
    flight = Flight(wire.spec, wire.policy, rows, raw)
    with pytest.raises(ReplayError, match=message):
        load_recording([flight.write(tmp_path / "flight.mcap")], "flight")


def test_a_log_of_another_robot_or_with_absurd_numbers_is_refused(wire, tmp_path):
    from .flights import Flight

    for change, message in (
        ({"joint_names_crc": 5}, "another robot or joint order than 'go2'"),
        ({"q": [float("nan")] * 12}, "q holds numbers that are not finite"),
    ):
        rows = [(name, now, without(v, **change) if name == "state" else v) for name, now, v in wire.rows]
        path = tmp_path / f"{len(message)}.mcap"
        with pytest.raises(ReplayError, match=message):
            load_recording([Flight(wire.spec, wire.policy, rows, wire.raw).write(path)], "flight")


def record(spec, path, seconds=1.0, hz=200):
    """A standing robot whose FR thigh moves, as `robot_sim` records it."""
    robot = InProcessRobot(spec, errors=SensorErrors.none())
    model = robot.plant.model
    recorder = Recorder(path, row_dtype(model.nq, model.nv, 12, 4), {"robot": spec.name})
    zero, stiffness, damping = np.zeros(12), np.full(12, 60.0), np.full(12, 5.0)
    states = []
    for k in range(round(seconds * 500)):
        target = spec.default_pose.copy()
        target[1] += 0.1 * np.sin(2.0 * np.pi * 2.0 * k / 500)
        state = robot.advance(MotorCommand(target, zero, stiffness, damping, zero))
        if k % (500 // hz) == 0:
            recorder.append(robot.plant, robot._motors, 0)
            states.append(state)
    recorder.close()
    return states


def test_a_record_of_the_simulator_becomes_arrays(spec, tmp_path):
    states = record(spec, tmp_path / "run.npz", hz=500)
    recording = load_recording([tmp_path / "run.npz"], "run")
    assert recording.active.all() and len(recording.time) == len(states) == 500
    assert np.abs(recording.q - [state.q for state in states]).max() < 1e-12
    assert np.abs(recording.gyro_b - [state.gyro_b for state in states]).max() < 1e-6
    assert np.all(recording.commanded("kp") == 60.0) and np.ptp(recording.commanded("q")[:, 1]) > 0.19
    assert recording.contact.all()
    # The accelerometer sits away from the base's origin, but a standing robot hardly turns.
    means = np.mean([state.accel_b for state in states], axis=0)
    assert np.abs(recording.accel_b.mean(axis=0) - means).max() < 0.3 and abs(means[2] - 9.81) < 0.2


def test_damaged_records_are_refused_by_name(spec, tmp_path):
    record(spec, tmp_path / "run.npz", 0.1)
    with np.load(tmp_path / "run.npz") as data:
        columns = dict(data)
    for change, message in (
        ({"command_kp": np.zeros((len(columns["time"]), 11))}, "command_kp has shape"),
        ({"torque": np.full((len(columns["time"]), 12), np.nan)}, "torque holds numbers that are not finite"),
        ({"time": columns["time"][::-1]}, "whose times rise"),
        ({"meta": np.array('{"robot": "go9"}')}, "the log is of robot 'go9'"),
        ({"command_q": np.array(["x"] * 12)}, "command_q has shape"),
    ):
        np.savez(tmp_path / "bad.npz", **(columns | change))
        with pytest.raises(ReplayError, match=message):
            load_recording([tmp_path / "bad.npz"], "bad")
    del columns["foot_force"]
    np.savez(tmp_path / "bad.npz", **columns)
    with pytest.raises(ReplayError, match="is not a whole record of the simulator"):
        load_recording([tmp_path / "bad.npz"], "bad")


def test_a_part_outside_the_run_is_refused(spec, tmp_path):
    record(spec, tmp_path / "run.npz", 0.5)
    recording = load_recording([tmp_path / "run.npz"], "run")
    assert recording.part(0.1, 0.2).active.sum() == pytest.approx(20, abs=5)
    with pytest.raises(ReplayError, match=r"run: nothing to compare between 3 and 4 s; it lasts 0\.5 s"):
        recording.part(3.0, 4.0)


def test_files_are_compared_from_the_command_line(spec, wire, tmp_path, capsys):
    record(spec, tmp_path / "run.npz", 1.0)
    flight = wire.write(tmp_path / "flight.mcap")
    out = tmp_path / "out"
    assert compare([str(tmp_path / "run.npz"), str(flight), "--no-fit", "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert (report["sim"]["name"], report["real"]["name"], report["fit"]) == ("run.npz", "flight.mcap", None)
    with pytest.raises(NfpoError, match="no log 'nowhere.mcap'"):
        compare([str(flight), "nowhere.mcap", "--folder", str(tmp_path)])
