"""Arrays by name as a safetensors file, always the same bytes for the same content.

The library's own ``save`` writes the metadata in a random order, so two files of one content differ
and so do their digests. Any reader of safetensors reads these.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"<f8": "F64", "<f4": "F32", "|u1": "U8"}  # in the order in which they are written
_ORDER = tuple(_DTYPES)


def tensor_file(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield the file in pieces, without copying the arrays.

    The format: the header's length in 8 bytes, the header as JSON, then the arrays one after the
    other (https://github.com/huggingface/safetensors#format). Metadata stand in the order of their
    names, arrays as the library puts them: the widest numbers first, then by name. With at most one
    entry of metadata the bytes are those of the library.

    Args:
        tensors: of 64-bit or 32-bit floats, or bytes; any shape.
        metadata: text by name.

    Raises:
        ValueError: an array holds another type of number.
    """
    little = {name: value.dtype.newbyteorder("<").str for name, value in tensors.items()}
    names = sorted(tensors, key=lambda name: (_ORDER.index(little[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[little[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the arrays lie where a processor reads well
    yield len(encoded).to_bytes(8, "little") + encoded
    for name in names:
        whole = np.ascontiguousarray(tensors[name], little[name])
        yield whole.reshape(-1).view(np.uint8).data
