"""Upper bounds of the shapes that a policy's operators make.

A bound need not be exact: `Slice` is bounded by its input, a broadcast by the larger of two sizes. The number of
dimensions is always exact. What depends on numbers that are computed (the shape of a `Reshape`, the axes of a
`Squeeze`) must be constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A shape cannot be bounded; the message says why."""


@dataclass(frozen=True)
class Tensor:
    """Largest shape of a tensor, and its content where that is a constant of a few whole numbers."""

    shape: Shape
    content: tuple[int, ...] | None = None


ABSENT = Tensor((), ())
"""Optional input that is left out; no real tensor of one number has no content."""
MAX_CONSTANTS = 16
"""Longest list of axes or sizes; nothing that is accepted has more dimensions."""


@dataclass(frozen=True)
class Node:
    """An operator with its inputs."""

    operator: str
    inputs: list[Tensor]
    num_outputs: int
    attributes: dict[str, Any]

    def input(self, index: int) -> Tensor:
        """Input that must be there."""
        if index >= len(self.inputs) or self.inputs[index] is ABSENT:
            raise ShapeError(f"input {index} is missing")
        return self.inputs[index]

    def whole(self, name: str, default: int) -> int:
        """Whole-number attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ShapeError(f"attribute {name!r} must be a whole number")
        return value

    def constants(self, name: str, index: int) -> tuple[int, ...] | None:
        """Whole numbers from attribute `name` (older operator sets) or from constant input `index`; None for neither.

        Raises:
            ShapeError: the input is computed.
        """
        value = self.attributes.get(name)
        if value is None:
            if index >= len(self.inputs) or self.inputs[index] is ABSENT:
                return None
            value = self.inputs[index].content
            if value is None:
                raise ShapeError(f"{name} must be a constant of at most {MAX_CONSTANTS} whole numbers")
        elif not isinstance(value, list):
            raise ShapeError(f"attribute {name!r} must be a list of whole numbers")
        if len(value) > MAX_CONSTANTS:
            raise ShapeError(f"{name} has {len(value)} entries, at most {MAX_CONSTANTS} are accepted")
        return tuple(value)


Rule = Callable[[Node], tuple[list[Tensor], int]]
"""Bounds of a node's outputs, and its multiply-adds."""


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} of a tensor with {rank} dimensions")
    return axis % rank


def _same(node: Node) -> tuple[list[Tensor], int]:
    """Every output is at most as large as the first input."""
    return [Tensor(node.input(0).shape)] * node.num_outputs, 0


def _layer_normalization(node: Node) -> tuple[list[Tensor], int]:
    for index in range(len(node.inputs)):
        # ONNX allows a last one without a name, and ONNX Runtime 1.32 crashes on it.
        node.input(index)
    return _same(node)


def _broadcast_shapes(*shapes: Shape) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def _broadcast(node: Node) -> tuple[list[Tensor], int]:
    shapes = (node.input(i).shape for i in range(max(1, len(node.inputs))))
    return [Tensor(_broadcast_shapes(*shapes))] * node.num_outputs, 0


def _matmul(node: Node) -> tuple[list[Tensor], int]:
    a, b = node.input(0).shape, node.input(1).shape
    if not a or not b:
        raise ShapeError("a factor has no dimensions")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    batch = _broadcast_shapes(left[:-2], right[:-2])
    full = (*batch, left[-2], right[-1])
    shape = (*batch, *((left[-2],) if len(a) > 1 else ()), *((right[-1],) if len(b) > 1 else ()))
    return [Tensor(shape)] * node.num_outputs, math.prod(full) * max(left[-1], right[-2])


def _gemm(node: Node) -> tuple[list[Tensor], int]:
    a, b = node.input(0).shape, node.input(1).shape
    if len(a) != 2 or len(b) != 2:
        raise ShapeError(f"factors of {len(a)} and {len(b)} dimensions, expected 2 and 2")
    a = a[::-1] if node.whole("transA", 0) else a
    b = b[::-1] if node.whole("transB", 0) else b
    return [Tensor((a[0], b[1]))] * node.num_outputs, a[0] * b[1] * max(a[1], b[0])


def _concat(node: Node) -> tuple[list[Tensor], int]:
    shapes = [node.input(i).shape for i in range(len(node.inputs))]
    if len({len(shape) for shape in shapes}) != 1:
        raise ShapeError("parts with different numbers of dimensions")
    axis = _axis(node.whole("axis", 0), len(shapes[0]))
    sizes = [sum(column) if i == axis else max(column) for i, column in enumerate(zip(*shapes, strict=True))]
    return [Tensor(tuple(sizes))] * node.num_outputs, 0


