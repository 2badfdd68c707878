"""Sources are opened by name from site.toml, and every mistake there is one sentence."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.public.physionet2012 import PhysioNet2012
from consilium.client.sources.registry import SOURCES, open_source, read_data_settings
from consilium.shared.errors import DataError, SettingsError
from tests.study_text import small_study

FOLDER = Path("/hospital")


def read(text: str) -> DataSettings:
    return read_data_settings(tomllib.loads(text), where="site.toml", folder=FOLDER)


def test_a_source_is_opened_by_its_name_with_paths_beside_the_settings() -> None:
    chosen = read('source = "physionet2012"\npath = "set-a.zip"\nwhere = { ICUType = 1 }')
    assert chosen.path == FOLDER / "set-a.zip"
    study = small_study(data={"source": "physionet2012"})
    assert isinstance(open_source(chosen, study), PhysioNet2012)


def test_a_study_of_another_source_is_refused_and_one_of_the_hospitals_own_takes_any() -> None:
    chosen = read('source = "physionet2012"\npath = "set-a.zip"')
    for wanted in ("tables", "hospital"):
        with pytest.raises(DataError, match=f"wants source '{wanted}', but site.toml has"):
            open_source(chosen, small_study(data={"source": wanted}))
    tables = read(
        'source = "tables"\n[stays]\nfile = "s.csv"\npatient = "p"\n[[events]]\nfile = "e.csv"\n'
        'stay = "p"\nhours = "h"\nvariable = "v"\nvalue = "x"'
    )
    assert open_source(tables, small_study(data={"source": "hospital"})).name == "tables"


def test_an_absolute_path_stays_as_it_is() -> None:
    assert read('source = "physionet2012"\npath = "/data/set-a.zip"').path == Path(
        "/data/set-a.zip"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('source = "physionet-2012"', "did you mean 'physionet2012'"),
        ('path = "x"', "source is missing"),
        ('source = "physionet2012"', r"\[data\] path is missing; add it"),
        ('source = "physionet2012"\npath = "x"\npat = "y"', "did you mean 'path'"),
        ('source = "physionet2012"\npath = "x"\nset = "d"', "must be one of 'a', 'b' or 'c'"),
        ('source = "physionet2012"\npath = 3', r"\[data\] path is not acceptable"),
    ],
)
def test_mistakes_are_told_with_the_key_and_the_remedy(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        read(text)
    assert str(caught.value).startswith("site.toml: ")
    assert "\n" not in str(caught.value)


def test_every_source_is_named_as_its_settings_name_it() -> None:
    assert all(issubclass(kind.settings, DataSettings) for kind in SOURCES.values())


def test_listing_the_sources_imports_none_of_them() -> None:
    code = (
        "import sys, consilium.client.sources.registry\n"
        "heavy = {'polars', 'sqlalchemy', 'meds', 'pyarrow', 'wfdb', 'pydicom', 'nibabel'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
