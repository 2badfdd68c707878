"""Replies in the SuperLink's database: whether one has wholly arrived, and reading it there.

Replies are as long as the model: read whole, they would take most of the coordinator's memory. A
long body stays in the database and is read span by span.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from flwr.app import Array, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_type_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from consilium.shared.wire.encoding import LongBytes
from consilium.shared.wire.flower_body import array_records

_NAME = 64  # characters of an object's name, a SHA-256
LONG_BYTES = 1 << 20  # a longer body stays in the database

# SQLite stores a content's length before it, so this query does not read the content.
_PARTS = """
    WITH RECURSIVE tree(id) AS (
        VALUES (:root) UNION SELECT child_id FROM object_children JOIN tree ON parent_id = id
    )
    SELECT id, coalesce(length(content), 0) AS length
    FROM tree LEFT JOIN objects ON object_id = id
"""


class ReplyGoneError(RuntimeError):
    """A reply was deleted while it was read, so what was computed from its start is void."""


class StoredBody(LongBytes):
    """The data of one of Flower's arrays, which the database holds in chunks.

    Args:
        chunks: their names, in order; a name may occur several times.
        lengths: bytes of data in each.
        load: reads a chunk's data.
    """

    def __init__(
        self, chunks: Sequence[str], lengths: Sequence[int], load: Callable[[str], memoryview]
    ) -> None:
        self._chunks, self._load = tuple(chunks), load
        self._edges = (0, *accumulate(lengths))
        self._held: tuple[str, memoryview] | None = None

    def __len__(self) -> int:
        return self._edges[-1]

    def read(self, first: int, last: int) -> bytes:
        """Return the bytes from ``first`` to before ``last``."""
        pieces = [
            self._chunk(name)[max(first - begin, 0) : last - begin]
            for name, (begin, end) in zip(self._chunks, pairwise(self._edges), strict=True)
            if begin < last and first < end
        ]
        return b"".join(pieces)

    def _chunk(self, name: str) -> memoryview:
        """Return a chunk's data; the last one is kept, since the next span likely lies in it."""
        if self._held is None or self._held[0] != name:
            self._held = None  # free it before another is read
            self._held = (name, self._load(name))
        return self._held[1]


def is_whole(link: SqlLinkState, run: int, reply: Message) -> bool:
    """Return whether all parts of a reply have arrived, without reading them."""
    if reply.has_error():
        return True
    parts = link.query(_PARTS, {"root": reply.metadata.message_id})
    absent = [part["id"] for part in parts if not part["length"]]
    if absent:  # asking for a part lets Flower give up a reply that stopped half-way
        link.get_object(run, absent[0])
    return not absent


def open_reply(link: SqlLinkState, run: int, reply: Message) -> Message:
    """Return a whole reply with its content; the data of a long array are a :class:`StoredBody`.

    Raises:
        ReplyGoneError: the reply was deleted.
    """
    if reply.has_error():
        return reply

    def read(name: str) -> bytes:
        content = link.get_object(run, name)
        if not content:
            raise ReplyGoneError("a reply was deleted while it was read; start the study again")
        return content

    key = reply.metadata.message_id
    contents: dict[str, bytes] = {}
    lengths: dict[str, int] = {}
    for name in [part["id"] for part in link.query(_PARTS, {"root": key})]:
        content = read(name)
        if get_object_type_from_object_content(content) == ArrayChunk.__qualname__:
            lengths[name] = len(_data(content))
        else:
            contents[name] = content
        del content  # free it before another is read
    # Put each chunk's name in its place, so that an array says of which chunks it is made.
    names: dict[str, InflatableObject] = {
        name: ArrayChunk(memoryview(name.encode())) for name in lengths
    }
    whole = inflate_object_from_contents(key, contents, objects=names)
    if not isinstance(whole, Message):
        return reply
    for array in arrays_of(whole):
        chunks = [array.data[at : at + _NAME].decode() for at in range(0, len(array.data), _NAME)]
        body = StoredBody(
            chunks, [lengths[chunk] for chunk in chunks], lambda chunk: _data(read(chunk))
        )
        array.__dict__["data"] = body if len(body) > LONG_BYTES else body.read(0, len(body))
    whole.metadata.__dict__["_message_id"] = key
    # the database's record of who sent it, not what the sender wrote into the body
    whole.__dict__["_metadata"] = reply.metadata
    return whole


def load_bodies(reply: Message) -> None:
    """Read a reply's long bodies into memory, so that it can be kept."""
    for array in arrays_of(reply):
        if isinstance(array.data, LongBytes):
            array.data = array.data.read(0, len(array.data))


def arrays_of(message: Message) -> list[Array]:
    """Return all arrays of a message's content."""
    records = array_records(message.content) if message.has_content() else {}
    return [array for record in records.values() for array in record.values()]


def _data(chunk: bytes) -> memoryview:
    """Return a stored chunk's data, without a copy."""
    return memoryview(chunk)[chunk.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
