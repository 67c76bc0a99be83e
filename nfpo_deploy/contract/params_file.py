"""A file of node parameters, checked before any node starts: rcl's own parser reports little and ignores much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfpo_deploy.errors import ParameterError
from robots.untrusted import UntrustedError, read_yaml

PARAMETERS = "ros__parameters"
_INT64 = range(-(2**63), 2**63)


def check_params_file(path: Path, nodes: Sequence[str]) -> None:
    """Check that a file says something about known nodes, in the form that rcl reads.

    Args:
        path: YAML file: node name (or a pattern with `*`), then `ros__parameters`, then names and values.
        nodes: names of the nodes that exist.

    Raises:
        ParameterError: unreadable or bad YAML, an unknown node (whose parameters would be ignored without a word), or
            a value that no ROS parameter can have; names the entry.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        raise ParameterError(f"cannot read {path}: {error.strerror or error}") from error
    except UntrustedError as error:
        raise ParameterError(str(error)) from error
    if not isinstance(data, dict) or not data:
        raise ParameterError(f"{path}: expected node names at the top, each with {PARAMETERS}")
    for node, content in data.items():
        if not isinstance(node, str) or ("*" not in node and node.strip("/") not in nodes):
            raise ParameterError(f"{path}: unknown node {node!r}; known: {', '.join(nodes)}")
        if not isinstance(content, dict) or list(content) != [PARAMETERS] or not isinstance(content[PARAMETERS], dict):
            raise ParameterError(f"{path}: {node} must hold a mapping {PARAMETERS}, and nothing else")
        for name, value in content[PARAMETERS].items():
            _check(name, value, f"{path}: {node}.{name}")


def _check(name: Any, value: Any, where: str) -> None:
    if not isinstance(name, str) or not name:
        raise ParameterError(f"{where}: a parameter's name must be text")
    if isinstance(value, dict):
        for inner, item in value.items():
            _check(inner, item, f"{where}.{inner}")
    elif isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) != 1 or not all(_is_scalar(item) for item in value):
            raise ParameterError(f"{where}: expected a list of one kind of value, not empty")
    elif not _is_scalar(value):
        raise ParameterError(f"{where}: expected true or false, a finite number or text, got {type(value).__name__}")


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, str)) or (isinstance(value, int) and value in _INT64)
