"""Which package may import what. The robot runtime must install and start without torch, MuJoCo or ROS."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
OWN = ("nfpo_deploy", "nfpo_train", "robots", "sim2real_checks")

CORE = {"numpy", "onnxruntime", "yaml"}
COMMAND_LINE = {"tyro", "rich"}
DDS = {"cyclonedds", "unitree_sdk2py", "far_unitree_sdk"}
ROS = {
    "rclpy",
    "rcl_interfaces",
    "builtin_interfaces",
    "lifecycle_msgs",
    "nfpo_msgs",
    "std_msgs",
    "std_srvs",
    "sensor_msgs",
    "geometry_msgs",
    "nav_msgs",
    "diagnostic_msgs",
    "tf2_msgs",
}
WEB = {"viser", "trimesh", "aiohttp"}
LAUNCH = {"launch", "launch_ros", "osrf_pycommon"}
SIMULATION = {"mujoco", "matplotlib", "PIL", "imageio_ffmpeg", "scipy"}
TRAINING = {"torch", "rsl_rl", "tensordict", "onnx", "tensorboard"}

# The longest matching prefix of a file's path decides.
ALLOWED = {
    "nfpo_deploy/": CORE | COMMAND_LINE | LAUNCH | {"nfpo_deploy", "robots"},
    "nfpo_deploy/transport/": CORE | DDS | {"nfpo_deploy", "robots"},
    "nfpo_deploy/flight_log/": CORE | COMMAND_LINE | {"mcap", "mcap_ros2", "zstandard", "nfpo_deploy", "robots"},
    "nfpo_deploy/ros/": CORE | ROS | {"nfpo_deploy", "robots"},
    "nfpo_deploy/web/": CORE | WEB | {"nfpo_deploy", "robots"},
    "nfpo_train/": CORE | COMMAND_LINE | TRAINING | SIMULATION | {"nfpo_train", "nfpo_deploy", "robots"},
    "robots/": {"numpy", "yaml", "robots"},
    "robots/mjcf.py": {"numpy", "mujoco", "robots"},
    "sim2real_checks/": CORE
    | COMMAND_LINE
    | SIMULATION
    | DDS
    | ROS
    | {"onnx", "sim2real_checks", "nfpo_deploy", "robots"},
    "sim2real_checks/validation/bullet.py": {"numpy", "mujoco", "pybullet", "sim2real_checks", "robots"},
}
# The folders of nfpo_deploy that hold the pure stages: no command line, no launching, no middleware.
PURE = ("command", "contract", "observation", "operator", "policy", "safety", "state")
ALLOWED |= {f"nfpo_deploy/{name}/": CORE | {"nfpo_deploy", "robots"} for name in PURE}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every absolute import, at any depth of the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def violations(relative: str, source: str) -> list[str]:
    """Imports of one file that the table does not allow."""
    prefix = max((key for key in ALLOWED if relative.startswith(key)), key=len)
    allowed = ALLOWED[prefix] | set(sys.stdlib_module_names)
    return [
        f"{relative}:{line}: {prefix} must not import {name}"
        for line, name in imported_modules(source)
        if name.partition(".")[0] not in allowed
    ]


def own_files() -> list[Path]:
    return [path for package in OWN for path in sorted((REPO / package).rglob("*.py"))]


def test_every_file_imports_only_what_its_package_may() -> None:
    files = own_files()
    assert len(files) > 40
    found = [text for path in files for text in violations(path.relative_to(REPO).as_posix(), path.read_text())]
    assert not found, "\n".join(found)


def test_only_the_ros_package_and_launching_import_the_ros_modules() -> None:
    """`nfpo_deploy.ros` may be imported only by the code that starts nodes, never by a pure stage."""
    for path in own_files():
        relative = path.relative_to(REPO).as_posix()
        if relative.startswith(tuple(f"nfpo_deploy/{name}/" for name in (*PURE, "transport"))):
            names = {name for _, name in imported_modules(path.read_text())}
            assert not any(name.startswith("nfpo_deploy.ros") for name in names), relative


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("nfpo_deploy/state/x.py", "import rclpy"),
        ("nfpo_deploy/policy/x.py", "from torch.nn import Linear"),
        ("nfpo_deploy/safety/x.py", "def f():\n    import mujoco"),
        ("nfpo_deploy/x.py", "import nfpo_train.runner"),
        ("nfpo_deploy/ros/x.py", "from unitree_sdk2py.core import channel"),
        ("robots/x.py", "import nfpo_deploy"),
        ("sim2real_checks/x.py", "import torch"),
        ("nfpo_train/x.py", "import rclpy"),
    ],
)
def test_the_rule_catches_a_violation(relative: str, source: str) -> None:
    assert len(violations(relative, source)) == 1


PROBE = """
import importlib, json, pkgutil, sys
import nfpo_deploy, robots

skipped = ("nfpo_deploy.ros", "nfpo_deploy.web", "robots.mjcf")
for package in (nfpo_deploy, robots):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith(skipped):
            importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_importing_the_runtime_loads_no_heavy_package() -> None:
    """The whole runtime but its ROS shells, in a fresh interpreter."""
    import json

    output = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, cwd=REPO)
    loaded = set(json.loads(output.stdout))
    assert {"nfpo_deploy", "robots", "numpy"} <= loaded
    heavy = {"torch", "mujoco", "rclpy", "launch", "nfpo_train", "sim2real_checks", "matplotlib", "viser", "aiohttp"}
    assert not loaded & heavy
    # The SDK is loaded when a transport opens, so that everything else runs where it is absent.
    assert not loaded & {"unitree_sdk2py", "cyclonedds"}
