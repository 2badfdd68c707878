"""A study's model as an ONNX graph, built node by node from its weights.

Inputs ``x`` (N, T, F) float32 and ``mask`` (N, T) bool, any N and T; the true steps of each row
come first, at least one. Output ``scores`` (N, K), or (N, T, K) in a per-step study, where it means
something at true steps only. ONNX's recurrent operators know the length of each row, so padding is
never read; their gates stand in another order than torch's (ONNX operators LSTM, GRU, RNN).

The graph is written here instead of traced: tracing would unroll the steps of a fixed window.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from consilium.shared.export.onnx_branches import convolved, pooled_logits, summary_logits
from consilium.shared.export.onnx_nodes import (
    Graph,
    Stay,
    first_inputs,
    linear_path,
    mean_of_valid,
    with_codes,
)
from consilium.shared.model.branch import Branch
from consilium.shared.model.convolution import ConvolutionModel
from consilium.shared.model.linear_path import LinearModel
from consilium.shared.model.mean_of_branches import MeanOfBranches
from consilium.shared.model.network import RecurrentModel
from consilium.shared.model.summary import SummaryModel
from consilium.shared.model.weight_vector import named_arrays

OPSET, IR_VERSION = 20, 9
# Each ONNX gate's place in torch's order.
# LSTM: i o f c here, i f g o in torch. GRU: z r h here, r z n in torch.
GATES = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
NamedWeights = Mapping[str, NDArray[np.float32]]
LOWEST = float(np.finfo(np.float32).min)


def to_onnx(model: Branch, properties: Mapping[str, str]) -> bytes:
    """Return the model, scores included, as a serialised ONNX model with these properties."""
    graph = Graph()
    mask_NT1 = graph.add("Unsqueeze", "mask", graph.axes(2))
    x = graph.add("Where", mask_NT1, "x", graph.constant(0.0))
    length_N = graph.add(
        "ReduceSum", graph.add("Cast", "mask", to=TensorProto.INT32), graph.axes(1), keepdims=0
    )
    logits = _logits(graph, model, Stay(x=x, mask_NT1=mask_NT1, length_N=length_N))
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


def _logits(graph: Graph, model: Branch, stay: Stay) -> str:
    if isinstance(model, MeanOfBranches):
        return _mean_logits(graph, model, stay)
    if isinstance(model, LinearModel):
        per_step = model.task.per_step
        read = linear_path(graph, stay, model.measured, model.series, per_step=per_step)
        return graph.layer(read, model.head)
    if isinstance(model, SummaryModel):
        return summary_logits(graph, model, stay)
    if isinstance(model, ConvolutionModel):
        values = convolved(graph, model, stay)
        if model.recurrent is None:
            return pooled_logits(graph, model, stay, values)
        return _logits(graph, model.recurrent, replace(stay, x=values))
    if isinstance(model, RecurrentModel):
        return _recurrent_logits(graph, model, stay)
    raise TypeError(f"no graph of {type(model).__name__}; add it here")


def _mean_logits(graph: Graph, model: MeanOfBranches, stay: Stay) -> str:
    parts = []
    for network, share, places in zip(model.networks, model.shares, model.places, strict=True):
        own = graph.add("Gather", stay.x, graph.constant(places, np.int64), axis=2)
        logits = _logits(graph, network, replace(stay, x=own))
        parts.append(graph.add("Mul", logits, graph.constant(share)))
    return graph.add("Sum", *parts)


def _recurrent_logits(graph: Graph, model: RecurrentModel, stay: Stay) -> str:
    w = named_arrays(model)
    values = first_inputs(graph, stay, model.measured)
    if model.projection is not None:
        values = graph.layer(values, model.projection)
    if model.embedding is not None:
        places = model.measured, model.features
        values = with_codes(graph, stay, values, w["embedding.weight"], places)
    h_NTH, last_NH = _recurrent(graph, model, w, values, stay.length_N)
    pooled = _pool(graph, model, h_NTH, last_NH, stay)
    if model.norm is not None:
        norm = (graph.constant(w["norm.weight"]), graph.constant(w["norm.bias"]))
        pooled = graph.add("LayerNormalization", pooled, *norm, epsilon=model.norm.epsilon)
    logits = graph.layer(pooled, model.head)
    if model.skip is None:
        return logits
    per_step = model.task.per_step
    read = linear_path(graph, stay, model.measured, model.series, per_step=per_step)
    return graph.add("Add", logits, graph.layer(read, model.skip))


def _recurrent(
    graph: Graph,
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


def _pool(graph: Graph, model: RecurrentModel, h_NTH: str, last_NH: str, stay: Stay) -> str:
    if model.pooling == "last":
        return last_NH
    if model.pooling == "max":
        valid = graph.add("Where", stay.mask_NT1, h_NTH, graph.constant(-1.0))
        return graph.add("ReduceMax", valid, graph.axes(1), keepdims=0)
    if model.pooling == "mean":
        return mean_of_valid(graph, stay, h_NTH)
    if model.attention is not None:
        key = graph.layer(h_NTH, model.attention.key)
        score = graph.layer(graph.add("Tanh", key), model.attention.query)
        blocked = graph.add("Where", stay.mask_NT1, score, graph.constant(LOWEST))
        counted = graph.add("Cast", stay.mask_NT1, to=TensorProto.FLOAT)
        weight = graph.add("Mul", graph.add("Softmax", blocked, axis=1), counted)
        return graph.add("ReduceSum", graph.add("Mul", h_NTH, weight), graph.axes(1), keepdims=0)
    return h_NTH


def _scores(graph: Graph, model: Branch, logits: str) -> None:
    task = model.task
    inputs, op, attributes = [logits], "Sigmoid", dict[str, Any]()
    if task.kind == "regression":
        spread = graph.add("Mul", logits, graph.constant(task.spread))
        inputs, op = [spread, graph.constant(task.center)], "Add"
    elif task.kind == "multiclass":
        op, attributes = "Softmax", {"axis": -1}
    elif task.kind == "survival":
        last = graph.constant(np.array(-1), np.int64)
        total = graph.add("CumSum", graph.add("Softplus", logits), last)
        inputs, op = [graph.constant(1.0), graph.add("Exp", graph.add("Neg", total))], "Sub"
    graph.nodes.append(helper.make_node(op, inputs, ["scores"], **attributes))
