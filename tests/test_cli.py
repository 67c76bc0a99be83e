"""The `nfpo` command: help, errors and exit codes, without loading what a command needs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from nfpo_deploy import cli
from nfpo_deploy.errors import PolicyError
from robots import RobotSpecError

REPO = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nfpo_deploy.cli", *arguments], capture_output=True, text=True, cwd=REPO, timeout=60
    )


def fake_command(monkeypatch: pytest.MonkeyPatch, function: cli.CommandFunction) -> None:
    command = cli.Command("fake", "nowhere:fake", "a test's own", "nfpo fake")
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    monkeypatch.setattr(cli, "load_command", lambda _: function)


def test_help_lists_every_command_with_an_example() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in cli.COMMANDS:
        assert f"  {command.name} " in result.stdout
        assert command.summary in result.stdout
        assert command.example.startswith(f"nfpo {command.name}") and command.example in result.stdout


def test_no_argument_shows_the_help_and_fails() -> None:
    result = run()
    assert result.returncode == 2
    assert "usage: nfpo <command>" in result.stdout


def test_unknown_command_lists_those_that_exist() -> None:
    result = run("wlak")
    assert result.returncode == 2
    assert "unknown command 'wlak'" in result.stderr
    assert all(command.name in result.stderr for command in cli.COMMANDS)


def test_version_is_the_one_of_pyproject() -> None:
    assert run("--version").stdout.strip() in (REPO / "pyproject.toml").read_text().replace(
        'version = "', "nfpo "
    ).replace('"', "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nfpo_deploy import cli\ncli.main(['--help'])\n"
        "heavy = {'torch', 'mujoco', 'rclpy', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_resolves_and_answers_help(command: cli.Command) -> None:
    module, _, function = command.target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    result = run(command.name, "--help")
    assert result.returncode == 0, result.stderr
    assert command.name in result.stdout


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_refuses_an_unknown_option(command: cli.Command) -> None:
    result = run(command.name, "--no-such-option")
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"set -o pipefail; {sys.executable} -u -m nfpo_deploy.cli validate --help | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 1, "the pipe was not broken"
    assert not result.stderr


def test_another_broken_pipe_is_a_defect_and_keeps_its_traceback() -> None:
    code = (
        "import sys\nfrom nfpo_deploy import cli\n"
        "def broken(command): raise BrokenPipeError('a worker')\n"
        "cli.load_command = broken\nsys.exit(cli.main(['validate']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 1 and "BrokenPipeError: a worker" in result.stderr


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
from nfpo_deploy import cli
sys.exit(cli.main(["train", "go2_walk"]))
"""


def test_missing_extra_is_named_with_its_remedy(tmp_path: Path) -> None:
    """As on a robot, where torch is not installed."""
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert "nfpo train: needs the Python package 'torch'" in result.stderr
    assert 'pip install "nfpo[train]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_a_module_of_our_own_that_is_missing_is_a_defect_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = cli.Command("broken", "nfpo_deploy.no_such_module:run", "", "nfpo broken", "ros")
    monkeypatch.setattr(cli, "COMMANDS", (broken,))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main(["broken"])


@pytest.mark.parametrize("error", [PolicyError("policy.onnx: no metadata"), RobotSpecError("unknown robot 'go3'")])
def test_a_named_failure_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    fake_command(monkeypatch, fail)
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err == f"nfpo fake: {error}\n"


def test_a_defect_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise IndexError("defect")

    fake_command(monkeypatch, fail)
    with pytest.raises(IndexError, match="defect"):
        cli.main(["fake"])


def test_interrupt_and_exit_status_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    fake_command(monkeypatch, interrupted)
    assert cli.main(["fake"]) == 130
    received = []
    fake_command(monkeypatch, lambda argv: received.append(argv) or 7)
    assert cli.main(["fake", "--a", "b"]) == 7
    assert received == [["--a", "b"]]


PLUGIN = """[nfpo.commands]
patrol = my_robot.patrol:run
walk = my_robot.walk:run
"""


def test_another_package_adds_a_command_but_cannot_replace_ours(tmp_path: Path) -> None:
    info = tmp_path / "my_robot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_robot\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(PLUGIN)
    package = tmp_path / "my_robot"
    package.mkdir()
    (package / "patrol.py").write_text("def run(argv):\n    print('patrolling', argv)\n    return 3\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom nfpo_deploy import cli\n"
        "assert cli.builtin_commands()['walk'].target.startswith('sim2real_checks')\n"
        "assert set(cli.plugin_commands()) == {'patrol'}\n"
        "cli.main(['--help'])\nsys.exit(cli.main(['patrol', 'yard']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert result.returncode == 3, result.stderr
    assert "added by my_robot" in result.stdout
    assert "patrolling ['yard']" in result.stdout
