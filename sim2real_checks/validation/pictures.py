"""Strips of pictures of films, rendered in a process of their own.

`MUJOCO_GL=egl python -m sim2real_checks.validation.pictures out/validation/films/0` makes a .png of each .npz there.

A process of its own, because the renderer's GL library is chosen before MuJoCo is imported, and because a driver
that crashes must not take the report with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from robots.loader import load_robot
from robots.untrusted import UntrustedError, load_json, load_npz
from sim2real_checks.robot_sim.render import NO_RENDERER, RenderError
from sim2real_checks.validation.film import Film
from sim2real_checks.validation.scenario import ScenarioError, scenario_from

if TYPE_CHECKING:
    import mujoco

MAX_BYTES = 1 << 24
PICTURES = 6
LAST_S = 2.0
"""A run that ended early is shown from so long before its end."""
DISTANCE, AZIMUTH, ELEVATION = 1.6, 128.0, -14.0
WIDTH, HEIGHT, GAP = 288, 216, 4


@dataclass
class Arguments:
    """Options of the command line."""

    folder: tyro.conf.Positional[Path]
    """Folder with films (.npz)."""


def strip_times(time: np.ndarray, ended_early: bool) -> np.ndarray:
    """Moments to show, s: the last two seconds of a run that ended early, else all of it.

    Args:
        time: (T,) of a film.
        ended_early: whether the run did.
    """
    start = max(float(time[0]), float(time[-1]) - LAST_S) if ended_early else float(time[0])
    return np.linspace(start, float(time[-1]), PICTURES)


def render_strip(path: Path) -> None:
    """Make the .png of one film.

    Raises:
        RenderError: no off-screen renderer.
        UntrustedError: not a film.
    """
    from PIL import Image, ImageDraw, ImageFont

    film, about = read_film(path)
    times = strip_times(film["time"], bool(about["ended"]))
    strip = Image.new("RGB", (PICTURES * (WIDTH + GAP) - GAP, HEIGHT), "white")
    for i, picture in enumerate(_pictures(film, about, times)):
        tile = Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        ImageDraw.Draw(tile).text((6, 4), f"{times[i]:.1f} s", fill="black", font=ImageFont.load_default(size=16))
        strip.paste(tile, (i * (WIDTH + GAP), 0))
    strip.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(path.with_suffix(".png"), optimize=True)


def read_film(path: Path) -> tuple[Film, dict[str, Any]]:
    """A film's columns and what it says of itself: robot, scenario (as in a file), seed, ended.

    Raises:
        OSError: missing or unreadable.
        UntrustedError: not a film.
    """
    columns = load_npz(path, MAX_BYTES)
    about = load_json(str(columns.pop("about", "")))
    if not isinstance(about, dict) or not {"robot", "scenario", "seed", "ended"} <= set(about):
        raise UntrustedError(f"{path}: not a film of a validation")
    shapes = {name: columns[name].shape if name in columns else () for name in ("time", "pose", "q")}
    rows = {shape[0] if shape else 0 for shape in shapes.values()}
    numbers = all(columns[name].dtype.kind == "f" for name in shapes if name in columns)
    if rows == {0} or len(rows) != 1 or [len(s) for s in shapes.values()] != [1, 2, 2] or not numbers:
        raise UntrustedError(f"{path}: a film needs as many rows of time, pose and q, got {shapes}")
    return columns, about


def _pictures(film: Film, about: dict[str, Any], times: np.ndarray) -> Iterator[np.ndarray]:
    import mujoco

    spec = load_robot(str(about["robot"]))
    model = _world(spec.name, about)
    data = mujoco.MjData(model)
    addresses = [int(model.joint(name).qposadr[0]) for name in spec.joint_names]
    camera = mujoco.MjvCamera()
    camera.distance, camera.azimuth, camera.elevation = DISTANCE, AZIMUTH, ELEVATION
    try:
        renderer = mujoco.Renderer(model, 2 * HEIGHT, 2 * WIDTH)
    except Exception as error:  # each GL backend fails with exceptions of its own
        raise RenderError(f"no off-screen renderer: {error}") from error
    with renderer:
        for row in np.searchsorted(film["time"], times).clip(max=len(film["time"]) - 1):
            data.qpos[:7], data.qpos[addresses] = film["pose"][row], film["q"][row]
            mujoco.mj_forward(model, data)
            camera.lookat[:] = film["pose"][row, :3]
            renderer.update_scene(data, camera=camera)
            yield renderer.render()


def _world(robot: str, about: dict[str, Any]) -> mujoco.MjModel:
    from robots.mjcf import build_spec
    from sim2real_checks.validation.terrain import add_terrain

    world = build_spec(robot, collision="full", looks=True)
    add_terrain(world, scenario_from(about["scenario"]).terrain, int(about["seed"]))
    return world.compile()


def main() -> int:
    """Exit status: 0, 2 for a bad film, 3 where nothing can be rendered."""
    folder = tyro.cli(Arguments, prog="python -m sim2real_checks.validation.pictures", description=__doc__).folder
    try:
        for path in sorted(folder.glob("*.npz")):
            render_strip(path)
    except RenderError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return NO_RENDERER
    except (UntrustedError, ScenarioError, OSError, ValueError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
