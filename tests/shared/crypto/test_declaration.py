"""A declared size holds for one site, one study and one number, and the roster carries it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto.declaration import (
    DECLARATION_BYTES,
    LARGEST_SIZE,
    Declaration,
    size_statement,
)
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import AuthenticationError, StudyError
from tests.rosters import declared, sized_roster

KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in ("a", "b", "c")}
STUDY = bytes(range(32))
BARE = Roster(tuple((site, key.public) for site, key in KEYS.items()))


@given(st.integers(1, LARGEST_SIZE))
def test_a_declaration_comes_back_from_its_bytes(patients: int) -> None:
    made = Declaration.signed(patients, study_digest=STUDY, site="a", sign=KEYS["a"].sign)
    assert len(made.to_bytes()) == DECLARATION_BYTES
    assert Declaration.from_bytes(made.to_bytes()) == made
    BARE.verify("a", size_statement(STUDY, "a", patients), made.signature, "the size")


@pytest.mark.parametrize("patients", [0, -1, LARGEST_SIZE + 1])
def test_a_size_out_of_bounds_is_refused(patients: int) -> None:
    with pytest.raises(StudyError, match="is not between 1 and"):
        Declaration(patients, bytes(64))


def test_a_roster_takes_sizes_that_every_site_signed() -> None:
    roster = BARE.with_declared(declared(KEYS, STUDY, b=400), STUDY)
    assert roster == sized_roster(KEYS, STUDY, b=400)
    assert roster.sizes == {"a": 7, "b": 400, "c": 7}
    assert roster.largest_size == 400
    group = roster.restricted_to(["c", "a"])
    assert group.sizes == {"a": 7, "c": 7}
    assert group.largest_size == 7
    assert roster.with_declared(declared(KEYS, STUDY, b=400), STUDY) == roster


def test_a_size_that_its_site_did_not_sign_for_this_study_is_refused() -> None:
    true = declared(KEYS, STUDY, b=400)
    for forged in (
        replace(true["b"], patients=4000),
        declared(KEYS, bytes(32), b=400)["b"],
        true["a"],
        declared(KEYS | {"b": KEYS["a"]}, STUDY, b=400)["b"],
    ):
        for roster in (BARE, sized_roster(KEYS, STUDY, b=400)):
            with pytest.raises(AuthenticationError, match="the declared size of site b"):
                roster.with_declared({**true, "b": forged}, STUDY)


def test_a_roster_is_final_only_with_every_sites_size() -> None:
    all_of_them = declared(KEYS, STUDY)
    for some in (
        {site: all_of_them[site] for site in ("a", "b")},
        {**all_of_them, "d": all_of_them["a"]},
    ):
        with pytest.raises(StudyError, match=f"{len(some)} sizes are declared for 3 sites"):
            BARE.with_declared(some, STUDY)
    with pytest.raises(StudyError, match="1 sizes are declared for 3 sites"):
        Roster(BARE.members, (all_of_them["a"],))
    assert BARE.sizes == {}
    with pytest.raises(StudyError, match="not all declared"):
        _ = BARE.largest_size
