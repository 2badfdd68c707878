from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto import transcript

PARTS = st.lists(st.binary(max_size=12) | st.integers(0, 2**64 - 1) | st.text(max_size=6))


def plain(part):
    if isinstance(part, int):
        return part.to_bytes(8, "big")
    return part.encode() if isinstance(part, str) else part


@given(st.sampled_from(["a", "ab"]), PARTS, st.sampled_from(["a", "ab"]), PARTS)
def test_different_statements_never_share_an_encoding(label, parts, other_label, other):
    same = (label, [plain(p) for p in parts]) == (other_label, [plain(p) for p in other])
    assert (transcript.encode(label, *parts) == transcript.encode(other_label, *other)) == same


def test_every_statement_and_commitment_is_told_apart_from_every_other():
    h, k = b"h" * 32, b"k" * 32
    made = [
        transcript.channel_statement(h, "a", k),
        transcript.keys_statement(h, 1, "a", k, k),
        transcript.keys_statement(h, 2, "a", k, k),
        transcript.keys_statement(h, 1, "b", k, k),
        transcript.survivors_statement(h, ("a", "b")),
        transcript.survivors_statement(h, ("ab",)),
        transcript.survivors_statement(k, ("a", "b")),
        transcript.commit_seed_share(h, 1, "a", "b", k),
        transcript.commit_seed_share(h, 1, "b", "a", k),
        transcript.commit_seed_share(h, 2, "a", "b", k),
        transcript.commit_mask_share(h, "a", "b", k),
        transcript.commit_self_mask(h, "a", k),
        transcript.channel_leaf("a", k),
        transcript.channel_leaf("b", k),
        transcript.own_leaf("a", k),
        transcript.letter_leaf("a", k, h, b"box", k, k),
        transcript.letter_leaf("a", h, h, b"box", k, k),
        transcript.letter_leaf("a", k, k, b"box", k, k),
        transcript.letter_leaf("a", k, h, b"xob", k, k),
        transcript.letter_leaf("a", k, h, b"box", h, k),
        transcript.letter_leaf("a", k, h, b"box", k, h),
        transcript.masked_statement(h, "a", k, k, {"b": (k, h, b"box")}),
        transcript.masked_statement(h, "a", h, k, {"b": (k, h, b"box")}),
        transcript.masked_statement(h, "a", k, h, {"b": (k, h, b"box")}),
        transcript.masked_statement(h, "a", k, k, {"b": (h, h, b"box")}),
        transcript.masked_statement(h, "a", k, k, {"b": (k, k, b"box")}),
        transcript.masked_statement(h, "a", k, k, {"b": (k, h, b"xob")}),
        transcript.masked_statement(h, "a", k, k, {}),
    ]
    assert len(set(made)) == len(made)


def test_the_context_depends_on_everything_a_site_is_shown():
    def context(spec=b"s" * 32, **changes):
        given = {
            "study_hash": b"h" * 32,
            "round": 3,
            "model": b"model",
            "configuration": b"conf",
            "keys": {"a": b"1" * 32, "b": b"2" * 32},
        }
        return transcript.round_context(transcript.begun_context(**{**given, **changes}), spec)

    variants = [
        context(),
        context(b"t" * 32),
        context(study_hash=b"i" * 32),
        context(round=4),
        context(model=b"model2"),
        context(model=b"modelconf", configuration=b""),
        context(configuration=b""),
        context(keys={"a": b"2" * 32, "b": b"1" * 32}),
        context(keys={"a": b"1" * 32}),
    ]
    assert len(set(variants)) == len(variants)
    assert context(keys={"b": b"2" * 32, "a": b"1" * 32}) == context()
