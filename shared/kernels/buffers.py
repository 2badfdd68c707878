"""Reuses large working arrays: the page faults of new ones cost more than the arithmetic.

A training step needs the same few arrays again and again. What is given back is kept, up to
``MOST_FREE`` numbers in a process, and handed out to the next who asks for about as much.
"""

import threading
from collections import deque

import torch
from torch import Tensor

MOST_FREE = 1 << 27  # numbers: 512 MiB of float32


class _Free:
    """Arrays not in use, oldest first; safe for threads."""

    def __init__(self) -> None:
        self._lock, self._arrays, self._held = threading.Lock(), deque[Tensor](), 0

    def take(self, size: int) -> Tensor | None:
        """Return an array of exactly this many numbers, or None."""
        with self._lock:
            for place in range(len(self._arrays) - 1, -1, -1):
                if len(self._arrays[place]) == size:
                    array = self._arrays[place]
                    del self._arrays[place]
                    self._held -= size
                    return array
        return None

    def put(self, array: Tensor) -> None:
        """Keep an array; the oldest go where there are too many."""
        with self._lock:
            self._arrays.append(array)
            self._held += len(array)
            while self._held > MOST_FREE:
                self._held -= len(self._arrays.popleft())


_FREE = _Free()  # one for the process: sites that train in threads share it


def borrow(count: int) -> Tensor:
    """Return a float32 array of at least ``count`` numbers, of any content."""
    step = max(1024, 1 << max(0, count.bit_length() - 3))  # at most a quarter more than asked for
    size = -(-count // step) * step
    array = _FREE.take(size)
    return torch.empty(size) if array is None else array


def give_back(array: Tensor) -> None:
    """Let an array be used again; its owner must have forgotten it."""
    _FREE.put(array)
