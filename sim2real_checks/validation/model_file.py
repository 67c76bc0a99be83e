"""The file of another model of the robot: where it lies, what it is made of, and what it lacks."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mujoco

from nfpo_deploy.errors import NfpoError
from robots.untrusted import MIB, UntrustedError, read_bounded

MENAGERIE = "menagerie"
MENAGERIE_URL = "https://github.com/google-deepmind/mujoco_menagerie"
MAX_XML_BYTES = 64 * MIB
MAX_SHOWN = 400
"""Characters of a foreign error in one of ours."""
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_INCLUDE = re.compile(rb"<include\s[^>]*?\bfile\s*=\s*[\"']([^\"']+)[\"']")
_NOT_OPENED = re.compile(r"(?:Error opening file|Could not open(?: file)?) '([^']*)'")


class ModelError(NfpoError):
    """Another model of the robot cannot be used; the message names the file, what is wrong with it and the remedy."""


@dataclass(frozen=True)
class ModelFile:
    """A model as it was given."""

    path: Path
    sha256: Mapping[str, str]
    """Of its file and of those that it includes, by name; meshes are not among them."""

    @property
    def name(self) -> str:
        """File and folder, since many files have the name scene.xml."""
        return f"{self.path.resolve().parent.name}/{self.path.name}"


def find_model(name: str, robot: str) -> ModelFile:
    """A model by the path of its MJCF file, or MuJoCo Menagerie's one of a robot.

    Args:
        name: a path, or `menagerie`.
        robot: name of its folder in `robots/`.

    Raises:
        ModelError: no such file, not readable, or Menagerie's cannot be had.
    """
    path = _from_menagerie(robot) if name == MENAGERIE else Path(name)
    if path.is_dir():
        raise ModelError(f"--model {path} is a folder: name the MJCF file in it, such as {path / 'scene.xml'}")
    try:
        parts = {part: hashlib.sha256(_read(file)).hexdigest() for part, file in _parts(path) if file.is_file()}
    except OSError as error:
        remedy = f"give the path of an MJCF file, or {MENAGERIE}"
        raise ModelError(f"--model {name}: cannot read {path} ({error.strerror or error}): {remedy}") from error
    except UntrustedError as error:
        raise ModelError(f"--model {name}: {error}") from error
    return ModelFile(path, parts)


def parse_model(path: Path) -> mujoco.MjSpec:
    """Editable specification of an MJCF file.

    Raises:
        ModelError: not MJCF, or an included file is missing.
    """
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise _explained(path, error) from error


def compile_model(world: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    """Compiled model of a specification that came from `path`.

    Raises:
        ModelError: it contradicts itself, or a mesh is missing.
    """
    try:
        return world.compile()
    except ValueError as error:
        raise _explained(path, error) from error


def _from_menagerie(robot: str) -> Path:
    """Path of the file that the package robot_descriptions downloads when its module is imported."""
    remedy = f"git clone {MENAGERIE_URL} and give --model the path of its unitree_{robot}/scene.xml"
    try:
        module = importlib.import_module(f"robot_descriptions.{robot}_mj_description")
    except Exception as error:  # of the package, of GitPython or of the network: a dozen types
        if isinstance(error, ModuleNotFoundError) and error.name == "robot_descriptions":
            raise ModelError(
                f"--model {MENAGERIE} needs the package robot_descriptions: pip install robot_descriptions; or {remedy}"
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_SHOWN]
        raise ModelError(
            f"--model {MENAGERIE}: robot_descriptions gave no model of {robot} ({reason}): check git and the network; "
            f"or {remedy}"
        ) from error
    return Path(module.MJCF_PATH)


def _parts(path: Path) -> list[tuple[str, Path]]:
    """Name and path of the file and of all that it includes, in order; MuJoCo looks for them in the first one's folder.

    Raises:
        OSError: the first file is missing or unreadable.
        UntrustedError: one is no regular file, or too large.
    """
    found = {path.name: path}
    waiting = [path]
    while waiting:
        for raw in _INCLUDE.findall(_COMMENT.sub(b"", _read(waiting.pop()))):
            name = raw.decode(errors="replace")
            if name not in found:
                found[name] = path.parent / name
                waiting += [found[name]] if found[name].is_file() else []
    return list(found.items())


def _read(path: Path) -> bytes:
    return read_bounded(path, MAX_XML_BYTES)


def _explained(path: Path, error: ValueError) -> ModelError:
    """What MuJoCo refused, in words of files that are missing where that is the cause."""
    text = " ".join(str(error).split())[:MAX_SHOWN]
    try:
        missing = [name for name, file in _parts(path) if not file.is_file()]
    except (OSError, UntrustedError) as problem:
        return ModelError(f"{path}: cannot be read: {problem}")
    if missing:
        return ModelError(f"{path}: the file {missing[0]!r} that it includes is missing in {path.parent}: copy it too")
    if match := _NOT_OPENED.search(text):
        return ModelError(
            f"{path}: the file {match[1]!r} that it needs is missing: copy the model's whole folder, with its meshes"
        )
    return ModelError(f"{path}: MuJoCo cannot use it: {text}")
