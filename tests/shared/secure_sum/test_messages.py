import dataclasses
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.errors import AuthenticationError, MessageError
from consilium.shared.secure_sum import messages
from consilium.shared.secure_sum.messages import (
    ChannelKey,
    ChannelRequest,
    Delivered,
    KeysRequest,
    Letter,
    MaskBox,
    MaskedUpdate,
    PeerKey,
    Refusal,
    RoundKeys,
    Unmasked,
    UnmaskRequest,
    UpdateRequest,
    read_reply,
)
from consilium.shared.wire import encoding as wire
from consilium.shared.wire.encoding import CONTROL_BYTES, LongBytes, Message

KINDS = sorted(Message.__subclasses__(), key=lambda kind: kind.kind)
SITE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)


def values_of(rule):
    """Everything that a rule allows, in small."""
    match rule:
        case wire.Octets(low, high):
            return st.binary(min_size=low, max_size=min(high, low + 40))
        case wire.Bulk(high):
            return st.binary(max_size=min(high, 40))
        case wire.Text(high):
            return st.text(
                st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20
            )
        case wire.Whole(low, high):
            return st.integers(low, high)
        case wire.Name():
            return SITE
        case wire.Names():
            return st.sets(SITE, max_size=4).map(lambda names: tuple(sorted(names)))
        case wire.PerSite(inner):
            return st.dictionaries(SITE, values_of(inner), max_size=3)
        case wire.Many(kind):
            return st.lists(messages_of(kind), max_size=3, unique_by=lambda m: m.site).map(
                lambda found: tuple(sorted(found, key=lambda m: m.site))
            )
        case wire.Part(kind):
            return messages_of(kind)
        case wire.Maybe(kind):
            return st.none() | messages_of(kind)
    raise AssertionError(rule)


def messages_of(kind):
    return st.builds(kind, **{name: values_of(rule) for name, rule in kind.rules.items()})


ANY_MESSAGE = st.sampled_from(KINDS).flatmap(messages_of)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=12,
)


def parse_as_every_kind(data):
    """Every parser either gives a message that says the same again or refuses."""
    accepted = []
    for kind in KINDS:
        try:
            accepted.append(kind.from_bytes(data))
        except MessageError:
            continue
    return accepted


@pytest.mark.slow
@given(ANY_MESSAGE)
@settings(max_examples=300)
def test_a_message_survives_the_wire_and_parses_as_its_own_kind_only(message):
    assert parse_as_every_kind(message.to_bytes()) == [message]


@pytest.mark.slow
@given(ANY_MESSAGE, st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_refused_or_well_formed(message, data):
    damaged = bytearray(message.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["change", "drop", "insert", "cut"])):
            case "change":
                damaged[place] = data.draw(st.integers(0, 255))
            case "drop":
                del damaged[place]
            case "insert":
                damaged.insert(place, data.draw(st.integers(0, 255)))
            case "cut":
                del damaged[place + 1 :]
        if not damaged:
            break
    for parsed in parse_as_every_kind(bytes(damaged)):
        assert type(parsed).from_bytes(parsed.to_bytes()) == parsed


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes_are_refused(data):
    assert parse_as_every_kind(data) == []


@pytest.mark.slow
@given(st.sampled_from(KINDS), PLAIN)
@settings(max_examples=400)
def test_random_structures_in_the_envelope_are_refused_or_well_formed(kind, plain):
    for envelope in (
        ["consilium", 1, kind.kind, plain],
        ["consilium", plain, kind.kind, []],
        plain,
    ):
        for parsed in parse_as_every_kind(msgpack.packb(envelope)):
            assert type(parsed).from_bytes(parsed.to_bytes()) == parsed


@pytest.mark.slow
@given(ANY_MESSAGE, st.data())
@settings(max_examples=300)
def test_a_field_of_another_type_is_refused_or_well_formed(message, data):
    fields = wire.to_plain(message)
    place = data.draw(st.integers(0, len(fields) - 1))
    fields[place] = data.draw(PLAIN)
    envelope = msgpack.packb(["consilium", 1, message.kind, fields])
    for parsed in parse_as_every_kind(envelope):
        assert parsed.to_bytes() == envelope


@pytest.mark.parametrize("version", [0, 2, 99, True, None, "1", 1.0])
def test_another_version_is_refused_with_both_versions_named(version):
    envelope = msgpack.packb(["consilium", version, "refusal", ["a", "b", "c"]])
    with pytest.raises(MessageError, match=f"version {version!r}.*speaks 1; bring both sides"):
        Refusal.from_bytes(envelope)


