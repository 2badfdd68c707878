"""Strict, bounded encoding of messages: what every message on the wire has in common.

A message is msgpack of ["consilium", version, kind, [fields ...]], its fields in the order of the
dataclass. Each field carries a rule in its annotation; the rule is applied when a message is made
and when one is parsed, so neither side can hold a message that breaks it. Parsing is bounded in
memory by the size of the input, which is bounded first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

import msgpack

from consilium.shared.crypto.keys import SITE_NAME
from consilium.shared.errors import MessageError

VERSION = 1
MAX_SITES = 1000
LARGEST_HEAD_BYTES = 512
"""Bound of an encoded audit head, which other messages carry."""
MAX_ROUND = 2**32 - 1
CONTROL_BYTES = 1 << 20
"""Bound of every message that carries no model and no vector."""
VECTOR_BYTES = 1 << 30
"""Bound of messages that do, unless the study gives a closer one."""

_MAGIC = "consilium"
_BIN32 = b"\xc6"  # msgpack's head of bytes with a length of 32 bits
_BULK_BYTES = 1 << 16
"""A body of this length or more is passed through when written, and left in place when read."""


class LongBytes(ABC):
    """Bytes read where they are needed, since they may be too long for memory."""

    @abstractmethod
    def __len__(self) -> int:
        """Their number."""

    @abstractmethod
    def read(self, first: int, last: int) -> bytes:
        """The bytes from `first` up to, not including, `last`."""


class Excerpt(LongBytes):
    """A part of other long bytes, from `first` up to, not including, `last`."""

    def __init__(self, whole: LongBytes, first: int, last: int) -> None:
        self._whole, self._first, self._last = whole, first, last

    def __len__(self) -> int:
        return self._last - self._first

    def read(self, first: int, last: int) -> bytes:
        """The bytes from `first` up to, not including, `last`, counted within the part."""
        return self._whole.read(self._first + first, self._first + last)


class Rule(ABC):
    """What a field may hold, and how it looks in msgpack."""

    @abstractmethod
    def check(self, value: Any, where: str) -> None:
        """Raise MessageError unless the value is allowed."""

    def to_plain(self, value: Any) -> Any:
        """The value as msgpack writes it."""
        return value

    def from_plain(self, plain: Any, where: str) -> Any:  # noqa: ARG002 - where is for subclasses
        """The value that msgpack read, still to be checked."""
        return plain


@dataclass(frozen=True)
class Octets(Rule):
    """Bytes of a length from `low` to `high`."""

    low: int
    high: int

    def check(self, value: Any, where: str) -> None:
        """Bytes within the bounds."""
        if not isinstance(value, bytes) or not self.low <= len(value) <= self.high:
            raise MessageError(f"{where} is not bytes of length {self.low} to {self.high}")


@dataclass(frozen=True)
class Bulk(Rule):
    """Up to `high` bytes of a model or vector: bytes, or a view or long bytes (no copy)."""

    high: int

    def check(self, value: Any, where: str) -> None:
        """Bytes, a flat view of bytes that cannot be written to, or long ones; within the bound."""
        flat = isinstance(value, bytes | LongBytes) or (
            isinstance(value, memoryview) and value.readonly and value.format == "B"
        )
        if not flat or len(value) > self.high:
            raise MessageError(f"{where} is not bytes of length 0 to {self.high}")


@dataclass(frozen=True)
class Text(Rule):
    """Printable text of at most `high` characters, and not empty."""

    high: int

    def check(self, value: Any, where: str) -> None:
        """Text within the bounds, on one line."""
        if not isinstance(value, str) or not 1 <= len(value) <= self.high:
            raise MessageError(f"{where} is not text of 1 to {self.high} characters")
        if not value.isprintable():
            raise MessageError(f"{where} holds characters that cannot be printed")


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def check(self, value: Any, where: str) -> None:
        """An integer, not a boolean, within the bounds."""
        if type(value) is not int or not self.low <= value <= self.high:
            raise MessageError(f"{where} is not a whole number from {self.low} to {self.high}")


class Name(Rule):
    """A site's name."""

    def check(self, value: Any, where: str) -> None:
        """A name as a roster has it."""
        if not isinstance(value, str) or not _is_name(value):
            raise MessageError(f"{where} is not a site name of 1 to 64 letters, digits, or . - _")


SITE = Name()


class Names(Rule):
    """Site names in strictly rising order, so none occurs twice."""

    def check(self, value: Any, where: str) -> None:
        """A tuple of names, rising."""
        if not isinstance(value, tuple) or len(value) > MAX_SITES:
            raise MessageError(f"{where} is not a list of at most {MAX_SITES} sites")
        _check_names(value, where)

    def to_plain(self, value: Any) -> Any:
        """A list."""
        return list(value)

    def from_plain(self, plain: Any, where: str) -> Any:
        """A tuple."""
        return tuple(_expect_list(plain, where))


