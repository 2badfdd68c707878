import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto import hash_tree
from consilium.shared.crypto.transcript import digest

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


@given(LEAVES)
def test_every_leaf_leads_to_the_root_by_its_path(leaves):
    root, paths = hash_tree.root(leaves), hash_tree.paths(leaves)
    assert len(paths) == len(leaves)
    for leaf, path in zip(leaves, paths, strict=True):
        assert hash_tree.root_from(leaf, path) == root
        assert len(path) <= 32 * (len(leaves) - 1).bit_length()


@given(LEAVES, st.binary(min_size=32, max_size=32), st.data())
def test_nothing_else_leads_to_the_root(leaves, stranger, data):
    root, paths = hash_tree.root(leaves), hash_tree.paths(leaves)
    place = data.draw(st.integers(0, len(leaves) - 1))
    if stranger not in leaves:
        assert hash_tree.root_from(stranger, paths[place]) != root
    if len(paths[place]) > 32:
        assert hash_tree.root_from(leaves[place], paths[place][32:]) != root


def test_the_root_of_two_is_the_hash_of_both_in_the_order_of_their_bytes():
    low, high = bytes(32), b"\x01" * 32
    assert hash_tree.root([high, low]) == hash_tree.root([low, high]) == digest("node", low, high)
    assert hash_tree.root([high]) == high


@pytest.mark.parametrize(("sites", "hashes"), [(1, 0), (2, 1), (4, 2), (1000, 10)])
def test_paths_are_short(sites, hashes):
    leaves = [digest("leaf", number) for number in range(sites)]
    assert max(map(len, hash_tree.paths(leaves))) == 32 * hashes <= hash_tree.LONGEST_PATH_BYTES


def test_a_path_that_is_cut_short_is_hashed_as_the_bytes_that_it_has():
    leaf, path = b"\x05" * 32, b"\x07" * 20
    assert hash_tree.root_from(leaf, path) == digest("node", leaf, path)
