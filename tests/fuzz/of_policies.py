"""Parsers of what a user downloads: policies and checkpoints."""

from __future__ import annotations

import io
import json
import random
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from nfpo_deploy.contract.clearance import check_clearance, clearance_path, read_clearance
from nfpo_deploy.contract.manifest import parse_metadata
from nfpo_deploy.contract.onnx_guard import check_graph
from nfpo_deploy.contract.onnx_shapes import RULES
from nfpo_deploy.errors import ClearanceError, PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_train.checkpoint import CheckpointError, load_checkpoint
from nfpo_train.config import load_task
from robots.loader import load_robot
from robots.untrusted import UntrustedError, load_json
from tests.fuzz.mutations import NUMBERS, mutate_bytes, mutate_tree
from tests.fuzz.parser import Parser

SPEC = load_robot("go2")
SHIPPED = SPEC.folder / "policies/walk/policy.onnx"
FOREIGN_OPERATORS = ("Loop", "If", "Expand", "Tile", "ConstantOfShape", "Range", "GatherND", "Conv", "LSTM", "Resize")


@lru_cache
def _shipped() -> onnx.ModelProto:
    return onnx.load(str(SHIPPED))


@lru_cache
def _tiny() -> onnx.ModelProto:
    """A small policy with many kinds of operators, so that a mutation often hits something that matters."""
    size, n = 119, 12
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(0, 0.1, (size, n)).astype(np.float32), "b": np.zeros(n, np.float32),
        "scale": np.ones((1, n), np.float32), "shape": np.array([1, n]), "axes": np.array([0]),
        "start": np.array([0]), "end": np.array([n]), "index": np.arange(n), "noise": np.zeros((1, n), np.float32),
        "split": np.array([6, 6]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gemm", ["obs", "w", "b"], ["x0"], transB=0), node("Elu", ["x0"], ["x1"], alpha=1.0),
        node("LayerNormalization", ["x1", "b", "b"], ["x2"], axis=-1), node("Reshape", ["x2", "shape"], ["x3"]),
        node("Split", ["x3", "split"], ["x4", "x5"], axis=1), node("Concat", ["x5", "x4"], ["x6"], axis=1),
        node("Gather", ["x6", "index"], ["x7"], axis=1), node("Slice", ["x7", "start", "end", "split"], ["unused"]),
        node("Squeeze", ["x7", "axes"], ["x8"]), node("Unsqueeze", ["x8", "axes"], ["x9"]),
        node("Transpose", ["x9"], ["x10"], perm=[1, 0]), node("Transpose", ["x10"], ["x11"], perm=[1, 0]),
        node("ReduceMean", ["x11"], ["x12"], keepdims=1), node("Softmax", ["x11"], ["x13"], axis=1),
        node("Add", ["x12", "x13"], ["x14"]), node("Mul", ["noise", "scale"], ["x15"]),
        node("Constant", [], ["x16"], value_floats=[0.5] * n), node("Sum", ["x14", "x15", "x16"], ["x17"]),
        node("Clip", ["x17"], ["actions"]),
    ]  # fmt: skip
    del nodes[7]  # its axis input would be wrong
    inputs = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, size]),
              helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, n])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny", inputs, [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, n])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, _metadata())
    return model


@lru_cache
def _metadata() -> dict[str, str]:
    return {entry.key: entry.value for entry in _shipped().metadata_props}


def _whole(rng: random.Random) -> int:
    return max(-(2**63), min(2**63 - 1, rng.choice(NUMBERS)))


