"""Policy files made to harm: refused by name, before ONNX Runtime sees a byte of them."""

import json
import os
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nfpo_deploy.contract import onnx_guard
from nfpo_deploy.contract.onnx_guard import check_graph
from nfpo_deploy.contract.onnx_wire import WireError, read_model
from nfpo_deploy.errors import PolicyError
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from robots import load_robot

SPEC = load_robot("go2")
SHIPPED = SPEC.folder / "policies/walk/policy.onnx"
OBS, N = 119, 12


def array(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(nodes, initializers=(), opset=18, metadata=True, obs=(1, OBS), kind=TensorProto.FLOAT):
    """A model around `nodes`; they read obs and must make actions."""
    graph = helper.make_graph(
        nodes, "attack", [helper.make_tensor_value_info("obs", kind, obs)],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, N])], list(initializers),
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if metadata:
        helper.set_model_props(made, {p.key: p.value for p in onnx.load(str(SHIPPED)).metadata_props})
    return made


def linear(*extra, **options):
    """obs·weight, with further nodes in front that nobody reads."""
    nodes = [*extra, helper.make_node("MatMul", ["obs", "weight"], ["actions"])]
    weights = [array("weight", OBS, N), *options.pop("initializers", ())]
    return model(nodes, weights, **options)


def refuse(made, message):
    """The guard alone refuses these bytes, within a second."""
    raw = made if isinstance(made, bytes) else made.SerializeToString()
    start = time.process_time()
    with pytest.raises(PolicyError, match=message):
        check_graph(raw)
    assert time.process_time() - start < 5.0


@pytest.fixture
def load(tmp_path):
    def load(made):
        path = tmp_path / "policy.onnx"
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return OnnxPolicy.load(path, SPEC)

    return load


# --- what must pass -------------------------------------------------------------------------------


def test_the_shipped_policy_and_a_plain_network_pass(load):
    size = check_graph(SHIPPED.read_bytes())
    assert size.nodes == len(onnx.load(str(SHIPPED)).graph.node)
    assert 50_000 < size.multiplications < 1_000_000
    OnnxPolicy.load(SHIPPED, SPEC)
    policy = load(linear())
    np.testing.assert_allclose(policy(np.ones(OBS, np.float32)), np.full(N, OBS))


def test_the_reader_agrees_with_the_onnx_library():
    ours, theirs = read_model(SHIPPED.read_bytes())["graph"], onnx.load(str(SHIPPED)).graph
    assert [(n["op_type"], n.get("input", []), n["output"]) for n in ours["node"]] == [
        (n.op_type, list(n.input), list(n.output)) for n in theirs.node
    ]
    for mine, other in zip(ours["initializer"], theirs.initializer, strict=True):
        assert (mine["name"], mine.get("dims", []), mine["data_type"]) == (other.name, list(other.dims), 1)
        assert bytes(mine["raw_data"]) == other.raw_data
    assert [[d["dim_value"] for d in i["type"]["tensor_type"]["shape"]["dim"]] for i in ours["input"]] == [
        [1, OBS],
        [1, N],
    ]


