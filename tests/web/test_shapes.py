"""The MJCF reader against MuJoCo's own."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from nfpo_deploy.errors import WebError
from nfpo_deploy.web.shapes import KINDS, LOOK_GROUP, read_bodies
from robots.loader import load_robot

SPEC = load_robot("go2")
TYPES = {kind: getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}") for kind in KINDS}


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(SPEC.model_path))


def same_rotation(a: np.ndarray, b: np.ndarray) -> bool:
    return abs(abs(float(np.dot(a, b))) - 1.0) < 1e-9


def test_bodies_and_hinges_are_mujocos(model: mujoco.MjModel) -> None:
    bodies = read_bodies(SPEC.model_path)
    assert [body.name for body in bodies] == [model.body(i).name for i in range(1, model.nbody)]
    for body in bodies:
        theirs = model.body(body.name)
        np.testing.assert_allclose(body.position, theirs.pos, atol=1e-12)
        assert same_rotation(body.quat_wxyz, theirs.quat)
        assert body.parent == ("" if theirs.parentid[0] == 0 else model.body(theirs.parentid[0]).name)
        if body.joint:
            joint = model.joint(body.joint)
            assert model.jnt_bodyid[joint.id] == theirs.id
            np.testing.assert_allclose(body.axis, joint.axis)
    assert {body.joint for body in bodies} - {""} == set(SPEC.joint_names)


def test_shapes_are_mujocos(model: mujoco.MjModel) -> None:
    count = 0
    for body in read_bodies(SPEC.model_path):
        visible = [
            i for i in range(model.ngeom)
            if model.geom_bodyid[i] == model.body(body.name).id and model.geom_group[i] == LOOK_GROUP
        ]  # fmt: skip
        assert len(visible) == len(body.geoms)
        for i, geom in zip(visible, body.geoms, strict=True):
            assert model.geom_type[i] == TYPES[geom.kind]
            np.testing.assert_allclose(geom.position, model.geom_pos[i], atol=1e-12)
            used = {"sphere": 1, "capsule": 2, "cylinder": 2}.get(geom.kind, 3)
            np.testing.assert_allclose(geom.size[:used], model.geom_size[i][:used], atol=1e-12)
            np.testing.assert_allclose(geom.rgb, model.mat_rgba[model.geom_matid[i]][:3], atol=1e-6)
            if geom.kind in ("box", "ellipsoid"):
                assert same_rotation(geom.quat_wxyz, model.geom_quat[i])
            else:
                # Round about z, which is all that their orientation means.
                assert abs(axis_of(geom.quat_wxyz) @ axis_of(model.geom_quat[i])) == pytest.approx(1.0, abs=1e-9)
            count += 1
    assert count > 50


def axis_of(quat: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quat, dtype=np.float64))
    return matrix.reshape(3, 3)[:, 2]


def test_drawn_feet_are_where_mujoco_has_them(model: mujoco.MjModel) -> None:
    view = pytest.importorskip("nfpo_deploy.web.view", reason="viser is not installed")
    data = mujoco.MjData(model)
    q = np.random.default_rng(3).uniform(SPEC.position_lower, SPEC.position_upper)
    data.qpos[:3], data.qpos[3:7] = 0.0, [1.0, 0.0, 0.0, 0.0]
    for name, angle in zip(SPEC.joint_names, q, strict=True):
        data.joint(name).qpos[0] = angle
    mujoco.mj_kinematics(model, data)
    frames: dict[str, np.ndarray] = {"": np.eye(4)}
    for body in read_bodies(SPEC.model_path):
        local = np.eye(4)
        quat = body.quat_wxyz
        if body.joint:
            angle = q[SPEC.joint_names.index(body.joint)]
            quat = view._basis(body) @ np.array([np.cos(angle / 2), np.sin(angle / 2)])
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, quat)
        local[:3, :3] = matrix.reshape(3, 3)
        # The floating base is placed by the estimate, not by the model.
        local[:3, 3] = body.position if body.parent else 0.0
        frames[body.name] = frames[body.parent] @ local
        np.testing.assert_allclose(frames[body.name][:3, 3], data.body(body.name).xpos, atol=1e-9)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<joint type="slide"/>', "cannot be drawn"),
        ('<joint type="hinge"/><joint type="hinge"/>', "cannot be drawn"),
        ('<joint type="hinge" pos="1 0 0"/>', "beside its origin"),
        ('<joint class="nowhere"/>', "unknown class 'nowhere'"),
        ('<geom type="box" group="2" size="1 1 1" euler="1 2 3"/>', "quat, zaxis or fromto"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "model.xml"
    path.write_text(f'<mujoco><worldbody><body name="b">{body}</body></worldbody></mujoco>')
    with pytest.raises(WebError, match=message):
        read_bodies(path)


@pytest.mark.parametrize("text", ["", "<mujoco/>", "no xml"])
def test_no_model_is_no_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.xml"
    path.write_text(text)
    with pytest.raises(WebError, match="model"):
        read_bodies(path)
