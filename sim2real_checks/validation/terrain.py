"""The ground of a scenario, put into a MuJoCo specification.

The robot starts above the origin and looks along +x. A flat runway lies before and behind it; what follows is made of
boxes, a tilted plane, a height field or a seesaw. All of it has the name prefix `ground_`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sim2real_checks.validation.scenario import Terrain

if TYPE_CHECKING:
    import mujoco

WIDTH = 3.0
"""Half width of stairs and seesaw, m."""
THICKNESS = 0.5
LANDING = 10.0
"""Level ground after the last step, m."""
ROUGH_HALF = 8.0
"""Half size of the rough field, m."""
SEESAW_LENGTH, SEESAW_THICKNESS = 1.2, 0.02
BOARD_KG = 8.0
GREY = (0.62, 0.64, 0.68, 1.0)


def add_terrain(spec: mujoco.MjSpec, terrain: Terrain, seed: int) -> None:
    """Shape the ground of a specification that has a plane named `floor` at z = 0.

    Args:
        spec: from `robots.mjcf.build_spec`.
        terrain: what to make.
        seed: of the rough ground's heights.
    """
    if terrain.kind == "slope":
        _slope(spec, terrain)
    elif terrain.kind == "stairs":
        _stairs(spec, terrain)
    elif terrain.kind == "rough":
        _rough(spec, terrain, seed)
    elif terrain.kind == "seesaw":
        _seesaw(spec, terrain)


def ground_height(terrain: Terrain, x: float) -> float:
    """Height of stairs, m, at x m along +x; 0 on other ground. Base heights are measured from it."""
    if terrain.kind != "stairs" or x < terrain.runway:
        return 0.0
    return terrain.height * min(terrain.steps, int((x - terrain.runway) / terrain.depth) + 1)


def slope_normal(terrain: Terrain) -> np.ndarray:
    """(3,) unit normal of the ground in the world, upwards."""
    if terrain.kind != "slope":
        return np.array([0.0, 0.0, 1.0])
    angle, heading = math.radians(terrain.angle), math.radians(terrain.heading)
    return np.array(
        [-math.sin(angle) * math.cos(heading), -math.sin(angle) * math.sin(heading), math.cos(angle)]
    )  # fmt: skip


def _slope(spec: mujoco.MjSpec, terrain: Terrain) -> None:
    """The whole floor is tilted about the origin: the robot starts on it."""
    normal = slope_normal(terrain)
    axis = np.cross([0.0, 0.0, 1.0], normal)
    sine = float(np.linalg.norm(axis))
    half = 0.5 * math.asin(min(1.0, sine))
    axis = axis / sine if sine > 1e-9 else np.array([1.0, 0.0, 0.0])
    spec.geom("floor").quat = [math.cos(half), *(math.sin(half) * axis)]


def _stairs(spec: mujoco.MjSpec, terrain: Terrain) -> None:
    """Steps up, or down into a pit: each is a box from its tread to below everything."""
    step, depth, count = terrain.height, terrain.depth, terrain.steps
    floor = min(0.0, step * count) - THICKNESS
    if step < 0:
        spec.geom("floor").pos = [0.0, 0.0, floor]
        _box(spec, "start", (-LANDING, terrain.runway), 0.0, floor)
    for i in range(count):
        front = terrain.runway + i * depth
        back = front + (depth if i < count - 1 else LANDING)
        _box(spec, f"step_{i}", (front, back), step * (i + 1), floor)


def _box(spec: mujoco.MjSpec, name: str, span: tuple[float, float], top: float, bottom: float) -> None:
    import mujoco

    (front, back), half = span, 0.5 * (top - bottom)
    spec.worldbody.add_geom(
        name=f"ground_{name}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0.5 * (front + back), 0.0, bottom + half],
        size=[0.5 * (back - front), WIDTH, half], rgba=GREY, **_contact(spec),
    )  # fmt: skip


def _contact(spec: mujoco.MjSpec) -> dict[str, object]:
    floor = spec.geom("floor")
    return {"friction": list(floor.friction), "condim": floor.condim, "contype": 1, "conaffinity": 1}


def _rough(spec: mujoco.MjSpec, terrain: Terrain, seed: int) -> None:
    """Random heights on a grid, level around the start."""
    import mujoco

    count = int(2 * ROUGH_HALF / terrain.cell) + 1
    heights = np.random.default_rng(seed).uniform(0.0, 1.0, (count, count))
    line = np.linspace(-ROUGH_HALF, ROUGH_HALF, count)
    x, y = np.meshgrid(line, line)
    # The runway rises out of the rough ground within half a metre, at the middle of its heights.
    blend = np.clip((np.hypot(x, y) - 0.5 * terrain.runway) / 0.5, 0.0, 1.0)
    heights = 0.5 + blend * (heights - 0.5)
    spec.add_hfield(
        name="ground", size=[ROUGH_HALF, ROUGH_HALF, terrain.height, THICKNESS], nrow=count, ncol=count,
        userdata=heights.ravel().tolist(),
    )  # fmt: skip
    spec.geom("floor").pos = [0.0, 0.0, -THICKNESS]
    spec.worldbody.add_geom(
        name="ground_rough", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="ground",
        pos=[0.0, 0.0, -0.5 * terrain.height], rgba=GREY, **_contact(spec),
    )  # fmt: skip


def _seesaw(spec: mujoco.MjSpec, terrain: Terrain) -> None:
    """A board on an axis across the way: its near end lies on the floor until the robot has passed the axis."""
    import mujoco

    reach, height = 0.5 * SEESAW_LENGTH, terrain.height
    tilt = math.asin(min(0.9, height / reach))
    # A file of another author may be written in degrees, and its specification then takes nothing else.
    angle = math.degrees(tilt) if spec.compiler.degree else tilt
    board = spec.worldbody.add_body(
        name="ground_board", pos=[terrain.runway + reach * math.cos(tilt), 0.0, height],
        quat=[math.cos(0.5 * tilt), 0.0, -math.sin(0.5 * tilt), 0.0],
    )  # fmt: skip
    board.add_joint(
        name="ground_axis", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 1, 0], damping=2.0, ref=-angle,
        limited=1, range=[-angle, angle],
    )  # fmt: skip
    board.add_geom(
        name="ground_board", type=mujoco.mjtGeom.mjGEOM_BOX, size=[reach, 0.5 * WIDTH, 0.5 * SEESAW_THICKNESS],
        mass=BOARD_KG, rgba=GREY, **_contact(spec),
    )  # fmt: skip
