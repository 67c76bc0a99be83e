"""Reading what somebody else wrote: bounded in size, depth and repetition before anything is built from it.

A file that a user downloads must not be able to hang the program, to fill its memory or to run code. Everything
here raises `UntrustedError` or `OSError`, never another exception.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

MIB = 1 << 20
MAX_TEXT_BYTES = MIB
"""Largest YAML or JSON file; the shipped ones are below 20 kB."""
MAX_DEPTH = 32
"""Deepest nesting of lists and mappings; the shipped files use 5."""


class UntrustedError(ValueError):
    """A file or text from outside is refused; the message says what it contains and what was expected."""


def read_bounded(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Content of a regular file.

    A named pipe or a device would block or never end, hence only regular files are read; symbolic links are followed.

    Raises:
        OSError: missing or unreadable.
        UntrustedError: not a regular file, or larger than `max_bytes`.
    """
    # Opening a pipe without a writer blocks unless told not to.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null character in the name
        raise UntrustedError(f"{str(path)!r} is no file name: {error}") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UntrustedError(f"{path} is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UntrustedError(f"{path} is larger than {max_bytes} bytes, the most that such a file may have")
    return content


def load_yaml(text: str | bytes, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Plain values from one YAML document, None for an empty one.

    Refused besides bad YAML: aliases (a few lines of them expand to billions of entries), tags (they choose what is
    built), nesting beyond `MAX_DEPTH`, a key given twice, more than `max_bytes`.

    Raises:
        UntrustedError: as above.
    """
    if len(text) > max_bytes:
        raise UntrustedError(f"YAML of {len(text)} characters, at most {max_bytes} are read")
    try:
        _check_events(text)
        return yaml.load(text, _Loader)
    except UntrustedError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: a date or number that cannot be
        raise UntrustedError(f"not valid YAML: {error}") from error


def read_yaml(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """`load_yaml` of a file; same errors as `read_bounded` and `load_yaml`, with the file's name."""
    raw = read_bounded(path, max_bytes)
    try:
        return load_yaml(raw, max_bytes)
    except UntrustedError as error:
        raise UntrustedError(f"{path}: {error}") from error


def load_json(text: str | bytes, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Plain values from JSON.

    Raises:
        UntrustedError: not JSON, nested too deeply, or more than `max_bytes`.
    """
    if len(text) > max_bytes:
        raise UntrustedError(f"JSON of {len(text)} characters, at most {max_bytes} are read")
    try:
        return json.loads(text)
    except RecursionError:
        raise UntrustedError("JSON that is nested too deeply") from None
    except ValueError as error:
        raise UntrustedError(f"not valid JSON: {error}") from error


def check_zip(path: Path, max_bytes: int, compressed: bool) -> None:
    """Look at a zip archive (.npz, torch checkpoint) before a library unpacks it.

    Args:
        path: the archive.
        max_bytes: most that all members together may unpack to; also the largest file size.
        compressed: whether members may be compressed at all.

    Raises:
        OSError: missing or unreadable.
        UntrustedError: not a regular file, not a zip archive, encrypted, or it unpacks to more than `max_bytes`.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError(f"{path} is not a regular file")
    if status.st_size > max_bytes:
        raise UntrustedError(f"{path} has {status.st_size} bytes, at most {max_bytes} are read")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise UntrustedError(f"{path} is not a readable zip archive: {error}") from error
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if compressed else (zipfile.ZIP_STORED,)
    for member in members:
        if member.compress_type not in kinds or member.flag_bits & 0x1:
            raise UntrustedError(f"{path}: member {member.filename!r} is encrypted or compressed in a way not accepted")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise UntrustedError(f"{path} would unpack to {total} bytes, at most {max_bytes} are accepted")


def load_npz(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name; none is unpickled.

    Args:
        path: the file.
        max_bytes: most that its arrays together may unpack to.

    Raises:
        OSError: missing or unreadable.
        UntrustedError: not an .npz, damaged, holding Python objects, or larger than `max_bytes`.
    """
    check_zip(path, max_bytes, compressed=True)
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except Exception as error:  # from NumPy, its tokenizer, zipfile, zlib: a dozen types for damaged files
        raise UntrustedError(f"{path} is not a readable .npz: {type(error).__name__}: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UntrustedError(f"{path}: member {name!r} is not an array")
    return arrays


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            counts = Counter(str(key.value) for key, _ in node.value)
            twice = sorted(key for key, count in counts.items() if count > 1)
            problem = f"keys given twice: {', '.join(twice[:5]) or 'of equal value'}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return mapping


def _check_events(text: str | bytes) -> None:
    """Walk the document without building it; libyaml's own composer would overflow the stack on deep nesting."""
    depth = documents = 0
    event: Any
    for event in yaml.parse(text, _Base):
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise UntrustedError(f"alias *{event.anchor} at {line}: write the value itself")
        if getattr(event, "tag", None) is not None:
            raise UntrustedError(f"tag {event.tag} at {line}: only plain values are read")
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise UntrustedError(f"nested more than {MAX_DEPTH} deep at {line}")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise UntrustedError("more than one YAML document in a file")
