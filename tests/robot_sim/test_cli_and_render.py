"""The command lines: refusals with exit status 2, help with examples, and pictures from a record."""

import subprocess
import sys

import numpy as np
import pytest

from robots.loader import load_robot
from sim2real_checks.robot_sim.rawfile import RawFile
from sim2real_checks.robot_sim.recorder import Recorder, load_record, row_dtype

DOMAIN = 18


def run_module(module, *args):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, args)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--interface", "eth99"], "existing interfaces"),
        (["--robot", "cat"], "available: b2, g1, go2"),
        (["--push", "1,2"], "T,VX,VY"),
        (["--remote", "1,Z"], "unknown remote buttons"),
        (["--timestep", "0.005"], "timestep must be"),
        (["--payload", "-50"], "payload must be"),
        (["--record", "run.txt"], ".npz"),
    ],
)
def test_bad_option_is_named_and_exits_2(args, named):
    result = run_module("sim2real_checks.robot_sim", "--domain-id", DOMAIN, *args)
    assert result.returncode == 2
    assert named in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["sim2real_checks.robot_sim", "sim2real_checks.robot_sim.render"])
def test_help_shows_an_example(module):
    result = run_module(module, "--help")
    assert result.returncode == 0
    assert f"python -m {module}" in result.stdout


@pytest.fixture
def record(tmp_path):
    """A record of a robot that falls through the air, one row every 5 ms."""
    from sim2real_checks.robot_sim.config import SimConfig
    from sim2real_checks.robot_sim.motors import MotorBank
    from sim2real_checks.robot_sim.plant import Plant

    spec = load_robot("go2")
    plant = Plant(spec, SimConfig())
    path = tmp_path / "run.npz"
    recorder = Recorder(path, row_dtype(19, 18, 12, 4), {"robot": "go2"})
    for i in range(100):
        plant.data.qpos[2] = 1.0 - i / 200
        plant.data.time = i * 0.005
        recorder.append(plant, MotorBank(spec), wall_ns=i, lowcmd_count=i)
    recorder.close()
    recorder.close()
    return path


def test_record_round_trip(record):
    columns, meta = load_record(record)
    assert meta == {"robot": "go2"}
    assert columns["qpos"].shape == (100, 19) and columns["torque"].shape == (100, 12)
    assert columns["qpos"][:, 2] == pytest.approx(1.0 - np.arange(100) / 200)
    assert columns["lowcmd_count"].tolist() == list(range(100))


def test_other_files_are_no_records(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="not a record"):
        load_record(tmp_path / "other.npz")
    (tmp_path / "broken.partial").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="not a raw record"):
        load_record(tmp_path / "broken.partial")
    RawFile(tmp_path / "text.partial", np.dtype([("time", "<U4")]), "").close()
    with pytest.raises(ValueError, match=r"columns \['time'\] do not hold numbers"):
        load_record(tmp_path / "text.partial")


def test_strip_and_video_show_the_robot(record, tmp_path):
    from PIL import Image

    strip, video = tmp_path / "strip.png", tmp_path / "run.mp4"
    result = run_module("sim2real_checks.robot_sim.render", record, "--strip", strip, "--video", video,
                        "--pictures", 2, "--width", 160, "--height", 96, "--fps", 10)  # fmt: skip
    if result.returncode == 3:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    picture = np.asarray(Image.open(strip))
    assert picture.shape == (96, 320, 3)
    assert picture.std() > 10, "not a blank picture"
    assert np.abs(picture[:, :160].astype(int) - picture[:, 160:]).mean() > 1, "two different moments"
    assert video.stat().st_size > 1000


def test_missing_renderer_is_reported_with_a_remedy(record, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "nonsense")
    result = run_module("sim2real_checks.robot_sim.render", record, "--strip", tmp_path / "strip.png")
    assert result.returncode == 3
    assert "libegl1" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [([], "nothing to do"), (["--strip", "a.png", "--width", "100"], "multiples of 16"),
     (["--strip", "a.png", "--start", "9"], "outside the record"), (["--video", "a.mp4", "--fps", "0"], "above zero")],
)  # fmt: skip
def test_render_refuses_bad_options(record, args, named):
    result = run_module("sim2real_checks.robot_sim.render", record, *args)
    assert result.returncode == 2 and named in result.stderr
