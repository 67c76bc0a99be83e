"""Other models of the robot: taken as their files say, found by name, refused with the part that does not fit."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import mujoco
import numpy as np
import pytest

from nfpo_deploy.contract.clearance import clearance_path
from nfpo_deploy.errors import NfpoError
from robots.mjcf import ModelOptions
from sim2real_checks.scripted_trot import stand_command
from sim2real_checks.validation.bodies import ScenarioRobot
from sim2real_checks.validation.command import validate
from sim2real_checks.validation.model_file import ModelError, compile_model, find_model
from sim2real_checks.validation.model_robot import build_other_spec, motor_limits
from sim2real_checks.validation.report import HTML, JSON
from sim2real_checks.validation.run import run_scenario
from sim2real_checks.validation.scenario import Actuation, Command, Disturbance, Physics, Scenario, Terrain
from sim2real_checks.validation.scenario import ScenarioError as WrongScenarioError
from tests.validation.conftest import SHIPPED
from tests.validation.other_models import JOINTS, LEGS, MOTOR, SERVO, go2, write

REPO = Path(__file__).resolve().parents[2]
REFERENCE_MODELS = os.environ.get("NFPO_REFERENCE_MODELS", REPO.parent / "shared" / "reference_models")
OFFICIAL = Path(REFERENCE_MODELS) / "go2.xml"
WALK = Scenario("walk", duration=2.0, commands=(Command(0.2, vx=0.5),))
STAND = Scenario("stand", duration=1.0)


def built(spec, path, **options):
    return compile_model(build_other_spec(spec, path, ModelOptions(**options)), path)


@pytest.fixture
def other(tmp_path):
    return write(tmp_path, go2())


@pytest.fixture
def official():
    if not OFFICIAL.is_file():
        pytest.skip(f"official model not at {OFFICIAL}; set NFPO_REFERENCE_MODELS to its folder")
    return OFFICIAL


# --- the robot is the file's, the world the scenario's ---


def test_the_official_robot_keeps_its_numbers(spec, official):
    model, file = built(spec, official, cone="elliptic"), mujoco.MjModel.from_xml_path(str(official))
    assert mujoco.mj_getTotalmass(model) == pytest.approx(mujoco.mj_getTotalmass(file), abs=1e-12)
    for name in spec.joint_names:
        mine, theirs = model.joint(name), file.joint(name)
        for quantity in ("armature", "damping", "frictionloss", "range", "axis"):
            np.testing.assert_array_equal(getattr(mine, quantity), getattr(theirs, quantity))
    assert motor_limits(model, spec) == pytest.approx(spec.torque_limit)
    foot = model.geom("FR_foot")
    assert foot.condim == 6 and foot.friction == pytest.approx([0.8, 0.02, 0.01]), "sliding is the scenario's"
    assert model.opt.impratio == 100 and model.opt.timestep == 0.001


def test_the_world_of_the_file_is_left_out(spec, other):
    model = built(spec, other, timestep=0.002, floor_friction=0.7)
    assert model.opt.gravity[2] == pytest.approx(-9.81) and model.opt.timestep == 0.002 and model.nkey == 0
    assert model.opt.disableflags == 0
    ground = [model.geom(g).name for g in range(model.ngeom) if model.geom_bodyid[g] == 0]
    assert ground == ["floor"] and model.nbody == 1 + 13
    floor = model.geom("floor")
    assert floor.pos[2] == 0.0 and floor.friction[0] == 0.7 and floor.priority == 0
    assert floor.solref == pytest.approx([0.02, 1.0]) and model.geom("RL_foot").solref == pytest.approx([0.004, 1.0])


@pytest.mark.parametrize("feet", ["", 'name="{leg}"', 'name="{leg}_foot"', 'name="{leg}_ball"'])
def test_feet_are_found_by_name_or_place(spec, tmp_path, feet):
    model = built(spec, write(tmp_path, go2(feet=feet)))
    for foot in spec.feet:
        assert model.body(int(model.geom(foot.name).bodyid[0])).name == f"{foot.name.removesuffix('_foot')}_calf"
        assert model.geom(foot.name).size[0] == 0.022 and model.geom(foot.name).priority == 3


def test_parts_in_frames_are_found(spec, tmp_path, other):
    framed = write(tmp_path, go2().replace("<geom  type=\"sphere\"", "<frame pos=\"0 0 0.1\"><geom type=\"sphere\"")
                   .replace("-0.002 0 -0.213\"/>", "-0.002 0 -0.313\"/></frame>"), "framed.xml")  # fmt: skip
    assert "<frame" in framed.read_text()
    for foot in spec.feet:
        mine, plain = (built(spec, path).site(foot.name) for path in (framed, other))
        np.testing.assert_allclose(mine.pos, plain.pos, atol=1e-12)


def test_imu_and_feet_measure_what_they_must_at_rest(spec, other):
    """The file has neither sites nor sensors; by hand: weight on the feet, 9.81 m/s² upwards, the pose's own place."""
    robot = ScenarioRobot(spec, Scenario("s"), 0, other)
    state = [robot.advance(stand_command(spec)) for _ in range(400)][-1]
    weight = 9.81 * mujoco.mj_getTotalmass(robot.plant.model)
    assert robot.plant.foot_force().sum() == pytest.approx(weight, rel=0.02)
    quat, gyro, acc = robot.plant.imu()
    assert abs(quat[0]) > 0.99 and np.abs(gyro).max() < 0.05 and np.linalg.norm(acc) == pytest.approx(9.81, abs=0.1)
    assert state is not None and np.abs(state.q - spec.default_pose).max() < 0.15
    assert robot.plant.model.site(spec.imu_site).pos == pytest.approx(spec.imu_position)


