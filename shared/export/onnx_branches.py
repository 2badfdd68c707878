"""The ONNX graphs of the branches that are neither recurrent nor linear."""

import numpy as np
from onnx import TensorProto

from consilium.shared.export.onnx_nodes import (
    Graph,
    Stay,
    first_inputs,
    last_valid,
    mean_of_valid,
    step_numbers,
    with_codes,
)
from consilium.shared.model.convolution import ConvolutionModel
from consilium.shared.model.summary import COUNT_SCALE, SummaryModel

_FAR = float(np.finfo(np.float32).max)


def summary_logits(graph: Graph, model: SummaryModel, stay: Stay) -> str:
    """The logits (N, K) of a :class:`.SummaryModel`; in a per-step task it reads no series."""
    values = _summaries(graph, model, stay)
    for layer in model.layers:
        values = graph.add("Relu", graph.layer(values, layer))
    return graph.layer(values, model.head)


def convolved(graph: Graph, model: ConvolutionModel, stay: Stay) -> str:
    """What a :class:`.ConvolutionModel` makes of each step (N, T, W), 0 at padding."""
    values = first_inputs(graph, stay, model.measured)
    if model.embedding is not None:
        table = model.embedding.weight.detach().numpy()
        values = with_codes(graph, stay, values, table, (model.measured, model.features))
    if model.rows:
        values = _over_grid(graph, model, values)
    else:
        for layer, apart in zip(model.layers, model.apart, strict=True):
            back = [apart * place for place in reversed(range(model.kernel))]
            beside = [_later(graph, values, by) for by in back]
            values = graph.add("Relu", graph.layer(graph.add("Concat", *beside, axis=2), layer))
    return graph.add("Where", stay.mask_NT1, values, graph.constant(0.0))


def pooled_logits(graph: Graph, model: ConvolutionModel, stay: Stay, values: str) -> str:
    """The logits of a :class:`.ConvolutionModel` without a recurrent network."""
    if model.pooling == "last":
        values = last_valid(graph, stay, values)
    elif model.pooling == "mean":
        values = mean_of_valid(graph, stay, values)
    elif model.pooling == "max":
        values = graph.add("Where", stay.mask_NT1, values, graph.constant(-_FAR))
        values = graph.add("ReduceMax", values, graph.axes(1), keepdims=0)
    return graph.layer(values, model.output_layers[0])


def _over_grid(graph: Graph, model: ConvolutionModel, values: str) -> str:
    """What :meth:`.ConvolutionModel.over_grid` returns, by ONNX's own operators on images."""
    (high, wide), split = model.grids[0], graph.axes(model.cells)
    image = graph.add("Slice", values, graph.axes(0), split, graph.axes(2))
    others = graph.add("Slice", values, split, graph.axes(2**31 - 1), graph.axes(2))
    image = graph.add("Reshape", image, graph.axes(-1, model.of_cell, high, wide))
    before, after = (model.kernel - 1) // 2, model.kernel // 2
    for layer, (high, wide) in zip(model.layers, model.grids, strict=False):
        weight, bias = (part.detach().numpy() for part in layer.parameters())
        weight = weight.reshape(len(weight), model.kernel, model.kernel, -1).transpose(0, 3, 1, 2)
        image = graph.add(
            "Conv", image, graph.constant(weight), graph.constant(bias),
            pads=[before, before, after, after],
        )  # fmt: skip
        image = graph.add(
            "MaxPool", graph.add("Relu", image), kernel_shape=[2, 2], strides=[2, 2],
            pads=[0, 0, high % 2, wide % 2],
        )  # fmt: skip
    image = graph.add("Transpose", image, perm=[0, 2, 3, 1])
    shape = graph.add("Concat", graph.add("Shape", "mask"), graph.axes(-1), axis=0)
    return graph.add("Concat", graph.add("Reshape", image, shape), others, axis=2)


