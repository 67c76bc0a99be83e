"""scripts/setup.sh and its parts, run by bash. What a test replaces is the machine: its user, apt and Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def bash(script: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `script` after sourcing lib.sh, with the functions that it redefines."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NFPO_", "CYCLONEDDS_HOME"))}
    return subprocess.run(
        ["bash", "-c", f'set -euo pipefail\nLOG="{tmp_path}/log"\n: >"$LOG"\n. "{REPO}/scripts/lib.sh"\n{script}'],
        capture_output=True,
        text=True,
        env=clean | environment,
        cwd=tmp_path,
        timeout=60,
    )


NOTHING_INSTALLED = "has_requirement() { return 1; }\npython_version() { echo 3.11; }\n"
APT = "has_apt() { return 0; }\napt_candidate() { echo 0.10.2+debian-1; }\n"
NO_APT = "has_apt() { return 1; }\n"
USER = "is_root() { return 1; }\n"
ROOT = "is_root() { return 0; }\n"
APT_COMMAND = (
    "sudo apt-get update && sudo apt-get install -y --no-install-recommends g++ cmake make python3.11-venv "
    "python3.11-dev cyclonedds-dev cyclonedds-tools libegl1 libgl1 libgl1-mesa-dri"
)


class TestSystemPackages:
    def test_without_root_it_stops_with_the_exact_command(self, tmp_path: Path) -> None:
        result = bash(NOTHING_INSTALLED + APT + USER + "ensure_system_packages python3; echo not-here", tmp_path)
        assert result.returncode == 1
        assert f"  {APT_COMMAND}\n" in result.stderr
        assert "not-here" not in result.stdout
        assert "cmake -S" not in result.stderr

    def test_only_what_is_missing_is_asked_for(self, tmp_path: Path) -> None:
        script = "has_requirement() { [ $1 != cmake ]; }\npython_version() { echo 3.11; }\n" + APT + USER
        result = bash(script + "ensure_system_packages python3", tmp_path)
        assert result.returncode == 1
        assert "install -y --no-install-recommends cmake\n" in result.stderr

    def test_nothing_missing_says_nothing_and_asks_nobody(self, tmp_path: Path) -> None:
        script = "has_requirement() { return 0; }\nhas_apt() { echo asked; }\n" + USER
        result = bash(script + "ensure_system_packages python3", tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def test_without_apt_it_names_what_is_needed_and_how_to_build_cyclonedds(self, tmp_path: Path) -> None:
        result = bash(NOTHING_INSTALLED + NO_APT + ROOT + "ensure_system_packages python3", tmp_path)
        assert result.returncode == 1
        for text in ("dnf, pacman", "C++ compiler", "git clone --depth 1 --branch 0.10.2", "export CYCLONEDDS_HOME="):
            assert text in result.stderr
        assert "apt-get" not in result.stderr

    @pytest.mark.parametrize("who", [USER, ROOT], ids=["user", "root"])
    def test_a_distribution_with_another_cyclonedds_series_gets_the_source_build(
        self, who: str, tmp_path: Path
    ) -> None:
        script = NOTHING_INSTALLED + "has_apt() { return 0; }\napt_candidate() { echo 0.8.2-1; }\n" + who
        result = bash(script + "ensure_system_packages python3", tmp_path)
        assert result.returncode == 1
        assert "git clone --depth 1 --branch 0.10.2" in result.stderr
        assert "cyclonedds-dev" not in result.stderr
        assert "install -y --no-install-recommends g++ cmake" in result.stderr

    def test_a_missing_renderer_costs_only_the_pictures(self, tmp_path: Path) -> None:
        script = "has_requirement() { case $1 in egl|gl|dri) return 1;; esac; }\npython_version() { echo 3.11; }\n"
        result = bash(script + APT + USER + "ensure_system_packages python3", tmp_path)
        assert result.returncode == 0
        assert "egl gl dri): pictures are left out" in result.stdout

    def test_root_installs_what_is_missing_and_looks_again(self, tmp_path: Path) -> None:
        script = (
            "has_requirement() { [ -f installed ]; }\npython_version() { echo 3.12; }\n"
            'install_with_apt() { echo "$@" >installed; }\n'
        )
        result = bash(script + APT + ROOT + "ensure_system_packages python3", tmp_path)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "installed").read_text().split() == APT_COMMAND.replace("3.11", "3.12").split(
            "--no-install-recommends "
        )[1].split()

    def test_an_install_that_did_not_help_stops(self, tmp_path: Path) -> None:
        script = NOTHING_INSTALLED + APT + ROOT + "install_with_apt() { :; }\n"
        assert bash(script + "ensure_system_packages python3", tmp_path).returncode == 1

    def test_this_machine_has_what_the_suite_ran_with(self, tmp_path: Path) -> None:
        used = f"{sys.prefix}/cyclonedds"
        result = bash(f'missing_requirements "{sys.executable}" compiler cmake make', tmp_path)
        assert bash(f'cyclonedds_usable "{used}"', tmp_path).returncode == 0
        assert (result.returncode, result.stdout) == (0, "")


def fake_python(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


class TestPython:
    def test_the_first_supported_one_is_chosen(self, tmp_path: Path) -> None:
        fake_python(tmp_path / "python3", "3.9")
        fake_python(tmp_path / "python3.12", "3.12")
        result = bash("find_python", tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin")
        # A system python3.11 may come first; one that is too old may not.
        assert result.returncode == 0 and result.stdout.strip() != str(tmp_path / "python3")
        supported = bash(f'python_supported "$(python_version {result.stdout.strip()})"', tmp_path)
        assert supported.returncode == 0

    @pytest.mark.parametrize(("version", "supported"), [("3.9", 1), ("3.10", 0), ("3.13", 0), ("3.14", 1), ("", 1)])
    def test_versions(self, version: str, supported: int, tmp_path: Path) -> None:
        assert bash(f'python_supported "{version}"', tmp_path).returncode == supported

    def test_an_unsupported_choice_is_named(self, tmp_path: Path) -> None:
        python = fake_python(tmp_path / "old", "3.8")
        result = bash("find_python", tmp_path, NFPO_PYTHON=str(python))
        assert result.returncode == 1
        assert f"NFPO_PYTHON={python} is Python '3.8'; one of 3.10 3.11 3.12 3.13 is needed" in result.stderr

    def test_none_at_all_says_how_to_get_one(self, tmp_path: Path) -> None:
        result = bash("python_version() { :; }\nfind_python", tmp_path)
        assert result.returncode == 1
        assert "sudo apt-get install python3 python3-venv python3-dev" in result.stderr


def fake_prefix(root: Path, version: str, libdir: str) -> Path:
    for folder in (libdir, "include/dds", "include/ddsc", "include/idl", "bin"):
        (root / folder).mkdir(parents=True)
    (root / "include/dds/version.h").write_text(f'#define DDS_VERSION "{version}"\n')
    for name in ("libddsc.so", "libddsc.so.0", "libcycloneddsidl.so"):
        (root / libdir / name).write_text("")
    (root / "bin/idlc").write_text("#!/bin/sh\n")
    (root / "bin/idlc").chmod(0o755)
    return root


class TestCycloneDds:
    @pytest.mark.parametrize("libdir", ["lib", "lib64", f"lib/{os.uname().machine}-linux-gnu"])
    def test_prefix_of_links_is_plain_whatever_the_layout(self, libdir: str, tmp_path: Path) -> None:
        source = fake_prefix(tmp_path / "source", "0.10.4", libdir)
        target = tmp_path / "target"
        result = bash(f'cyclonedds_usable "{source}" && link_cyclonedds "{source}" "{target}"', tmp_path)
        assert result.returncode == 0, result.stderr
        found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink()}
        assert found == {
            "lib/libddsc.so",
            "lib/libddsc.so.0",
            "lib/libcycloneddsidl.so",
            "include/dds",
            "include/ddsc",
            "include/idl",
            "bin/idlc",
        }
        assert all(path.exists() for path in target.rglob("*"))
        assert bash(f'link_cyclonedds "{source}" "{target}"', tmp_path).returncode == 0, "twice is once"

    @pytest.mark.parametrize("version", ["11.0.1", "0.11.0", "0.8.2", "0.9.1"])
    def test_another_series_is_refused_by_name(self, version: str, tmp_path: Path) -> None:
        prefix = fake_prefix(tmp_path / "prefix", version, "lib")
        result = bash("find_cyclonedds", tmp_path, CYCLONEDDS_HOME=str(prefix))
        assert result.returncode == 1
        assert f"CYCLONEDDS_HOME={prefix} holds Cyclone DDS '{version}'" in result.stderr
        assert "0.10.x" in result.stderr

    def test_a_wrong_prefix_of_the_users_own_is_not_answered_with_apt(self, tmp_path: Path) -> None:
        prefix = fake_prefix(tmp_path / "prefix", "11.0.1", "lib")
        result = bash(APT + USER + "ensure_system_packages python3", tmp_path, CYCLONEDDS_HOME=str(prefix))
        assert result.returncode == 1
        assert "holds Cyclone DDS '11.0.1'" in result.stderr and "apt-get" not in result.stderr

    def test_a_prefix_without_its_compiler_is_incomplete(self, tmp_path: Path) -> None:
        prefix = fake_prefix(tmp_path / "prefix", "0.10.2", "lib")
        (prefix / "bin/idlc").unlink()
        assert bash(f'cyclonedds_usable "{prefix}"', tmp_path).returncode == 1


class TestSteps:
    def test_output_goes_to_the_log_alone(self, tmp_path: Path) -> None:
        result = bash('run_step "a step" "a remedy" sh -c "echo hello; echo there >&2"', tmp_path)
        assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "a step", "")
        assert "hello\nthere\n" in (tmp_path / "log").read_text()

    def test_a_failure_shows_the_end_of_the_log_and_the_remedy(self, tmp_path: Path) -> None:
        result = bash('run_step "a step" "Do this." sh -c "seq 100; echo no space left; exit 3"; echo on', tmp_path)
        assert result.returncode == 1
        assert "  | no space left\n" in result.stderr and "  | 50\n" not in result.stderr
        assert "a step failed (status 3). Do this. The whole log:" in result.stderr
        assert "on" not in result.stdout.splitlines()

    def test_no_process_is_left_behind(self, tmp_path: Path) -> None:
        """A leftover would hold the terminal's pipe, and `make walk | tee` would not return."""
        begin = time.monotonic()
        bash('run_step "a step" "" true', tmp_path)
        assert time.monotonic() - begin < 5

    def test_digest_follows_names_contents_and_words(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "a").write_text("1")

        def digest(word: str = "x") -> str:
            return bash(f'echo {word} | digest "{folder}"', tmp_path).stdout

        first = digest()
        assert len(first.strip()) == 64 and digest() == first
        assert digest("y") != first
        (folder / "a").write_text("2")
        second = digest()
        assert second != first
        (folder / "a").rename(folder / "b")
        assert digest() not in (first, second)