@pytest.mark.parametrize(
    "envelope",
    [
        ["consilium", 1, "refusal"],
        ["another", 1, "refusal", []],
        ["consilium", 1, 7, []],
        ["consilium", 1, "refusal", [], []],
        {"consilium": 1},
        None,
        ["consilium", 1, "refusal", ["a", "b"]],
        ["consilium", 1, "refusal", ["a", "b", "c", "d"]],
        ["consilium", 1, "refusal", "abc"],
        ["consilium", 1, "refusal", ["a", "two\nlines", "c"]],
        ["consilium", 1, "refusal", ["a", "", "c"]],
        ["consilium", 1, "refusal", ["a" * 65, "b", "c"]],
        ["consilium", 1, "refusal", ["a", "b" * 65, "c"]],
        ["consilium", 1, "agreement", ["a", 1, bytes(64)]],
    ],
)
def test_malformed_envelopes_and_fields_are_refused(envelope):
    with pytest.raises(MessageError):
        Refusal.from_bytes(msgpack.packb(envelope))


def test_sites_out_of_order_or_double_are_refused():
    def agree(survivors):
        fields = [bytes(32), 1, bytes(32), survivors]
        return msgpack.packb(["consilium", 1, "agree-request", fields])

    assert messages.AgreeRequest.from_bytes(agree(["a", "b"])).survivors == ("a", "b")
    for survivors in (["b", "a"], ["a", "a"], ["a", 5], ["a b"], [["a"]], "ab", None):
        with pytest.raises(MessageError):
            messages.AgreeRequest.from_bytes(agree(survivors))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("self_mask_shares", {"b": bytes(33), "a": bytes(32)}),
        ("self_mask_shares", {"a b": bytes(33)}),
        ("self_mask_shares", [("a", bytes(33))]),
        ("self_mask_shares", {f"s{i}": bytes(33) for i in range(1001)}),
        ("next_keys", b"bytes"),
        ("round", 0),
        ("round", True),
        ("round", 2**32),
        ("site", 5),
    ],
)
def test_a_message_against_its_rules_cannot_be_made(field, value):
    good = Unmasked(
        site="a", round=1, self_mask_shares={}, seed_shares={}, complaints={}, next_keys=None
    )
    with pytest.raises(MessageError, match=rf"unmasked\.{field}"):
        dataclasses.replace(good, **{field: value})


@pytest.mark.parametrize(
    "body", [bytearray(8), memoryview(bytearray(8)), memoryview(bytes(8)).cast("I"), "text", None]
)
def test_a_body_is_bytes_or_a_flat_view_of_bytes_that_nobody_can_write_to(body):
    def made(packed):
        return MaskedUpdate(
            site="a",
            round=1,
            context=bytes(32),
            packed=packed,
            commitment=bytes(32),
            own_commitment=bytes(32),
            boxes={},
            complaints={},
            signature=bytes(64),
            audit_head=b"",
        )

    assert made(memoryview(bytes(8))).to_bytes() == made(bytes(8)).to_bytes()
    with pytest.raises(MessageError, match=r"masked-update\.packed"):
        made(body)


def test_lists_of_messages_hold_the_right_kind_one_a_site():
    key = PeerKey(site="a", public=bytes(32), path=b"", signature=bytes(64))
    good = KeysRequest(study_hash=bytes(32), round=1, channel_keys=(key,))
    refusal = Refusal(site="b", code="c", sentence="d")
    for channel_keys in ((key, key), (refusal,), [key], (key,) * 1001):
        with pytest.raises(MessageError, match=r"keys-request\.channel_keys"):
            dataclasses.replace(good, channel_keys=channel_keys)


def test_a_message_inside_another_is_of_its_kind():
    letter = Letter(commitment=bytes(32), box=bytes(81), mask_key=bytes(32), seed_key=bytes(32))
    good = Delivered(letter=letter, path=b"")
    with pytest.raises(MessageError, match=r"delivered-letter\.letter is not a letter message"):
        dataclasses.replace(good, letter=MaskBox(commitment=bytes(32), box=bytes(81)))


