"""How much of a large computation is done at a time."""

from collections.abc import Iterator

from torch import Tensor

PIECE_ELEMENTS = 1 << 19  # about 4 MB of float64, so that it stays in a processor's cache
CARD_ELEMENTS = 1 << 25  # 256 MB on a graphics card, which waits between pieces otherwise


def pieces(like: Tensor, count: int, elements_each: int) -> Iterator[slice]:
    """Yield slices of 0..count that hold about as many elements as suits the tensor's device."""
    most = PIECE_ELEMENTS if like.device.type == "cpu" else CARD_ELEMENTS
    size = max(1, most // max(1, elements_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
