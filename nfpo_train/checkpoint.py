"""Checkpoints that survive a kill at any moment, and load without executing code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from nfpo_deploy.errors import NfpoError
from robots.untrusted import UntrustedError, check_zip

MAX_BYTES = 1 << 30
"""Largest checkpoint; one of the shipped policy's training has 4 MB."""
_PARTS = {"iteration": int, "config": dict, "algorithm": dict, "environment": dict}
_NAME = re.compile(r"^checkpoint_(\d+)\.pt$")


class CheckpointError(NfpoError):
    """No usable checkpoint; the message names the file and what is wrong with it."""


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any], keep: int = 3) -> Path:
    """Write `checkpoint_<iteration>.pt` atomically and drop all but the newest `keep`.

    The file is written beside its final name, flushed to disk and renamed: a kill leaves either the old set or
    the old set and a complete new file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint_{iteration:07d}.pt"
    partial = path.with_suffix(".pt.partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted((p for p in folder.glob("checkpoint_*.pt") if _NAME.match(p.name)), key=lambda p: p.name)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint with `weights_only`, which executes no code from the file.

    Raises:
        CheckpointError: missing, truncated, larger than `MAX_BYTES`, or not a checkpoint of this project.
    """
    try:
        # torch writes its archives uncompressed; a compressed one could unpack to more than the memory holds.
        check_zip(path, MAX_BYTES, compressed=False)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except UntrustedError as error:
        raise CheckpointError(f"not a readable checkpoint: {error}") from error
    except Exception as error:  # torch raises many types for damaged files
        raise CheckpointError(f"{path} is not a readable checkpoint: {type(error).__name__}: {error}") from error
    missing = set(_PARTS) - set(state if isinstance(state, dict) else ())
    if missing:
        raise CheckpointError(f"{path} lacks {sorted(missing)}; it was not written by nfpo train")
    for name, kind in _PARTS.items():
        if type(state[name]) is not kind:
            raise CheckpointError(f"{path}: {name} is {type(state[name]).__name__}, expected {kind.__name__}")
    return state


def load_newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Newest checkpoint that can be read, or None; damaged ones are passed over with a warning on stdout."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            print(f"warning: {error}; trying the one before")
    return None