@dataclass(frozen=True)
class PerSite(Rule):
    """Something for each site: pairs in strictly rising order of the sites' names."""

    rule: Rule

    def check(self, value: Any, where: str) -> None:
        """A mapping from names to what the inner rule allows."""
        if not isinstance(value, Mapping) or len(value) > MAX_SITES:
            raise MessageError(f"{where} is not a map of at most {MAX_SITES} sites")
        check_name, check = SITE.check, self.rule.check
        for site, item in value.items():
            check_name(site, where)
            check(item, where)

    def to_plain(self, value: Any) -> Any:
        """Pairs, sorted."""
        return [[site, self.rule.to_plain(value[site])] for site in sorted(value)]

    def from_plain(self, plain: Any, where: str) -> Any:
        """A dictionary, unless the pairs are out of order or double."""
        pairs = _expect_list(plain, where)
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise MessageError(f"{where} is not a list of pairs")
        _check_names(tuple(pair[0] for pair in pairs), where)
        return {site: self.rule.from_plain(item, where) for site, item in pairs}


@dataclass(frozen=True)
class Many(Rule):
    """Messages about sites, in strictly rising order of their `site`."""

    kind: type["Message"]

    def check(self, value: Any, where: str) -> None:
        """A tuple of that kind of message, one a site."""
        if not isinstance(value, tuple) or len(value) > MAX_SITES:
            raise MessageError(f"{where} is not a list of at most {MAX_SITES} messages")
        if not all(isinstance(item, self.kind) for item in value):
            raise MessageError(f"{where} holds something other than {self.kind.kind} messages")
        _check_names(tuple(item.site for item in value), where)

    def to_plain(self, value: Any) -> Any:
        """A list of field lists."""
        return [to_plain(item) for item in value]

    def from_plain(self, plain: Any, where: str) -> Any:
        """A tuple of messages."""
        return tuple(from_plain(self.kind, item, where) for item in _expect_list(plain, where))


@dataclass(frozen=True)
class Part(Rule):
    """A message of one kind inside another."""

    kind: type["Message"]

    def check(self, value: Any, where: str) -> None:
        """That kind of message."""
        if not isinstance(value, self.kind):
            raise MessageError(f"{where} is not a {self.kind.kind} message")

    def to_plain(self, value: Any) -> Any:
        """A field list."""
        return to_plain(value)

    def from_plain(self, plain: Any, where: str) -> Any:
        """A message."""
        return from_plain(self.kind, plain, where)


@dataclass(frozen=True)
class Maybe(Rule):
    """A message of one kind, or nothing."""

    kind: type["Message"]

    def check(self, value: Any, where: str) -> None:
        """None or that kind of message."""
        if value is not None and not isinstance(value, self.kind):
            raise MessageError(f"{where} is neither nothing nor a {self.kind.kind} message")

    def to_plain(self, value: Any) -> Any:
        """None or a field list."""
        return None if value is None else to_plain(value)

    def from_plain(self, plain: Any, where: str) -> Any:
        """None or a message."""
        return None if plain is None else from_plain(self.kind, plain, where)


@dataclass(frozen=True, kw_only=True, repr=False)
class Message:
    """Base of all messages: checked on construction, printed without contents.

    Attributes:
        kind: name of the message on the wire.
        max_bytes: longest encoding that is parsed.
        rules: by field in order, read from the annotations of each kind.
        checks: of each field its name, its rule's check, and its name in a refusal.
    """

    kind: ClassVar[str]
    max_bytes: ClassVar[int] = CONTROL_BYTES
    rules: ClassVar[Mapping[str, Rule]]
    checks: ClassVar[tuple[tuple[str, Callable[[Any, str], None], str], ...]]

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        annotated = {name: hint for name, hint in hints.items() if hasattr(hint, "__metadata__")}
        cls.rules = {name: hint.__metadata__[0] for name, hint in annotated.items()}
        cls.checks = tuple(
            (name, rule.check, f"{cls.kind}.{name}") for name, rule in cls.rules.items()
        )

    def __post_init__(self) -> None:
        for name, check, where in self.checks:
            check(getattr(self, name), where)

    def __repr__(self) -> str:
        known = [f"{n} {getattr(self, n)}" for n in ("site", "round") if hasattr(self, n)]
        return f"<{' '.join([self.kind, *known])}>"

    def to_bytes(self) -> bytes:
        """The message on the wire."""
        packer = msgpack.Packer()
        head = [packer.pack_array_header(4), *map(packer.pack, (_MAGIC, VERSION, self.kind))]
        fields = to_plain(self)
        return b"".join([*head, packer.pack_array_header(len(fields)), *_pieces(packer, fields)])

    @classmethod
    def from_bytes(cls, data: bytes | LongBytes, *, max_bytes: int | None = None) -> Self:
        """Parse one message of this kind.

        Args:
            data: the bytes received.
            max_bytes: closer bound than the kind's own, where the study gives one.

        Raises:
            MessageError: too long, malformed, of another version or another kind.
        """
        kind, plain = open_envelope(data, cls.max_bytes if max_bytes is None else max_bytes)
        if kind != cls.kind:
            raise MessageError(f"expected a {cls.kind} message and got one named {kind[:64]!r}")
        return from_plain(cls, plain, cls.kind)