@pytest.mark.parametrize("kind", [MOTOR, SERVO])
def test_servos_and_motors_become_the_same_motor(spec, tmp_path, kind):
    """Torque asked for is torque made, whatever the file's actuator does with its input."""
    model = built(spec, write(tmp_path, go2(actuator=kind)))
    data = mujoco.MjData(model)
    by_joint = {int(model.actuator_trnid[i, 0]): i for i in range(model.nu)}
    torque = np.linspace(-5.0, 6.0, 12)
    for name, value in zip(spec.joint_names, torque, strict=True):
        data.ctrl[by_joint[model.joint(name).id]] = value
    data.qpos[2] = 2.0
    mujoco.mj_forward(model, data)
    made = [float(data.qfrc_actuator[model.joint(name).dofadr[0]]) for name in spec.joint_names]
    assert made == pytest.approx(torque) and motor_limits(model, spec) == pytest.approx(spec.torque_limit)


@pytest.mark.parametrize(
    ("actuator", "limit"),
    [
        ('<motor name="{name}" joint="{joint}" ctrlrange="-2 2" gear="5"/>', 10.0),
        ('<motor name="{name}" joint="{joint}" ctrlrange="-9 9" forcerange="-7 8"/>', 7.0),
        ('<motor name="{name}" joint="{joint}"/>', 23.7),
        ('<general name="{name}" joint="{joint}" gainprm="2" ctrlrange="-4 6"/>', 8.0),
    ],
)
def test_motors_are_as_weak_as_the_file_says(spec, tmp_path, actuator, limit):
    path = write(tmp_path, go2(actuator=actuator))
    assert motor_limits(built(spec, path), spec)[0] == pytest.approx(limit)
    motors = ScenarioRobot(spec, STAND, 0, path).motors
    zero, far = np.zeros(12), np.full(12, 9.0)
    motors.command(far, zero, np.full(12, 100.0), zero, zero)
    assert motors.step(zero, zero)[0] == pytest.approx(limit), "the motors report what they give"


def test_order_in_the_file_does_not_matter(spec, tmp_path):
    """The same robot with legs and motors in another order, over half a second of falling and standing."""
    sorted_path = write(tmp_path, go2(), "sorted.xml")
    mixed = write(tmp_path, go2(legs=("RL", "FL", "RR", "FR"), motors=JOINTS[::-1]), "mixed.xml")
    traces = []
    for path in (sorted_path, mixed):
        robot = ScenarioRobot(spec, Scenario("s"), 0, path)
        for _ in range(150):
            robot.advance(stand_command(spec))
        traces.append(np.concatenate([robot.plant.q, robot.plant.truth().position_w, robot.plant.foot_force() / 100]))
    assert np.array_equal(*(ScenarioRobot(spec, Scenario("s"), 0, sorted_path).plant.q for _ in range(2)))
    np.testing.assert_allclose(*traces, atol=1e-4)


def test_a_file_in_degrees_has_the_same_seesaw(spec, other):
    seesaw = Scenario("s", terrain=Terrain("seesaw", height=0.08))
    theirs, ours = (ScenarioRobot(spec, seesaw, 0, path).plant.model.joint("ground_axis") for path in (other, None))
    assert theirs.range == pytest.approx(ours.range) and theirs.qpos0 == pytest.approx(ours.qpos0)
    assert theirs.range[1] == pytest.approx(math.asin(0.08 / 0.6))


def test_disturbances_and_flaws_reach_the_other_robot(spec, other):
    load = Disturbance("payload", mass=2.0)
    scenario = Scenario("s", disturbances=(load,), actuation=Actuation(friction=0.3), terrain=Terrain(friction=0.35))
    plain, laden = (ScenarioRobot(spec, one, 0, other).plant.model for one in (Scenario("s"), scenario))
    assert mujoco.mj_getTotalmass(laden) - mujoco.mj_getTotalmass(plain) == pytest.approx(2.0)
    assert laden.joint(JOINTS[0]).frictionloss[0] == pytest.approx(0.5)
    assert laden.geom("FR_foot").friction[0] == pytest.approx(0.35)