# Operator, shapes of its inputs (an int: constant whole numbers), attributes, operator set.
CASES = [
    ("Elu", [(2, 3)], {}, 18), ("Clip", [(2, 3)], {}, 18), ("Softmax", [(2, 3)], {"axis": 1}, 18),
    ("Add", [(2, 1), (3,)], {}, 18), ("Where", [(2, 1, 4), (3, 1), (4,)], {}, 18),
    ("Max", [(2, 1), (1, 3), (1,)], {}, 18),
    ("MatMul", [(2, 3), (3, 4)], {}, 18), ("MatMul", [(3,), (3, 4)], {}, 18), ("MatMul", [(2, 3), (3,)], {}, 18),
    ("MatMul", [(3,), (3,)], {}, 18), ("MatMul", [(5, 1, 2, 3), (4, 3, 6)], {}, 18),
    ("Gemm", [(2, 3), (3, 4)], {}, 18), ("Gemm", [(3, 2), (4, 3), (4,)], {"transA": 1, "transB": 1}, 18),
    ("Concat", [(2, 3), (2, 5)], {"axis": 1}, 18), ("Concat", [(2, 3), (4, 3)], {"axis": -2}, 18),
    ("Gather", [(4, 5), [0, 3, 1]], {"axis": 1}, 18), ("Gather", [(4, 5), [2]], {}, 18),
    ("Shape", [(4, 5, 6)], {}, 18),
    ("Flatten", [(2, 3, 4)], {"axis": 2}, 18), ("Flatten", [(2, 3, 4)], {"axis": 0}, 18),
    ("Flatten", [(2, 3, 4)], {"axis": -1}, 18), ("Flatten", [(2, 3, 4)], {}, 18),
    ("Transpose", [(2, 3, 4)], {"perm": [1, 2, 0]}, 18), ("Transpose", [(2, 3, 4)], {}, 18),
    ("Reshape", [(2, 3, 4), [4, -1]], {}, 18), ("Reshape", [(2, 3, 4), [0, 12]], {}, 18),
    ("Reshape", [(6,), [2, 3]], {}, 18),
    ("Squeeze", [(1, 3, 1), [0, 2]], {}, 18), ("Squeeze", [(1, 3, 1)], {"axes": [2]}, 11),
    ("Unsqueeze", [(3, 4), [0, 2]], {}, 18), ("Unsqueeze", [(3, 4)], {"axes": [-1]}, 11),
    ("Slice", [(4, 5), [1], [3], [1]], {}, 18), ("Slice", [(4, 5), [-1], [-6], [0], [-1]], {}, 18),
    ("ReduceMean", [(2, 3, 4)], {"axes": [-1]}, 11), ("ReduceMean", [(2, 3, 4), [1]], {"keepdims": 0}, 18),
    ("ReduceSum", [(2, 3, 4)], {"keepdims": 0}, 18), ("ReduceSum", [(2, 3, 4)], {"noop_with_empty_axes": 1}, 18),
    ("ReduceMax", [(2, 3, 4)], {}, 18), ("LayerNormalization", [(2, 3), (3,), (3,)], {"axis": 1}, 18),
    ("PRelu", [(2, 3), (3,)], {}, 18), ("Cast", [(2, 3)], {"to": TensorProto.DOUBLE}, 18),
    ("Pow", [(2, 3), ()], {}, 18), ("Identity", [()], {}, 18),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "inputs", "attributes", "opset"), CASES)