def _mutate_node(rng: random.Random, graph: Any) -> None:
    node = rng.choice(graph.node)
    names = [name for other in graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
    operation = rng.randrange(8)
    if operation == 0:
        node.op_type = rng.choice((*sorted(RULES), *FOREIGN_OPERATORS))
    elif operation == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif operation == 2:
        node.input.append(rng.choice(names))
    elif operation == 3 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif operation == 4 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.CopyFrom(
            helper.make_attribute(attribute.name, rng.choice((_whole(rng), [_whole(rng)] * 3, 0.5, "x", [0.5])))
        )
    elif operation == 5:
        name = rng.choice(
            ("axis", "axes", "keepdims", "perm", "to", "alpha", "transA", "allowzero", "epsilon", "value")
        )
        node.attribute.append(helper.make_attribute(name, rng.choice((_whole(rng), [_whole(rng), 0], 1e30, "x"))))
    elif operation == 6:
        graph.node.remove(node)
    else:
        graph.node.insert(rng.randrange(len(graph.node)), node)


def _mutate_tensor(rng: random.Random, graph: Any) -> None:
    tensor = rng.choice(graph.initializer)
    operation = rng.randrange(6)
    if operation == 0:
        tensor.dims.append(_whole(rng))
    elif operation == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _whole(rng)
    elif operation == 2:
        tensor.data_type = rng.randrange(0, 25)
    elif operation == 3:
        tensor.raw_data = mutate_bytes(rng, tensor.raw_data)
    elif operation == 4:
        value = np.array(rng.choice(([0], [-1], [1], [2, 6], [12], [1, -1], [0, 0], [2**40])), np.int64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    else:
        tensor.name = rng.choice(("", "obs", "actions", "x1", tensor.name + "x"))


def _mutate_rest(rng: random.Random, model: Any) -> None:
    operation = rng.randrange(5)
    if operation == 0:
        model.opset_import[0].version = rng.randrange(5, 30)
    elif operation == 1:
        shape = rng.choice(model.graph.input).type.tensor_type.shape
        rng.choice(shape.dim).dim_value = _whole(rng)
    elif operation == 2:
        rng.choice(model.graph.input).type.tensor_type.elem_type = rng.randrange(0, 25)
    elif operation == 3:
        entry = rng.choice(model.metadata_props)
        entry.value = mutate_bytes(rng, entry.value.encode()).decode(errors="replace")
    else:
        model.graph.output[0].name = rng.choice(("x1", "obs", "nowhere", ""))


def generate_policy(rng: random.Random) -> bytes:
    """A policy whose graph or bytes are damaged."""
    seed = _tiny() if rng.random() < 0.8 else _shipped()
    if rng.random() < 0.3:
        return mutate_bytes(rng, seed.SerializeToString(), (_tiny().SerializeToString(),))
    model = onnx.ModelProto()
    model.CopyFrom(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        target = rng.randrange(8)
        if target < 4 and model.graph.node:
            _mutate_node(rng, model.graph)
        elif target < 7:
            _mutate_tensor(rng, model.graph)
        else:
            _mutate_rest(rng, model)
    return model.SerializeToString()


def run_policy(data: bytes, scratch: Path) -> None:
    """A policy file, opened for the Go2 and run once."""
    (scratch / "policy.onnx").write_bytes(data)
    OnnxPolicy.load(scratch / "policy.onnx", SPEC)


def generate_metadata(rng: random.Random) -> bytes:
    """Metadata as JSON; the value under `nfpo` is JSON in turn."""
    metadata: dict[str, Any] = dict(_metadata())
    if rng.random() < 0.7:
        metadata["nfpo"] = json.dumps(mutate_tree(rng, json.loads(metadata["nfpo"])))
    else:
        key = rng.choice(sorted(metadata))
        metadata[key] = mutate_bytes(rng, metadata[key].encode(), (b"nan,", b"1e999", b",,")).decode(errors="replace")
        if rng.random() < 0.1:
            del metadata[key]
    return json.dumps(metadata).encode()


def run_metadata(data: bytes, scratch: Path) -> None:
    """Metadata, checked against the Go2."""
    try:
        metadata = dict(load_json(data))
    except (UntrustedError, TypeError, ValueError) as error:
        raise PolicyError(f"the fuzzer's own encoding: {error}") from error
    parse_metadata({str(key): str(text) for key, text in metadata.items()}).check_robot(SPEC)


@lru_cache
def _checkpoint() -> bytes:
    state = {
        "iteration": 7, "seconds": 1.5, "learning_rate": 1e-3, "config": load_task("go2_walk").to_dict(),
        "algorithm": {"actor_state_dict": {"w": torch.ones(4, 3), "b": torch.zeros(3)}, "iter": 3},
        "environment": {"command_level": 1.0}, "rng": torch.get_rng_state(),
    }  # fmt: skip
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def generate_checkpoint(rng: random.Random) -> bytes:
    """A checkpoint damaged in one member of its archive, or in its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, _checkpoint())
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_checkpoint())) as old, zipfile.ZipFile(stream, "w") as new:
        members = old.namelist()
        victim = next(m for m in members if m.endswith("data.pkl")) if rng.random() < 0.7 else rng.choice(members)
        for member in members:
            content = old.read(member)
            new.writestr(member, mutate_bytes(rng, content) if member == victim else content)
    return stream.getvalue()


def run_checkpoint(data: bytes, scratch: Path) -> None:
    """A checkpoint file."""
    (scratch / "checkpoint_0000001.pt").write_bytes(data)
    load_checkpoint(scratch / "checkpoint_0000001.pt")


CLEARANCE = {
    "format": 1, "policy_sha256": "ab" * 32, "robot": "go2", "robot_sha256": "cd" * 32, "model_sha256": "ef" * 32,
    "set_name": "go2_quick", "set_sha256": "01" * 32, "set_path": "../sets/go2_quick.yaml", "scenarios": 47, "seed": 0,
    "date": "2026-11-27T20:00:00Z",
}  # fmt: skip


def generate_clearance(rng: random.Random) -> bytes:
    """A clearance damaged in its entries or its bytes."""
    return mutate_bytes(rng, json.dumps(mutate_tree(rng, CLEARANCE)).encode(), (b"[" * 3000,))


def run_clearance(data: bytes, scratch: Path) -> None:
    """A clearance, and what follows from where it says that its scenarios lay."""
    policy = scratch / "policy.onnx"
    clearance_path(policy).write_bytes(data)
    read_clearance(clearance_path(policy))
    try:
        check_clearance(policy, SPEC)
    except ClearanceError as error:
        if "not cleared" not in str(error):
            raise


PARSERS = (
    Parser(
        "clearance", ("nfpo_deploy/contract/clearance.py",), generate_clearance, run_clearance, (ClearanceError,),
        lambda: [json.dumps(CLEARANCE).encode()],
    ),
    Parser(
        "policy", ("nfpo_deploy/policy/onnx_policy.py", "nfpo_deploy/contract/onnx_guard.py"), generate_policy,
        run_policy, (PolicyError,), lambda: [SHIPPED.read_bytes(), _tiny().SerializeToString()],
    ),
    Parser(
        "ONNX bytes", ("nfpo_deploy/contract/onnx_guard.py",), generate_policy,
        lambda data, _: check_graph(data) and None, (PolicyError,), lambda: [SHIPPED.read_bytes()],
    ),
    Parser(
        "policy metadata", ("nfpo_deploy/contract/manifest.py",), generate_metadata, run_metadata, (PolicyError,),
        lambda: [json.dumps(_metadata()).encode()],
    ),
    Parser(
        "checkpoint", ("nfpo_train/checkpoint.py",), generate_checkpoint, run_checkpoint, (CheckpointError,),
        lambda: [_checkpoint()],
    ),
)  # fmt: skip
