"""`nfpo faults` and `nfpo soak` as a user runs them: a real graph, a real robot on the wire, real signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("nfpo_msgs", reason="needs the messages of ros2_ws: make setup")

DOMAIN, ROS_DOMAIN = 41, 141
LYING_BELOW = 0.15


def command(name: str, out: Path, *options: str) -> list[str]:
    domains = ["--domain-id", str(DOMAIN), "--ros-domain-id", str(ROS_DOMAIN), "--out", str(out)]
    return [sys.executable, "-m", "nfpo_deploy.cli", name, *domains, *options]


def leftovers() -> dict[int, list[str]]:
    """Processes of a graph or robot on this test's domain that still run."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        modules = ("nfpo_deploy.ros.", "nfpo_deploy.guard", "sim2real_checks.robot_sim", "sim2real_checks.soak.")
        if f"ROS_DOMAIN_ID={ROS_DOMAIN}\0".encode() in environment and any(w.startswith(modules) for w in words):
            found[int(entry.name)] = words
    return found


def test_a_killed_watchdog_is_measured_and_reported(tmp_path):
    done = subprocess.run(
        command("faults", tmp_path, "--only", "kill safety_watchdog@ready", "--repeats", "1"),
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert not leftovers(), text
    data = json.loads((tmp_path / "report.json").read_text())
    (run,) = data["runs"]
    assert run["key"] == "kill safety_watchdog@READY#0"
    assert not run["problems"], text
    # Permits come every 20 ms and are good for 100; the launcher may notice first and let the robot sit down.
    assert run["detector"] in ("gate", "bridge")
    assert 0.0 < run["fault_to_reaction_ms"] < 1000.0
    assert run["motion"]["stiff_gap_max"] < 0.1
    assert run["bounds"]["commands"] > 500
    if run["reaction"] == "damp":
        assert run["motion"]["final_height"] < LYING_BELOW and run["motion"]["final_stiffness"] == 0.0
    # On a busy computer the reaction may be late; then, and only then, the campaign fails.
    late = run["reaction_ms"] > run["limit_ms"]
    assert done.returncode == int(late) == int(not data["passed"]), text
    assert "data:image/png;base64," in (tmp_path / "report.html").read_text()
    # What was found is kept, and is not run again.
    again = subprocess.run(
        command("faults", tmp_path, "--only", "kill safety_watchdog@ready", "--repeats", "1", "--resume"),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == done.returncode
    assert json.loads((tmp_path / "report.json").read_text())["runs"] == data["runs"]


def test_interrupted_a_campaign_leaves_nothing_behind(tmp_path):
    campaign = subprocess.Popen(
        command("faults", tmp_path, "--only", "stop guard@ready"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60.0
        while not any("nfpo_deploy.ros.sdk_bridge" in words for words in leftovers().values()):
            assert campaign.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        campaign.send_signal(signal.SIGINT)
        output, _ = campaign.communicate(timeout=100.0)
    finally:
        campaign.kill()
        campaign.wait()
    assert campaign.returncode == 130, output
    assert not leftovers()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quick_campaign_meets_every_target(tmp_path):
    done = subprocess.run(command("faults", tmp_path, "--quick"), capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not leftovers()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_short_soak(tmp_path):
    done = subprocess.run(
        command("soak", tmp_path, "--minutes", "1", "--load", "1"), capture_output=True, text=True, timeout=380
    )
    text = done.stdout + done.stderr
    assert not leftovers(), text
    data = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == int(bool(data["problems"])), text
    assert done.returncode == 0, text
    assert {"sdk_bridge", "guard", "robot_sim"} <= set(data["memory"])
    assert data["rates"]["bridge_rate"]["mean"] == pytest.approx(500.0, rel=0.02)
    walked = [line for line in data["wire"] if line["stiffness"] > 0.0]
    assert len(walked) > 55 and max(abs(line["vx"]) for line in walked) > 0.2
