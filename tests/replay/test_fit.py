"""Parameters planted in a simulated robot are found again, and where nothing was planted nothing is found."""

from __future__ import annotations

import dataclasses
import json

import mujoco
import numpy as np
import pytest
import yaml

from robots.mjcf import build_model
from sim2real_checks.replay import compare_command
from sim2real_checks.replay.compare_report import actuation_yaml
from sim2real_checks.replay.fit import fit, nominal_parameters
from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.legs import LegModel
from sim2real_checks.replay.recording import COMMANDED, Recording, load_recording
from sim2real_checks.replay.windows import Parameters, cut_windows, rollout
from sim2real_checks.validation.scenario import Actuation, Command, Scenario

from .robots import hang, walk

PLANTED = {"friction": 0.5, "armature": 0.02, "latency": 0.006, "strength": 0.85}
FLAWS = Actuation(delay=0.006, strength=0.85, friction=0.3)
NOTHING = {"friction": 0.2, "armature": 0.01, "latency": 0.002, "strength": 1.0}
"""What the model has, and a scenario by default."""
HANGING = {"friction": 0.04, "armature": 0.001, "latency": 0.0006, "strength": 0.03}
WALKING = {"friction": 0.05, "armature": 0.002, "latency": 0.001, "strength": 0.06}
"""How near to what was planted an estimate must come: 8 s of hanging, 5 s of walking, a Go2's sensor errors."""
WALK = Scenario("walk", duration=5.0, commands=(Command(0.2, vx=0.5), Command(2.5, vx=0.2, wz=0.6)))


def assert_found(found, truth, near):
    assert [one.name for one in found.estimates] == list(truth)
    for one in found.estimates:
        assert one.value == pytest.approx(truth[one.name], abs=near[one.name]), one
        assert one.low <= truth[one.name] <= one.high, one


def free_fall(spec, seconds=0.5):
    """A tumbling robot in the air, moved by torques of the motors alone; returns its recording and (T, N) ddq."""
    model = build_model(spec.name, collision="simple", floor=False, actuators="torque", timestep=0.0005)
    model.dof_frictionloss[:], model.dof_damping[:], model.dof_armature[:] = 0.0, 0.0, 0.0
    model.jnt_limited[:] = 0
    data = mujoco.MjData(model)
    data.qpos[3:7], data.qpos[7:] = (0.9, 0.1, -0.3, 0.3), spec.default_pose
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    data.qvel[:6] = (0.5, -1.0, 2.0, 1.5, -2.0, 1.0)
    rows = []
    for k in range(round(seconds / model.opt.timestep)):
        t = k * model.opt.timestep
        data.ctrl[:] = (
            5.0 * np.sin(9.0 * t + np.arange(12)) + 6.0 * (spec.default_pose - data.qpos[7:]) - 0.4 * data.qvel[6:]
        )
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        if k % 4 == 3:
            quat, gyro, acc = (data.sensor(f"{spec.imu_site}_{part}").data.copy() for part in ("quat", "gyro", "acc"))
            rows.append((data.time, data.qpos[7:].copy(), data.qvel[6:].copy(), data.ctrl.copy(), quat, gyro, acc,
                         data.qacc[6:].copy()))  # fmt: skip
    time, q, dq, tau, quat, gyro, acc, ddq = (np.array(column) for column in zip(*rows, strict=True))
    command = {name: np.zeros_like(q) for name in COMMANDED}
    recording = Recording(
        name="falling", spec=spec, time=time, q=q, dq=dq, tau=tau, quat_wxyz=quat, gyro_b=gyro, accel_b=acc,
        accel_at=spec.imu_position, contact=np.zeros((len(time), 4)), command_time=time, command=command,
        active=np.ones(len(time), dtype=bool),
    )  # fmt: skip
    return recording, ddq


