"""Scripts, keys, progress lines and reports: the parts of a walk that need neither ROS nor a robot."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nfpo_deploy.errors import NfpoError, PolicyError
from nfpo_deploy.operator.keyboard import Teleop, split_keys
from sim2real_checks.robot_sim.render import NO_RENDERER
from sim2real_checks.walk import command, pictures
from sim2real_checks.walk.graph_log import GraphLog
from sim2real_checks.walk.progress import Progress
from sim2real_checks.walk.script import FULL_SCRIPT, QUICK_SCRIPT, Segment, within

RANGES = {"vx": (-0.6, 1.0), "vy": (-0.4, 0.4), "wz": (-1.0, 1.0)}


@pytest.mark.parametrize("values", [{"duration": 0.0}, {"duration": -1.0}, {"duration": 1.0, "vx": math.nan}])
def test_impossible_segments_are_refused(values: dict) -> None:
    with pytest.raises(NfpoError, match="segment 'x'"):
        Segment("x", **values)


def test_segments_speak() -> None:
    assert str(Segment("a", 1.0)) == "standing still"
    assert str(Segment("a", 1.0, vx=-0.4, vy=-0.2, wz=0.5)) == "backward 0.4 m/s, right 0.2 m/s, turning left 0.5 rad/s"


@pytest.mark.parametrize("script", [FULL_SCRIPT, QUICK_SCRIPT])
def test_scripts_start_and_end_standing_and_suit_the_shipped_policy(script: tuple[Segment, ...]) -> None:
    assert not script[0].velocity.any() and not script[-1].velocity.any()
    assert within(script, RANGES) == script


def test_a_script_is_bounded_by_what_the_policy_knows() -> None:
    (segment,) = within((Segment("a", 1.0, vx=2.0, vy=-1.0, wz=0.3),), RANGES)
    assert (segment.vx, segment.vy, segment.wz) == (1.0, -0.4, 0.3)


def test_keys_move_and_stop_at_the_ranges() -> None:
    teleop = Teleop(RANGES)
    for key in "wwwA":
        teleop.press(key)
    assert teleop.command == (0.6, 0.0, 0.2)
    for key in "w" * 20 + "q" * 20 + "d" * 20:
        teleop.press(key)
    assert teleop.command == (1.0, 0.4, -1.0)
    for key in "s" * 5:
        teleop.press(key)
    assert teleop.command[0] == 0.0
    teleop.press(" ")
    assert teleop.command == (0.0, 0.0, 0.0)


def test_escape_and_restart_also_stop() -> None:
    teleop = Teleop(RANGES)
    teleop.press("w")
    teleop.press("\x1b")
    assert teleop.estop and not teleop.restart and teleop.command == (0.0, 0.0, 0.0)
    teleop.press("w")
    teleop.press("r")
    assert teleop.restart and teleop.command == (0.0, 0.0, 0.0)
    teleop.press("?")
    assert teleop.command == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("wad", ["w", "a", "d"]),
        ("\x1b", ["\x1b"]),
        ("\x1b[A", ["w"]),
        ("\x1b[Bx\x1bOD", ["s", "x", "a"]),
        ("\x1b[3~w", ["w"]),
        ("\x1b[1;5Cq", ["d", "q"]),
        ("w\x1b", ["w", "\x1b"]),
        ("\x1b[", []),
    ],
)
def test_only_a_lonely_escape_is_an_emergency_stop(text: str, keys: list[str]) -> None:
    assert split_keys(text) == keys


def test_plain_progress_says_each_thing_once() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=100)) as progress:
        for speed in (0.57, 0.58, 0.59):
            progress.status(f"forward 0.6 m/s (estimated {speed})")
        progress.done("[red]walked")
        progress.status("sitting down")
    lines = [line.partition(" s  ")[2] for line in out.getvalue().splitlines()]
    assert lines == ["forward 0.6 m/s …", "[red]walked", "sitting down …"]


def test_graph_log_keeps_every_line_and_shows_the_last(tmp_path: Path) -> None:
    out = io.StringIO()
    with GraphLog(tmp_path / "graph.log") as log:
        for i in range(20):
            log("robot_sim", f"line {i}")
        log("launch", "stopping")
        log.show_end(Progress(Console(file=out, width=100)))
    log("robot_sim", "a thread that is late")
    text = (tmp_path / "graph.log").read_text()
    assert len(text.splitlines()) == 21 and "[launch] stopping" in text
    assert "line 8\n" in out.getvalue() and "line 7\n" not in out.getvalue()


def segment(name: str, start: float, end: float, vx: float = 0.0, wz: float = 0.0) -> dict:
    velocity = [vx, 0.0, wz]
    return {"name": name, "start": start, "end": end, "command": velocity, "mean_velocity": velocity}


def test_pictures_prefer_movement_and_the_widest_step() -> None:
    time = np.arange(0, 20, 0.01)
    qpos = np.zeros((len(time), 19))
    # Legs apart at 4.1 s, less so at 3.9 s; and far apart where no picture may look.
    for moment, angle in ((4.1, 0.5), (3.9, 0.3), (4.6, 2.0)):
        qpos[round(moment * 100), 8] = angle
    report = {"segments": [segment("stand", 0, 2), segment("forward", 3, 5, vx=0.6), segment("turn", 5, 9, wz=0.8)]}
    moments = pictures.strip_moments(report, {"time": time, "qpos": qpos}, 2)
    assert [caption for _, caption in moments] == ["forward  0.60 m/s", "turn  0.80 rad/s"]
    assert moments[0][0] == pytest.approx(4.1)
    assert len(pictures.strip_moments(report, {"time": time, "qpos": qpos}, 5)) == 3
    with pytest.raises(ValueError, match="nothing to show"):
        pictures.strip_moments({"segments": []}, {"time": time, "qpos": qpos}, 2)


def test_old_results_do_not_pass_for_new_ones(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "walk"
    command.prepare_folder(folder)
    (folder / "walk.png").write_text("old")
    (folder / "notes.txt").write_text("the user's own")
    command.prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NfpoError, match="--out .*choose a folder"):
        command.prepare_folder(tmp_path / "file" / "walk")


def test_wrong_policies_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="needs a policy"):
        command.walk(["--policy", "none", "--out", str(tmp_path / "out")])
    with pytest.raises(PolicyError, match="no policy at"):
        command.walk(["--policy", "no_such", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_launch_arguments_are_those_of_the_graph(tmp_path: Path) -> None:
    from nfpo_deploy.graph import build_graph

    args = command.WalkArgs(out=tmp_path, domain_id=34, ros_domain_id=35, composed=True)
    graph = build_graph("go2_walk", command.launch_arguments(args))
    nodes = {process.name for process in graph.processes} - {"guard", "guard_backup", "flight_recorder", "operator"}
    assert nodes == {"robot_sim", "composed"}
    simulator = graph.process("robot_sim").arguments
    assert str(tmp_path / "record.npz") in simulator and "500" in simulator


def test_without_a_renderer_it_says_so_and_how_to_get_one(tmp_path: Path) -> None:
    time = np.arange(0, 5, 0.01)
    qpos = np.zeros((len(time), 19))
    qpos[:, 3] = 1.0
    np.savez(tmp_path / "record.npz", time=time, qpos=qpos, meta=json.dumps({"robot": "go2"}))
    (tmp_path / "report.json").write_text(json.dumps({"segments": [segment("forward", 1, 4, vx=0.6)]}))
    program = [sys.executable, "-m", "sim2real_checks.walk.pictures", str(tmp_path), "--strip"]
    environment = {**os.environ, "MUJOCO_GL": "no_such_library"}
    result = subprocess.run(
        [*program, str(tmp_path / "walk.png")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == NO_RENDERER, result.stderr
    assert "libegl1" in result.stderr and not (tmp_path / "walk.png").exists()
