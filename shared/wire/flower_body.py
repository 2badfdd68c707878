"""A body of ours as Flower carries it: the raw bytes of the one array of a message's content."""

from flwr.app import Array, ArrayRecord, RecordDict

BODY = "consilium"


def to_content(body: bytes) -> RecordDict:
    """Return the content of a message that is this body and nothing else."""
    array = Array(dtype="uint8", shape=(len(body),), stype=BODY, data=body)
    return RecordDict({BODY: ArrayRecord({BODY: array})})


def array_records(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return a content's records of arrays, by name.

    Flower's ``content.array_records`` is a view that refers to itself, and to the content: one look
    keeps a body as long as the model until garbage is collected.
    """
    return {name: record for name, record in content.items() if isinstance(record, ArrayRecord)}


def from_content(content: RecordDict) -> bytes:
    """Return the body, or nothing (which no parser accepts) when there is more than a body.

    Where the coordinator reads a stored reply, the array's data are the ``LongBytes`` that stand
    for it; they are handed on unread.
    """
    record = array_records(content).get(BODY)
    if record is None or list(content) != [BODY] or list(record) != [BODY]:
        return b""
    return record[BODY].data if record[BODY].stype == BODY else b""
