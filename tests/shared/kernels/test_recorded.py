"""Recordings of functions of tensors: made once for each shape, in memory of their own."""

import inspect
from contextlib import contextmanager

import torch

from consilium.shared.kernels import recorded
from consilium.shared.kernels.recorded import CudaRecorder, RecordedFunctions
from tests.emulated_card import written_again


def test_each_shape_is_recorded_once_and_results_outlive_the_next_call():
    made = []

    def record(work):
        made.append(1)
        return written_again(work)

    def spoil_and_add(one, other):
        return one.add_(other), other

    functions, one = RecordedFunctions(record), torch.ones(3)
    first, passed = functions.call("add", spoil_and_add, (one, one * 2))
    second, _ = functions.call("add", spoil_and_add, (one * 5, one))
    assert first.tolist() == [3.0] * 3
    assert passed.tolist() == [2.0] * 3
    assert second.tolist() == [6.0] * 3
    assert one.tolist() == [1.0] * 3  # a function may change its arguments, but not the caller's
    assert len(made) == 1
    functions.call("add", spoil_and_add, (torch.ones(4), torch.ones(4)))
    functions.call("add", spoil_and_add, (one.double(), one.double()))
    functions.call("another", spoil_and_add, (one, one))
    assert len(made) == 4


def test_the_recording_used_longest_ago_is_dropped(monkeypatch):
    monkeypatch.setattr(recorded, "MOST_RECORDED", 2)
    made = []

    def record(work):
        made.append(1)
        return written_again(work)

    functions = RecordedFunctions(record)
    for size in (1, 2, 1, 3, 1, 2):
        functions.call("same", lambda one: (one * 1,), (torch.ones(size),))
    assert len(made) == 4


def test_a_cuda_graph_is_warmed_up_aside_and_recorded_in_the_common_pool(monkeypatch):
    told = []

    class Stream:
        def __init__(self, name="aside"):
            self.name = name

        def wait_stream(self, other):
            told.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self):
            told.append("replay")

    @contextmanager
    def on(stream):
        told.append(f"on {stream.name}")
        yield
        told.append("off")

    signature = inspect.signature(torch.cuda.graph)

    @contextmanager
    def recording(*given, **named):
        bound = signature.bind(*given, **named).arguments
        told.append(f"record in {bound['pool']}, {bound['capture_error_mode']}")
        yield
        told.append("recorded")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("usual"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)

    def work():
        told.append("work")
        return (torch.ones(1),)

    replay, results = CudaRecorder()(work)
    replay()
    assert [result.tolist() for result in results] == [[1.0]]
    assert told == [
        *("aside waits for usual", "on aside", "work", "work", "off", "usual waits for aside"),
        *("record in pool, thread_local", "work", "recorded", "replay"),
    ]
