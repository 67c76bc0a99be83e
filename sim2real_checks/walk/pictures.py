"""Pictures of a walk from its folder (record.npz and report.json), rendered in a process of their own.

`python -m sim2real_checks.walk.pictures out/walk --strip walk.png --video walk.mp4`

A process of its own, because the renderer's GL library is chosen before MuJoCo is imported, and because a driver
that crashes must not take the report with it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from robots.untrusted import load_json, read_bounded
from sim2real_checks.robot_sim.recorder import load_record
from sim2real_checks.robot_sim.render import NO_RENDERER, Chase, RenderError, pictures_at, write_video

FPS = 25
STRIP_FRAMES = 5
GAP = 6
CAPTION = 34
CHASE = Chase(distance=1.2, azimuth=128.0, elevation=-14.0, height=0.19)
MAX_REPORT_BYTES = 1 << 24
OVERSAMPLING = 2
"""Pictures are rendered larger by this factor: smooth edges, of shadows too."""
GAIT_S = 0.5


@dataclass
class Arguments:
    """Options of the command line."""

    folder: tyro.conf.Positional[Path]
    """Folder of a walk, out/walk for the newest."""
    strip: Path | None = None
    """Write a strip of pictures (.png) here."""
    video: Path | None = None
    """Write an .mp4 here."""
    width: int = 400
    """Pixels of one picture of the strip."""
    height: int = 300
    """Pixels of one picture of the strip."""


def read_report(path: Path) -> dict[str, Any]:
    """A walk's report.json, with what the pictures need of it checked.

    Raises:
        OSError: missing or unreadable.
        ValueError: not a report of a walk.
    """
    report = load_json(read_bounded(path, MAX_REPORT_BYTES), MAX_REPORT_BYTES)
    segments = report.get("segments") if isinstance(report, dict) else None
    if not isinstance(segments, list):
        raise ValueError(f"{path}: not the report of a walk, it has no list of segments")
    for segment in segments:
        try:
            times = [segment["start"], segment["end"], *segment["command"], *segment["mean_velocity"]]
            # Text that reads as a number is none.
            numbers = all(type(time) in (int, float) and np.isfinite(float(time)) for time in times)
            ok = len(times) == 8 and numbers and isinstance(segment["name"], str)
        except (TypeError, ValueError, KeyError, OverflowError):
            ok = False
        if not ok:
            raise ValueError(f"{path}: a segment needs a name, start, end, command (3) and mean_velocity (3)")
    return report


def strip_moments(report: dict[str, Any], columns: Mapping[str, np.ndarray], count: int) -> list[tuple[float, str]]:
    """Times (s) and captions of the pictures: one in the middle of each segment, moving ones first choice.

    Within a gait period around the middle, the moment is taken when the legs are farthest apart.

    Raises:
        ValueError: the walk has no segments.
    """
    segments = report["segments"]
    if not segments:
        raise ValueError("no segment was walked: there is nothing to show")
    moving = [s for s in segments if any(s["command"])]
    still = [s for s in segments if not any(s["command"])]
    chosen = sorted((moving + still)[:count], key=lambda s: s["start"])
    return [(_expressive_moment(columns, (s["start"] + s["end"]) / 2), _caption(s)) for s in chosen]


def _expressive_moment(columns: Mapping[str, np.ndarray], middle: float) -> float:
    """Time (s) close to `middle` when the joints are farthest from their mean over that time."""
    rows = np.flatnonzero(np.abs(columns["time"] - middle) <= GAIT_S / 2)
    joints = columns["qpos"][rows, 7:]
    spread = np.linalg.norm(joints - joints.mean(axis=0), axis=1)
    return float(columns["time"][rows[int(spread.argmax())]])


def _caption(segment: dict[str, Any]) -> str:
    vx, vy, wz = segment["mean_velocity"]
    asked = segment["command"]
    if asked[2]:
        return f"{segment['name']}  {wz:.2f} rad/s"
    return f"{segment['name']}  {float(np.hypot(vx, vy)):.2f} m/s" if any(asked) else segment["name"]


def write_strip(record: Path, path: Path, moments: list[tuple[float, str]], width: int, height: int) -> None:
    """Render the moments side by side, each with its caption, into a small PNG.

    Raises:
        RenderError: no off-screen renderer on this machine.
        ValueError: not a record.
    """
    from PIL import Image, ImageDraw, ImageFont

    count = len(moments)
    strip = Image.new("RGB", (count * width + (count - 1) * GAP, height + CAPTION), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=22)
    times, size = np.array([time for time, _ in moments]), (OVERSAMPLING * width, OVERSAMPLING * height)
    pictures = pictures_at(record, times, *size, chase=CHASE)
    for i, (picture, (_, caption)) in enumerate(zip(pictures, moments, strict=True)):
        left = i * (width + GAP)
        strip.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        draw.text((left + width / 2, height + CAPTION / 2), caption, fill="#333333", font=font, anchor="mm")
    # A palette makes the file a third of its size; dithering hides the steps in the sky.
    strip.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def main() -> int:
    """Exit status: 0, 2 for a bad folder or option, 3 where nothing can be rendered."""
    arguments = tyro.cli(Arguments, prog="python -m sim2real_checks.walk.pictures", description=__doc__)
    try:
        report = read_report(arguments.folder / "report.json")
        record = arguments.folder / "record.npz"
        if arguments.strip:
            moments = strip_moments(report, load_record(record)[0], STRIP_FRAMES)
            write_strip(record, arguments.strip, moments, arguments.width, arguments.height)
        if arguments.video:
            end = float(load_record(record)[0]["time"][-1])
            write_video(record, arguments.video, np.arange(0.0, end, 1 / FPS), FPS, 640, 368)
    except RenderError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return NO_RENDERER
    except (ValueError, KeyError, OSError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
