"""The launch file under the real `launch`; skipped where only the ROS wheels are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

launch = pytest.importorskip("launch", reason="launch is not installed")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")
launch_pytest = pytest.importorskip("launch_pytest", reason="launch_pytest is not installed")

from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from nfpo_msgs.msg import SafetyPermit  # noqa: E402

from nfpo_deploy.graph_arguments import GRAPHS  # noqa: E402

LAUNCH_FILE = (
    Path(__file__).resolve().parents[2] / "ros2_ws/install/nfpo_deploy/share/nfpo_deploy/launch/go2_walk.launch.py"
)
ARGUMENTS = {"sim": "true", "policy": "none", "domain_id": "24", "ros_domain_id": "25"}


@launch_pytest.fixture
def stack():
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    included = IncludeLaunchDescription(source, launch_arguments=ARGUMENTS.items())
    return launch.LaunchDescription([included, launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=stack)
def test_robot_stands_up_under_launch(client):
    client.stand_up()
    client.spin(0.2)
    assert client.newest["permit"].mode == SafetyPermit.READY


def ros2_launch(*words):
    program = "import sys; from ros2cli.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "launch", str(LAUNCH_FILE), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_arguments_are_listed():
    pytest.importorskip("ros2launch")
    shown = ros2_launch("--show-args").stdout
    for argument in GRAPHS["go2_walk"]:
        assert f"'{argument.name}':" in shown and argument.description in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sim:=true", "simm:=1"], "unknown argument 'simm' of go2_walk; did you mean 'sim'?"),
        (["sim:=true", "interface:=eth0"], "interface:=eth0 with sim:=true"),
        (["sim:=true", "policy:=/nowhere/p.onnx"], "no policy at /nowhere/p.onnx"),
    ],
)
def test_bad_arguments_end_the_launch_at_once(words, message):
    pytest.importorskip("ros2launch")
    result = ros2_launch(*words)
    assert result.returncode == 1
    assert message in result.stdout + result.stderr
    assert "process started" not in result.stdout + result.stderr
