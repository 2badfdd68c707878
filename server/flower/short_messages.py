"""Short messages between a study's process and the sites, each one row of a table of ours.

Flower's store keeps a message as a tree of parts: right for gigabytes that arrive in pieces, and
some seventy statements for a message and its answer. A message that fits into one short bundle
needs none of that. The table lies in the SuperLink's database, so that one look at one file tells
whether anything changed, and a message outlives a restart of either side as Flower's do.
"""

import sqlite3
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

from consilium.shared.errors import MessageError, ProtocolError
from consilium.shared.wire.bundle import pack_bundle, unpack_bundle

LONGEST = 1 << 20  # a longer body is read where it lies, part by part
BUSY_S = 5.0

WAITING, FETCHED, ANSWERED, ELSEWHERE = range(4)
"""States of a message; ELSEWHERE: its answer is too long for here and lies in Flower's store."""

_TABLE = """
    CREATE TABLE IF NOT EXISTS short_messages (
        message_id TEXT PRIMARY KEY,
        run INTEGER NOT NULL,
        node INTEGER NOT NULL,
        kind TEXT NOT NULL,
        state INTEGER NOT NULL,
        content BLOB NOT NULL  -- the bundle of the message, then that of its answer
    )
"""

WAITING_NODES = f"SELECT DISTINCT node FROM short_messages WHERE state = {WAITING}"  # noqa: S608


class ShortMessages:
    """The table of short messages; calls may come from several threads.

    Args:
        database: the SuperLink's, which exists.
    """

    def __init__(self, database: Path) -> None:
        self._one_call = threading.Lock()
        self._connection = sqlite3.connect(
            database, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA synchronous = NORMAL")  # as Flower sets it
        self._connection.execute(_TABLE)

    def put(self, metadata: Metadata, bundle: bytes) -> None:
        """Store a message for its node."""
        run, node = _signed(metadata.run_id), _signed(metadata.dst_node_id)
        self._execute(
            "INSERT OR REPLACE INTO short_messages VALUES (?, ?, ?, ?, ?, ?)",
            (metadata.message_id, run, node, metadata.message_type, WAITING, bundle),
        )

    def fetch(self, node: int) -> bytes:
        """Return a node's oldest waiting message as a bundle, which then counts as fetched.

        Nothing if none waits.
        """
        rows = self._execute(
            "UPDATE short_messages SET state = ? WHERE rowid = (SELECT rowid FROM short_messages "
            "WHERE node = ? AND state = ? ORDER BY rowid LIMIT 1) RETURNING content",
            (FETCHED, _signed(node), WAITING),
        )
        return bytes(rows[0][0]) if rows else b""

    def state(self, message_id: str, run: int, node: int) -> int | None:
        """Return the state of a run's message to a node; None if there is no such message."""
        rows = self._execute(
            "SELECT state FROM short_messages WHERE message_id = ? AND run = ? AND node = ?",
            (message_id, _signed(run), _signed(node)),
        )
        return int(rows[0][0]) if rows else None

    def content(self, message_id: str) -> bytes:
        """Return the bundle of a message, or of its answer once there is one; else nothing."""
        rows = self._execute(
            "SELECT content FROM short_messages WHERE message_id = ?", (message_id,)
        )
        return bytes(rows[0][0]) if rows else b""

    def answer(self, message_id: str, bundle: bytes) -> None:
        """Store the answer in the message's place, unless there is one."""
        self._execute(
            "UPDATE short_messages SET state = ?, content = ? WHERE message_id = ? AND state < ?",
            (ANSWERED, bundle, message_id, ANSWERED),
        )

    def answer_elsewhere(self, message_id: str) -> None:
        """Note that the answer lies in Flower's store."""
        self._execute(
            "UPDATE short_messages SET state = ?, content = '' WHERE message_id = ? AND state < ?",
            (ELSEWHERE, message_id, ANSWERED),
        )

    def answered(self, message_ids: Collection[str]) -> dict[str, int]:
        """Return those of the messages that are answered, here or elsewhere, with their state."""
        marks = ", ".join("?" * len(message_ids))
        rows = self._execute(
            "SELECT message_id, state FROM short_messages "  # noqa: S608 - marks alone
            f"WHERE message_id IN ({marks}) AND state >= {ANSWERED}",
            tuple(message_ids),
        )
        return {message_id: int(state) for message_id, state in rows}

    def delete(self, message_id: str) -> None:
        """Delete a message or its answer; a later answer finds nothing."""
        self._execute("DELETE FROM short_messages WHERE message_id = ?", (message_id,))

    def delete_run(self, run: int) -> None:
        """Delete all messages of a run."""
        self._execute("DELETE FROM short_messages WHERE run = ?", (_signed(run),))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._one_call:
            return self._connection.execute(statement, values).fetchall()


def pack_message(bare: MessageProto, tree: Any, parts: dict[str, bytes]) -> bytes:
    """Return a message for a site as it would come from Flower's store; empty if it is too long."""
    if sum(map(len, parts.values())) > LONGEST:
        return b""
    response = PullMessagesResponse(messages_list=[bare], message_object_trees=[tree])
    return pack_bundle(response.SerializeToString(), parts)


def unpack_asked(bundle: bytes) -> tuple[MessageProto, Any]:
    """Return what `pack_message` was given, without the parts: the bare message and its tree."""
    response = PullMessagesResponse()
    response.ParseFromString(unpack_bundle(bundle)[0])
    return response.messages_list[0], response.message_object_trees[0]


def unpack_answer(bundle: bytes) -> Message:
    """Return the message in a bundle that a site handed in, with its content.

    Raises:
        MessageError: not a bundle.
        ProtocolError: parts are missing or malformed.
    """
    head, parts = unpack_bundle(bundle)
    request = PushMessagesRequest()
    try:
        request.ParseFromString(head)
        bare = message_from_proto(request.messages_list[0])
        if bare.has_error():
            return bare
        whole = inflate_object_from_contents(bare.metadata.message_id, parts)
    except DecodeError:
        raise MessageError("a parcel's head is malformed") from None
    except Exception as error:  # whatever Flower's parser makes of a stranger's bytes
        raise ProtocolError(
            f"a parcel lacks a part of its message ({type(error).__name__})"
        ) from None
    if not isinstance(whole, Message):
        raise ProtocolError("a parcel holds something other than a message")
    whole.__dict__["_metadata"] = bare.metadata  # as checked, not as written into the body
    return whole


def _signed(number: int) -> int:
    """SQLite's integers are signed; Flower's identifiers are not."""
    return number - 2**64 if number >= 2**63 else number
