"""The example studies on their own records, which are read once for all that is said of a study."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.cohort import read_cohort, require_suitable
from consilium.client.sources.common.source import Source
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.folds import Part
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.cohorts.study_records import folder_for, missing_folder
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.federation.both_sums import require_the_same, trained
from tests.simulations.judging import exact_aurocs, validation_patients

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
ROUNDING = 1e-4  # weights such as 1/3 are rounded at random on their way into the sum
OTHER_FIGURES = ("regression", "survival")  # survival: test_survival_counts.py
FEW = 60  # persons of a site, enough for any study's model to move
MOST_SITES = 50  # more than the neighbours that any study gives a site
SLOW = ("sepsis", "tox21", "readmission", "icu", "ventilation", "adrenal", "arrhythmia", "eicu")
DEALT = {  # by the code that had the names of files in it; but for eicu, see decision 174
    "adrenal-slices": "7adc4440c1e535d4",
    "adrenal-slices-grid": "7adc4440c1e535d4",
    "arrhythmia-mitdb": "8f6c86a0d3f6c83d",
    "bbbp": "f126b1b7851f0d34",
    "eicu-aki-hospitals": "dffded90dfee2bb3",
    "eicu-aki-regions": "e99264cae50d59a1",
    "eicu-length-of-stay": "d0bacb6677d6dc53",
    "heart-disease-strategies": "193a0cd0fbaba58c",
    "heart-disease": "193a0cd0fbaba58c",
    "icu-mortality-2012-branches": "c0f50f1185ec8832",
    "icu-mortality-2012": "c0f50f1185ec8832",
    "parkinsons-progression": "22703811978ab0ab",
    "readmission-codes": "05385d59c9962018",
    "readmission-fusion": "05385d59c9962018",
    "sepsis-2019": "507c3646076e58c6",
    "sepsis-landmarks": "507c3646076e58c6",
    "tox21": "e65fd43a044c6360",
    "ventilation-mortality": "c0f50f1185ec8832",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shipped:
    """A study without privacy, of one person and more a site, and its records."""

    study: Study
    cohorts: Cohorts


@lru_cache(maxsize=1)  # tests of one study follow each other
def shipped(path: Path) -> Shipped:
    changes = {"data": {"minimum_patients": 1}, "privacy": {"mode": "none"}}
    study = with_changes(load_study(path), **changes)
    if missing_folder(study, DATA, path) is not None:
        pytest.skip(f"the records of {study.name} are not beside the repository")
    cohorts = cohorts_for(study, folder_for(study, DATA, path), path)
    return Shipped(study=study, cohorts=cohorts)


@pytest.fixture(scope="module", autouse=True)
def _records_are_let_go() -> Iterator[None]:
    yield
    shipped.cache_clear()


def the_same_persons_are_at_the_same_sites_as_ever(given: Shipped, folder: Path) -> None:
    study, cohorts = given.study, given.cohorts
    places = [*cohorts.sites.items(), *cohorts.test.items()]

    def persons(sources: Iterable[tuple[str, Source]]) -> str:
        hashed = hashlib.sha256()
        for place, source in sources:
            ids = [patient.patient_id for patient in source.read_patients(study)]
            if study.data.source == "waveforms":  # records, which were named without their folder
                ids = [one.rpartition("/")[2] for one in ids]
            hashed.update("\n".join([place, *sorted(ids), ""]).encode())
        return hashed.hexdigest()[:16]

    assert persons(places) == DEALT[study.name]


def the_auroc_from_sums_is_within_its_bound_of_the_exact_one_and_the_bound_below_0_002(
    given: Shipped, folder: Path
) -> None:
    """Through the secure sum, after one round: that model's risks crowd as no finished one's do."""
    sources = given.cohorts.sites
    study = with_changes(given.study, study={"rounds": 1}, evaluation={"validation_fraction": 0.2})
    study = with_changes(study, study={"sites": _able_to_hold_out(study, sources)})
    federation = Federation(study, sources, folder, workers=2)
    test = validation_patients(federation, study)
    finished = federation.train(lambda _: None, test)
    told = finished.history[-1]["validation"]
    assert told["patients"] == pytest.approx(test.grid.patients)
    for output, (metrics, exact) in enumerate(
        zip(told["outputs"], exact_aurocs(test, finished.scores), strict=True)
    ):
        assert (metrics is None) == np.isnan(exact), output
        if metrics is not None:
            assert metrics["auroc_error"] < 0.002
            assert abs(metrics["auroc"] - exact) <= metrics["auroc_error"] + ROUNDING


def _able_to_hold_out(study: Study, sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Sites that can still train without a fifth of their patients; hospitals of ten may not."""
    able = []
    for site in study.sites:
        with suppress(DataError):
            split_key = digest("split", study.seed, site)
            cohort = read_cohort(sources[site], study, site=site, split_key=split_key)
            require_suitable(cohort, study, site=site, minimum_patients=1)
            able.append(site)
    assert len(able) > len(study.sites) / 2
    return tuple(able)


def the_sum_in_the_clear_gives_the_protocols_result_to_the_bit(
    given: Shipped, folder: Path
) -> None:
    """Two rounds of some persons of some sites: what is summed is alike, however many there are."""
    sites = given.study.sites[:MOST_SITES]
    study = with_changes(given.study, study={"rounds": 2, "sites": sites})
    sources = {site: few(given.cohorts.sites[site], study) for site in sites}
    tests = {group: few(source, study) for group, source in given.cohorts.test.items()}
    test = HeldOut.read(tests, study)
    ran = [
        trained(study, sources, test, folder / str(protocol), protocol=protocol)
        for protocol in (True, False)
    ]
    require_the_same(*ran)


def few(source: Source, study: Study) -> Source:
    """Persons that lie evenly among those of a source."""
    everybody = list(source.read_patients(study))
    return Part(source, everybody[:: max(1, len(everybody) // FEW)])


Check = Callable[[Shipped, Path], None]


def judged_by_risks() -> set[Path]:
    """One study of each collection and kind of task, that of most sites; others have its records.

    Of as many sites, that of the shorter name, whose model is the simpler one.
    """
    found: dict[object, Path] = {}
    studies = {path: load_study(path) for path in STUDIES}
    for path in sorted(STUDIES, key=lambda path: (-len(studies[path].sites), len(path.stem))):
        task = studies[path].task
        if task.kind not in OTHER_FIGURES:
            found.setdefault((path.stem.partition("-")[0], task.kind, task.per_step), path)
    return set(found.values())


def checks() -> Iterator[tuple[Path, Check]]:
    """Every study with what is to be checked of it."""
    with_risks = judged_by_risks()
    for path in STUDIES:
        if path.stem in DEALT:
            yield path, the_same_persons_are_at_the_same_sites_as_ever
        yield path, the_sum_in_the_clear_gives_the_protocols_result_to_the_bit
        if path in with_risks:
            yield (
                path,
                the_auroc_from_sums_is_within_its_bound_of_the_exact_one_and_the_bound_below_0_002,
            )


def named(path: Path, check: Check) -> object:
    quick = check is the_same_persons_are_at_the_same_sites_as_ever and not path.stem.startswith(
        SLOW
    )
    label = f"{path.stem}: {check.__name__.replace('_', ' ')}"
    return pytest.param(path, check, id=label, marks=() if quick else pytest.mark.slow)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("path", "check"), [named(*one) for one in checks()])
def test_of_a_shipped_study(path: Path, check: Check, tmp_path: Path) -> None:
    check(shipped(path), tmp_path)