def test_no_operator_makes_more_than_its_bound(operator, inputs, attributes, opset):
    """ONNX Runtime says what an operator makes; the rule's bound must have as many dimensions and be no smaller."""
    names, initializers = [], []
    for i, given in enumerate(inputs):
        names.append(f"in{i}")
        constant = isinstance(given, list)
        value = (
            np.array(given, np.int64) if constant else np.ones(given, bool if operator == "Where" and i == 0 else "f4")
        )
        initializers.append(numpy_helper.from_array(value, f"in{i}"))
    node = helper.make_node(operator, names, ["made"], **attributes)
    graph = helper.make_graph([node], "one", [], [helper.make_empty_tensor_value_info("made")], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    bounds = onnx_guard.GraphBounds(read_model(made.SerializeToString())["graph"])
    bounds.run()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (actual,) = onnxruntime.InferenceSession(made.SerializeToString(), options).run(None, {})
    bound = bounds.tensors["made"].shape
    assert len(bound) == actual.ndim
    assert all(size <= limit for size, limit in zip(actual.shape, bound, strict=True)), (actual.shape, bound)


def test_lists_of_floats_are_read_packed_or_not(load):
    made = linear(helper.make_node("Constant", [], ["x"], value_floats=[1.0, 2.0, 3.0]))
    load(made)
    # The same attribute in the other of the two encodings that protocol buffers allow.
    numbers = np.array([1, 2, 3], np.float32)
    packed = varint(1 << 3 | 2) + b"\x0cvalue_floats" + varint(7 << 3 | 2) + b"\x0c" + numbers.tobytes()
    packed += varint(20 << 3) + b"\x06"
    node = varint(2 << 3 | 2) + b"\x01y" + varint(4 << 3 | 2) + b"\x08Constant"
    node += varint(5 << 3 | 2) + varint(len(packed)) + packed
    graph = made.graph.SerializeToString() + varint(1 << 3 | 2) + varint(len(node)) + node
    made.ClearField("graph")
    load(made.SerializeToString() + varint(7 << 3 | 2) + varint(len(graph)) + graph)


def test_every_tensor_of_the_shipped_policy_is_within_its_bound():
    proto = onnx.load(str(SHIPPED))
    bounds = onnx_guard.GraphBounds(read_model(SHIPPED.read_bytes())["graph"])
    bounds.run()
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    values = session.run(names, {"obs": np.zeros((1, OBS), np.float32)})
    for name, value in zip(names, values, strict=True):
        bound = bounds.tensors[name].shape
        assert len(bound) == value.ndim and all(s <= b for s, b in zip(value.shape, bound, strict=True)), name


# --- files read from elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../etc/passwd", "weights.bin"])
@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_weights_outside_the_file_are_refused(location, place, tmp_path, load):
    (tmp_path / "weights.bin").write_bytes(bytes(4 * OBS * N))
    tensor = TensorProto(name="weight", dims=[OBS, N], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if place == "constant":
        made = model([helper.make_node("Constant", [], ["weight"], value=tensor),
                      helper.make_node("MatMul", ["obs", "weight"], ["actions"])])  # fmt: skip
    else:
        made = model([helper.make_node("MatMul", ["obs", "weight"], ["actions"])], [tensor])
    refuse(made, "external_data: its weights must be in the file itself")
    with pytest.raises(PolicyError, match=r"policy\.onnx is not a valid ONNX policy: .*external_data"):
        load(made)
    del tensor.external_data[:]
    refuse(
        model([helper.make_node("MatMul", ["obs", "weight"], ["actions"])], [tensor]), "'weight' keeps its data outside"
    )


# --- operators that no policy needs ---------------------------------------------------------------


def body(name="body"):
    return helper.make_graph([], name, [], [])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Run", ["obs"], ["x"], domain="evil.custom"), "operator Run .* domain 'evil.custom'"),
        (helper.make_node("FusedMatMul", ["obs", "weight"], ["x"], domain="com.microsoft"), "domain 'com.microsoft'"),
        (helper.make_node("Loop", ["", ""], ["x"], body=body()), "attribute.g: a policy has no sub-graphs"),
        (helper.make_node("If", ["obs"], ["x"], then_branch=body(), else_branch=body()), "no sub-graphs"),
        (helper.make_node("Scan", ["obs"], ["x"], body=body(), num_scan_inputs=1), "no sub-graphs"),
        (helper.make_node("Loop", ["", ""], ["x"]), "operator Loop .* not one that a policy may use"),
        (helper.make_node("ConstantOfShape", ["obs"], ["x"]), "operator ConstantOfShape"),
        (helper.make_node("Expand", ["obs", "obs"], ["x"]), "operator Expand"),
        (helper.make_node("Tile", ["obs", "obs"], ["x"]), "operator Tile"),
        (helper.make_node("Range", ["obs", "obs", "obs"], ["x"]), "operator Range"),
        (helper.make_node("SequenceConstruct", ["obs"], ["x"]), "operator SequenceConstruct"),
        (helper.make_node("Optional", ["obs"], ["x"]), "operator Optional"),
        (helper.make_node("StringNormalizer", ["obs"], ["x"]), "operator StringNormalizer"),
        (helper.make_node("RandomNormal", [], ["x"], shape=[1 << 40]), "operator RandomNormal"),
        (helper.make_node("Elu", ["nowhere"], ["x"]), "reads 'nowhere', which nothing before it makes"),
        (helper.make_node("Elu", ["obs"], ["obs"]), "makes 'obs', which is there already"),
        (helper.make_node("Constant", [], ["x"], value_string="text"), "'value_string' is not accepted"),
        (helper.make_node("LayerNormalization", ["obs", "obs", ""], ["x"]), "LayerNormalization .*input 2 is missing"),
        (helper.make_node("Constant", [], ["x"], value_floats=7), "'value_floats' is not accepted"),
        (helper.make_node("Constant", [], ["x"], value_strings=["a", "b"]), "strings: only dense tensors"),
    ],
)  # fmt: skip
def test_an_operator_that_no_policy_needs_is_named(node, message):
    refuse(linear(node), message)


