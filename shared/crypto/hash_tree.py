"""One digest over many leaves, and for each leaf a short proof that it is under that digest.

A site signs one root over what it says to each of its peers, and each peer is shown its own part
with the path to the root: one signature, and log2(n) hashes, instead of a signature for each peer.
Source: Merkle, "A digital signature based on a conventional encryption function", CRYPTO 1987. The
two children of a node are hashed in the order of their bytes, so a path needs no directions; an odd
one at the end of a level moves up unchanged. Leaves carry another label than nodes.
"""

from collections.abc import Sequence

from consilium.shared.crypto import transcript

DIGEST_BYTES = 32
LONGEST_PATH_BYTES = 10 * DIGEST_BYTES
"""Of a tree of 1024 leaves."""


def root(leaves: Sequence[bytes]) -> bytes:
    """The digest over at least one leaf, 32 bytes each, in their order."""
    return _levels(leaves)[-1][0]


def paths(leaves: Sequence[bytes]) -> list[bytes]:
    """For each leaf the hashes beside the way up to the root, from the leaf on, one after another.

    Guarantee: `root_from(leaf, path)` is `root(leaves)` for each leaf and its path.
    """
    levels = _levels(leaves)
    found = []
    for leaf in range(len(leaves)):
        place, path = leaf, b""
        for level in levels[:-1]:
            beside = place ^ 1
            if beside < len(level):
                path += level[beside]
            place //= 2
        found.append(path)
    return found


def root_from(leaf: bytes, path: bytes) -> bytes:
    """The root that a leaf and its path lead to, 32 bytes."""
    for first in range(0, len(path), DIGEST_BYTES):
        leaf = _node(leaf, path[first : first + DIGEST_BYTES])
    return leaf


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        levels.append(paired + level[len(level) - len(level) % 2 :])
    return levels


def _node(one: bytes, other: bytes) -> bytes:
    return transcript.node(one, other) if one < other else transcript.node(other, one)
