"""The product against the independent generator's vectors, byte for byte."""

import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.keys import IdentityKey, pair_seed
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.mask_graph import distances
from consilium.shared.secure_sum.messages import Action
from consilium.shared.secure_sum.packing import pack, unpack
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import combine, split
from tests.in_process import UNHEARD, InProcessSites, LocalSite
from tests.rosters import sized_roster

FOLDER = Path(__file__).parent
VECTORS = json.loads((FOLDER / "secure_sum.json").read_text())
PIECES, ROUND = VECTORS["pieces"], VECTORS["round"]
GENERATOR = run_path(str(FOLDER / "generate.py"))
SITES = GENERATOR["SITES"]
SPEC = VectorSpec(
    ring_bits=GENERATOR["BITS"],
    segments=tuple(
        Segment(name=name, length=length, linf=linf, scale=scale)
        for name, length, linf, scale in GENERATOR["SPEC"]
    ),
)


def test_the_generator_still_writes_these_vectors():
    assert GENERATOR["vectors"]() == VECTORS


def test_the_keystream_and_the_derived_seed_match():
    seed = bytes.fromhex(PIECES["keystream"]["seed"])
    assert Keystream(seed).bytes(80).hex() == PIECES["keystream"]["first_80_bytes"]
    assert pair_seed(seed, context=bytes(32), low="low", high="high").hex() == PIECES["pair_seed"]


def test_the_encoding_of_statements_matches():
    assert transcript.encode("label", b"bytes", "text", 2**40).hex() == PIECES["encode"]


@pytest.mark.parametrize("bits", [16, 20, 24, 28, 32])
def test_packing_matches(bits):
    values = PIECES["packing"]["values"]
    packed = PIECES["packing"][str(bits)]
    assert pack(np.array(values, np.uint32), bits).hex() == packed
    assert unpack(bytes.fromhex(packed), len(values), bits).tolist() == [
        value % 2**bits for value in values
    ]


def test_the_sparse_graph_matches():
    for told in PIECES["distances"]:
        assert list(distances(told["sites"], told["degree"])) == told["distances"]


def test_the_hash_tree_matches():
    for told in PIECES["hash_tree"]:
        leaves = [transcript.digest("leaf", i) for i in range(told["leaves"])]
        assert hash_tree.root(leaves).hex() == told["root"]
        assert hash_tree.paths(leaves)[-1].hex() == told["path_of_last"]


def test_secret_sharing_matches():
    told = PIECES["shamir"]
    secret = bytes.fromhex(told["secret"])
    points = [int(point) for point in told["shares"]]
    shares = split(secret, threshold=3, points=points, entropy=GENERATOR["Entropy"]("shamir"))
    assert {str(point): share.hex() for point, share in shares.items()} == told["shares"]
    assert combine({point: shares[point] for point in points[1:]}) == secret


class VectorSite(LocalSite):
    """A site with the vectors' identity, secrets, update and weight."""

    def __init__(self, name, agreed, folder):
        identity = IdentityKey.from_seed(GENERATOR["Site"](name).identity)
        entropy = GENERATOR["Entropy"](name)
        super().__init__(name, identity, agreed, folder / name, SPEC, threads=1, entropy=entropy)
        if name in GENERATOR["VECTORS"]:
            numbers = np.array(GENERATOR["VECTORS"][name], np.int32).view(np.uint32)
            self.vectors[1] = numbers & np.uint32(2**SPEC.ring_bits - 1)


@pytest.fixture
def federation(tmp_path):
    identities = {s: IdentityKey.from_seed(GENERATOR["Site"](s).identity) for s in SITES}
    agreed = SumParameters(
        study_digest=GENERATOR["STUDY_DIGEST"],
        run_id=GENERATOR["RUN_ID"],
        roster=sized_roster(identities, GENERATOR["STUDY_DIGEST"], **GENERATOR["SIZES"]),
        threshold=GENERATOR["THRESHOLD"],
        minimum_sites=GENERATOR["MINIMUM"],
        collusion=GENERATOR["COLLUSION"],
        degree=len(SITES) - 1,
    )
    sites = InProcessSites([VectorSite(site, agreed, tmp_path) for site in SITES])
    sites.faults = {("west", Action.UPDATE): UNHEARD}
    return SecureSum(agreed, sites, timeout_s=1.0, threads=1), sites


def test_a_whole_round_matches_byte_for_byte(federation):
    coordinator, sites = federation
    assert coordinator.parameters.study_hash.hex() == ROUND["study_hash"]
    assert SPEC.digest.hex() == ROUND["spec_digest"]
    kinds = {
        Action.CHANNEL: ("channel-request", "channel-key"),
        Action.KEYS: ("keys-request", "round-keys"),
        Action.UPDATE: ("update-request", "masked-update"),
        Action.AGREE: ("agree-request", "agreement"),
        Action.UNMASK: ("unmask-request", "unmasked"),
    }
    seen = {}
    each = ("keys-request", "update-request", "unmask-request")

    def told(site, action, body):
        kind = kinds[action][0]
        seen[f"{kind} {site}" if kind in each else kind] = body
        return body

    def answered(site, action, reply):
        seen[f"{kinds[action][1]} {site}"] = reply
        return reply

    sites.alter_request, sites.alter = told, answered
    coordinator.open()
    result = run_vector_round(coordinator)
    expected = {key: value for key, value in ROUND["messages"].items() if key in seen}
    assert {key: value.hex() for key, value in seen.items()} == expected
    assert set(ROUND["messages"]) - set(seen) == {"update-request west"}
    assert result.ring_total.tolist() == ROUND["ring_total"]
    decoded = np.concatenate([result.parts["update"][:] * 1000.0, result.parts["counts"][:]])
    assert np.round(decoded, 9).tolist() == ROUND["sum"]
    assert result.weight == ROUND["weight"]


def run_vector_round(coordinator):
    return coordinator.sum(
        round=GENERATOR["ROUND"],
        spec=SPEC,
        model=GENERATOR["MODEL"],
        configuration=GENERATOR["CONFIGURATION"],
    )
