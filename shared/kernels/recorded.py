"""Functions of tensors recorded once on a graphics card and replayed: the same work, no Python.

A recurrent network's steps are many small operations one after the other, and a processor takes
longer to ask for each than a card to do it. A CUDA graph holds the whole sequence. It works on
fixed memory, so arguments are copied in and results out.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Work = Callable[..., Tensors]
WARM_UPS = 2  # before recording, so that libraries have made their plans and taken their memory
MOST_RECORDED = 12  # each keeps its arguments, results and what is between them on the card


# Records work; returns how to do it again, and its results, which are then written anew.
Recorder = Callable[[Callable[[], Tensors]], tuple[Callable[[], Any], Tensors]]


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: no two of them run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensors]) -> tuple[Callable[[], Any], Tensors]:
        """Return the graph's replay, and the results."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        usual = torch.cuda.current_stream()
        aside.wait_stream(usual)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                work()
        usual.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = work()
        return graph.replay, results


class RecordedFunctions:
    """Calls functions of tensors through recordings, one for each function and set of shapes.

    A function may change its arguments, must not look at numbers in Python, and returns tensors of
    its own; the oldest recording is dropped when there are too many.

    Args:
        record: makes a recording.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._made: OrderedDict[Hashable, tuple[Tensors, Callable[[], Any], Tensors]] = (
            OrderedDict()
        )

    def call(self, name: Hashable, work: Work, arguments: Sequence[Tensor]) -> Tensors:
        """Return ``work(*arguments)``, in memory that no later call touches.

        Args:
            name: the same for the same work; what else the work depends on is part of it.
            work: the function.
            arguments: left as they are.
        """
        key = (name, *((tuple(one.shape), one.dtype) for one in arguments))
        if key not in self._made:
            while len(self._made) >= MOST_RECORDED:
                self._made.popitem(last=False)
            own = tuple(one.clone(memory_format=torch.contiguous_format) for one in arguments)
            self._made[key] = own, *self._record(lambda: work(*own))
        self._made.move_to_end(key)
        own, replay, results = self._made[key]
        for place, one in zip(own, arguments, strict=True):
            place.copy_(one)
        replay()
        return tuple(result.clone() for result in results)