def test_functions_and_foreign_operator_sets_are_refused():
    made = linear()
    made.opset_import.append(helper.make_opsetid("evil.custom", 1))
    refuse(made, r"operator sets \['evil.custom'\]")
    made = linear()
    made.functions.append(helper.make_function("d", "f", ["a"], ["b"], [], [helper.make_opsetid("", 18)]))
    refuse(made, "model.functions: a policy has no sub-graphs, loops or functions")


@pytest.mark.parametrize("opset", [0, 1, 8, 26, 9999, -1, 2**62])
def test_unknown_operator_sets_are_refused(opset):
    refuse(linear(opset=opset), "expected one operator set, 9 to 25")


# --- bombs: small files that ask for memory or time without end -------------------------------------


def test_a_broadcast_bomb_is_refused():
    weights = [array("tall", 100_000, 1), array("wide", 100_000)]
    made = linear(helper.make_node("Add", ["tall", "wide"], ["x"]), initializers=weights)
    refuse(made, r"operator Add .* a result of up to 10000000000 numbers")


def test_an_outer_product_is_refused():
    weights = [array("tall", 90_000, 1), array("wide", 1, 90_000)]
    made = linear(helper.make_node("MatMul", ["tall", "wide"], ["x"]), initializers=weights)
    refuse(made, r"operator MatMul .* a result of up to 8100000000 numbers")


def test_doubling_is_refused():
    nodes = [helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=1) for i in range(60)]
    refuse(linear(helper.make_node("Elu", ["obs"], ["x0"]), *nodes), r"operator Concat .* a result of up to")


def test_a_gather_bomb_is_refused():
    nodes = [helper.make_node("Gather", ["wide", "index"], ["x"], axis=0)]
    made = linear(*nodes, initializers=[array("wide", 1, 10_000), array("index", 10_000, dtype=np.int64)])
    refuse(made, r"operator Gather .* a result of up to 100000000 numbers")


def test_a_reshape_to_a_computed_shape_is_refused():
    nodes = [helper.make_node("Shape", ["obs"], ["s"]), helper.make_node("Reshape", ["obs", "s"], ["x"])]
    refuse(linear(*nodes), r"operator Reshape .* shape must be a constant")


def test_a_tensor_that_claims_more_than_it_holds_is_refused():
    tensor = TensorProto(name="liar", dims=[1 << 40, 1 << 40], data_type=TensorProto.FLOAT, raw_data=b"1234")
    refuse(linear(initializers=[tensor]), "tensor 'liar' has shape")
    tensor = TensorProto(name="liar", dims=[3], data_type=TensorProto.FLOAT, raw_data=bytes(16))
    refuse(linear(initializers=[tensor]), r"tensor 'liar' has shape \[3\] but 4 numbers")
    tensor = TensorProto(name="liar", dims=[-1], data_type=TensorProto.FLOAT)
    refuse(linear(initializers=[tensor]), "tensor 'liar' has shape")
    tensor = TensorProto(name="liar", dims=[2], data_type=TensorProto.FLOAT, raw_data=bytes(7))
    refuse(linear(initializers=[tensor]), "7 bytes of data, not a multiple of 4")


