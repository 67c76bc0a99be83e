"""The bytes of an ONNX file as plain dictionaries, read strictly: what the schema below does not list is an error.

A robot has `onnxruntime` but not `onnx`, and neither library refuses what a policy never needs: weights in other
files, sub-graphs, functions, sequences, training data. Field numbers are those of `onnx.proto` (ONNX 1.19, IR 11);
the encoding is Protocol Buffers' wire format. A reader that skipped unknown fields could disagree with ONNX Runtime
about what a file says; one that refuses them cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VARINT, LENGTH, FIXED32 = 0, 2, 5
MAX_FIELDS = 100_000
"""Fields in a file; the shipped policy has 1 700."""
MAX_NAME = 500
"""Bytes of a name; documentation and metadata may be longer."""


class WireError(ValueError):
    """The bytes are no ONNX model, or one with parts that a policy must not have."""


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    name: str
    kind: str
    """"int", "float" (4 bytes), "name" (short text), "text", "bytes", "message"; "ints", "floats": packed or not."""
    repeated: bool = False
    schema: Mapping[int, Field] | None = None
    """Fields of a message."""
    refused: str = ""
    """Why a policy must not have it."""


def _refuse(name: str, why: str) -> Field:
    return Field(name, "bytes", refused=why)


_EXTERNAL = "its weights must be in the file itself"
_SUBGRAPH = "a policy has no sub-graphs, loops or functions"
_TENSORS = "only dense tensors of numbers are accepted"

_PROPERTY: dict[int, Field] = {1: Field("key", "name"), 2: Field("value", "text")}
_PROPERTIES = Field("metadata_props", "message", True, _PROPERTY)
_DOC = Field("doc_string", "text")
TENSOR: dict[int, Field] = {
    1: Field("dims", "ints", True),
    2: Field("data_type", "int"),
    3: _refuse("segment", _TENSORS),
    4: Field("float_data", "bytes"),
    5: Field("int32_data", "bytes"),
    6: _refuse("string_data", _TENSORS),
    7: Field("int64_data", "bytes"),
    8: Field("name", "name"),
    9: Field("raw_data", "bytes"),
    10: Field("double_data", "bytes"),
    11: _refuse("uint64_data", _TENSORS),
    12: _DOC,
    13: _refuse("external_data", _EXTERNAL),
    14: Field("data_location", "int"),
    16: _PROPERTIES,
}
_ATTRIBUTE: dict[int, Field] = {
    1: Field("name", "name"),
    2: Field("f", "float"),
    3: Field("i", "int"),
    4: Field("s", "name"),
    5: Field("t", "message", schema=TENSOR),
    6: _refuse("g", _SUBGRAPH),
    7: Field("floats", "floats", True),
    8: Field("ints", "ints", True),
    9: _refuse("strings", _TENSORS),
    10: _refuse("tensors", _TENSORS),
    11: _refuse("graphs", _SUBGRAPH),
    13: _DOC,
    14: _refuse("tp", _TENSORS),
    15: _refuse("type_protos", _TENSORS),
    20: Field("type", "int"),
    21: _refuse("ref_attr_name", _SUBGRAPH),
    22: _refuse("sparse_tensor", _TENSORS),
    23: _refuse("sparse_tensors", _TENSORS),
}
_NODE: dict[int, Field] = {
    1: Field("input", "name", True),
    2: Field("output", "name", True),
    3: Field("name", "name"),
    4: Field("op_type", "name"),
    5: Field("attribute", "message", True, _ATTRIBUTE),
    6: _DOC,
    7: Field("domain", "name"),
    8: Field("overload", "name"),
    9: _PROPERTIES,
    10: _refuse("device_configurations", "a policy runs on one processor"),
}
_DIMENSION: dict[int, Field] = {
    1: Field("dim_value", "int"),
    2: Field("dim_param", "name"),
    3: Field("denotation", "name"),
}
_SHAPE: dict[int, Field] = {1: Field("dim", "message", True, _DIMENSION)}
_TENSOR_TYPE: dict[int, Field] = {1: Field("elem_type", "int"), 2: Field("shape", "message", schema=_SHAPE)}
_TYPE: dict[int, Field] = {
    1: Field("tensor_type", "message", schema=_TENSOR_TYPE),
    4: _refuse("sequence_type", _TENSORS),
    5: _refuse("map_type", _TENSORS),
    6: Field("denotation", "name"),
    7: _refuse("opaque_type", _TENSORS),
    8: _refuse("sparse_tensor_type", _TENSORS),
    9: _refuse("optional_type", _TENSORS),
}
_VALUE_INFO: dict[int, Field] = {
    1: Field("name", "name"),
    2: Field("type", "message", schema=_TYPE),
    3: _DOC,
    4: _PROPERTIES,
}
_GRAPH: dict[int, Field] = {
    1: Field("node", "message", True, _NODE),
    2: Field("name", "name"),
    5: Field("initializer", "message", True, TENSOR),
    10: _DOC,
    11: Field("input", "message", True, _VALUE_INFO),
    12: Field("output", "message", True, _VALUE_INFO),
    13: Field("value_info", "message", True, _VALUE_INFO),
    14: _refuse("quantization_annotation", _TENSORS),
    15: _refuse("sparse_initializer", _TENSORS),
    16: _PROPERTIES,
}
_OPERATOR_SET: dict[int, Field] = {1: Field("domain", "name"), 2: Field("version", "int")}
MODEL: dict[int, Field] = {
    1: Field("ir_version", "int"),
    2: Field("producer_name", "name"),
    3: Field("producer_version", "name"),
    4: Field("domain", "name"),
    5: Field("model_version", "int"),
    6: _DOC,
    7: Field("graph", "message", schema=_GRAPH),
    8: Field("opset_import", "message", True, _OPERATOR_SET),
    14: _PROPERTIES,
    20: _refuse("training_info", _SUBGRAPH),
    25: _refuse("functions", _SUBGRAPH),
    26: _refuse("configuration", "a policy runs on one processor"),
}

_WIRE_TYPES = {"int": VARINT, "float": FIXED32, "floats": FIXED32}


def read_model(raw: bytes) -> dict[str, Any]:
    """A ModelProto as nested dictionaries.

    Returns:
        Present fields by name: whole numbers as `int` (signed, 64 bits), floats and data as views of the bytes, text
        as `str`, messages as dictionaries, repeated fields as lists.

    Raises:
        WireError: not the encoding of a model, or with a field that a policy must not have; names it.
    """
    return _Reader(memoryview(raw)).message(0, len(raw), MODEL, "model")


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fields = 0

    def message(self, start: int, end: int, schema: Mapping[int, Field], where: str) -> dict[str, Any]:
        """Fields in data[start:end]. Recursion is as deep as the schema, which is finite."""
        found: dict[str, Any] = {}
        at = start
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise WireError(f"more than {MAX_FIELDS} fields")
            tag, at = self._varint(at, end, where)
            field = schema.get(tag >> 3)
            if field is None:
                raise WireError(f"{where} has a field {tag >> 3} that is not known")
            if field.refused:
                raise WireError(f"{where}.{field.name}: {field.refused}")
            value, at = self._value(field, tag & 7, at, end, f"{where}.{field.name}")
            if field.kind == "ints":
                found.setdefault(field.name, []).extend(value)
            elif field.repeated:
                found.setdefault(field.name, []).append(value)
            elif field.name in found:
                # Readers of protocol buffers merge or overwrite; a writer never does this.
                raise WireError(f"{where}.{field.name} stands twice")
            else:
                found[field.name] = value
        return found

    def _value(self, field: Field, wire_type: int, at: int, end: int, where: str) -> tuple[Any, int]:
        if field.kind == "ints" and wire_type == VARINT:
            value, at = self._varint(at, end, where)
            return [_signed(value)], at
        packed = field.kind == "floats" and wire_type == LENGTH
        if not packed and wire_type != _WIRE_TYPES.get(field.kind, LENGTH):
            raise WireError(f"{where} has wire type {wire_type}")
        if wire_type == VARINT:
            value, at = self._varint(at, end, where)
            return _signed(value), at
        if wire_type == LENGTH:
            size, at = self._varint(at, end, where)
        else:
            size = 4
        if size > end - at:
            raise WireError(f"{where} ends after the file or the message that holds it")
        if field.schema is not None:
            return self.message(at, at + size, field.schema, where), at + size
        return self._content(field, at, at + size, where), at + size

    def _content(self, field: Field, start: int, end: int, where: str) -> Any:
        if field.kind == "ints":
            numbers = []
            while start < end:
                self._fields += 1
                if self._fields > MAX_FIELDS:
                    raise WireError(f"more than {MAX_FIELDS} fields")
                value, start = self._varint(start, end, where)
                numbers.append(_signed(value))
            return numbers
        content = self._data[start:end]
        if field.kind not in ("name", "text"):
            return content
        if field.kind == "name" and len(content) > MAX_NAME:
            raise WireError(f"{where} is a name of {len(content)} bytes, at most {MAX_NAME} are accepted")
        try:
            return str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"{where} is not UTF-8: {error.reason}") from error

    def _varint(self, at: int, end: int, where: str) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise WireError(f"{where} is cut short")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at
        raise WireError(f"{where} holds a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