def test_the_legs_equation_of_motion_is_that_of_the_whole_body(spec):
    """A tumbling body, where every term of it counts: MuJoCo's forward dynamics of all of it is the truth."""
    recording, ddq = free_fall(spec)
    stretch = LegModel(recording).along(recording, slice(0, len(recording.time)))
    inside = slice(10, len(stretch.time) - 10)
    at = np.round((stretch.time - recording.time[0]) / 0.002).astype(int)[inside]
    legs = np.array([foot.joint_indices for foot in spec.feet])
    needed = np.einsum("tfij,tfj->tfi", stretch.inertia[inside], ddq[at][:, legs]) + stretch.bias[inside]
    given = recording.tau[at][:, legs]
    assert np.abs(given).max() > 3.0 and np.abs(recording.gyro_b).max() > 2.0
    assert np.abs(needed - given).max() < 0.04 and np.sqrt(np.mean((needed - given) ** 2)) < 0.008


@pytest.fixture(scope="module")
def nominal(spec):
    return hang(spec, 8.0, seed=1)


@pytest.fixture(scope="module")
def planted(spec):
    return hang(spec, 8.0, FLAWS, seed=1, armature=PLANTED["armature"])


def test_nothing_is_found_where_nothing_is_planted(spec, nominal):
    found = fit(cut_windows(nominal), spec)
    assert_found(found, NOTHING, HANGING)
    assert not any(one.differs for one in found.estimates) and all(one.identifiable for one in found.estimates)


def test_what_is_planted_in_a_hanging_robot_is_found(spec, planted):
    found = fit(cut_windows(planted), spec)
    assert_found(found, PLANTED, HANGING)
    assert all(one.differs for one in found.estimates)
    assert found.error_after[0] < 0.1 * found.error_before[0]
    assert np.all(found.joint_errors[:, 1] < found.joint_errors[:, 0])


def test_damping_is_found_too_if_asked_for(spec):
    run = hang(spec, 8.0, FLAWS, seed=2, armature=PLANTED["armature"], damping=0.25)
    found = fit(cut_windows(run), spec, with_damping=True)
    assert_found(found, PLANTED | {"damping": 0.25}, HANGING | {"friction": 0.06, "damping": 0.03})


@pytest.mark.parametrize(
    ("flaws", "rotors", "truth"),
    [(Actuation(), {}, NOTHING), (FLAWS, {"armature": PLANTED["armature"]}, PLANTED)],
    ids=["nothing", "planted"],
)
def test_a_walking_robot(spec, policy, monkeypatch, tmp_path, flaws, rotors, truth):
    """Through a flight log, with contacts as the deployed estimator sees them."""
    flight = walk(spec, policy, dataclasses.replace(WALK, actuation=flaws), monkeypatch, seed=1, **rotors)
    recording = load_recording([flight.write(tmp_path / "walk.mcap")], "walk")
    found = fit(cut_windows(recording), spec)
    assert_found(found, truth, WALKING)
    assert any(one.differs for one in found.estimates) == bool(rotors)


def test_a_record_of_the_simulator_at_its_usual_200_hz(spec, tmp_path):
    """It holds the command that acts, so latency before the motors does not show."""
    flaws = Actuation(delay=0.0, strength=0.85, friction=0.3)
    hang(spec, 8.0, flaws, record=tmp_path / "run.npz", armature=PLANTED["armature"])
    found = fit(cut_windows(load_recording([tmp_path / "run.npz"], "run").part(1.5, 8.0)), spec)
    assert_found(found, PLANTED | {"latency": 0.0}, HANGING | {"latency": 0.001})


def test_what_a_log_does_not_determine_is_said_not_to_be_identifiable(spec):
    """Legs that hang still: no speed shows friction's kind, no change shows latency, no acceleration inertia."""
    run = hang(spec, 4.0, seed=1)
    time = run.time
    still = {name: np.tile(values[-1:], (len(time), 1)) for name, values in
             {"q": run.q, "dq": 0.0 * run.dq, "gyro_b": 0.0 * run.gyro_b}.items()}  # fmt: skip
    rng = np.random.default_rng(0)
    noisy = {name: values + rng.normal(0.0, 0.001, values.shape) for name, values in still.items()}
    command = run.command | {"q": np.tile(run.command["q"][-1:], (len(run.command_time), 1))}
    found = fit(cut_windows(dataclasses.replace(run, **noisy, command=command)), spec)
    states = {one.name: one.identifiable for one in found.estimates}
    assert not states["armature"] and not states["latency"]
    assert not any(one.differs for one in found.estimates if one.name in ("armature", "latency"))