def test_the_shipped_policy_walks_on_it(spec, policy, other):
    trace = run_scenario(spec, policy, WALK, 0, model=other)
    assert trace.ended == "" and trace.position[-1, 0] - trace.position[0, 0] == pytest.approx(0.5 * 1.8, abs=0.3)


# --- what does not fit is named ---


def swapped(first: str, second: str) -> str:
    return go2().replace(f'"{first}"', '"?"').replace(f'"{second}"', f'"{first}"').replace('"?"', f'"{second}"')


BALL = '<body name="ball" pos="2 0 1"><freejoint/><geom size="0.1"/></body>'
DOOR = '<body name="door"><joint name="door" axis="0 0 1"/><geom size="0.1"/></body>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (go2().replace("RR_calf_joint", "RR_knee_joint"), "no joint 'RR_calf_joint', and 1 of 12"),
        (go2(root=""), "0 free joints, expected one"),
        (go2(more=BALL), "2 free joints, expected one"),
        (go2(motors=JOINTS[:-1]), "nothing drives joint 'RL_calf_joint' (1 of 12)"),
        (go2(motors=(*JOINTS, "door"), more=DOOR), "'m12' drives 'door', which is no joint of go2"),
        (go2(motors=(*JOINTS, JOINTS[2])), "'m12' and 'm2' both drive 'FR_calf_joint'"),
        (go2(actuator='<motor name="{name}" joint="{joint}" ctrlrange="0 9"/>'), "'FR_hip_joint' can make no torque"),
        (go2(feet='contype="0" conaffinity="0"'), "foot 'FR_foot': nothing behind joint 'FR_calf_joint' can touch"),
        (go2(feet='name="{leg}"').replace('-0.002 0 -0.213"', '-0.002 0 -0.263"'), "'FR' lies 0.050 m from where"),
        (go2().replace('axis="1 0 0"', 'axis="-1 0 0"'), "another axis"),
        (go2().replace('"FL_hip_joint" axis="1 0 0" range="-60 60"', '"FL_hip_joint" type="slide"'), "is no hinge"),
        ("<mujoco><worldbody></mujoco>", "MuJoCo cannot use it"),
        ("never", "MuJoCo cannot use it"),
        ('<mujoco><include file="go2.xml"/></mujoco>', "the file 'go2.xml' that it includes is missing"),
        (
            go2().replace("<worldbody>", '<asset><mesh name="m" file="base.obj"/></asset><worldbody>'),
            "base.obj' that it needs is missing: copy the model's whole folder",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(spec, tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ModelError) as error:
        built(spec, path)
    assert words in str(error.value) and str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("FR_hip_joint", "FL_hip_joint"), ("FR_thigh_joint", "FR_calf_joint"), ("FL_calf_joint", "RL_calf_joint"),
        ("RR_hip_joint", "RR_thigh_joint"), ("RR_thigh_joint", "RL_thigh_joint"),
    ],
)  # fmt: skip
def test_swapped_names_are_noticed(spec, tmp_path, first, second):
    with pytest.raises(ModelError, match="joints have the names of others"):
        built(spec, write(tmp_path, swapped(first, second)))


def test_another_robot_is_refused(spec, official):
    with pytest.raises(ModelError, match="no joint 'FR_hip_joint', and 12 of 12 joints of go2 are missing"):
        built(spec, official.with_name("g1_29dof.xml"))
    with pytest.raises(ModelError, match="or it is another robot"):
        built(spec, official.with_name("b2.xml"))


def test_bullet_and_another_model_do_not_go_together(spec, other):
    with pytest.raises(WrongScenarioError, match="runs in MuJoCo alone"):
        ScenarioRobot(spec, Scenario("s", physics=Physics(engine="bullet")), 0, other)


# --- the file ---


def test_a_model_has_the_sha256_of_all_its_xml(spec, tmp_path):
    inner = write(tmp_path, go2(), "go2.xml")
    text = '<mujoco><!-- <include file="old.xml"/> --><include file="go2.xml"/></mujoco>'
    scene = write(tmp_path, text, "scene.xml")
    found = find_model(str(scene), "go2")
    assert found.name == f"{tmp_path.name}/scene.xml"
    assert found.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (scene, inner)}
    assert mujoco.mj_getTotalmass(built(spec, scene)) == pytest.approx(15.2064, abs=1e-3)


