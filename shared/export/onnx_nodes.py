"""The nodes and constants of an ONNX graph as they are added, and what several networks need."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from consilium.shared.model.layers import Linear
from consilium.shared.model.linear_path import count_columns


class Graph:
    """What was added so far; methods return the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one value."""
        return self.add_several(op, *inputs, outputs=1, **attributes)[0]

    def add_several(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with so many values; return their names."""
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def constant(self, value: object, dtype: type = np.float32) -> str:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        array: NDArray[Any] = np.array(value, dtype=dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def axes(self, *axes: int) -> str:
        """Add a constant of whole numbers."""
        return self.constant(axes, np.int64)

    def linear(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
        """Add values times weight (O, I), plus bias."""
        product = self.add("MatMul", x, self.constant(weight.T))
        return product if bias is None else self.add("Add", product, self.constant(bias))

    def layer(self, x: str, layer: Linear) -> str:
        """The layer's outputs."""
        bias = None if layer.bias is None else layer.bias.detach().numpy()
        return self.linear(x, layer.weight.detach().numpy(), bias)


@dataclass(frozen=True, kw_only=True)
class Stay:
    """Names of what a network reads: ``x`` is 0 at padding, ``length_N`` counts the true steps."""

    x: str
    mask_NT1: str
    length_N: str


def first_inputs(graph: Graph, stay: Stay, count: int) -> str:
    """The first ``count`` inputs of every step."""
    return graph.add("Slice", stay.x, graph.axes(0), graph.axes(count), graph.axes(2))


def with_codes(
    graph: Graph, stay: Stay, values: str, table: NDArray[np.float32], places: tuple[int, int]
) -> str:
    """``values`` (N, T, I), and beside them the sum of the vectors of the codes at these places."""
    ends = graph.axes(places[0]), graph.axes(places[1]), graph.axes(2)
    code_NTM = graph.add("Cast", graph.add("Slice", stay.x, *ends), to=TensorProto.INT64)
    there = graph.add("Greater", code_NTM, graph.constant(0, np.int64))
    line = graph.add("Sub", code_NTM, graph.constant(1, np.int64))
    line = graph.add("Max", line, graph.constant(0, np.int64))
    vector = graph.add("Gather", graph.constant(table), line)
    there = graph.add("Unsqueeze", graph.add("Cast", there, to=TensorProto.FLOAT), graph.axes(3))
    summed = graph.add("ReduceSum", graph.add("Mul", vector, there), graph.axes(2), keepdims=0)
    return graph.add("Concat", values, summed, axis=2)


def step_numbers(graph: Graph) -> str:
    """The numbers (T,) of the steps, from 0."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    steps = graph.add("Squeeze", graph.add("Shape", "mask", start=1, end=2))
    return graph.add("Range", zero, steps, one)


def last_valid(graph: Graph, stay: Stay, values: str) -> str:
    """The values (N, I) of each row's last true step."""
    length_N = graph.add("Cast", stay.length_N, to=TensorProto.INT64)
    one = graph.constant(1, np.int64)
    last_N1 = graph.add("Sub", graph.add("Unsqueeze", length_N, graph.axes(1)), one)
    is_last = graph.add("Equal", step_numbers(graph), last_N1)
    is_last = graph.add("Cast", is_last, to=TensorProto.FLOAT)
    product = graph.add("Mul", values, graph.add("Unsqueeze", is_last, graph.axes(2)))
    return graph.add("ReduceSum", product, graph.axes(1), keepdims=0)


def mean_of_valid(graph: Graph, stay: Stay, values: str) -> str:
    """The mean (N, I) over true steps."""
    counted = graph.add("Cast", stay.mask_NT1, to=TensorProto.FLOAT)
    total = graph.add("ReduceSum", graph.add("Mul", values, counted), graph.axes(1), keepdims=0)
    return graph.add("Div", total, graph.add("ReduceSum", counted, graph.axes(1), keepdims=0))


def linear_path(graph: Graph, stay: Stay, measured: int, series: int, *, per_step: bool) -> str:
    """The inputs of the linear path (``shared/model/linear_path.py``), as nodes of the graph."""
    values = first_inputs(graph, stay, measured)
    if not per_step:
        values = last_valid(graph, stay, values)
    if series:
        columns = count_columns(series)
        ends = graph.axes(columns.start), graph.axes(columns.stop), graph.axes(-1)
        never = graph.add("Equal", graph.add("Slice", values, *ends), graph.constant(0.0))
        never = graph.add("Cast", never, to=TensorProto.FLOAT)
        values = graph.add("Concat", values, never, axis=-1)
    length = graph.add("ReduceL2", values, graph.axes(-1), keepdims=1)
    length = graph.add("Max", length, graph.constant(1.0))
    scale = graph.add("Div", graph.constant(math.sqrt(measured + series)), length)
    return graph.add("Mul", values, scale)
