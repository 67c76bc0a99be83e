"""Limits of a policy's ONNX graph, checked on the bytes before ONNX Runtime sees them.

Only operators that compute a bounded output from bounded inputs are accepted, and for each of them an upper bound of
its output's shape is worked out. That bounds the memory and the time of loading and running before either begins:
no loop that never ends, no tensor that a few bytes blow up to gigabytes, no file read from elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nfpo_deploy.contract.onnx_shapes import ABSENT, RULES, Node, ShapeError, Tensor
from nfpo_deploy.contract.onnx_wire import WireError, read_model
from nfpo_deploy.errors import PolicyError

MIB = 1 << 20
MAX_FILE_BYTES = 64 * MIB
"""The shipped policy has 0.4 MiB; a network of 2048-1024-512 units has 14 MiB."""
MAX_METADATA_BYTES = MIB
MAX_NODES = 5_000
MAX_RANK = 8
MAX_ELEMENTS = MIB
"""Of one computed tensor."""
MAX_TOTAL_ELEMENTS = 8 * MIB
"""Of all computed tensors together, as if none were freed."""
MAX_MULTIPLICATIONS = 200_000_000
"""Multiply-adds of one action; the shipped policy needs 0.1 million."""
DOMAINS = ("", "ai.onnx")
OPSETS = range(9, 26)
"""From 9 on the accepted operators mean what the rules say. ONNX Runtime refuses what is too new for itself."""

_FLOAT, _INT32, _INT64, _BOOL, _DOUBLE = 1, 6, 7, 9, 11
_ITEM: dict[int, np.dtype] = {
    _FLOAT: np.dtype("<f4"),
    _INT32: np.dtype("<i4"),
    _INT64: np.dtype("<i8"),
    _BOOL: np.dtype("?"),
    _DOUBLE: np.dtype("<f8"),
}
_TYPED_DATA = {
    "float_data": (_FLOAT,),
    "int32_data": (_INT32, _BOOL),
    "int64_data": (_INT64,),
    "double_data": (_DOUBLE,),
}
_ATTRIBUTE_KINDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
"""AttributeProto.AttributeType: the kinds that are accepted and where their value stands."""


@dataclass(frozen=True)
class GraphSize:
    """Upper bounds of what a policy needs."""

    nodes: int
    elements: int
    """Numbers in all computed tensors together."""
    multiplications: int
    """Multiply-adds of one run."""


def check_graph(raw: bytes) -> GraphSize:
    """Check an ONNX file's bytes.

    Raises:
        PolicyError: no ONNX model, or one with something that a policy never needs; names the operator or tensor.
    """
    if len(raw) > MAX_FILE_BYTES:
        raise PolicyError(f"{len(raw)} bytes, at most {MAX_FILE_BYTES} are read")
    try:
        model = read_model(raw)
        _check_model(model)
        return GraphBounds(model["graph"]).run()
    except (WireError, ShapeError) as error:
        raise PolicyError(str(error)) from error


def _check_model(model: dict[str, Any]) -> None:
    if "graph" not in model:
        raise PolicyError("it holds no graph")
    imports = [(entry.get("domain", ""), entry.get("version", 0)) for entry in model.get("opset_import", [])]
    foreign = sorted({domain for domain, _ in imports if domain not in DOMAINS})
    if foreign:
        raise PolicyError(f"operator sets {foreign} are not accepted, only ONNX's own")
    if len(imports) != 1 or imports[0][1] not in OPSETS:
        raise PolicyError(f"expected one operator set, {OPSETS[0]} to {OPSETS[-1]}, got {[v for _, v in imports]}")
    size = sum(len(entry.get("value", "")) for entry in model.get("metadata_props", []))
    if size > MAX_METADATA_BYTES:
        raise PolicyError(f"{size} characters of metadata, at most {MAX_METADATA_BYTES} are read")


class GraphBounds:
    """Upper bounds of all shapes of a graph, node by node.

    Attributes:
        tensors: what is known of each tensor, by name; complete after `run`.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        self._graph = graph
        self.tensors: dict[str, Tensor] = {}
        self._elements = 0
        self._multiplications = 0

    def run(self) -> GraphSize:
        nodes = self._graph.get("node", [])
        if len(nodes) > MAX_NODES:
            raise PolicyError(f"{len(nodes)} operators, at most {MAX_NODES} are accepted")
        for entry in self._graph.get("input", []):
            self.tensors[entry.get("name", "")] = _input(entry)
        for entry in self._graph.get("initializer", []):
            name = entry.get("name", "")
            tensor = read_tensor(entry, f"tensor {name!r}")
            declared = self.tensors.get(name)
            if declared is not None and declared.shape != tensor.shape:
                raise PolicyError(f"input {name!r} has shape {declared.shape}, its default has {tensor.shape}")
            self.tensors[name] = tensor
        self.tensors[""] = ABSENT
        for node in nodes:
            self._visit(node)
        return GraphSize(len(nodes), self._elements, self._multiplications)

    def _visit(self, node: dict[str, Any]) -> None:
        operator, domain = node.get("op_type", ""), node.get("domain", "")
        where = f"operator {operator} ({node.get('name', '')})"
        if domain not in DOMAINS:
            raise PolicyError(f"{where} is of domain {domain!r}, only ONNX's own operators are accepted")
        rule = RULES.get(operator)
        if rule is None:
            raise PolicyError(f"{where} is not one that a policy may use; accepted: {', '.join(sorted(RULES))}")
        missing = [name for name in node.get("input", []) if name not in self.tensors]
        if missing:
            raise PolicyError(f"{where} reads {missing[0]!r}, which nothing before it makes")
        attributes = dict(_attribute(entry, where) for entry in node.get("attribute", []))
        if len(attributes) != len(node.get("attribute", [])):
            raise PolicyError(f"{where} has an attribute twice")
        inputs = [self.tensors[name] for name in node.get("input", [])]
        outputs = node.get("output", [])
        try:
            made, multiplications = rule(Node(operator, inputs, len(outputs), attributes))
        except ShapeError as error:
            raise ShapeError(f"{where}: {error}") from error
        for name, tensor in zip(outputs, made, strict=True):
            self._account(tensor, where)
            if not name:  # an output that nobody reads
                continue
            if name in self.tensors:
                raise PolicyError(f"{where} makes {name!r}, which is there already")
            self.tensors[name] = tensor
        self._multiplications += multiplications
        if self._multiplications > MAX_MULTIPLICATIONS:
            raise PolicyError(f"{where}: more than {MAX_MULTIPLICATIONS} multiplications for one action")

    def _account(self, tensor: Tensor, where: str) -> None:
        count = math.prod(tensor.shape)
        self._elements += count
        if len(tensor.shape) > MAX_RANK:
            raise PolicyError(f"{where}: a result of {len(tensor.shape)} dimensions, at most {MAX_RANK} are accepted")
        if count > MAX_ELEMENTS or self._elements > MAX_TOTAL_ELEMENTS:
            raise PolicyError(
                f"{where}: a result of up to {count} numbers, {self._elements} with those before it; at most "
                f"{MAX_ELEMENTS} and {MAX_TOTAL_ELEMENTS} are accepted"
            )


