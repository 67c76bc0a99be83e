"""Message definitions (`ros2msg` text) for the log, so that a file explains its own bytes.

They are made from what really defines the bytes: the generated Python class of a ROS message, and the record
layout of a Unitree message. Files with the original text are not installed by every ROS distribution, and could
differ from the class in use.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfpo_deploy.transport.codec import MessageCodec

SEPARATOR = "=" * 80
_TYPES = {"double": "float64", "float": "float32", "boolean": "bool", "octet": "byte"}
_SEQUENCE = re.compile(r"sequence<(?P<element>[^,]+?)(?:, (?P<bound>\d+))?>")
_ARRAY = re.compile(r"(?P<element>.+)\[(?P<size>\d+)\]")
_BOUNDED_STRING = re.compile(r"(?P<kind>w?string)<(?P<bound>\d+)>")
# Names that unitree_ros2 gives the structs inside its messages.
_STRUCTS = {
    "imu_state": "IMUState",
    "motor_state": "MotorState",
    "motor_cmd": "MotorCmd",
    "bms_state": "BmsState",
    "bms_cmd": "BmsCmd",
    "stamp": "TimeSpec",
    "path_point": "PathPoint",
}
_SCALARS = {"i": "int", "u": "uint", "f": "float"}


@dataclass(frozen=True)
class Definition:
    """Name of a message type, as "nfpo_msgs/msg/RobotState", and its definition with all nested types."""

    name: str
    text: str


def definition_of(message_type: type) -> Definition:
    """Definition of a generated ROS message class."""
    package, name = message_type.__module__.partition(".")[0], message_type.__name__
    parts = [_class_text(message_type)]
    seen = {f"{package}/{name}"}
    waiting = list(_nested(message_type))
    while waiting:
        nested = waiting.pop(0)
        if nested not in seen:
            seen.add(nested)
            nested_type = _resolve(nested)
            parts.append(f"MSG: {nested}\n{_class_text(nested_type)}")
            waiting.extend(_nested(nested_type))
    return Definition(f"{package}/msg/{name}", f"{SEPARATOR}\n".join(parts))


def definition_of_record(codec: MessageCodec) -> Definition:
    """Definition of a Unitree message, from the record layout that the codec reads and writes."""
    package, name = codec.name.split("/")
    texts: dict[str, str] = {}
    top = _record_text(package, codec.dtype, texts)
    parts = [top, *(f"MSG: {package}/{nested}\n{text}" for nested, text in texts.items())]
    return Definition(f"{package}/msg/{name}", f"{SEPARATOR}\n".join(parts))


def _fields(message_type: type) -> dict[str, str]:
    fields: dict[str, str] = message_type.get_fields_and_field_types()  # type: ignore[attr-defined]
    return fields


def _element(type_text: str) -> tuple[str, str]:
    """Type of one element, and the brackets of its array."""
    if match := _SEQUENCE.fullmatch(type_text):
        return match["element"], f"[<={match['bound']}]" if match["bound"] else "[]"
    if match := _ARRAY.fullmatch(type_text):
        return match["element"], f"[{match['size']}]"
    return type_text, ""


def _class_text(message_type: type) -> str:
    lines = [f"{kind} {name}={value}" for kind, name, value in _constants(message_type)]
    for name, type_text in _fields(message_type).items():
        element, brackets = _element(type_text)
        if match := _BOUNDED_STRING.fullmatch(element):
            element = f"{match['kind']}<={match['bound']}"
        lines.append(f"{_TYPES.get(element, element)}{brackets} {name}")
    return "\n".join(lines) + "\n"


def _constants(message_type: type) -> Iterator[tuple[str, str, int]]:
    # The classes do not keep the type of a constant; for a reader of the log its value is what counts.
    for name, value in type(message_type).__prepare__("", ()).items():
        if isinstance(value, bytes) and len(value) == 1:
            yield "byte", name, value[0]
        elif type(value) is int and not name.endswith("__DEFAULT"):
            yield ("uint8" if 0 <= value < 256 else "int64"), name, value


def _nested(message_type: type) -> Iterator[str]:
    for type_text in _fields(message_type).values():
        element = _element(type_text)[0]
        if "/" in element:
            yield element


def _resolve(name: str) -> Any:
    package, _, message = name.partition("/")
    return getattr(importlib.import_module(f"{package}.msg"), message)


def _record_text(package: str, dtype: np.dtype, texts: dict[str, str]) -> str:
    lines = []
    for field in dtype.names or ():
        element, brackets = dtype[field], ""
        if element.subdtype is not None:
            element, shape = element.subdtype
            brackets = f"[{int(np.prod(shape))}]"
        if element.names is not None:
            kind = f"{package}/{_STRUCTS[field]}"
            texts.setdefault(_STRUCTS[field], "")
            texts[_STRUCTS[field]] = _record_text(package, element, texts)
        else:
            kind = f"{_SCALARS[element.kind]}{8 * element.itemsize}"
        lines.append(f"{kind}{brackets} {field}")
    return "\n".join(lines) + "\n"
