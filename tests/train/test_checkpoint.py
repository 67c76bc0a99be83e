"""Checkpoints survive damage, and a killed run goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from nfpo_train.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, load_newest, save_checkpoint

STATE = {"config": {}, "algorithm": {"w": torch.ones(3)}, "environment": {}}


def test_keeps_the_newest_and_leaves_no_partial_file(tmp_path):
    for i in range(5):
        save_checkpoint(tmp_path, i, STATE | {"iteration": i}, keep=3)
    assert [p.name for p in list_checkpoints(tmp_path)] == [f"checkpoint_{i:07d}.pt" for i in (2, 3, 4)]
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    for i in range(2):
        save_checkpoint(tmp_path, i, STATE | {"iteration": i})
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    path, state = load_newest(tmp_path)
    assert state["iteration"] == 0 and path.name == "checkpoint_0000000.pt"
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(newest)


def test_a_half_written_file_is_never_taken_for_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint_0000009.pt.partial").write_bytes(b"half")
    assert load_newest(tmp_path) is None


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    path = tmp_path / "checkpoint_0000001.pt"
    torch.save({"iteration": 1, "config": Evil(), "algorithm": {}, "environment": {}}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_foreign_and_missing_files_are_named(tmp_path):
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="lacks"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "absent.pt")


def test_training_killed_at_a_random_moment_resumes(tmp_path):
    """SIGKILL a real run, start it again, and see the iteration count go on to the end."""
    run = tmp_path / "run"
    small = ["env.num_envs=16", "algorithm.steps_per_env=8", "checkpoint_interval=1"]
    command = [sys.executable, "-m", "nfpo_deploy.cli", "train", "go2_walk", "--out", str(run), "--threads", "1"]
    for entry in small:
        command += ["--set", entry]
    process = subprocess.Popen([*command, "--total-steps", "1000000"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list_checkpoints(run / "checkpoints")) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "training ended early"
        time.sleep(0.05)
    time.sleep(0.07)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, state = load_newest(run / "checkpoints")
    done = state["iteration"]
    assert done >= 2
    steps = (done + 3) * 16 * 8
    output = subprocess.run([*command, "--total-steps", str(steps)], capture_output=True, text=True, timeout=120)
    assert output.returncode == 0, output.stderr
    assert f"(iteration {done})" in output.stdout
    iterations = [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert iterations[-1] == done + 3
    assert (run / "curves.png").stat().st_size > 10_000
