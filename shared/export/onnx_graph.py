"""A study's model as an ONNX graph, built node by node from its weights.

Inputs ``x`` (N, T, F) float32 and ``mask`` (N, T) bool, any N and T; the true steps of each row
come first, at least one. Output ``scores`` (N, K), or (N, T, K) in a per-step study, where it means
something at true steps only. ONNX's recurrent operators know the length of each row, so padding is
never read; their gates stand in another order than torch's (ONNX operators LSTM, GRU, RNN).

The graph is written here instead of traced: tracing would unroll the steps of a fixed window.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from consilium.shared.model.linear_path import count_columns
from consilium.shared.model.network import RecurrentModel
from consilium.shared.model.weight_vector import named_arrays

OPSET, IR_VERSION = 20, 9
# Each ONNX gate's place in torch's order.
# LSTM: i o f c here, i f g o in torch. GRU: z r h here, r z n in torch.
GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
NamedWeights = Mapping[str, NDArray[np.float32]]
LOWEST = float(np.finfo(np.float32).min)


class _Graph:
    """Nodes and constants as they are added; methods return the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.add_several(op, *inputs, outputs=1, **attributes)[0]

    def add_several(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        array: NDArray[Any] = np.array(value, dtype=dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def axes(self, *axes: int) -> str:
        return self.constant(axes, np.int64)

    def linear(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        product = self.add("MatMul", x, self.constant(weight.T))
        return product if bias is None else self.add("Add", product, self.constant(bias))


def to_onnx(model: RecurrentModel, properties: Mapping[str, str]) -> bytes:
    """Return the model, scores included, as a serialised ONNX model with these properties."""
    w = named_arrays(model)
    graph = _Graph()
    mask_NT1 = graph.add("Unsqueeze", "mask", graph.axes(2))
    x = graph.add("Where", mask_NT1, "x", graph.constant(0.0))
    measured = graph.add("Slice", x, graph.axes(0), graph.axes(model.measured), graph.axes(2))
    length_N = graph.add(
        "ReduceSum", graph.add("Cast", "mask", to=TensorProto.INT32), graph.axes(1), keepdims=0
    )
    h_NTH, last_NH = _recurrent(graph, model, w, _inputs(graph, model, w, x, measured), length_N)
    pooled = _pool(graph, model, w, h_NTH, last_NH, mask_NT1)
    if model.norm is not None:
        norm = (graph.constant(w["norm.weight"]), graph.constant(w["norm.bias"]))
        pooled = graph.add("LayerNormalization", pooled, *norm, epsilon=model.norm.epsilon)
    logits = graph.linear(pooled, w["head.weight"], w["head.bias"])
    if model.skip is not None:
        last = _last_inputs(graph, model, measured, length_N)
        logits = graph.add("Add", logits, graph.linear(last, w["skip.weight"], None))
    _scores(graph, model, logits)
    steps = ("T",) if model.task.per_step else ()
    made = helper.make_graph(
        graph.nodes,
        "consilium",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", model.features]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", "T"]),
        ],
        [
            helper.make_tensor_value_info(
                "scores", TensorProto.FLOAT, ["N", *steps, model.task.outputs]
            )
        ],
        graph.constants,
    )
    whole = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="consilium"
    )
    whole.ir_version = IR_VERSION
    helper.set_model_props(whole, dict(properties))
    onnx.checker.check_model(whole)
    return bytes(whole.SerializeToString(deterministic=True))


def _inputs(
    graph: _Graph,
    model: RecurrentModel,
    w: NamedWeights,
    x: str,
    measured: str,
) -> str:
    """The first layer's inputs (N, T, I)."""
    values = measured
    if model.projection is not None:
        values = graph.linear(values, w["projection.weight"], w["projection.bias"])
    if model.embedding is None:
        return values
    ends = graph.axes(model.measured), graph.axes(model.features), graph.axes(2)
    code_NTM = graph.add("Cast", graph.add("Slice", x, *ends), to=TensorProto.INT64)
    there = graph.add("Greater", code_NTM, graph.constant(0, np.int64))
    line = graph.add("Sub", code_NTM, graph.constant(1, np.int64))
    line = graph.add("Max", line, graph.constant(0, np.int64))
    vector = graph.add("Gather", graph.constant(w["embedding.weight"]), line)
    there = graph.add("Unsqueeze", graph.add("Cast", there, to=TensorProto.FLOAT), graph.axes(3))
    summed = graph.add("ReduceSum", graph.add("Mul", vector, there), graph.axes(2), keepdims=0)
    return graph.add("Concat", values, summed, axis=2)


