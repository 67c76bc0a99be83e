"""A robot of a compiled MuJoCo model as URDF, for engines that read no MJCF.

Masses, centres of mass, inertias, joint axes, ranges, viscous damping and collision primitives are the model's. URDF
knows no reflected rotor inertia: each joint gets a massless rotor link beside its child, named with `ROTOR`, which the
engine has to gear to the joint. Feet become links of their own, named as their geoms, so that their contacts can be
told from those of the leg.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from xml.etree import ElementTree

import mujoco
import numpy as np

from sim2real_checks.validation.scenario import ScenarioError

ROTOR = "_rotor"
NOWHERE, UNTURNED = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
_FREE, _HINGE = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_HINGE)


def write_urdf(model: mujoco.MjModel, base: int, feet: Collection[str]) -> str:
    """URDF text of the tree of bodies under `base`.

    Args:
        model: compiled; what does not hang on `base` is left out.
        base: id of the body with the free joint.
        feet: names of the geoms that become links of their own.

    Raises:
        ScenarioError: a part that URDF or Bullet has no equal for.
    """
    robot = ElementTree.Element("robot", name="robot")
    for body in np.flatnonzero(model.body_rootid == base).tolist():
        _add_body(robot, model, body, feet)
        if body != base:
            _add_joints(robot, model, body)
    # One tag a line: Bullet reads lines of 1024 characters and puts a line break into longer ones.
    ElementTree.indent(robot)
    return ElementTree.tostring(robot, encoding="unicode")


def joint_of(model: mujoco.MjModel, body: int) -> int | None:
    """Id of the hinge that carries a body; None for one that is fixed to its parent.

    Raises:
        ScenarioError: anything but one hinge through the body's origin that starts at zero.
    """
    count, first = int(model.body_jntnum[body]), int(model.body_jntadr[body])
    if count == 0:
        return None
    plain = count == 1 and model.jnt_type[first] == _HINGE and model.jnt_stiffness[first] == 0.0
    if not plain or np.any(model.jnt_pos[first]) or model.qpos0[model.jnt_qposadr[first]]:
        raise ScenarioError(
            f"engine bullet: the joints of body {model.body(body).name!r} are not one hinge through its origin "
            "that has its zero there and no spring"
        )
    return first


def is_solid(model: mujoco.MjModel, geom: int) -> bool:
    """Whether a geom can touch anything."""
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom])


def _add_body(robot: ElementTree.Element, model: mujoco.MjModel, body: int, feet: Collection[str]) -> None:
    name = model.body(body).name
    link = _add_link(robot, name)
    _add_inertia(link, model.body_mass[body], model.body_ipos[body], model.body_iquat[body], model.body_inertia[body])
    for geom in np.flatnonzero(model.geom_bodyid == body).tolist():
        if not is_solid(model, geom):
            continue
        place = (model.geom_pos[geom], model.geom_quat[geom])
        if model.geom(geom).name in feet:
            foot = model.geom(geom).name
            own = _add_link(robot, foot)
            _add_inertia(own, 0.0, NOWHERE, UNTURNED, NOWHERE)
            _add_joint(robot, f"{foot}_mount", "fixed", name, foot, place)
            _add_shape(own, model, geom, (NOWHERE, UNTURNED))
        else:
            _add_shape(link, model, geom, place)


def _add_joints(robot: ElementTree.Element, model: mujoco.MjModel, body: int) -> None:
    """What ties a body to its parent: a hinge and its rotor, or a fixed joint."""
    name, parent = model.body(body).name, model.body(int(model.body_parentid[body])).name
    place = (model.body_pos[body], model.body_quat[body])
    hinge = joint_of(model, body)
    if hinge is None:
        _add_joint(robot, f"{name}_mount", "fixed", parent, name, place)
        return
    bounded = bool(model.jnt_limited[hinge])
    kind = "revolute" if bounded else "continuous"
    joint = _add_joint(robot, model.joint(hinge).name, kind, parent, name, place)
    ElementTree.SubElement(joint, "axis", xyz=_text(model.jnt_axis[hinge]))
    if bounded:
        low, high = (_text([bound]) for bound in model.jnt_range[hinge])
        ElementTree.SubElement(joint, "limit", lower=low, upper=high, effort="0", velocity="0")
    damping = model.dof_damping[model.jnt_dofadr[hinge]]
    ElementTree.SubElement(joint, "dynamics", damping=_text([damping]), friction="0")
    rotor = model.joint(hinge).name + ROTOR
    _add_inertia(_add_link(robot, rotor), 0.0, NOWHERE, UNTURNED, NOWHERE)
    spin = _add_joint(robot, rotor, "continuous", parent, rotor, place)
    ElementTree.SubElement(spin, "axis", xyz=_text(model.jnt_axis[hinge]))


def _add_link(robot: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(robot, "link", name=name)


def _add_joint(
    robot: ElementTree.Element, name: str, kind: str, parent: str, child: str, place: tuple[np.ndarray, np.ndarray]
) -> ElementTree.Element:  # fmt: skip
    joint = ElementTree.SubElement(robot, "joint", name=name, type=kind)
    _add_origin(joint, *place)
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=child)
    return joint


def _add_inertia(
    link: ElementTree.Element, mass: float, pos: np.ndarray, quat: np.ndarray, moments: np.ndarray
) -> None:
    """`moments` (3,) kg·m² about the principal axes, which `quat` turns from the link's."""
    inertial = ElementTree.SubElement(link, "inertial")
    _add_origin(inertial, pos, quat)
    ElementTree.SubElement(inertial, "mass", value=_text([mass]))
    ixx, iyy, izz = (_text([moment]) for moment in moments)
    ElementTree.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")


def _add_shape(
    link: ElementTree.Element, model: mujoco.MjModel, geom: int, place: tuple[np.ndarray, np.ndarray]
) -> None:
    collision = ElementTree.SubElement(link, "collision")
    _add_origin(collision, *place)
    shape, size = ElementTree.SubElement(collision, "geometry"), model.geom_size[geom]
    kind = mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
    if kind == "box":
        ElementTree.SubElement(shape, "box", size=_text(2.0 * size))
    elif kind == "sphere":
        ElementTree.SubElement(shape, "sphere", radius=_text(size[:1]))
    elif kind in ("cylinder", "capsule"):
        ElementTree.SubElement(shape, kind, radius=_text(size[:1]), length=_text(2.0 * size[1:2]))
    else:
        raise ScenarioError(
            f"engine bullet: {model.geom(geom).name or f'geom {geom}'} is a {kind}; "
            "of what collides it knows box, sphere, cylinder and capsule"
        )


def _add_origin(element: ElementTree.Element, pos: np.ndarray, quat: np.ndarray) -> None:
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, quat)
    r = rotation.reshape(3, 3)
    # URDF turns about the fixed x, then y, then z axis.
    angles = [math.atan2(r[2, 1], r[2, 2]), -math.asin(np.clip(r[2, 0], -1.0, 1.0)), math.atan2(r[1, 0], r[0, 0])]
    ElementTree.SubElement(element, "origin", xyz=_text(pos), rpy=_text(angles))


def _text(values: np.ndarray | list[float]) -> str:
    """Numbers with all their digits."""
    return " ".join(repr(float(value)) for value in values)