M = TypeVar("M", bound=Message)


def open_envelope(data: bytes | LongBytes, max_bytes: int) -> tuple[str, Any]:
    """Kind and raw fields of a message of our version; a long one's bodies are not read.

    Raises:
        MessageError: too long, malformed, or of another version.
    """
    if len(data) > max_bytes:
        raise MessageError(f"a message has {len(data)} bytes, and at most {max_bytes} are taken")
    try:
        if isinstance(data, LongBytes):
            envelope = _unpack_long(data)
        else:
            envelope = msgpack.unpackb(data, max_bin_len=len(data), **_LIMITS)
    except (ValueError, msgpack.UnpackException, RecursionError):
        raise MessageError(f"{len(data)} bytes received are not a well-formed message") from None
    if not isinstance(envelope, list) or len(envelope) != 4 or envelope[0] != _MAGIC:
        raise MessageError(f"{len(data)} bytes received are not a Consilium message")
    version, kind, plain = envelope[1:]
    if type(version) is not int or version != VERSION:
        raise MessageError(
            f"a message of protocol version {version!r:.32}, and this build speaks {VERSION}; "
            "bring both sides to the same release"
        )
    if not isinstance(kind, str):
        raise MessageError(f"{len(data)} bytes received name no kind of message")
    return kind, plain


_LIMITS: Mapping[str, Any] = {
    "use_list": True,
    "max_array_len": MAX_SITES,
    "max_map_len": 0,
    "max_ext_len": 0,
    "max_str_len": 4096,
}


def _unpack_long(data: LongBytes) -> list[Any]:
    """As msgpack unpacks an envelope, but bodies stay where they are; the rest is bounded.

    Raises:
        ValueError: not an array of four with an array at its end, or more after it.
        msgpack.UnpackException: malformed, or more than `CONTROL_BYTES` between bodies.
    """
    start, unpacker = 0, _unpacker(data, 0)
    if unpacker.read_array_header() != 4:
        raise ValueError("not four")
    envelope: list[Any] = [unpacker.unpack() for _ in range(3)]
    fields: list[Any] = []
    for _ in range(min(unpacker.read_array_header(), MAX_SITES)):
        here = start + unpacker.tell()
        head = data.read(here, min(here + 5, len(data)))
        length = int.from_bytes(head[1:], "big")
        if head[:1] != _BIN32 or length < _BULK_BYTES:
            fields.append(unpacker.unpack())
            continue
        start = here + len(head) + length
        if start > len(data):
            raise ValueError("cut short")
        fields.append(Excerpt(data, here + len(head), start))
        unpacker = _unpacker(data, start)
    if start + unpacker.tell() != len(data):
        raise ValueError("more than a message")
    return [*envelope, fields]


def _unpacker(data: LongBytes, start: int) -> msgpack.Unpacker:
    """An unpacker of what comes from `start` on, up to a bound."""
    unpacker = msgpack.Unpacker(max_buffer_size=CONTROL_BYTES, **_LIMITS)
    unpacker.feed(data.read(start, min(start + CONTROL_BYTES, len(data))))
    return unpacker


def to_plain(message: Message) -> list[Any]:
    """The fields of a message as msgpack writes them."""
    return [rule.to_plain(getattr(message, name)) for name, rule in message.rules.items()]


def from_plain(kind: type[M], plain: Any, where: str) -> M:
    """A message from its fields.

    Raises:
        MessageError: another number of fields, or a field against its rule.
    """
    values = _expect_list(plain, where)
    if len(values) != len(kind.rules):
        raise MessageError(f"{where} has {len(values)} fields, not {len(kind.rules)}")
    named = zip(kind.rules.items(), values, strict=True)
    return kind(**{name: rule.from_plain(value, where) for (name, rule), value in named})


def _pieces(packer: msgpack.Packer, fields: list[Any]) -> Iterator[bytes | memoryview]:
    """Each field as msgpack; a large body is passed through, so that it is copied once."""
    for value in fields:
        if isinstance(value, bytes | memoryview) and len(value) >= _BULK_BYTES:
            yield _BIN32 + len(value).to_bytes(4, "big")
            yield value
        else:
            yield packer.pack(value)


def _expect_list(plain: Any, where: str) -> list[Any]:
    if not isinstance(plain, list):
        raise MessageError(f"{where} is not a list")
    return plain


def _check_names(names: tuple[Any, ...], where: str) -> None:
    for name in names:
        if not isinstance(name, str) or not _is_name(name):
            SITE.check(name, where)
    if list(names) != sorted(set(names)):
        raise MessageError(f"{where} names a site twice or out of order")


@lru_cache(maxsize=4 * MAX_SITES)
def _is_name(name: str) -> bool:
    """Whether a roster could have this name; the same few come in every message."""
    return SITE_NAME.fullmatch(name) is not None