def _recurrent(
    graph: _Graph,
    model: RecurrentModel,
    w: NamedWeights,
    values: str,
    length_N: str,
) -> tuple[str, str]:
    """The last layer's states (N, T, directions * H), 0 at padding, and each direction's last.

    The last state of the reverse direction is that of the first step.
    """
    net, last = model.recurrent, ""
    attributes: dict[str, Any] = {"hidden_size": net.hidden}
    if net.bidirectional:
        attributes["direction"] = "bidirectional"
    if net.cell == "gru":
        attributes["linear_before_reset"] = 1
    flat = graph.constant([0, 0, -1], np.int64)
    for layer in range(net.layers):
        suffixes = [f"l{layer}", f"l{layer}_reverse"][: 1 + net.bidirectional]
        values = graph.add("Transpose", values, perm=[1, 0, 2])
        weights = [
            graph.constant(np.stack([_gates(w, net.cell, kinds, suffix) for suffix in suffixes]))
            for kinds in (("weight_ih",), ("weight_hh",), ("bias_ih", "bias_hh"))
        ]
        states, last = graph.add_several(
            net.cell.upper(), values, *weights, length_N,
            outputs=2, **attributes,
        )  # fmt: skip
        states = graph.add("Transpose", states, perm=[2, 0, 1, 3])
        values = graph.add("Reshape", states, flat)
    last = graph.add("Transpose", last, perm=[1, 0, 2])
    return values, graph.add("Reshape", last, graph.constant([0, -1], np.int64))


def _gates(w: NamedWeights, cell: str, kinds: tuple[str, ...], suffix: str) -> NDArray[np.float32]:
    """Weights of these kinds, one after the other, each with its gates in ONNX's order."""
    parts = []
    for kind in kinds:
        gates = np.split(w[f"recurrent.{kind}_{suffix}"], len(GATES[cell]))
        parts += [gates[place] for place in GATES[cell]]
    return np.concatenate(parts)


def _pool(
    graph: _Graph,
    model: RecurrentModel,
    w: NamedWeights,
    h_NTH: str,
    last_NH: str,
    mask_NT1: str,
) -> str:
    if model.pooling == "last":
        return last_NH
    if model.pooling == "max":
        valid = graph.add("Where", mask_NT1, h_NTH, graph.constant(-1.0))
        return graph.add("ReduceMax", valid, graph.axes(1), keepdims=0)
    counted = graph.add("Cast", mask_NT1, to=TensorProto.FLOAT)
    if model.pooling == "mean":
        total = graph.add("ReduceSum", graph.add("Mul", h_NTH, counted), graph.axes(1), keepdims=0)
        return graph.add("Div", total, graph.add("ReduceSum", counted, graph.axes(1), keepdims=0))
    if model.pooling == "attention":
        key = graph.linear(h_NTH, w["attention.key.weight"], w["attention.key.bias"])
        score = graph.linear(graph.add("Tanh", key), w["attention.query.weight"], None)
        blocked = graph.add("Where", mask_NT1, score, graph.constant(LOWEST))
        weight = graph.add("Mul", graph.add("Softmax", blocked, axis=1), counted)
        return graph.add("ReduceSum", graph.add("Mul", h_NTH, weight), graph.axes(1), keepdims=0)
    return h_NTH


def _last_inputs(graph: _Graph, model: RecurrentModel, measured: str, length_N: str) -> str:
    """The inputs of the linear path (``shared/model/linear_path.py``), as nodes of the graph."""
    if not model.task.per_step:
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        steps = graph.add("Squeeze", graph.add("Shape", "mask", start=1, end=2))
        length_N = graph.add("Cast", length_N, to=TensorProto.INT64)
        last_N1 = graph.add("Sub", graph.add("Unsqueeze", length_N, graph.axes(1)), one)
        is_last = graph.add("Equal", graph.add("Range", zero, steps, one), last_N1)
        is_last = graph.add("Cast", is_last, to=TensorProto.FLOAT)
        product = graph.add("Mul", measured, graph.add("Unsqueeze", is_last, graph.axes(2)))
        measured = graph.add("ReduceSum", product, graph.axes(1), keepdims=0)
    width = model.measured + model.series
    if model.series:
        columns = count_columns(model.series)
        ends = graph.axes(columns.start), graph.axes(columns.stop), graph.axes(-1)
        never = graph.add("Equal", graph.add("Slice", measured, *ends), graph.constant(0.0))
        never = graph.add("Cast", never, to=TensorProto.FLOAT)
        measured = graph.add("Concat", measured, never, axis=-1)
    length = graph.add("ReduceL2", measured, graph.axes(-1), keepdims=1)
    length = graph.add("Max", length, graph.constant(1.0))
    scale = graph.add("Div", graph.constant(math.sqrt(width)), length)
    return graph.add("Mul", measured, scale)


def _scores(graph: _Graph, model: RecurrentModel, logits: str) -> None:
    task = model.task
    inputs, op, attributes = [logits], "Sigmoid", dict[str, Any]()
    if task.kind == "regression":
        spread = graph.add("Mul", logits, graph.constant(task.spread))
        inputs, op = [spread, graph.constant(task.center)], "Add"
    elif task.kind == "multiclass":
        op, attributes = "Softmax", {"axis": -1}
    graph.nodes.append(helper.make_node(op, inputs, ["scores"], **attributes))
