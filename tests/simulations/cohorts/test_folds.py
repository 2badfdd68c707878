"""Folds: every training patient is judged on once, and no test patient is ever read."""

from dataclasses import replace

import pytest

import consilium
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.dealing import Dealing, DealtSource, Pool, Rules
from consilium.simulations.cohorts.folds import folds_by_person, folds_by_site
from consilium.simulations.cohorts.partitions import Records
from tests.simulations.api.small_hospitals import Ward, study


class Trap(Ward):
    """Test patients: whoever reads them fails."""

    def __init__(self) -> None:
        super().__init__(99)

    def read_patients(self, study: consilium.Study):
        raise AssertionError("a test patient was read")


def cohorts(patients: int = 10) -> Cohorts:
    sites = {site: Ward(number, patients) for number, site in enumerate(study().sites)}
    return Cohorts(sites=sites, test={"test": Trap()}, described="nobody")


def names(sources, one) -> list[str]:
    return [p.patient_id for source in sources.values() for p in source.read_patients(one)]


def test_by_person_everybody_is_judged_on_once_and_trains_in_the_other_folds() -> None:
    everybody = sorted(names(cohorts().sites, study()))
    folds = folds_by_person(study(), cohorts(), folds=3, seed=1)
    judged = [names(fold.judged, study()) for fold in folds]
    assert sorted(one for part in judged for one in part) == everybody
    for fold, part in zip(folds, judged, strict=True):
        trained = names(fold.training, study())
        assert sorted(trained + part) == everybody
        assert set(fold.training) == set(study().sites)
        for source in fold.judged.values():
            outcomes = [p.stays[0].label for p in source.read_patients(study())]
            assert 3 <= len(outcomes) <= 4
            assert source.report.patients == len(outcomes)
    again = folds_by_person(study(), cohorts(), folds=3, seed=1)
    assert [names(fold.judged, study()) for fold in again] == judged
    other = folds_by_person(study(), cohorts(), folds=3, seed=2)
    assert [names(fold.judged, study()) for fold in other] != judged


def test_outcomes_are_as_frequent_in_every_fold() -> None:
    for fold in folds_by_person(study(), cohorts(40), folds=4, seed=1):
        for site, source in fold.judged.items():
            whole = [p.stays[0].label for p in cohorts(40).sites[site].read_patients(study())]
            part = [p.stays[0].label for p in source.read_patients(study())]
            assert abs(sum(part) - sum(whole) / 4) <= 1


def test_by_site_whole_sites_are_left_out_and_those_of_one_owner_together() -> None:
    four = with_changes(study(), study={"sites": ("a", "b", "c", "d", "e")})
    sites = {site: Ward(number, 5) for number, site in enumerate(four.sites)}
    held = Cohorts(
        sites=sites, test={"test": Trap()}, described="nobody",
        owners={"one": ("a", "b"), "two": ("c",), "three": ("d",), "four": ("e",)},
    )  # fmt: skip
    folds = folds_by_site(four, held, folds=4, seed=1)
    assert sorted(tuple(fold.judged) for fold in folds) == [("a", "b"), ("c",), ("d",), ("e",)]
    for fold in folds:
        assert set(fold.training) == set(four.sites) - set(fold.judged) == set(fold.study.sites)
    with pytest.raises(SettingsError, match=r"folds 2: without .* 2 sites are left"):
        folds_by_site(four, held, folds=2, seed=1)
    with pytest.raises(SettingsError, match="folds 5: more than the 4 that own records"):
        folds_by_site(four, held, folds=5, seed=1)


def test_records_of_the_test_alone_are_not_opened_when_persons_are_dealt() -> None:
    training = Pool(records=Records(Ward(1, 30)), where="a", group="", sites=study().sites)
    tests = Pool(records=Records(Trap()), where="b", group="")
    dealing = Dealing(study().sites, [training], [tests], Rules())
    held = Cohorts(
        sites={site: DealtSource(dealing, site, test=False) for site in study().sites},
        test={"test": DealtSource(dealing, "test", test=True)},
        described="nobody",
        dealing=dealing,
    )
    with pytest.raises(AssertionError, match="a test patient was read"):
        list(held.sites["north"].read_patients(study()))  # the trap works
    folds = folds_by_person(study(), held, folds=2, seed=1)
    assert sum(len(names(fold.judged, study())) for fold in folds) == 30


def test_persons_whom_the_rules_keep_for_the_test_are_in_no_fold() -> None:
    pool = Pool(records=Records(Ward(1, 60)), where="a", group="", sites=study().sites)
    dealing = Dealing(study().sites, [pool], [], Rules(share=0.5))
    held = replace(
        cohorts(),
        sites={site: DealtSource(dealing, site, test=False) for site in study().sites},
        dealing=dealing,
    )
    tested = {p.patient_id for p in dealing.dealt(study()).test["test"]}
    folds = folds_by_person(study(), held, folds=2, seed=1)
    found = {name for fold in folds for name in names(fold.judged, study())}
    assert tested
    assert not found & tested
    assert len(found) + len(tested) == 60


def test_folds_that_nobody_could_train_in_are_refused() -> None:
    with pytest.raises(SettingsError, match="folds 1: must be at least 2"):
        folds_by_person(study(), cohorts(), folds=1, seed=1)
    with pytest.raises(SettingsError, match="site north has 1 training patient"):
        folds_by_person(study(), cohorts(1), folds=2, seed=1)