def test_a_file_that_includes_itself_is_refused_by_mujoco(spec, tmp_path):
    path = write(tmp_path, '<mujoco><include file="robot.xml"/></mujoco>')
    assert list(find_model(str(path), "go2").sha256) == ["robot.xml"]
    with pytest.raises(ModelError, match="MuJoCo cannot use it"):
        built(spec, path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ModelError, match="cannot read .*nowhere.xml .*give the path of an MJCF file, or menagerie"):
        find_model(str(tmp_path / "nowhere.xml"), "go2")
    with pytest.raises(ModelError, match="is a folder: name the MJCF file in it"):
        find_model(str(tmp_path), "go2")


class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "robot_descriptions":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_menagerie_without_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "robot_descriptions", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    with pytest.raises(ModelError, match=r"pip install robot_descriptions; or git clone .*unitree_go2/scene\.xml"):
        find_model("menagerie", "go2")


def test_menagerie_that_cannot_be_downloaded(monkeypatch, tmp_path):
    """The package downloads while it is imported; what it raises then is of other packages."""
    package = tmp_path / "robot_descriptions"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write(package, "raise OSError('Could not resolve host')", "go2_mj_description.py")
    for name in ("robot_descriptions", "robot_descriptions.go2_mj_description"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"gave no model of go2 \(OSError: Could not resolve host\): check git"):
        find_model("menagerie", "go2")
    monkeypatch.delitem(sys.modules, "robot_descriptions", raising=False)


def test_menagerie_that_is_there(monkeypatch, other):
    package, module = ModuleType("robot_descriptions"), ModuleType("robot_descriptions.go2_mj_description")
    module.MJCF_PATH = str(other)
    monkeypatch.setitem(sys.modules, "robot_descriptions", package)
    monkeypatch.setitem(sys.modules, "robot_descriptions.go2_mj_description", module)
    assert find_model("menagerie", "go2").path == other


# --- the command ---

SET = """
version: 1
name: short
robot: go2
scenarios:
- {name: stand, duration: 1.0}
- {name: stand in bullet, duration: 1.0, required: false, physics: {engine: bullet}}
"""


def run(tmp_path, model, *more, text=SET):
    mine = Path(shutil.copy(SHIPPED, tmp_path / "mine.onnx"))
    scenarios = write(tmp_path, text, "short.yaml")
    out = tmp_path / "out"
    options = ["--set", str(scenarios), "--workers", "1", "--out", str(out), "--model", str(model), *more]
    return mine, validate([str(mine), *options])


def test_the_report_names_the_model_and_shows_its_runs(tmp_path, other, capsys):
    pytest.importorskip("pybullet", reason="the bullet extra is not installed")
    mine, status = run(tmp_path, other)
    assert status == 0 and clearance_path(mine).is_file()
    text, name = capsys.readouterr().out, f"{tmp_path.name}/robot.xml"
    assert "scenarios of another engine, left out there: 1" in text and f"; on {name} 1 of 1" in text
    data = json.loads((tmp_path / "out" / JSON).read_text())
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert data["model"] == {"path": str(other), "sha256": {"robot.xml": digest}}
    assert [row["name"] for row in data["policies"][0]["on_model"]] == ["stand"]
    page = (tmp_path / "out" / HTML).read_text()
    assert digest in page and f"stand, on {name}" in page


def test_a_failure_on_another_model_fails_and_clears_nothing(tmp_path, capsys):
    """Motors of 3 N·m cannot carry the robot; a clearance from before is neither replaced nor removed."""
    weak = write(tmp_path, go2(actuator='<motor name="{name}" joint="{joint}" ctrlrange="-3 3"/>'))
    alone = "\n".join(line for line in SET.splitlines() if "bullet" not in line)
    before = b"a clearance from before"
    clearance_path(tmp_path / "mine.onnx").write_bytes(before)
    mine, status = run(tmp_path, weak, text=alone)
    assert status == 1 and clearance_path(mine).read_bytes() == before
    text = capsys.readouterr().out
    assert "not cleared: it failed on" in text and "robot.xml, stand: seed 0: " in text
    assert not (tmp_path / "mine.scenarios.yaml").exists()


def test_what_cannot_be_asked_for(tmp_path, other):
    with pytest.raises(NfpoError, match="leave --model out"):
        run(tmp_path, other, "--teeth", "--only", "bullet")
    with pytest.raises(WrongScenarioError, match="none of these scenarios runs in MuJoCo"):
        run(tmp_path, other, "--only", "bullet")
    with pytest.raises(ModelError, match="0 free joints"):
        run(tmp_path, write(tmp_path, go2(root=""), "fixed.xml"))


def test_legs_of_the_test_model_are_those_of_the_spec(spec):
    assert spec.joint_names == JOINTS and [foot.name.removesuffix("_foot") for foot in spec.feet] == list(LEGS)