def _input(entry: dict[str, Any]) -> Tensor:
    where = f"input {entry.get('name', '')!r}"
    tensor = entry.get("type", {}).get("tensor_type")
    if tensor is None or "shape" not in tensor:
        raise PolicyError(f"{where} has no tensor shape")
    # A dimension without a value is a batch; a policy runs on one row.
    shape = tuple(dimension.get("dim_value", 1) for dimension in tensor["shape"].get("dim", []))
    if any(not 0 < size <= MAX_ELEMENTS for size in shape) or len(shape) > MAX_RANK:
        raise PolicyError(f"{where} has shape {list(shape[:MAX_RANK])}, expected sizes from 1 to {MAX_ELEMENTS}")
    return Tensor(shape)


def _attribute(entry: dict[str, Any], where: str) -> tuple[str, Any]:
    name = entry.get("name", "")
    kind = _ATTRIBUTE_KINDS.get(entry.get("type", 0))
    if kind is None:
        raise PolicyError(f"{where}: attribute {name!r} is of a kind that is not accepted")
    if kind == "t":
        return name, read_tensor(entry.get("t", {}), f"{where}: attribute {name!r}")
    if kind in ("f", "floats"):
        pieces = entry.get(kind, b"")
        return name, np.frombuffer(_aligned(pieces if kind == "f" else b"".join(pieces), 4, where), "<f4")
    default: Any = [] if kind == "ints" else "" if kind == "s" else 0
    return name, entry.get(kind, default)


def read_tensor(entry: dict[str, Any], where: str) -> Tensor:
    """Shape, and for small whole numbers the content, of a TensorProto.

    Raises:
        PolicyError: unknown type, data of another size than the shape says, or a number that is not finite.
    """
    shape = tuple(entry.get("dims", []))
    kind = entry.get("data_type", 0)
    if kind not in _ITEM:
        raise PolicyError(f"{where} has data type {kind}; expected float, double, int32, int64 or bool")
    if entry.get("data_location", 0) != 0:
        raise PolicyError(f"{where} keeps its data outside the file")
    if len(shape) > MAX_RANK or any(size < 0 for size in shape) or math.prod(shape) > MAX_FILE_BYTES:
        raise PolicyError(f"{where} has shape {list(shape[:MAX_RANK])}, which is not accepted")
    values = _values(entry, kind, where)
    if values.size != math.prod(shape):
        raise PolicyError(f"{where} has shape {list(shape)} but {values.size} numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise PolicyError(f"{where} holds a number that is not finite")
    small = values.dtype.kind == "i" and values.size <= MAX_RANK
    return Tensor(shape, tuple(int(v) for v in values) if small else None)


def _values(entry: dict[str, Any], kind: int, where: str) -> np.ndarray:
    present = [name for name in ("raw_data", *_TYPED_DATA) if len(entry.get(name, b""))]
    if len(present) > 1 or (present and present[0] != "raw_data" and kind not in _TYPED_DATA[present[0]]):
        raise PolicyError(f"{where} has data of type {kind} in {present}")
    if not present:
        return np.empty(0, _ITEM[kind])
    data = entry[present[0]]
    if present[0] in ("int32_data", "int64_data"):
        return _packed(data)
    return np.frombuffer(_aligned(data, _ITEM[kind].itemsize, where), _ITEM[kind])


def _aligned(data: Any, size: int, where: str) -> Any:
    if len(data) % size:
        raise PolicyError(f"{where} has {len(data)} bytes of data, not a multiple of {size}")
    return data


def _packed(data: Any) -> np.ndarray:
    """Values of packed varints; only their number counts when there are many."""
    array = np.frombuffer(data, np.uint8)
    count = int(np.count_nonzero(array < 0x80))
    if count > MAX_RANK:
        return np.zeros(count, np.int64)
    values, value, shift = [], 0, 0
    for byte in array.tolist():
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            value &= (1 << 64) - 1
            values.append(value - (1 << 64) if value >> 63 else value)
            value = shift = 0
    return np.array(values, np.int64)
