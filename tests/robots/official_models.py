"""What the tests of all robots' models share: a model in numbers, and the manufacturer's file beside ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import mujoco
import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
REFERENCE_MODELS = Path(os.environ.get("NFPO_REFERENCE_MODELS", REPO.parent / "shared" / "reference_models"))
GRAVITY = 9.81


def official_model(file: str):
    """The manufacturer's model; skips the test where it is not at hand."""
    path = REFERENCE_MODELS / file
    if not path.is_file():
        pytest.skip(f"official model not at {path}; set NFPO_REFERENCE_MODELS to its folder")
    return mujoco.MjModel.from_xml_path(str(path))


def recorded_file(robot: str) -> Path:
    return REPO / "robots" / robot / "model_reference.json"


def recorded_numbers(robot: str) -> dict:
    return json.loads(recorded_file(robot).read_text())


def write_recorded(robot: str, description: dict, poses: Sequence[Mapping]) -> None:
    """Write model_reference.json, one line for each list of numbers, so that a diff can be read."""
    body = re.sub(r"\s*\n\s+(?=[-\d\]\[])", " ", json.dumps(description, indent=1))
    rows = ",\n  ".join(json.dumps(row) for row in poses)
    recorded_file(robot).write_text(body[:-2] + f',\n "poses": [\n  {rows}\n ]\n}}\n')


def body_of(model, joint: str) -> int:
    """The body that a joint moves."""
    return int(model.jnt_bodyid[model.joint(joint).id])


def link_inertia(model, body: int) -> np.ndarray:
    """Inertia (3, 3) about the centre of mass, in the axes of the body's frame, kg·m²."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.body_iquat[body])
    rotation = rotation.reshape(3, 3)
    return rotation @ np.diag(model.body_inertia[body]) @ rotation.T


def describe_links(model, bodies: Mapping[str, int]) -> dict[str, dict]:
    """Mass, centre of mass and inertia of bodies, as plain numbers."""
    return {
        name: {
            "mass": float(model.body_mass[body]),
            "com": model.body_ipos[body].tolist(),
            "inertia": link_inertia(model, body).tolist(),
        }
        for name, body in bodies.items()
    }


def describe_joints(model, names: Sequence[str], motor: str = "") -> dict[str, dict]:
    """Place, axis, range, dynamics and torque of joints; their motors are named without `_joint` and with `motor`."""
    joints = {}
    for name in names:
        joint, body = model.joint(name), body_of(model, name)
        dof = int(model.jnt_dofadr[joint.id])
        actuator = model.actuator(name.removesuffix("_joint") + motor)
        assert actuator.trnid[0] == joint.id
        joints[name] = {
            "axis": joint.axis.tolist(),
            "offset": model.body_pos[body].tolist(),
            "turn": model.body_quat[body].tolist(),
            "range": joint.range.tolist(),
            "armature": float(model.dof_armature[dof]),
            "damping": float(np.ravel(model.dof_damping[dof])[0]),
            "frictionloss": float(model.dof_frictionloss[dof]),
            "torque": actuator.ctrlrange.tolist(),
        }
    return joints


def assert_joints_same(ours: dict, reference: dict, tolerances: Mapping[str, float] | None = None) -> None:
    """A failure names the joint and the quantity; `tolerances` by quantity, else 1e-9."""
    assert set(ours) == set(reference)
    for name, joint in reference.items():
        for quantity, value in joint.items():
            atol = (tolerances or {}).get(quantity, 1e-9)
            np.testing.assert_allclose(ours[name][quantity], value, atol=atol, err_msg=f"{name} {quantity}")


def assert_links_same(ours: dict, reference: dict, com: float = 1e-7, inertia: float = 1e-5) -> None:
    """A failure names link and quantity; `com` in m, `inertia` as part of the largest entry (files round it)."""
    assert set(ours) == set(reference)
    for name, link in reference.items():
        mine = ours[name]
        np.testing.assert_allclose(mine["mass"], link["mass"], atol=1e-6, err_msg=f"{name} mass")
        np.testing.assert_allclose(mine["com"], link["com"], atol=com, err_msg=f"{name} com")
        atol = inertia * np.abs(link["inertia"]).max()
        np.testing.assert_allclose(mine["inertia"], link["inertia"], atol=atol, err_msg=f"{name} inertia")


def named_contacts(model, data) -> set[frozenset[str]]:
    return {frozenset(model.geom(int(g)).name for g in contact.geom) for contact in data.contact}
