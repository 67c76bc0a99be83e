"""Node parameters: declared with a description, validated as a whole when the node is configured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from nfpo_deploy.errors import ParameterError

Check = Callable[[Any], str]
"""Returns what was expected, or "" where the value is fine."""


def above_zero(value: float) -> str:
    """Check that `value > 0`."""
    """Check that `value > 0`."""
    return "" if value > 0 else "expected a number above zero"


def at_least_zero(value: float) -> str:
    """Check that `value >= 0`."""
    return "" if value >= 0 else "expected zero or more"


def integer_between(lower: int, upper: int) -> Check:
    """Check that `lower <= value <= upper`."""
    return lambda value: "" if lower <= value <= upper else f"expected {lower} to {upper}"


def not_empty(value: str) -> str:
    """Check that there is more than spaces."""
    """Check that `value` is more than blanks."""
    return "" if value.strip() else "expected a name"


@dataclass(frozen=True)
class Declaration:
    """One parameter. The type of the default is the type of the parameter; an integer passes for a float."""

    name: str
    default: bool | int | float | str
    description: str
    check: Check = lambda value: ""

    def validated(self, value: Any) -> Any:
        """Return the value in the declared type.

        Raises:
            ParameterError: wrong type, not finite, or refused by the check.
        """
        wanted: type = type(self.default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ParameterError(
                f"parameter {self.name}: expected {wanted.__name__}, got {value!r} ({type(value).__name__})"
            )
        problem = (
            "expected a finite number"
            if wanted is float and not math.isfinite(cast(float, value))
            else self.check(value)
        )
        if problem:
            raise ParameterError(f"parameter {self.name}: {problem}, got {value!r}: {self.description}")
        return value


def declare(node: Node, declarations: Iterable[Declaration]) -> None:
    """Declare the parameters so that `ros2 param list` and `describe` show them.

    They are declared with dynamic typing because a wrong type must be refused when the node is configured, with
    a message of ours, and not as an exception out of the node's constructor.
    """
    for declaration in declarations:
        descriptor = ParameterDescriptor(description=declaration.description, dynamic_typing=True)
        node.declare_parameter(declaration.name, declaration.default, descriptor)


def read(node: Node, declarations: Iterable[Declaration]) -> dict[str, Any]:
    """Read and validate all declared parameters of a node.

    Raises:
        ParameterError: the first parameter with a wrong type or value.
    """
    return validated({d.name: node.get_parameter(d.name).value for d in declarations}, declarations)


def validated(values: Mapping[str, Any], declarations: Iterable[Declaration]) -> dict[str, Any]:
    """Validate `values` by name; same errors as `read`."""
    return {d.name: d.validated(values[d.name]) for d in declarations}
