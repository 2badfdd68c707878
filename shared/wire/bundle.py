"""A Flower message and all its parts in one body, so that it takes one request and not a dozen.

Flower's Fleet API moves a message in parts, one request each: right for a model of gigabytes, slow
for a small one. A message of up to :data:`LARGEST_BUNDLE` bytes travels as a bundle; a longer one
goes in parts, and no request has to be longer.
"""

from collections.abc import Mapping
from typing import Any

import msgpack

from consilium.shared.errors import MessageError

LARGEST_BUNDLE = 7 << 20
MOST_PARTS = 1024
FETCH_PATH = "/consilium/v1/fetch"
HAND_IN_PATH = "/consilium/v1/hand-in"
LEAVE_PATH = "/consilium/v1/leave"


def pack_bundle(head: bytes, parts: Mapping[str, bytes]) -> bytes:
    """Return head and parts as msgpack; parts are named by Flower's object identifiers."""
    packed: bytes = msgpack.packb([head, [[name, part] for name, part in parts.items()]])
    return packed


def unpack_bundle(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return head and parts.

    Raises:
        MessageError: not a bundle, or one with too many parts.
    """
    try:
        plain: Any = msgpack.unpackb(
            body,
            max_array_len=MOST_PARTS,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=128,
            max_bin_len=len(body),
        )
        head, pairs = plain
        parts = dict(pairs)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise MessageError(f"{len(body)} bytes received are not a parcel") from None
    well = isinstance(head, bytes) and all(
        isinstance(name, str) and isinstance(part, bytes) for name, part in parts.items()
    )
    if not well:
        raise MessageError(f"{len(body)} bytes received are not a parcel")
    return head, parts