FAKE_PYTHON = """#!/bin/bash
# Stands for Python: a real one would download for minutes, which `make test` itself has done already.
calls="{calls}"
echo "$(basename "$(dirname "$0")")/python $*" >>"$calls"
case "$*" in
  "-c import sys; print"*) echo 3.11 ;;
  "-c import pip") [ -f "$(dirname "$0")/pip-works" ] ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" "$3/bin/pip-works" ;;
  *"-e .["*) [ ! -f "{fail}" ] || {{ echo "network is down"; exit 1; }} ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone's scripts with a Python that only keeps account of what it was asked to do."""
    root = tmp_path / "clone"
    (root / "ros2_ws").mkdir(parents=True)
    shutil.copytree(REPO / "scripts", root / "scripts")
    shutil.copy(REPO / "pyproject.toml", root)
    (root / "ros2_ws/build.sh").write_text(f'#!/bin/sh\necho build "$VIRTUAL_ENV" >>"{tmp_path}/calls"\n')
    (root / "ros2_ws/build.sh").chmod(0o755)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(FAKE_PYTHON.format(calls=tmp_path / "calls", fail=tmp_path / "fail"))
    python.chmod(0o755)
    return root


def set_up(root: Path, level: str = "walk", **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run setup.sh; return its result and the calls that it made of Python and the workspace build."""
    calls = root.parent / "calls"
    calls.write_text("")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("NFPO_", "CYCLONEDDS_HOME"))}
    prefix = root.parent / "prefix"
    prefix.exists() or fake_prefix(prefix, "0.10.5", "lib")
    environment = {"NFPO_PYTHON": str(root.parent / "bin/python"), "CYCLONEDDS_HOME": str(prefix)} | environment
    result = subprocess.run(
        [root / "scripts/setup.sh", level], capture_output=True, text=True, env=clean | environment, timeout=60
    )
    return result, calls.read_text().splitlines()


def installs(calls: list[str]) -> list[str]:
    return [call for call in calls if "-m pip install" in call]


class TestSetup:
    def test_first_run_does_everything_and_the_second_nothing(self, clone: Path) -> None:
        result, calls = set_up(clone)
        assert result.returncode == 0, result.stderr
        assert any(f"-m venv {clone}/.venv" in call for call in calls)
        assert any("--no-binary cyclonedds cyclonedds==0.10.2" in call for call in calls)
        assert calls[-1] == f"build {clone}/.venv"
        (main,) = [call for call in calls if "-e .[" in call]
        assert "-e .[sim,ros,web]" in main and "-c scripts/constraints.txt" in main and "torch" not in main
        begin = time.monotonic()
        result, calls = set_up(clone)
        assert result.returncode == 0 and not installs(calls)
        assert calls[-1] == f"build {clone}/.venv", "the workspace's own account decides what to build"
        assert time.monotonic() - begin < 2

    def test_everything_contains_what_walk_needs(self, clone: Path) -> None:
        _, calls = set_up(clone, "test")
        assert any("-e .[train,sim,ros,web,dev]" in call for call in calls)
        assert not installs(set_up(clone, "walk")[1])
        shutil.rmtree(clone / ".venv")
        set_up(clone, "walk")
        assert installs(set_up(clone, "test")[1]), "walk's packages are not all that the tests need"

    def test_a_failed_run_shows_why_and_the_next_one_goes_on(self, clone: Path) -> None:
        fail = clone.parent / "fail"
        fail.touch()
        result, _ = set_up(clone)
        assert result.returncode == 1
        assert "network is down" in result.stderr and "run the same command again" in result.stderr
        fail.unlink()
        result, calls = set_up(clone)
        assert result.returncode == 0
        assert not any("-m venv" in call for call in calls), "the environment was complete"

    def test_a_half_made_environment_is_made_anew(self, clone: Path) -> None:
        set_up(clone)
        (clone / ".venv/bin/pip-works").unlink()
        result, calls = set_up(clone)
        assert result.returncode == 0
        assert any("-m venv" in call for call in calls) and installs(calls)

    def test_changed_dependencies_are_installed(self, clone: Path) -> None:
        set_up(clone)
        with (clone / "pyproject.toml").open("a") as file:
            file.write("# changed\n")
        _, calls = set_up(clone)
        assert installs(calls) and not any("-m venv" in call for call in calls)

    def test_a_moved_clone_gets_a_new_environment(self, clone: Path) -> None:
        set_up(clone)
        moved = clone.rename(clone.with_name("moved"))
        _, calls = set_up(moved)
        assert any(f"-m venv {moved}/.venv" in call for call in calls)

    def test_a_folder_that_is_not_ours_is_left_alone(self, clone: Path) -> None:
        (clone / ".venv").mkdir()
        (clone / ".venv/precious").write_text("x")
        result, calls = set_up(clone)
        assert result.returncode == 1
        assert "holds no working virtual environment" in result.stderr and "NFPO_VENV" in result.stderr
        assert (clone / ".venv/precious").read_text() == "x" and not installs(calls)

    def test_another_place_for_the_environment(self, clone: Path) -> None:
        place = clone.parent / "elsewhere"
        result, calls = set_up(clone, NFPO_VENV=str(place))
        assert result.returncode == 0 and calls[-1] == f"build {place}"
        assert not (clone / ".venv").exists()

    def test_its_own_prefix_is_not_taken_for_the_users(self, clone: Path) -> None:
        """The environment exports CYCLONEDDS_HOME; linking that prefix to itself would destroy it."""
        set_up(clone)
        result, calls = set_up(clone, CYCLONEDDS_HOME=str(clone / ".venv/cyclonedds"))
        assert result.returncode == 0 and not installs(calls)
        assert (clone / ".venv/cyclonedds/lib/libddsc.so").exists()

    def test_a_prefix_of_the_users_own_is_remembered(self, clone: Path) -> None:
        set_up(clone)
        linked = (clone / ".venv/cyclonedds/lib/libddsc.so").resolve()
        assert linked == clone.parent / "prefix/lib/libddsc.so"
        assert not installs(set_up(clone, CYCLONEDDS_HOME="")[1])

    def test_a_sourced_ros_installation_is_left_out(self, clone: Path) -> None:
        (clone / "ros2_ws/build.sh").write_text('#!/bin/sh\n[ -z "${PYTHONPATH:-}${AMENT_PREFIX_PATH:-}" ]\n')
        result, _ = set_up(clone, ROS_DISTRO="humble", PYTHONPATH="/opt/ros/x", AMENT_PREFIX_PATH="/opt/ros/humble")
        assert result.returncode == 0
        assert "'humble' is not used here" in result.stdout

    def test_unknown_level_shows_the_usage(self, clone: Path) -> None:
        result, _ = set_up(clone, "everything")
        assert (result.returncode, result.stderr) == (2, "usage: scripts/setup.sh walk|test\n")


def test_run_puts_the_environment_first() -> None:
    command = [REPO / "scripts/run", "python", "-c", "import sys, os; print(sys.prefix, os.environ['PATH'])"]
    prefix, path = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"NFPO_VENV": sys.prefix}
    ).stdout.split(maxsplit=1)
    assert prefix == sys.prefix
    assert f"{sys.prefix}/bin" in path.split(":")
