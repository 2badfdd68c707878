"""Sources of a hospital's own installed package: loaded if the policy says so, and checked."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from consilium.client.commands.check import report_json
from consilium.client.hospital.policy_file import TEMPLATE, parse_policy, read_policy
from consilium.client.quality.findings import judge
from consilium.client.quality.measure import check_quality
from consilium.client.sources.common.installed import Checked, InstalledSource
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.common.source import Counted, Patient, ReadReport, Stay, Tally
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study, with_changes
from tests.client.sources.outside_package import install, make_wheel, unpack
from tests.client.sources.own.tables.test_tables import HR
from tests.study_text import TEXT

ROOT = Path(__file__).parents[3]
STUDY = with_changes(HR, data={"source": "hospital", "minimum_patients": 1})
DATA = 'source = "acme-lis"\npath = "pulse.csv"\n'
ALLOWED = frozenset({"acme-lis"})


def write_pulse(folder: Path) -> None:
    rows = [f"p{n},{hour},{70 + n % 20 + hour},{n % 2}" for n in range(60) for hour in range(3)]
    (folder / "pulse.csv").write_text("\n".join(["patient,hour,value,died", *rows]))


def chosen(folder: Path, text: str = "", installed: frozenset[str] = ALLOWED) -> DataSettings:
    table = tomllib.loads(DATA + text)
    return read_data_settings(table, where="site.toml", folder=folder, installed=installed)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the outside package is installed."""
    write_pulse(tmp_path)
    place = unpack(make_wheel(tmp_path), tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "acme_lis", raising=False)
    return place


def test_an_allowed_source_is_used_and_names_its_package(outside: Path, tmp_path: Path) -> None:
    settings = chosen(tmp_path)
    assert str(settings.installed) == "acme-lis, of the installed package acme-consilium 1.2"
    assert settings.path == tmp_path / "pulse.csv"
    source = open_source(settings, STUDY)
    patients = list(source.read_patients(STUDY))
    assert (source.name, len(patients), source.report.events) == ("acme-lis", 60, 180)
    by_name = with_changes(STUDY, data={"source": "acme-lis"})
    assert len(list(open_source(settings, by_name).read_patients(by_name))) == 60


def test_the_funnel_of_a_source_that_counts_nothing_says_so_and_has_no_zeros(
    outside: Path, tmp_path: Path
) -> None:
    quality = check_quality(open_source(chosen(tmp_path), STUDY, counts_units=True), STUDY)
    assert not quality.read.counts_rows
    findings = judge(quality, STUDY)
    (told,) = (one.told for one in findings if one.about == "rows")
    assert told.endswith("does not count the rows that it leaves out; those kept are 180 of HR")
    report = report_json(quality, findings, "ready", STUDY)
    assert report["variables"]["HR"]["funnel"] == {"kept": 180}


def test_a_source_that_counts_keeps_its_own_funnel(tmp_path: Path) -> None:
    class Counting(Counted):
        name = "counting"

        def read_patients(self, study: Study):
            self._tally = Tally()
            self._tally.ends("no time", "HR", 7)
            return iter(())

    installed = InstalledSource("counting", "ours", "1", DataSettings, lambda *_: Counting())
    source = Checked(installed, Counting())
    assert list(source.read_patients(STUDY)) == []
    assert source.report.counts_rows
    assert source.report.funnel == {"HR": {"no time": 7}}


def test_who_opted_out_does_not_come_from_it(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "opted-out.txt").write_text("p3\np59\nsomebody else\n")
    source = open_source(chosen(tmp_path, 'opted_out = "opted-out.txt"\n'), STUDY)
    found = {patient.patient_id for patient in source.read_patients(STUDY)}
    assert found == {f"p{n}" for n in range(60)} - {"p3", "p59"}
    assert source.report.opted_out == (2, 3)


def test_what_the_policy_does_not_name_is_never_loaded(outside: Path, tmp_path: Path) -> None:
    for allowed in (frozenset(), frozenset({"acme"})):
        with pytest.raises(
            SettingsError, match=r"package \(acme-consilium 1\.2\).*add it to \[sources\] installed"
        ):
            chosen(tmp_path, installed=allowed)
    by_name = with_changes(STUDY, data={"source": "acme-lis"})
    tables = read_data_settings(
        {"source": "physionet2012", "path": "x"}, where="site.toml", folder=tmp_path
    )
    with pytest.raises(DataError, match=r"wants source 'acme-lis', but site\.toml has"):
        open_source(tables, by_name)
    assert not (outside / "loaded").exists()
    assert "acme_lis" not in sys.modules


def test_a_policy_names_nothing_by_default(tmp_path: Path) -> None:
    assert parse_policy("").installed_sources == parse_policy(TEMPLATE).installed_sources
    assert not parse_policy("").installed_sources
    assert parse_policy('[sources]\ninstalled = ["a", "b"]').installed_sources == {"a", "b"}
    assert not read_policy(tmp_path / "none").installed_sources


