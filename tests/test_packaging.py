"""What is installed: the wheel's content, its dependencies, the supported Pythons and the make targets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("nfpo_deploy", "nfpo_train", "robots", "sim2real_checks")
DATA_SUFFIXES = {".xml", ".yaml", ".json", ".onnx", ".png", ".md", ".html", ".js", ".css"}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

# Import name to distribution, where they differ.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "mcap_ros2": "mcap-ros2-support",
    "rsl_rl": "rsl-rl-lib",
    "rclpy": "ros-rclpy",
    "rcl_interfaces": "ros-rclpy",
    "builtin_interfaces": "ros-rclpy",
    "lifecycle_msgs": "ros-rclpy",
    "unitree_sdk2py": "unitree-sdk2py-dimos",
    "far_unitree_sdk": "far-unitree-sdk",
    "osrf_pycommon": "osrf-pycommon",
    "imageio_ffmpeg": "imageio-ffmpeg",
    **{
        f"{name}_msgs": "ros-common-interfaces"
        for name in ("std", "sensor", "geometry", "nav", "diagnostic", "trajectory")
    },
    "std_srvs": "ros-common-interfaces",
}
# Built by ros2_ws, or part of a ROS installation that the code can do without.
BUILT_OR_OPTIONAL = {"nfpo_msgs", "tf2_msgs", "launch", "launch_ros", "ament_index_python", "pytest_launch"}
EXTRAS = {
    "nfpo_deploy": ("", "ros", "web"),
    "nfpo_train": ("", "train"),
    "robots": ("", "sim"),
    "sim2real_checks": ("", "sim", "ros", "bullet"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that no build folder is left in the tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPO / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*PACKAGES, "tests", "ros2_ws/src", "scripts"):
        shutil.copytree(REPO / name, source / name, ignore=ignored)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target)]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = target.glob("nfpo-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def requirements(wheel: zipfile.ZipFile) -> dict[str, set[str]]:
    """Distribution names by extra; the empty extra is the base install."""
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    found: dict[str, set[str]] = {}
    for line in Parser().parsestr(wheel.read(path).decode()).get_all("Requires-Dist") or []:
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        name = re.match(r"[A-Za-z0-9._-]+", line)
        assert name is not None
        found.setdefault(extra.group(1) if extra else "", set()).add(name.group().lower())
    return found


def test_wheel_holds_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    expected = {
        path.relative_to(REPO).as_posix()
        for package in PACKAGES
        for path in (REPO / package).rglob("*")
        if path.suffix in DATA_SUFFIXES | {".py"} and "__pycache__" not in path.parts
    }
    assert {"robots/go2/robot.yaml", "robots/go2/go2.xml", "nfpo_deploy/cli.py"} <= expected
    assert not expected - set(wheel.namelist())


def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    roots = {name.partition("/")[0] for name in wheel.namelist()}
    assert {root for root in roots if not root.endswith(".dist-info")} == set(PACKAGES)
    assert {Path(name).name for name in wheel.namelist()} >= {"LICENSE", "NOTICE"}


def test_base_install_has_neither_torch_nor_mujoco_nor_ros(requirements: dict[str, set[str]]) -> None:
    assert {"numpy", "onnxruntime", "pyyaml"} <= requirements[""]
    assert not {name for name in requirements[""] if name.startswith(("torch", "mujoco", "ros-", "cyclonedds"))}
    assert "torch" in requirements["train"] and "mujoco" in requirements["sim"]
    assert "torch" not in requirements["ros"] | requirements["sim"]


def test_every_import_is_declared_in_the_extra_that_needs_it(requirements: dict[str, set[str]]) -> None:
    import ast

    undeclared = set()
    for package in PACKAGES:
        declared = set().union(*(requirements[extra] for extra in EXTRAS[package]))
        for path in (REPO / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                for root in {name.partition(".")[0] for name in names}:
                    known = set(sys.stdlib_module_names) | set(PACKAGES) | BUILT_OR_OPTIONAL
                    if root not in known and DISTRIBUTIONS.get(root, root).lower() not in declared:
                        undeclared.add((package, root))
    assert not undeclared


def test_cyclonedds_is_pinned_to_the_series_that_robots_speak() -> None:
    """11.x crashes the firmware's side; the SDK's own requirement would let pip choose it."""
    pin = re.compile(r"^cyclonedds==0\.10\.\d+$", re.MULTILINE)
    assert pin.search((REPO / "scripts/constraints.txt").read_text())
    assert re.search(r'"cyclonedds==0\.10\.\d+"', (REPO / "pyproject.toml").read_text())
    release = re.search(r"^CYCLONEDDS_RELEASE=(\S+)$", (REPO / "scripts/lib.sh").read_text(), re.MULTILINE)
    assert release is not None
    assert f"cyclonedds=={release.group(1)}" in (REPO / "scripts/constraints.txt").read_text()


def test_supported_pythons_agree_everywhere(wheel: zipfile.ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(path).decode())
    specifier = metadata["Requires-Python"].replace(" ", "")
    assert set(specifier.split(",")) == {">=3.10", "<3.14"}
    classifiers = metadata.get_all("Classifier")
    assert tuple(c.rpartition(" ")[2] for c in classifiers if re.search(r":: 3\.\d+$", c)) == PYTHONS
    assert f'SUPPORTED_PYTHONS="{" ".join(PYTHONS)}"' in (REPO / "scripts/lib.sh").read_text()


def test_installed_console_script_is_the_command_line() -> None:
    script = Path(sys.executable).parent / "nfpo"
    result = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("nfpo 0.")


@pytest.mark.parametrize("target", ["walk", "test", "setup", "lint", "typecheck", "test-slow", "clean", "help"])
def test_make_target_exists(target: str) -> None:
    result = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 0, result.stderr


def test_make_help_lists_the_targets_and_is_the_default() -> None:
    shown = subprocess.run(["make"], capture_output=True, text=True, cwd=REPO).stdout
    assert shown == subprocess.run(["make", "help"], capture_output=True, text=True, cwd=REPO).stdout
    assert re.search(r"make walk +\S", shown) and re.search(r"make test +\S", shown)


def test_ci_runs_the_readme_command() -> None:
    assert (REPO / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    assert "make test" in (REPO / "README.md").read_text()