def _later(graph: Graph, values: str, by: int) -> str:
    """The values (N, T, I), each so many steps later, and 0 before."""
    if by == 0:
        return values
    padded = graph.add("Pad", values, graph.constant([0, by, 0, 0, 0, 0], np.int64))
    return graph.add("Slice", padded, graph.axes(0), graph.axes(-by), graph.axes(1))


def _summaries(graph: Graph, model: SummaryModel, stay: Stay) -> str:
    """What :meth:`.RunningSummary.read` returns, of whole rows at once, in double precision."""
    measured, series = first_inputs(graph, stay, model.measured), model.series
    ends = graph.axes(model.measured - model.static), graph.axes(model.measured), graph.axes(-1)
    if model.task.per_step:
        return graph.add("Slice", measured, *ends)
    last = last_valid(graph, stay, measured)
    static_NI = graph.add("Slice", last, *ends)
    if not series:
        return static_NI
    zero, one = graph.constant(0, np.float64), graph.constant(1, np.float64)

    def block(values: str, place: int) -> str:
        ends = graph.axes(place * series), graph.axes((place + 1) * series), graph.axes(-1)
        return graph.add("Slice", values, *ends)

    def double(values: str) -> str:
        return graph.add("Cast", values, to=TensorProto.DOUBLE)

    def total(values: str) -> str:
        return graph.add("ReduceSum", values, graph.axes(1), keepdims=0)

    there = graph.add("Greater", block(measured, 1), graph.constant(0.0))
    none = graph.constant(0.0)
    z = double(graph.add("Where", there, block(measured, 0), none))
    number = graph.add("Unsqueeze", double(step_numbers(graph)), graph.axes(1))
    t = graph.add("Mul", number, double(there))
    count = total(double(there))
    divisor = graph.add("Max", count, one)
    mean = graph.add("Div", total(z), divisor)
    squares = graph.add("Div", total(graph.add("Mul", z, z)), divisor)
    variance = graph.add("Sub", squares, graph.add("Mul", mean, mean))
    spread = graph.add("Sqrt", graph.add("Max", variance, zero))
    times = total(t)
    moment = graph.add("Div", graph.add("Mul", times, times), divisor)
    moment = graph.add("Sub", total(graph.add("Mul", t, t)), moment)
    moment = graph.add("Max", moment, graph.constant(0.25, np.float64))
    rise = graph.add("Sub", total(graph.add("Mul", t, z)), graph.add("Mul", times, mean))
    rise = graph.add("Div", rise, moment)
    extremes = []
    for op, values, far in (
        ("ReduceMin", block(measured, 0), _FAR),
        ("ReduceMax", block(measured, 0), -_FAR),
        ("ReduceMin", None, _FAR),
        ("ReduceMax", None, -_FAR),
    ):
        number_NTV = graph.add("Cast", t, to=TensorProto.FLOAT) if values is None else values
        kept = graph.add("Where", there, number_NTV, graph.constant(far))
        extremes.append(graph.add(op, kept, graph.axes(1), keepdims=0))
    low, high, first, latest = extremes
    ever = graph.add("Greater", count, zero)
    several = graph.add("Greater", count, one)
    slope = graph.add("Mul", rise, double(graph.add("Sub", latest, first)))
    logs = graph.add("Log", graph.add("Add", count, one))
    logs = graph.add("Div", logs, graph.constant(COUNT_SCALE, np.float64))
    parts = [
        graph.add("Cast", mean, to=TensorProto.FLOAT),
        graph.add("Cast", graph.add("Where", several, spread, zero), to=TensorProto.FLOAT),
        graph.add("Cast", graph.add("Where", several, slope, zero), to=TensorProto.FLOAT),
        graph.add("Where", ever, low, none),
        graph.add("Where", ever, high, none),
        block(last, 0),
        graph.add("Cast", logs, to=TensorProto.FLOAT),
        static_NI,
    ]
    return graph.add("Concat", *parts, axis=1)