def _gather(node: Node) -> tuple[list[Tensor], int]:
    data, indices = node.input(0).shape, node.input(1).shape
    axis = _axis(node.whole("axis", 0), len(data))
    return [Tensor((*data[:axis], *indices, *data[axis + 1 :]))] * node.num_outputs, 0


def _shape_of(node: Node) -> tuple[list[Tensor], int]:
    return [Tensor((len(node.input(0).shape),))] * node.num_outputs, 0


def _constant(node: Node) -> tuple[list[Tensor], int]:
    if len(node.attributes) != 1:
        raise ShapeError(f"expected one value, got {sorted(node.attributes)}")
    ((name, value),) = node.attributes.items()
    if name == "value" and isinstance(value, Tensor):
        made = value
    elif name == "value_int" and isinstance(value, int):
        made = Tensor((), (value,))
    elif name == "value_ints" and isinstance(value, list):
        made = Tensor((len(value),), tuple(value))
    elif name in ("value_float", "value_floats") and isinstance(value, np.ndarray):
        made = Tensor(() if name == "value_float" else (len(value),))
    else:
        raise ShapeError(f"{name!r} is not accepted")
    return [made] * node.num_outputs, 0


def _reshape(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    target = node.constants("shape", 1)
    if target is None:
        raise ShapeError("the new shape is missing")
    count = math.prod(data)
    sizes = []
    for i, size in enumerate(target):
        if size == 0 and not node.whole("allowzero", 0):
            if i >= len(data):
                raise ShapeError(f"new shape {list(target)} copies a dimension that does not exist")
            size = data[i]
        sizes.append(size)
    if any(size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ShapeError(f"new shape {list(target)}")
    known = math.prod(size for size in sizes if size > 0)
    return [Tensor(tuple(-(-count // known) if size == -1 else size for size in sizes))] * node.num_outputs, 0


def _flatten(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    axis = node.whole("axis", 1)
    if not -len(data) <= axis <= len(data):
        raise ShapeError(f"axis {axis} of a tensor with {len(data)} dimensions")
    axis += len(data) if axis < 0 else 0
    return [Tensor((math.prod(data[:axis]), math.prod(data[axis:])))] * node.num_outputs, 0


def _transpose(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    order = node.constants("perm", len(node.inputs)) or tuple(reversed(range(len(data))))
    if sorted(order) != list(range(len(data))):
        raise ShapeError(f"order {list(order)} of {len(data)} dimensions")
    return [Tensor(tuple(data[i] for i in order))] * node.num_outputs, 0


def _squeeze(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    axes = node.constants("axes", 1)
    if axes is None:
        raise ShapeError("it must name its axes")
    gone = {_axis(axis, len(data)) for axis in axes}
    return [Tensor(tuple(size for i, size in enumerate(data) if i not in gone))] * node.num_outputs, 0


def _unsqueeze(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    axes = node.constants("axes", 1)
    if axes is None:
        raise ShapeError("it must name its axes")
    rank = len(data) + len(axes)
    new = {_axis(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise ShapeError(f"axes {list(axes)} repeat one")
    old = iter(data)
    return [Tensor(tuple(1 if i in new else next(old) for i in range(rank)))] * node.num_outputs, 0


def _reduce(node: Node) -> tuple[list[Tensor], int]:
    data = node.input(0).shape
    axes = node.constants("axes", 1)
    if not axes:
        if node.whole("noop_with_empty_axes", 0):
            return [Tensor(data)] * node.num_outputs, 0
        axes = tuple(range(len(data)))
    gone = {_axis(axis, len(data)) for axis in axes}
    if node.whole("keepdims", 1):
        return [Tensor(tuple(1 if i in gone else size for i, size in enumerate(data)))] * node.num_outputs, 0
    return [Tensor(tuple(size for i, size in enumerate(data) if i not in gone))] * node.num_outputs, 0


_SAME = """Abs Atan BatchNormalization Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish
Identity LeakyRelu Log LogSoftmax Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Slice
Softmax Softplus Softsign Split Sqrt Tan Tanh""".split()
_BROADCAST = """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mul Or PRelu Pow Sub Sum Where
Xor""".split()
_REDUCE = "ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare".split()

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCE, _reduce),
    "Concat": _concat,
    "Constant": _constant,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that a policy may use: what networks of layers, normalisers and flows export to."""
