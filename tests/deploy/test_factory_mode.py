"""The remembered built-in controller: survives, and never comes back as something else."""

import os
import stat

import pytest

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.factory_mode import FactoryMode, state_folder


@pytest.fixture
def memory(tmp_path):
    return FactoryMode("eth0", 0, tmp_path / "state" / "nfpo")


def test_remembers_recalls_and_forgets(memory):
    assert memory.recall() == ""
    memory.remember("normal")
    assert memory.recall() == FactoryMode("eth0", 0, memory.path.parent).recall() == "normal"
    memory.remember("ai")
    assert memory.recall() == "ai"
    assert os.listdir(memory.path.parent) == [memory.path.name], "a scratch file was left"
    memory.forget()
    memory.forget()
    assert memory.recall() == ""


def test_robots_do_not_share_a_memory(memory):
    memory.remember("normal")
    assert FactoryMode("eth1", 0, memory.path.parent).recall() == ""
    assert FactoryMode("eth0", 1, memory.path.parent).recall() == ""


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\x00"])
def test_impossible_names_are_not_remembered(memory, name):
    memory.remember("normal")
    with pytest.raises(SafetyError, match="built-in controller"):
        memory.remember(name)
    assert memory.recall() == "normal"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"name": 3}', b'{"name": ""}', b"\xff\xfe", b'{"name": "' + b"x" * 9000]
)
def test_damaged_file_is_an_error_not_a_name(memory, content):
    memory.path.parent.mkdir(parents=True)
    memory.path.write_bytes(content)
    with pytest.raises(SafetyError, match="damaged"):
        memory.recall()


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SafetyError, match="XDG_STATE_HOME"):
        FactoryMode("eth0", 0, tmp_path / "file" / "nfpo").remember("normal")


def test_folder_follows_the_xdg_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "nfpo"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_folder().parts[-3:] == (".local", "state", "nfpo")


def test_write_is_complete_or_absent(memory, monkeypatch):
    memory.remember("normal")

    def cut(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(SafetyError, match="No space left"):
        memory.remember("ai")
    monkeypatch.undo()
    assert memory.recall() == "normal"
    assert stat.S_ISREG(memory.path.stat().st_mode)
