"""What is kept at a site stands in for what the coordinator sent, and only once it is saved."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.round.own_part import CONTROL, OWN_MODEL, OWN_WEIGHTS, OwnPart, OwnPartOfRun
from consilium.shared.errors import SettingsError
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.study.definition import Study
from tests.study_text import small_study

RUN, OTHER_RUN = bytes([1]) * 32, bytes([2]) * 32
HEAD = small_study(personalisation={"parts": ["head"]}, privacy={"mode": "none"})
SENT_D = to_vector(study_model(HEAD))
SHARED_D = shared_weights(HEAD, SENT_D.size)
OWN = np.arange(SENT_D.size - SHARED_D.sum(), dtype=np.float32)


def test_without_anything_kept_a_site_uses_what_was_sent() -> None:
    own = OwnPart(HEAD, {})
    assert own.joined(SENT_D) is SENT_D
    assert own.used(SENT_D) is SENT_D
    assert own.control(SENT_D.astype(np.float64)).tolist() == SENT_D.astype(np.float64).tolist()
    assert own.normalisation() is None


def test_own_weights_take_their_places_and_leave_the_shared_ones() -> None:
    joined_D = OwnPart(HEAD, {OWN_WEIGHTS: OWN}).joined(SENT_D)
    assert np.array_equal(joined_D[~SHARED_D], OWN)
    assert np.array_equal(joined_D[SHARED_D], SENT_D[SHARED_D])
    assert not np.array_equal(SENT_D, joined_D)


def test_a_second_model_is_used_on_patients_and_not_trained_with_the_others() -> None:
    own = OwnPart(HEAD, {OWN_MODEL: SENT_D + 1})
    assert np.array_equal(own.used(SENT_D), SENT_D + 1)
    assert own.joined(SENT_D) is SENT_D


@pytest.mark.parametrize("bad", [OWN[:-1], OWN * np.nan])
def test_what_does_not_fit_the_model_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="restore the folder 'personal'"):
        OwnPart(HEAD, {OWN_WEIGHTS: bad}).joined(SENT_D)
    with pytest.raises(SettingsError, match="finite ones are needed"):
        OwnPart(HEAD, {CONTROL: bad}).control(SENT_D.astype(np.float64))


def begun(study: Study, folder: Path, run: bytes = RUN) -> OwnPartOfRun:
    own = OwnPartOfRun(study, PersonalStore(folder))
    own.begin_round(run)
    return own


def test_a_change_counts_once_it_is_saved(tmp_path: Path) -> None:
    own = begun(HEAD, tmp_path)
    own.change(OWN_WEIGHTS, OWN)
    assert own.part.kept == {}
    own.save()
    assert np.array_equal(own.part.kept[OWN_WEIGHTS], OWN)
    assert np.array_equal(begun(HEAD, tmp_path).part.kept[OWN_WEIGHTS], OWN)


def test_a_round_that_came_to_nothing_leaves_no_change(tmp_path: Path) -> None:
    own = begun(HEAD, tmp_path)
    own.change(OWN_WEIGHTS, OWN)
    own.begin_round(RUN)
    own.save()
    assert begun(HEAD, tmp_path).part.kept == {}


def test_each_run_has_its_own_part(tmp_path: Path) -> None:
    own = begun(HEAD, tmp_path)
    own.change(OWN_WEIGHTS, OWN)
    own.save()
    own.begin_round(OTHER_RUN)
    assert own.part.kept == {}
    own.begin_round(RUN)
    assert set(own.part.kept) == {OWN_WEIGHTS}


def test_the_same_run_goes_on_under_another_roster(tmp_path: Path) -> None:
    store, one, two = PersonalStore(tmp_path), b"1" * 16, b"2" * 16
    own = OwnPartOfRun(HEAD, store)
    for number, run in ((1, RUN), (2, OTHER_RUN)):
        own.begin_round(run, number, run_id=one)
        own.change(OWN_WEIGHTS, OWN + number)
        own.save()
    third, again = bytes([3]) * 32, OwnPartOfRun(HEAD, store)
    again.begin_round(third, 3, run_id=one)
    assert np.array_equal(again.part.kept[OWN_WEIGHTS], OWN + 2)  # the latest round's
    assert again.digest == b""  # nothing is saved under this roster yet
    again.change(OWN_MODEL, SENT_D)
    again.save()
    kept = store.load(HEAD.digest, third)
    assert set(kept) == {OWN_WEIGHTS, OWN_MODEL}
    assert np.array_equal(store.load(HEAD.digest, RUN)[OWN_WEIGHTS], OWN + 1)
    again.begin_round(bytes([4]) * 32, 1, run_id=two)  # another run of the same study
    assert again.part.kept == {}
    (tmp_path / f"{HEAD.digest.hex()}-{RUN.hex()}.safetensors").write_bytes(b"damaged")
    with pytest.raises(SettingsError, match="cannot be read as this site's own part"):
        OwnPartOfRun(HEAD, store).begin_round(bytes([5]) * 32, 4, run_id=one)


def test_a_study_that_leaves_nothing_to_a_site_reads_nothing(tmp_path: Path) -> None:
    study = small_study(privacy={"mode": "none"})
    store = PersonalStore(tmp_path)
    store.save(study.digest, RUN, {OWN_WEIGHTS: OWN})
    assert begun(study, tmp_path).part.kept == {}