def test_the_largest_study_fits_the_bound_of_messages_without_a_vector():
    """A thousand sites with the longest names, each sharing masks with all others."""
    sites = [f"{number:064d}" for number in range(1000)]
    letter = Letter(commitment=bytes(32), box=bytes(81), mask_key=bytes(32), seed_key=bytes(32))
    keys = RoundKeys(
        site=sites[0],
        round=2**32 - 1,
        public=bytes(32),
        own_commitment=bytes(32),
        letters=dict.fromkeys(sites, letter),
        signature=bytes(64),
    )
    shares = dict.fromkeys(sites, bytes(33))
    fixed = {"study_hash": bytes(32), "round": 2**32 - 1}
    peers = [
        PeerKey(site=site, public=bytes(32), path=bytes(320), signature=bytes(64)) for site in sites
    ]
    largest = [
        ChannelKey(site=sites[0], keys=dict.fromkeys(sites, bytes(32)), signature=bytes(64)),
        KeysRequest(**fixed, channel_keys=tuple(peers)),
        Unmasked(
            site=sites[0],
            round=2**32 - 1,
            self_mask_shares=shares,
            seed_shares=shares,
            complaints=dict.fromkeys(sites, bytes(32)),
            next_keys=keys,
        ),
        UnmaskRequest(
            **fixed,
            context=bytes(32),
            survivors=tuple(sites),
            signatures=dict.fromkeys(sites, bytes(64)),
            boxes=dict.fromkeys(sites, MaskBox(commitment=bytes(32), box=bytes(81))),
        ),
    ]
    for message in largest:
        assert type(message).from_bytes(message.to_bytes()) == message


def test_survivor_lists_are_bounded_tuples():
    good = messages.AgreeRequest(study_hash=bytes(32), round=1, context=bytes(32), survivors=("a",))
    for survivors in (["a"], tuple(f"s{i:04d}" for i in range(1001))):
        with pytest.raises(MessageError, match="not a list of at most 1000 sites"):
            dataclasses.replace(good, survivors=survivors)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_message_beyond_its_bound_is_refused_unread(kind):
    with pytest.raises(MessageError, match="has 101 bytes, and at most 100 are taken"):
        kind.from_bytes(bytes(101), max_bytes=100)
    if kind.max_bytes <= 1 << 20:
        with pytest.raises(MessageError, match=f"at most {kind.max_bytes} are taken"):
            kind.from_bytes(bytes(kind.max_bytes + 1))


HUGE_CLAIMS = [
    b"\xdd\xff\xff\xff\xff",  # an array of 4 thousand million elements
    b"\xdf\xff\xff\xff\xff",  # such a map
    b"\xc6\xff\xff\xff\xff",  # such bytes
    b"\xdb\xff\xff\xff\xff",  # such text
    b"\xc9\xff\xff\xff\xff\x01",  # such an extension
    b"\xdc\xff\xff" * 30_000,  # nested arrays, each claiming 65,535 elements
    b"\xdc\x03\xe8" * 100_000,  # nested arrays, each claiming 1,000 elements
    b"\x91" * 100_000,
    b"\x81" * 100_000,
]


@pytest.mark.parametrize("data", HUGE_CLAIMS, ids=lambda data: data[:6].hex())
def test_bytes_that_claim_a_huge_structure_take_little_memory(data):
    tracemalloc.start()
    try:
        assert parse_as_every_kind(data) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_a_vector_message_takes_a_small_multiple_of_its_size():
    update = MaskedUpdate(
        site="a",
        round=1,
        context=bytes(32),
        packed=bytes(4_000_000),
        commitment=bytes(32),
        own_commitment=bytes(32),
        boxes={},
        complaints={},
        signature=bytes(64),
        audit_head=b"",
    )
    data = update.to_bytes()
    assert len(data) < 4_000_300
    tracemalloc.start()
    try:
        assert MaskedUpdate.from_bytes(data) == update
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
def test_a_large_body_is_encoded_as_msgpack_itself_would(size):
    request = UpdateRequest(
        study_hash=bytes(32),
        round=1,
        participants=(),
        letters={},
        model=bytes(size),
        configuration=b"c",
    )
    envelope = ["consilium", 1, "update-request", wire.to_plain(request)]
    assert request.to_bytes() == msgpack.packb(envelope)


def test_printing_a_message_shows_its_kind_site_and_round_and_nothing_secret():
    message = Unmasked(
        site="ward",
        round=8,
        self_mask_shares={"x": b"\x07" * 33},
        seed_shares={},
        complaints={},
        next_keys=None,
    )
    assert repr(message) == str(message) == "<unmasked site ward round 8>"
    request = ChannelRequest(
        study_digest=bytes(32), run_id=bytes(16), study_hash=bytes(32), declared={}
    )
    assert repr(request) == "<channel-request>"