def test_too_many_operators_are_refused_and_a_deep_chain_within_the_limit_runs(load):
    def chain(length):
        nodes = [helper.make_node("Elu", [f"x{i}" if i else "obs"], [f"x{i + 1}"]) for i in range(length)]
        nodes.append(helper.make_node("MatMul", [f"x{length}", "weight"], ["actions"]))
        return model(nodes, [array("weight", OBS, N)])

    refuse(chain(onnx_guard.MAX_NODES), "5001 operators, at most 5000")
    assert np.isfinite(load(chain(3000))(np.ones(OBS, np.float32))).all()


def test_a_network_that_needs_too_long_is_refused(load):
    nodes = [helper.make_node("MatMul", ["obs", "first"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "square"], [f"x{i + 1}"]) for i in range(250)]
    nodes.append(helper.make_node("MatMul", ["x180", "last"], ["actions"]))
    weights = [array("first", OBS, 1000), array("square", 1000, 1000), array("last", 1000, N)]
    refuse(model(nodes, weights), "more than 200000000 multiplications")
    # Within the limit, but more than any computer does in the 2 ms that this one's rate allows.
    made = model([n for n in nodes if n.output[0] not in {f"x{i}" for i in range(181, 251)}],
                 [array("first", OBS, 1000), numpy_helper.from_array(np.eye(1000, dtype=np.float32), "square"),
                  array("last", 1000, N)])  # fmt: skip
    metadata = {p.key: p.value for p in made.metadata_props}
    metadata["nfpo"] = json.dumps(json.loads(metadata["nfpo"]) | {"control_rate_hz": 500.0})
    helper.set_model_props(made, metadata)
    with pytest.raises(
        PolicyError, match=r"takes [\d.]+ ms for one action on this computer, its control period is 2\.0"
    ):
        load(made)


@pytest.mark.parametrize("rate", [0.0, -50.0, 0.5, 501.0, 1e300, "inf", None, [50]])
def test_a_control_rate_that_cannot_be_is_refused(load, rate):
    made = linear()
    metadata = {p.key: p.value for p in made.metadata_props}
    metadata["nfpo"] = json.dumps(json.loads(metadata["nfpo"]) | {"control_rate_hz": rate})
    helper.set_model_props(made, metadata)
    with pytest.raises(PolicyError, match=r"policy\.onnx: .*(control_rate_hz|metadata)"):
        load(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 500_000, "nested too deeply"),
        ('{"schema": ' + "1" * 5000 + "}", "not valid JSON"),
        ("{" + " " * (1 << 20) + "}", "characters of metadata, at most"),
        ('{"schema": 1, "action_clip": 1e999}', "policy metadata"),
    ],
)
def test_metadata_bombs_are_refused(load, text, message):
    made = linear()
    metadata = {p.key: p.value for p in made.metadata_props}
    helper.set_model_props(made, metadata | {"nfpo": text})
    with pytest.raises(PolicyError, match=message):
        load(made)


# --- other types and shapes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [TensorProto.STRING, TensorProto.FLOAT16, TensorProto.COMPLEX64, TensorProto.UINT4, 99, 2**31 - 1]
)
def test_weights_of_another_type_are_refused(kind):
    tensor = TensorProto(name="odd", dims=[1], data_type=kind, raw_data=bytes(8))
    refuse(linear(initializers=[tensor]), f"tensor 'odd' has data type {kind}")


def test_text_tensors_are_refused():
    tensor = TensorProto(name="odd", dims=[1], data_type=TensorProto.STRING, string_data=[b"text"])
    refuse(linear(initializers=[tensor]), "string_data: only dense tensors of numbers")


def test_inputs_that_are_no_tensors_are_refused():
    made = linear()
    made.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])))  # fmt: skip
    refuse(made, "sequence_type: only dense tensors")
    made = linear()
    made.graph.input[0].type.tensor_type.ClearField("shape")
    refuse(made, "input 'obs' has no tensor shape")


@pytest.mark.parametrize("obs", [(0, OBS), (-1, OBS), (1, 1 << 60), (1,) * 9])
def test_inputs_of_impossible_shape_are_refused(obs):
    refuse(linear(obs=obs), "input 'obs' has shape")