@pytest.mark.parametrize(
    ("name", "target", "sentence"),
    [
        (
            "other-package",
            "other:SOURCE",
            r"added by 2 installed packages \(acme-consilium 1\.2; ot",
        ),
        ("acme-consilium", "acme_lis:NOTHING", r"cannot be loaded \(AttributeError\); ask who"),
        ("acme-consilium", "acme_lis:BROKEN", r"cannot be loaded \(AttributeError\); ask who"),
        ("acme-consilium", "os:path", r"cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_sentence(
    name: str, target: str, sentence: str, outside: Path, tmp_path: Path
) -> None:
    unpack(make_wheel(tmp_path, name=name, target=target), outside)
    with pytest.raises(SettingsError, match=sentence):
        chosen(tmp_path)


def test_its_own_settings_are_checked_by_its_own_model(outside: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[data\] factr is not a known key; did you mean 'fa"):
        chosen(tmp_path, "factr = 2.0")


def test_what_it_gives_is_checked_and_its_failures_are_one_sentence(
    outside: Path, tmp_path: Path
) -> None:
    source = open_source(chosen(tmp_path, "factor = 1000.0"), STUDY)
    with pytest.raises(DataError, match=r"acme-consilium 1\.2 gives values outside the study's"):
        list(source.read_patients(STUDY))
    (tmp_path / "pulse.csv").write_text("patient\nMeier")
    with pytest.raises(DataError, match=r"failed while it read \(KeyError\)") as caught:
        list(open_source(chosen(tmp_path), STUDY).read_patients(STUDY))
    assert "Meier" not in str(caught.value)


class Given:
    """A source that gives what a test says."""

    name = "given"

    def __init__(self, *patients: object) -> None:
        self._patients = patients

    @property
    def report(self) -> ReadReport:
        return Tally().report()

    def read_patients(self, study: Study) -> object:
        return iter(self._patients)


def stay(hours: list, values: list, variables: list | None = None, label: object = 0.0) -> Stay:
    return Stay(
        stay_id="s",
        hours_E=np.array(hours, dtype=np.float32),
        variable_E=np.array(variables or [0] * len(hours), dtype=np.int16),
        value_E=np.array(values, dtype=np.float32),
        label=label,
    )


def one(*stays: Stay, identity: object = "p") -> Patient:
    return Patient(patient_id=identity, stays=stays)


GOOD = stay([0, 1], [80, 90])


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        ([one(GOOD), one(GOOD)], "a patient twice"),
        ([one(GOOD, identity=7)], "without an identifier"),
        ([one()], "a patient without stays"),
        (["p"], "what is no Patient"),
        ([one(stay([0, 1], [80]))], "differ in length"),
        ([one(stay([0, np.nan], [80, 90]))], "not finite"),
        ([one(stay([0, 1], [80, np.inf]))], "not finite"),
        ([one(stay([-1, 1], [80, 90]))], "before their stay"),
        ([one(stay([1, 0], [80, 90]))], "not in order of time"),
        ([one(stay([0], [80], [1]))], "variables that the study does not have"),
        ([one(stay([0], [80], [-1]))], "variables that the study does not have"),
        ([one(stay([0], [1e6]))], "outside the study's ranges"),
        ([one(stay([0], [80], label=2.0))], "labels that the study's task does not have"),
        ([one(stay([0], [80], label=np.nan))], "labels that the study's task does not have"),
        ([one(stay([0], [80], label="dead"))], r"failed while it read \(ValueError\)"),
    ],
)
def test_what_no_source_may_give_is_refused(patients: list, sentence: str) -> None:
    installed = InstalledSource("given", "acme", "1", DataSettings, lambda *_: Given())
    assert len(list(Checked(installed, Given(one(GOOD))).read_patients(STUDY))) == 1
    with pytest.raises(DataError, match=sentence):
        list(Checked(installed, Given(*patients)).read_patients(STUDY))


@pytest.mark.slow
def test_a_package_installed_into_a_fresh_folder_serves_the_check(tmp_path: Path) -> None:
    """By pip, and by the commands as a hospital's people type them, in processes of their own."""
    if find_spec("pip") is None:
        pytest.skip("pip is not installed")
    write_pulse(tmp_path)
    place = install(make_wheel(tmp_path), tmp_path / "fresh")
    (tmp_path / "settings.toml").write_text("[data]\n" + DATA)
    (tmp_path / "study.toml").write_text(TEXT.replace('"tables"', '"hospital"'))
    site = tmp_path / "site"
    site.mkdir(mode=0o700)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "consilium.client", *words, "--folder", site]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)

    check = ("check", str(tmp_path / "study.toml"), "--settings", str(tmp_path / "settings.toml"))
    (site / "policy.toml").write_text("")
    refused = run(*check)
    assert refused.returncode
    assert "policy does not allow it" in refused.stderr + refused.stdout
    assert not (place / "loaded").exists()
    (site / "policy.toml").write_text('[sources]\ninstalled = ["acme-lis"]\n')
    told = run(*check, "--json")
    report = json.loads(told.stdout)
    assert report["patients"] == 60
    assert report["installed_source"] == {
        "name": "acme-lis", "distribution": "acme-consilium", "version": "1.2",
    }  # fmt: skip
    review = run("review", str(tmp_path / "study.toml"))
    assert "source acme-lis read records: code of acme-consilium 1.2" in review.stdout