def test_a_refusal_carries_one_printable_line():
    refusal = Refusal.of("a", AuthenticationError("bad\n\x00 " + "x" * 2000))
    assert refusal.code == "AuthenticationError"
    assert refusal.sentence.startswith("bad x")
    assert len(refusal.sentence) == 1000
    assert Refusal.of("a", AuthenticationError("\x01")).sentence == "no reason given"


def test_a_reply_is_the_expected_message_or_a_refusal():
    refusal = Refusal(site="a", code="c", sentence="no")
    key = ChannelKey(site="a", keys={"b": bytes(32)}, signature=bytes(64))
    assert read_reply(ChannelKey, refusal.to_bytes()) == refusal
    assert read_reply(ChannelKey, key.to_bytes()) == key
    with pytest.raises(MessageError, match="expected a round-keys message and got one named"):
        read_reply(RoundKeys, key.to_bytes())
    with pytest.raises(MessageError, match="at most 10 are taken"):
        read_reply(ChannelKey, key.to_bytes(), max_bytes=10)


def test_messages_cannot_be_changed():
    key = ChannelKey(site="a", keys={"b": bytes(32)}, signature=bytes(64))
    with pytest.raises(dataclasses.FrozenInstanceError):
        key.site = "b"


def test_the_actions_of_a_coordinator_are_exactly_these():
    actions = [action.value for action in messages.Action]
    assert actions == ["channel", "keys", "update", "agree", "unmask"]
    for almost in ("update.x", "train", "unmask2", "UPDATE"):
        with pytest.raises(ValueError):
            messages.Action(almost)


def test_every_field_of_every_message_has_a_rule():
    for kind in KINDS:
        assert list(kind.rules) == [field.name for field in dataclasses.fields(kind)]
    assert UpdateRequest in KINDS


class HeldBytes(LongBytes):
    """Long bytes that are held, and how many were read."""

    def __init__(self, held):
        self.held, self.read_bytes = held, 0

    def __len__(self):
        return len(self.held)

    def read(self, first, last):
        self.read_bytes += last - first
        return self.held[first:last]


def long_update(size):
    return MaskedUpdate(
        site="north",
        round=3,
        context=bytes(32),
        packed=bytes(range(256)) * (size // 256),
        commitment=bytes(32),
        own_commitment=bytes(32),
        boxes={},
        complaints={"north": bytes(32)},
        signature=bytes(64),
        audit_head=b"head",
    )


@pytest.mark.parametrize("size", [0, 256, 1 << 16, 3 << 20])
def test_a_long_message_parses_as_the_same_bytes_do_and_its_body_is_not_read(size):
    sent = long_update(size)
    data = HeldBytes(sent.to_bytes())
    parsed = read_reply(MaskedUpdate, data)
    assert data.read_bytes <= 2 * CONTROL_BYTES + 64
    body = parsed.packed if size < 1 << 16 else parsed.packed.read(0, len(parsed.packed))
    assert dataclasses.replace(parsed, packed=body) == sent


@given(data=st.data())
def test_a_damaged_long_message_is_refused_or_as_the_same_bytes(data):
    octets = bytearray(long_update(1 << 16).to_bytes())
    edge = data.draw(st.sampled_from([0, 60, len(octets) - 90]))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(edge, min(edge + 89, len(octets) - 1)))] = data.draw(
            st.integers(0, 255)
        )
    octets = bytes(octets[: data.draw(st.integers(0, len(octets)))] if data.draw(st.booleans())
                   else octets)  # fmt: skip

    def outcome(given):
        try:
            parsed = MaskedUpdate.from_bytes(given)
        except MessageError:
            return None
        packed = parsed.packed
        body = packed.read(0, len(packed)) if isinstance(packed, LongBytes) else packed
        return dataclasses.replace(parsed, packed=body)

    assert outcome(HeldBytes(octets)) == outcome(octets)


def test_a_long_message_beyond_its_bound_is_refused_unread():
    data = HeldBytes(long_update(1 << 20).to_bytes())
    with pytest.raises(MessageError, match="at most 1000 are taken"):
        read_reply(MaskedUpdate, data, max_bytes=1000)
    assert data.read_bytes == 0
