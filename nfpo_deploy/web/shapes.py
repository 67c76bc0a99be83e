"""The simple shapes of a robot's MJCF model, read without MuJoCo: a robot's own computer has none.

Covers what the models under robots/ use: hinge joints, and geoms of the group that is there to be seen, made of boxes,
spheres, capsules, cylinders and ellipsoids. Compared with MuJoCo's own reading in tests.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nfpo_deploy.errors import WebError

LOOK_GROUP = 2
"""Visible geoms; what the groups mean: robots/mjcf.py."""
KINDS = ("box", "sphere", "capsule", "cylinder", "ellipsoid")
GREY = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Geom:
    """One shape in its body's frame."""

    kind: str
    size: np.ndarray
    """(3,) m as MuJoCo means it: half extents, or radius and half length."""
    position: np.ndarray
    """(3,) m."""
    quat_wxyz: np.ndarray
    """(4,)"""
    rgb: tuple[float, float, float]
    """0 to 1."""


@dataclass(frozen=True)
class Body:
    """One rigid part. Its frame turns about `axis` of its own by the joint's angle."""

    name: str
    parent: str
    """Name of the body that it hangs on; empty for the floating base."""
    position: np.ndarray
    """(3,) m in the parent's frame."""
    quat_wxyz: np.ndarray
    """(4,) at joint angle zero."""
    joint: str
    """Name of its hinge; empty where it is fixed to its parent."""
    axis: np.ndarray
    """(3,)"""
    geoms: tuple[Geom, ...] = field(default_factory=tuple)


def read_bodies(path: Path) -> list[Body]:
    """Bodies of a model, parents before children.

    Raises:
        WebError: no model of the kind that this can read; names the element.
    """
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise WebError(f"model {path}: {error}") from error
    world = root.find("worldbody")
    if world is None:
        raise WebError(f"model {path}: no worldbody")
    try:
        reader = _Reader(root, path)
        for element in world.findall("body"):
            reader.read(element, "", "main")
    except (ValueError, IndexError, KeyError, RecursionError) as error:
        raise WebError(f"model {path}: cannot be drawn: {type(error).__name__}: {error}") from error
    return reader.bodies


class _Reader:
    def __init__(self, root: ET.Element, path: Path) -> None:
        self._path = path
        self._defaults: dict[str, dict[str, dict[str, str]]] = {}
        for element in root.findall("default"):
            self._read_defaults(element, {}, element.get("class", "main"))
        self._defaults.setdefault("main", {})
        self._colours = {
            material.get("name", ""): material.get("rgba", "1 1 1 1") for material in root.iterfind("asset/material")
        }
        self.bodies: list[Body] = []

    def _read_defaults(self, element: ET.Element, inherited: Mapping[str, dict[str, str]], name: str) -> None:
        own = {tag: dict(values) for tag, values in inherited.items()}
        for child in element:
            if child.tag != "default":
                own.setdefault(child.tag, {}).update(child.attrib)
        self._defaults[name] = own
        for child in element.findall("default"):
            self._read_defaults(child, own, child.get("class", ""))

    def _attributes(self, element: ET.Element, childclass: str) -> dict[str, str]:
        name = element.get("class", childclass)
        if name not in self._defaults:
            raise WebError(f"model {self._path}: <{element.tag}> has the unknown class {name!r}")
        values = dict(self._defaults[name].get(element.tag, {}))
        if set(element.attrib) & {"fromto", "zaxis", "quat", "euler"}:
            # One way to say an orientation replaces another.
            values = {key: value for key, value in values.items() if key not in ("fromto", "zaxis", "quat", "euler")}
        return values | dict(element.attrib)

    def read(self, element: ET.Element, parent: str, childclass: str) -> None:
        childclass = element.get("childclass", childclass)
        name = element.get("name", f"body{len(self.bodies)}")
        joint, axis = self._joint(element, name, childclass)
        geoms = tuple(
            geom for child in element.findall("geom") if (geom := self._geom(self._attributes(child, childclass)))
        )
        position = _numbers(element.get("pos", "0 0 0"))
        self.bodies.append(Body(name, parent, position, _orientation(dict(element.attrib)), joint, axis, geoms))
        for child in element.findall("body"):
            self.read(child, name, childclass)

    def _joint(self, element: ET.Element, body: str, childclass: str) -> tuple[str, np.ndarray]:
        joints = [self._attributes(joint, childclass) for joint in element.findall("joint")]
        hinges = [joint for joint in joints if joint.get("type", "hinge") == "hinge"]
        if len(joints) > 1 or len(hinges) < len(joints):
            raise WebError(f"model {self._path}: body {body!r} has joints that cannot be drawn; one hinge can")
        if not hinges:
            return "", np.array([0.0, 0.0, 1.0])
        if np.any(_numbers(hinges[0].get("pos", "0 0 0"))):
            raise WebError(f"model {self._path}: the hinge of body {body!r} lies beside its origin")
        axis = _numbers(hinges[0].get("axis", "0 0 1"))
        return hinges[0].get("name", ""), axis / np.linalg.norm(axis)

    def _geom(self, values: dict[str, str]) -> Geom | None:
        kind = values.get("type", "sphere")
        if int(values.get("group", "0")) != LOOK_GROUP or kind not in KINDS:
            return None
        size = np.zeros(3)
        given = _numbers(values.get("size", "0"))
        size[: len(given)] = given
        position, orientation = _numbers(values.get("pos", "0 0 0")), _orientation(values)
        if "fromto" in values:
            ends = _numbers(values["fromto"])
            span = ends[3:] - ends[:3]
            position, orientation = (ends[:3] + ends[3:]) / 2, _from_z(-span)
            # A box's and an ellipsoid's second number is its other width; only the length comes from the ends.
            at = 1 if kind in ("capsule", "cylinder") else 2
            size[at] = np.linalg.norm(span) / 2
        colour = values.get("rgba") or self._colours.get(values.get("material", ""))
        red, green, blue = _numbers(colour)[:3] if colour else GREY
        return Geom(kind, size, position, orientation, (float(red), float(green), float(blue)))


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def _orientation(values: Mapping[str, str]) -> np.ndarray:
    if "quat" in values:
        quat = _numbers(values["quat"])
        return quat / np.linalg.norm(quat)
    if "zaxis" in values:
        return _from_z(_numbers(values["zaxis"]))
    if "euler" in values or "axisangle" in values or "xyaxes" in values:
        raise WebError(f"orientation {dict(values)} cannot be read; say it as quat, zaxis or fromto")
    return np.array([1.0, 0.0, 0.0, 0.0])


def _from_z(direction: np.ndarray) -> np.ndarray:
    """Shortest rotation that turns the z axis to `direction`, wxyz."""
    x, y, z = direction / np.linalg.norm(direction)
    if z < -1.0 + 1e-12:
        return np.array([0.0, 1.0, 0.0, 0.0])
    quat = np.array([1.0 + z, -y, x, 0.0])
    return quat / np.linalg.norm(quat)