def test_a_named_batch_is_a_single_row_but_a_named_width_is_refused(load):
    assert load(linear(obs=("batch", OBS)))(np.ones(OBS, np.float32)).shape == (N,)
    with pytest.raises(PolicyError, match="input obs has width"):
        load(linear(obs=(1, "width")))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.INT64])
def test_an_observation_that_is_no_float_is_refused(load, kind):
    nodes = [helper.make_node("Cast", ["obs"], ["x"], to=1), helper.make_node("MatMul", ["x", "weight"], ["actions"])]
    with pytest.raises(PolicyError, match=r"obs is tensor\((double|int64)\).*expected tensor\(float\)"):
        load(model(nodes, [array("weight", OBS, N)], kind=kind))


def test_a_default_of_another_shape_than_its_input_is_refused():
    made = linear(initializers=[array("noise", 1, 1000)])
    made.graph.input.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, N]))
    refuse(made, r"input 'noise' has shape \(1, 12\), its default has \(1, 1000\)")


# --- bytes that two readers could understand differently --------------------------------------------


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (varint(99 << 3 | 2) + b"\x01x", "a field 99 that is not known"),
        (varint(7 << 3 | 2) + b"\x00", "model.graph stands twice"),
        (varint(1 << 3) + b"\x08", "model.ir_version stands twice"),
        (varint(6 << 3 | 3), "model.doc_string has wire type 3"),
        (varint(5 << 3 | 2) + b"\x01\x01", "model.model_version has wire type 2"),
        (varint(5 << 3) + b"\xff" * 10, "more than 64 bits"),
        (varint(5 << 3) + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (varint(5 << 3) + b"\xff", "cut short"),
        (varint(6 << 3 | 2) + varint(1000) + b"x", "ends after the file"),
        (varint(6 << 3 | 2) + varint(2**63) + b"x", "ends after the file"),
        (varint(6 << 3 | 2) + b"\x02\xff\xfe", "not UTF-8"),
        (varint(4 << 3 | 2) + varint(501) + b"x" * 501, "a name of 501 bytes"),
        (varint(20 << 3 | 2) + b"\x00", "training_info"),
    ],
)
def test_an_odd_encoding_is_refused(extra, message):
    refuse(linear().SerializeToString() + extra, message)


def test_more_fields_than_a_policy_has_are_refused_quickly():
    refuse(linear().SerializeToString() + (varint(14 << 3 | 2) + b"\x00") * 2_000_000, "more than 100000 fields")


def test_a_number_that_only_looks_accepted_in_32_bits_is_refused():
    """ONNX Runtime reads the field as 32 bits and would see type 1, float."""
    tensor = varint(1 << 3) + b"\x01" + varint(2 << 3) + varint(2**32 + 1) + varint(9 << 3 | 2) + b"\x04" + bytes(4)
    graph = varint(5 << 3 | 2) + varint(len(tensor)) + tensor
    good = linear()
    graph = good.graph.SerializeToString() + graph
    good.ClearField("graph")
    refuse(good.SerializeToString() + varint(7 << 3 | 2) + varint(len(graph)) + graph, f"data type {2**32 + 1}")


def test_what_is_no_model_is_refused():
    for raw in (b"", b"\x00", b"\x08", SHIPPED.read_bytes()[:-1], os.urandom(1000), b"\x08\x08"):
        with pytest.raises((PolicyError, WireError)):
            check_graph(raw)


# --- paths ----------------------------------------------------------------------------------------


def test_a_path_that_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    (tmp_path / "huge.onnx").touch()
    os.truncate(tmp_path / "huge.onnx", 1 << 40)
    for name in ("pipe.onnx", "zero.onnx", "huge.onnx", "", "gone.onnx", "nul\0.onnx"):
        start = time.process_time()
        with pytest.raises(PolicyError, match="cannot read policy"):
            OnnxPolicy.load(tmp_path / name, SPEC)
        assert time.process_time() - start < 5.0