def test_a_few_windows_identify_nothing(spec, planted):
    found = fit(cut_windows(planted.part(3.0, 3.5)), spec)
    assert found.windows == 8 and not any(one.identifiable or one.differs for one in found.estimates)


def test_a_rollout_with_the_true_parameters_stays_on_the_run(spec, nominal):
    windows = cut_windows(nominal)
    nothing = np.zeros(spec.num_joints)
    true = rollout(windows, nominal_parameters(spec), nothing)[0]
    wrong = rollout(windows, Parameters(0.2, 0.03, 0.01, 1.0, 0.1), nothing)[0]
    rows = windows.mask[:, None, :]
    errors = [np.sqrt(np.mean(((q - windows.q) * rows) ** 2)) for q in (true, wrong)]
    # What is left is the encoders' constant error, 6 mrad by design.
    assert errors[0] < 0.01 < 3.0 * errors[0] < errors[1]


def test_a_robot_that_only_stands_gives_no_fit(spec, nominal):
    standing = dataclasses.replace(nominal, contact=np.ones_like(nominal.contact))
    with pytest.raises(ReplayError, match="no foot is in the air for 0.1 s"):
        cut_windows(standing)
    with pytest.raises(ReplayError, match="does not say which feet stand"):
        cut_windows(dataclasses.replace(nominal, contact=np.full_like(nominal.contact, np.nan)))


def test_lines_for_a_scenario(spec, planted):
    found = fit(cut_windows(planted), spec)
    lines = yaml.safe_load(actuation_yaml(found, spec.joint_friction))["actuation"]
    actuation = Actuation(**lines)
    assert actuation.delay == pytest.approx(0.006, abs=0.0006) and actuation.strength == pytest.approx(0.85, abs=0.03)
    assert actuation.friction == pytest.approx(0.3, abs=0.04)
    unsure = tuple(dataclasses.replace(one, identifiable=False) for one in found.estimates)
    text = actuation_yaml(dataclasses.replace(found, estimates=unsure), spec.joint_friction)
    assert yaml.safe_load(text) == {"actuation": None} and "# strength: this log does not determine it" in text


def test_the_command_writes_a_report_of_both_runs(nominal, planted, tmp_path, monkeypatch, capsys):
    runs = {"sim": nominal, "real": planted}
    monkeypatch.setattr(compare_command, "_load", lambda args, what: runs[what])
    assert compare_command.compare(["sim", "real", "--out", str(tmp_path), "--real-from", "2"]) == 0
    output = capsys.readouterr().out
    assert "FR_hip_joint" in output and "differs from the simulator" in output and "actuation:" in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fit"]["parameters"]["strength"]["differs"] is True and len(report["joints"]) == 12
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 4 and "http" not in page and "What would close the gap" in page
    assert yaml.safe_load((tmp_path / "actuation.yaml").read_text())["actuation"]["strength"] < 0.9


def test_the_command_without_a_fit(nominal, tmp_path, monkeypatch, capsys):
    standing = dataclasses.replace(nominal, contact=np.ones_like(nominal.contact))
    monkeypatch.setattr(compare_command, "_load", lambda args, what: standing)
    assert compare_command.compare(["a", "b", "--out", str(tmp_path)]) == 0
    assert "nothing fitted: hanging: no foot is in the air" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fit"] is None and "no foot is in the air" in report["no_fit"]
    assert compare_command.compare(["a", "b", "--out", str(tmp_path), "--no-fit"]) == 0
