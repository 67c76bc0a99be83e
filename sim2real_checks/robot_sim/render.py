"""Video or a strip of pictures from a record, made after the run so that it never disturbs real time.

`python -m sim2real_checks.robot_sim.render run.npz --video run.mp4 --strip run.png`
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

if TYPE_CHECKING:
    from PIL.Image import Image

NO_RENDERER = 3
"""Exit status where pictures cannot be made here."""
_BACKENDS = ("egl", "osmesa", "glfw")
# A finer shadow map over less floor: the default's shadows have visible steps.
_SHADOW_PIXELS = 8192
_SHADOW_REACH = 0.6


class RenderError(RuntimeError):
    """Pictures cannot be made; the message says what is missing and how to get it."""


@dataclass
class Arguments:
    """Options of the command line."""

    record: tyro.conf.Positional[Path]
    """A record of robot_sim (.npz, or the .partial file of a killed run)."""
    video: Path | None = None
    """Write an .mp4 here."""
    strip: Path | None = None
    """Write a strip of pictures (.png) here."""
    fps: int = 25
    """Pictures per second of the video."""
    pictures: int = 8
    """Pictures in the strip."""
    width: int = 640
    """Pixels of one picture; a multiple of 16."""
    height: int = 368
    """Pixels of one picture; a multiple of 16."""
    start: float = 0.0
    """s into the run where the pictures start."""
    end: float | None = None
    """s into the run where they end."""
    fine_video: bool = False
    """Shadows and smooth edges in the video too: three times slower without a GPU."""


@dataclass(frozen=True)
class Chase:
    """A camera that keeps its place relative to the robot's heading; m and degrees.

    `azimuth` is the direction in which it looks, 0 from behind and 90 from the right side of the robot.
    """

    distance: float
    azimuth: float
    elevation: float
    height: float
    """Of the point that it looks at."""


def pictures_at(
    record: Path, times: np.ndarray, width: int, height: int, fine: bool = True, chase: Chase | None = None
) -> Iterator[np.ndarray]:
    """Yield one picture (height, width, 3) uint8 for each time (s) of the run.

    `fine` adds shadows and smooth edges. The camera is the model's tracking camera, which keeps its direction in the
    world, unless `chase` describes another.

    Raises:
        RenderError: no off-screen renderer on this machine.
        ValueError: not a record.
    """
    from sim2real_checks.robot_sim.recorder import load_record

    columns, meta = load_record(record)
    mujoco = _import_mujoco()
    from robots import mjcf

    spec = mjcf.build_spec(meta["robot"])
    if fine:
        spec.visual.quality.shadowsize = _SHADOW_PIXELS
        spec.visual.map.shadowclip = _SHADOW_REACH
    else:
        spec.visual.quality.offsamples = 0
    model = spec.compile()
    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # each GL backend fails with exceptions of its own
        raise RenderError(f"no off-screen renderer: {error}; {_remedy()}") from error
    with renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = fine
        for row in np.searchsorted(columns["time"], times).clip(max=len(columns["time"]) - 1):
            data.qpos[:] = columns["qpos"][row]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track" if chase is None else _camera(mujoco, chase, data.qpos))
            yield renderer.render()


def write_video(
    record: Path, path: Path, times: np.ndarray, fps: int, width: int, height: int, fine: bool = False
) -> None:
    """Encode an H.264 .mp4; errors as `pictures_at`, and RenderError where no encoder is installed."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise RenderError("no video encoder: pip install imageio-ffmpeg") from error
    writer = None
    try:
        for picture in pictures_at(record, times, width, height, fine):
            if writer is None:
                writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps)
                writer.send(None)
            writer.send(np.ascontiguousarray(picture))
    finally:
        if writer is not None:
            writer.close()


def write_strip(record: Path, path: Path, times: np.ndarray, width: int, height: int) -> None:
    """Write the pictures in rows of four, each with its time; errors as `pictures_at`."""
    from PIL import Image

    per_row = min(4, len(times))
    rows = -(-len(times) // per_row)
    strip = Image.new("RGB", (per_row * width, rows * height), "white")
    for i, picture in enumerate(pictures_at(record, times, width, height)):
        tile = _label(Image.fromarray(picture), f"{times[i]:.1f} s")
        strip.paste(tile, (i % per_row * width, i // per_row * height))
    strip.save(path)


def main() -> int:
    """Exit status: 0, 2 for a bad record or option, 3 where nothing can be rendered."""
    arguments = tyro.cli(Arguments, prog="python -m sim2real_checks.robot_sim.render", description=__doc__)
    size = (arguments.width, arguments.height)
    try:
        start, end = _span(arguments)
        if arguments.strip:
            moments = np.linspace(start, end, arguments.pictures)
            write_strip(arguments.record, arguments.strip, moments, *size)
        if arguments.video:
            moments = np.arange(start, end, 1 / arguments.fps)
            write_video(arguments.record, arguments.video, moments, arguments.fps, *size, arguments.fine_video)
    except RenderError as error:
        print(f"render: {error}", file=sys.stderr)
        return NO_RENDERER
    except (ValueError, OSError) as error:
        print(f"render: {error}", file=sys.stderr)
        return 2
    return 0


def _span(arguments: Arguments) -> tuple[float, float]:
    from sim2real_checks.robot_sim.recorder import load_record

    for name in ("fps", "pictures", "width", "height"):
        if getattr(arguments, name) <= 0:
            raise ValueError(f"{name} must be above zero, got {getattr(arguments, name)}")
    if arguments.width % 16 or arguments.height % 16:
        raise ValueError(f"width and height must be multiples of 16, got {arguments.width}x{arguments.height}")
    if not (arguments.video or arguments.strip):
        raise ValueError("nothing to do: give --video and/or --strip")
    times = load_record(arguments.record)[0]["time"]
    if len(times) == 0:
        raise ValueError(f"{arguments.record}: the record is empty")
    end = float(times[-1]) if arguments.end is None else min(arguments.end, float(times[-1]))
    if not 0 <= arguments.start <= end:
        raise ValueError(f"start {arguments.start} s lies outside the record, which ends at {times[-1]:.2f} s")
    return arguments.start, end


def _import_mujoco():  # noqa: ANN202
    # Without a display, MuJoCo must be told which library draws before it is imported.
    if "mujoco" not in sys.modules and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco
    except Exception as error:  # a missing GL library surfaces as ImportError, AttributeError or OSError
        raise RenderError(f"MuJoCo cannot load its renderer: {error}; {_remedy()}") from error
    return mujoco


def _camera(mujoco: Any, chase: Chase, qpos: np.ndarray) -> Any:
    w, x, y, z = qpos[3:7]
    heading = np.degrees(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (qpos[0], qpos[1], chase.height)
    camera.distance, camera.azimuth, camera.elevation = chase.distance, chase.azimuth + heading, chase.elevation
    return camera


def _remedy() -> str:
    return (
        "install libegl1 and libgl1-mesa-dri (Debian, Ubuntu), or set MUJOCO_GL to one of "
        f"{', '.join(_BACKENDS)} that works here"
    )


def _label(picture: Image, text: str) -> Image:
    from PIL import ImageDraw, ImageFont

    ImageDraw.Draw(picture).text((10, 8), text, fill="black", font=ImageFont.load_default(size=22))
    return picture


if __name__ == "__main__":
    sys.exit(main())
