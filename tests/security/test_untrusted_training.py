"""Checkpoints and configurations of somebody else: no code runs, nothing grows without bound, errors are named."""

import ast
import contextlib
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch

from nfpo_train.checkpoint import CheckpointError, load_checkpoint, load_newest, save_checkpoint
from nfpo_train.commands import parse_overrides
from nfpo_train.config import ConfigError, config_from_dict, load_task
from nfpo_train.export_onnx import load_policy
from nfpo_train.plots import read_metrics

REPO = Path(__file__).resolve().parents[2]
STATE = {"iteration": 1, "config": {}, "algorithm": {"w": torch.ones(3)}, "environment": {}}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_every_call_of_torch_load_is_weights_only():
    calls = []
    for package in ("nfpo_deploy", "nfpo_train", "robots", "sim2real_checks"):
        for path in (REPO / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.jit.load"):
                    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    calls.append((path.name, keywords.get("weights_only")))
    assert calls == [("checkpoint.py", "True")]


def test_nothing_uses_the_runner_of_rsl_rl_whose_load_executes_code():
    for path in (REPO / "nfpo_train").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("rsl_rl.runners"), path


@pytest.mark.parametrize("form", ["zip", "old format", "plain pickle"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, form):
    path, made = tmp_path / "checkpoint_0000001.pt", tmp_path / "made"
    state = STATE | {"config": Bomb(made)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)
    assert load_newest(tmp_path) is None
    assert not made.exists()
    # The same file does harm where it is let to: the test's bomb is no dud.
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert made.exists()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_half_written_checkpoint_is_a_named_error(tmp_path, part):
    path = save_checkpoint(tmp_path, 1, STATE)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(part * len(raw))])
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint: .*checkpoint_0000001\.pt"):
        load_checkpoint(path)


def test_a_compressed_archive_is_refused_unread(tmp_path):
    path, bomb = save_checkpoint(tmp_path, 1, STATE), tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        new.writestr("archive/data/9", bytes(1 << 26))
    with pytest.raises(CheckpointError, match="compressed in a way not accepted"):
        load_checkpoint(bomb)


def test_a_pipe_a_device_and_a_folder_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for name in ("pipe.pt", "zero.pt", "."):
        start = time.monotonic()
        with pytest.raises(CheckpointError, match="not a regular file"):
            load_checkpoint(tmp_path / name)
        assert time.monotonic() - start < 1.0


@pytest.mark.parametrize("change", [{"iteration": "1"}, {"iteration": True}, {"config": []}, {"algorithm": None}])
def test_parts_of_another_type_are_named(tmp_path, change):
    torch.save(STATE | change, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"{next(iter(change))} is .*, expected"):
        load_checkpoint(tmp_path / "x.pt")


def test_weights_that_do_not_fit_their_configuration_are_a_named_error(tmp_path):
    torch.save(STATE | {"config": load_task("go2_walk").to_dict()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="weights do not fit its configuration"):
        load_policy(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": {"actor_hidden": [10**9]}}, "actor_hidden"),
        ({"algorithm": {"actor_hidden": [64] * 1000}}, "actor_hidden"),
        ({"algorithm": {"actor_hidden": [0.5]}}, "actor_hidden: expected int"),
        ({"algorithm": {"std_range": [0.1]}}, "std_range: expected 2 numbers"),
        ({"env": {"num_envs": 10**9}}, "env.num_envs must be between"),
        ({"env": {"physics_dt": 0.0}}, "physics_dt must be between"),
        ({"env": {"control_dt": float("nan")}}, "finite number"),
        ({"env": {"action_scale": 10**400}}, "finite number"),
        ({"env": {"observations": 3}}, "expected a list"),
        ({"env": {"observations": [{"name": "base_ang_vel", "history": 10**9}]}}, "history"),
        ({"env": {"rewards": [1]}}, "expected a mapping"),
        ({"env": {"rewards": {"alive": "x"}}}, "expected float"),
        ({"flow": {"num_layers": 10**6}}, "flow.num_layers"),
        ({1: 2, "x": 3}, "unknown entries"),
        ({"seed": -1}, "seed must be between"),
        ([], "expected a mapping"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(change)


def test_a_configuration_nested_without_end_is_refused_with_a_short_message():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"env": deep})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("entry", ["seed=!!python/name:os.system", "seed=[[[", "seed=" + "[" * 2000, "seed.a.b=1"])
def test_bad_overrides_are_named(entry):
    with pytest.raises(ConfigError, match="seed"):
        load_task("go2_walk", parse_overrides([entry]))


def test_metrics_with_lines_that_are_none_are_read(tmp_path):
    good = b'{"iteration": 2, "steps": 20}'
    bad = [b"[1]", b"3", b'{"iteration": "x"}', b"[" * 100_000, b"\xff", b'{"iteration": 1, "steps": "many", "x": 1'
           + b"0" * 400 + b"}"]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*bad, good]))
    metrics = read_metrics(tmp_path)
    assert list(metrics["iteration"]) == [1, 2]
    assert metrics["steps"][1] == 20 and metrics["steps"][0] != metrics["steps"][0]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(bad[:5]))
    with pytest.raises(CheckpointError, match="holds no iteration"):
        read_metrics(tmp_path)
