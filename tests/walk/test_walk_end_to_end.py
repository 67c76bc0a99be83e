"""`nfpo walk` as a user runs it: whole graph, real DDS, real time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim2real_checks.robot_sim.recorder import load_record

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("nfpo_msgs", reason="needs the messages of ros2_ws: make setup")

DOMAIN, ROS_DOMAIN = 32, 33
LYING_BELOW, STANDING_ABOVE = 0.13, 0.25
START_S = 60.0


class Walk:
    """A running `nfpo walk` whose output is collected."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "nfpo_deploy.cli", "walk", "--domain-id", str(DOMAIN)]
        command += ["--ros-domain-id", str(ROS_DOMAIN), "--out", str(folder), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None

        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, seconds: float = START_S) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert self.process.poll() is None and time.monotonic() < deadline, f"no {text!r} in:\n{self.text}"
            time.sleep(0.05)

    def end(self, seconds: float = 60.0) -> int:
        status = self.process.wait(seconds)
        self._reader.join(5.0)
        return status

    def record(self) -> dict[str, np.ndarray]:
        return load_record(self.folder / "record.npz")[0]

    def report(self) -> dict:
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture
def walks(tmp_path: Path) -> Iterator[list[Walk]]:
    started: list[Walk] = []
    yield started
    for walk in started:
        if walk.process.poll() is None:
            walk.process.kill()
            walk.process.wait()


def graph_processes() -> dict[int, list[str]]:
    """Command lines of this test's graph that still run, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = f"ROS_DOMAIN_ID={ROS_DOMAIN}\0".encode() in environment
        if ours and any(word.startswith(("nfpo_deploy.ros.", "sim2real_checks.robot_sim")) for word in words):
            found[int(entry.name)] = words
    return found


def test_the_robot_walks_turns_and_sits(tmp_path: Path, walks: list[Walk]) -> None:
    walk = Walk(tmp_path, "--quick")
    walks.append(walk)
    assert walk.end(120.0) == 0, walk.text
    assert not graph_processes()
    columns, report = walk.record(), walk.report()
    # Seen from the raw record alone: it stood, went about 1.6 m, turned about 2 rad to the left, lies again.
    height, quat = columns["qpos"][:, 2], columns["qpos"][:, 3:7]
    yaw = np.unwrap(2 * np.arctan2(quat[:, 3], quat[:, 0]))
    up = height > STANDING_ABOVE
    assert 8.0 < np.count_nonzero(up) / 500 < 20.0
    assert 1.2 < np.linalg.norm(columns["qpos"][-1, :2]) < 2.2
    assert 1.5 < yaw[-1] < 2.7
    assert height[0] < LYING_BELOW and height[-1] < LYING_BELOW
    # Motors are free or damped in the end, never held.
    assert np.all(columns["command_kp"][-1] == 0.0)
    assert report["passed"] and report["falls"] == 0 and report["sat_down"]
    assert [segment["name"] for segment in report["segments"]] == ["stand", "forward", "turn", "stop"]
    assert max(report["estimator_rms"][:2]) < 0.10
    assert report["timing"]["policy_rate"] == pytest.approx(50.0, rel=0.05)
    assert "the robot did what was asked" in walk.text
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert (tmp_path / "walk.png").exists() or "no pictures: " in walk.text


def test_interrupted_it_sits_down_and_leaves_nothing_running(tmp_path: Path, walks: list[Walk]) -> None:
    walk = Walk(tmp_path, "--no-pictures")
    walks.append(walk)
    walk.wait_for("forward 0.6 m/s …")
    time.sleep(1.0)
    walk.process.send_signal(signal.SIGINT)
    assert walk.end() == 130, walk.text
    assert "sat down" in walk.text
    assert not graph_processes()
    columns = walk.record()
    assert columns["qpos"][-1, 2] < LYING_BELOW
    # Sitting down is gentle: at no time does the base come down faster than the ramp of the sit does, with margin.
    assert columns["qvel"][-4 * 500 :, 2].min() > -0.5
    assert any("interrupted" in problem for problem in walk.report()["problems"])


@pytest.mark.slow
def test_a_node_that_dies_is_a_failure_with_its_name(tmp_path: Path, walks: list[Walk]) -> None:
    walk = Walk(tmp_path, "--no-pictures")
    walks.append(walk)
    walk.wait_for("forward 0.6 m/s …")
    (victim,) = [pid for pid, words in graph_processes().items() if "nfpo_deploy.ros.policy_inference" in words]
    os.kill(victim, signal.SIGKILL)
    # Twice SIGTERM while it stops changes nothing.
    time.sleep(0.5)
    for _ in range(2):
        walk.process.send_signal(signal.SIGTERM)
    assert walk.end() == 1, walk.text
    assert not graph_processes()
    assert any("policy_inference ended with signal SIGKILL" in problem for problem in walk.report()["problems"])
    columns = walk.record()
    assert np.all(columns["command_kp"][-1] == 0.0) and columns["qpos"][-1, 2] < LYING_BELOW


def test_a_second_graph_on_the_same_domain_is_refused(tmp_path: Path, walks: list[Walk]) -> None:
    script = (
        "import rclpy, time; rclpy.init(); node = rclpy.create_node('safety_watchdog');"
        " print('up', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ROS_DOMAIN)}
    other = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "up\n"
        walk = Walk(tmp_path, "--quick")
        walks.append(walk)
        assert walk.end() == 1
        assert f"safety_watchdog already run on ROS domain {ROS_DOMAIN}" in walk.text
        assert "starting robot_sim" not in walk.text
    finally:
        other.kill()
        other.wait()
