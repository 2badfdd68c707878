"""Records named by options: what a stranger would try ends in cohorts, or in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consilium.shared.errors import ConsiliumError, DataError, SettingsError, StudyError
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.given_records import Given, dealt_sentences, simulated
from consilium.simulations.cohorts.records_file import Test as Tested
from consilium.simulations.cohorts.records_file import read_records_file, test_given
from consilium.simulations.cohorts.records_plan import Choice
from consilium.simulations.figures.held_out import HeldOut
from tests.simulations.own_tables import RECORDS, STUDY, write_tables

OWN = parse_study(STUDY)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("own"), blank=4)


def persons(study: Study, cohorts: Cohorts) -> dict[str, set[str]]:
    """The persons of each site, and of the test; nobody is at two places."""
    found = {site: {p.patient_id for p in s.read_patients(study)}
             for site, s in cohorts.sites.items()}  # fmt: skip  # reads as one
    found["test"] = {
        p.patient_id for s in cohorts.test.values() for p in s.read_patients(study)
    }  # fmt: skip
    everyone = [person for group in found.values() for person in group]
    assert len(everyone) == len(set(everyone))
    return found


def refusal(kind: type[ConsiliumError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def of_collection(tables: Path, study: Study = OWN, **choice: object) -> dict[str, set[str]]:
    given = Given(records=tables / "records.toml", choice=Choice(**choice))  # type: ignore[arg-type]
    return persons(*simulated(study, given))


def test_one_collection_is_dealt_to_the_studys_sites_by_a_hash(tables: Path) -> None:
    found = of_collection(tables)
    assert set(found) == {*OWN.sites, "test"}
    assert sum(map(len, found.values())) == 90
    assert found == of_collection(tables)
    assert found != of_collection(tables, key="another")


def test_so_many_sites_as_asked_and_a_fraction_for_the_test(tables: Path) -> None:
    found = of_collection(tables, sites=5, test=test_given("0.4"))
    assert list(found) == ["site-1", "site-2", "site-3", "site-4", "site-5", "test"]
    assert 0.25 < len(found["test"]) / 90 < 0.55
    assert set(of_collection(tables, sites=3)) == {*OWN.sites, "test"}  # the study has so many


def test_a_site_for_each_value_of_a_column_and_blanks_are_counted(tables: Path) -> None:
    given = Given(records=tables / "records.toml", choice=Choice(column="ward"))
    study, cohorts = simulated(OWN, given)
    assert study.sites == ("east", "north", "south-wing")
    assert set(cohorts.test) == set(study.sites)  # so that each can be left out, and tested on
    assert sum(map(len, persons(study, cohorts).values())) == 86
    assert cohorts.dealing is not None
    counted, left_out = dealt_sentences(cohorts.dealing, study)
    assert counted.startswith("Persons: ")
    assert left_out == "Left out: 4 persons without a value in 'ward'."
    two = with_changes(OWN, study={"sites": ("north", "east", "made-1")})
    assert "has no site 'made-1'; its sites are east, north, south-wing" in refusal(
        SettingsError, lambda: simulated(two, given)
    )


def test_the_test_by_a_column_a_date_or_a_further_file(tables: Path, tmp_path: Path) -> None:
    column = of_collection(tables, test=test_given("split=test"))
    assert column["test"] == {str(n) for n in range(0, 90, 5)}
    date = of_collection(tables, test=test_given("2024-03-01"))
    assert date["test"] == {str(n) for n in range(56, 90)}
    later = write_tables(tmp_path / "later", persons=20, first=200)
    further = of_collection(tables, test=test_given(str(later / "records.toml")))
    assert further["test"] == {str(n) for n in range(200, 220)}
    assert sum(map(len, further.values())) == 110
    again = of_collection(tables, test=test_given(str(tables / "records.toml")), persons="same")
    assert again["test"] == set()  # all of them are trained on


def test_settings_for_each_site_with_relative_paths_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a", "b", "c")
    for number, name in enumerate(names):
        write_tables(tmp_path / name, persons=20, first=100 * number)
        (tmp_path / name / "records.toml").rename(tmp_path / name / "site.toml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study, cohorts = simulated(OWN, Given(settings=[f"../{name}/site.toml" for name in names]))
    assert study.sites == names  # a hospital's site.toml has its folder's name
    found = persons(study, cohorts)
    assert sum(map(len, found.values())) == 60
    assert found["a"] <= {str(n) for n in range(20)}
    named = Given(settings=[f"made-{n}=../{name}/site.toml" for n, name in enumerate(names, 1)])
    assert simulated(OWN, named)[0] == OWN


def test_files_whose_identifiers_occur_twice_need_a_word(tmp_path: Path) -> None:
    files = [str(write_tables(tmp_path / n, persons=30, first=0) / "records.toml") for n in "abc"]
    (tmp_path / "c" / "records.toml").write_text(RECORDS + "[data.where]\nward = 'North'\n")
    settings = [f"{name}={file}" for name, file in zip("abc", files, strict=True)]
    study, cohorts = simulated(OWN, Given(settings=settings))
    assert "say whether such persons are the same" in refusal(
        DataError, lambda: persons(study, cohorts)
    )
    own = Given(settings=settings, choice=Choice(persons="own"))
    study, cohorts = simulated(OWN, own)
    sizes = {s: len(list(c.read_patients(study))) for s, c in cohorts.sites.items()}
    assert sizes["a"] == sizes["b"] > sizes["c"] > 0
    same = Given(settings=settings, choice=Choice(persons="same"))
    study, cohorts = simulated(OWN, same)
    assert "site b has no person to train on" in refusal(DataError, lambda: persons(study, cohorts))


def test_the_same_file_or_the_same_records_twice_are_refused(tables: Path) -> None:
    file = str(tables / "records.toml")
    twice = Given(settings=[file, f"b={tables}/../{tables.name}/records.toml"])
    assert "is the same file as" in refusal(SettingsError, lambda: simulated(OWN, twice))
    (tables / "copy.toml").write_text(RECORDS)
    copied = Given(settings=[file, str(tables / "copy.toml")])
    assert "reads the same records as" in refusal(SettingsError, lambda: simulated(OWN, copied))


def test_sites_that_cannot_be_are_refused(tables: Path) -> None:
    def call(**choice: object) -> Callable[[], object]:
        return lambda: of_collection(tables, **choice)

    assert "have 1 of the 3 sites that a secure sum needs" in refusal(StudyError, call(sites=1))
    assert "have 1 of the 3 sites" in refusal(StudyError, call(column="one"))
    assert "are dealt to 300 sites; choose fewer" in refusal(DataError, call(sites=300))
    assert "more than the 1000 of a simulation" in refusal(SettingsError, call(sites=5000))
    assert "has no column 'nosuch'" in refusal(DataError, call(column="nosuch"))
    one = Given(settings=[str(tables / "records.toml")])
    assert "have 1 of the 3 sites" in refusal(StudyError, lambda: simulated(OWN, one))


def test_a_test_of_one_outcome_is_refused(tables: Path) -> None:
    given = Given(records=tables / "records.toml", choice=Choice(test=test_given("died=0")))
    study, cohorts = simulated(OWN, given)
    assert "has one outcome only" in refusal(DataError, lambda: HeldOut.read(cohorts.test, study))


@pytest.mark.parametrize("text", ["0", "1", "1.5", "nan", "soon", "2024-13-01", "=x", ""])
def test_a_test_that_means_nothing_is_refused(text: str) -> None:
    assert "must be a fraction of the persons" in refusal(SettingsError, lambda: test_given(text))


def test_options_that_contradict_each_other_are_refused(tables: Path, tmp_path: Path) -> None:
    file = tables / "records.toml"
    demo = with_changes(OWN, data={"source": "synthetic-icu", "label": "In-hospital_death"})
    for study, given, told in (
        (OWN, Given(), "nothing says where its records are"),
        (OWN, Given(data=tables), "nothing says where its records are"),
        (OWN, Given(settings=[str(file)], records=file), "--records deals out one collection"),
        (OWN, Given(settings=[str(file)], choice=Choice(sites=4)), "--sites deals out one"),
        (OWN, Given(records=file, choice=Choice(sites=4, column="ward")), "give one of them"),
        (OWN, Given(records=tmp_path / "no.toml"), "cannot be read"),
        (demo, Given(records=file), "its patients are synthetic, so --records has no use"),
        (
            with_changes(OWN, data={"source": "molecules"}),
            Given(records=file),
            "wants source 'molecules', and",
        ),
    ):
        assert told in refusal(SettingsError, lambda s=study, g=given: simulated(s, g))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[test]\nfraction = 1.0\n", "[test] fraction = 1.0 must be below 1"),
        ("[test]\nfraction = 0.2\nfrom = 2024-01-01\n", "has fraction and from; keep one"),
        ("[test]\ncolumn = 'x'\n", "needs both column and values"),
        ("[test]\nfrom = 'soon'\n", "is not a date such as 2024-03-31"),
        ("[tests]\nfraction = 0.2\n", "tests is not a known key; did you mean 'test'"),
        ("[sites]\ncolumn = 'x'\nparts = [{ sites = ['a'] }]\n", "has column and parts"),
        ("[sites]\nparts = [{ sites = ['a', 'b'] }]\n", "names no owner; add name"),
        ("[sites]\nparts = [{ sites = ['a'] }, { sites = ['a'] }]\n", "a site in two parts"),
        ("[sites]\nprefix = 'x'\n", "has names or prefix"),
        ("[records]\npersons = 'other'\n", "must be one of 'same' or 'own'"),
    ],
)
def test_a_wrong_table_of_the_settings_is_one_sentence(
    text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "records.toml"
    file.write_text(RECORDS + text)
    assert told in refusal(SettingsError, lambda: read_records_file(file))


def test_parts_read_records_by_site_and_a_hospitals_own_settings_are_settings_too(
    tables: Path,
) -> None:
    file = tables / "parts.toml"
    parts = "".join(
        f"[[sites.parts]]\nsites = ['{site}']\ndata = {{ where = {{ ward = '{ward}' }} }}\n"
        for site, ward in (("n", "North"), ("e", "East"), ("s", "South wing"))
    )
    file.write_text("site = 'house'\n[coordinator]\nhost = 'h'\nport = 1\n" + RECORDS + parts)
    study, cohorts = simulated(OWN, Given(records=file))
    assert study.sites == ("n", "e", "s")
    assert set(cohorts.test) == {"n", "e", "s"}
    assert sum(map(len, persons(study, cohorts).values())) == 86
    assert read_records_file(file).test == Tested()
