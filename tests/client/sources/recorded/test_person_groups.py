"""However records are spread over folders and spelled, a person's are one patient."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from consilium.client.sources.common.persons import named_person, same_person, spellings
from consilium.client.sources.recorded.edf import Edf
from consilium.client.sources.recorded.record_settings import EdfSettings, LabelsFile
from consilium.client.sources.recorded.record_table import Row
from consilium.client.sources.recorded.recordings import Listed
from tests.client.sources.recorded.test_edf import EXAMPLE

PEOPLE = st.sampled_from(["P1", "p1", " P1 ", "P2", "p 2", "P  2", "Ö3", "ö3", "4"])


class Columns:
    """A table with a column of persons, as far as the grouping asks for it."""

    person, path = "person", Path("labels.csv")


@given(st.lists(PEOPLE, min_size=1, max_size=12))
def test_every_record_is_in_one_group_and_a_group_is_one_person(people: list[str]) -> None:
    settings = EdfSettings(source="edf", path=Path("x"), labels=LabelsFile(file=Path("y")))
    listed = [
        Listed(f"folder{n}/record", Path("z"), Row(f"{n}", person, 0.0))
        for n, person in enumerate(people)
    ]
    groups = Edf(settings)._persons(listed, Columns(), EXAMPLE)
    assert sorted(one.name for group in groups.values() for one in group) == sorted(
        one.name for one in listed
    )
    assert len(groups) == len({same_person(person) for person in people})
    for group in groups.values():
        assert len({same_person(one.row.person) for one in group}) == 1


@given(st.text(max_size=20))
def test_an_identifier_written_again_stays_the_same_person(text: str) -> None:
    plain = same_person(text)
    assert same_person(plain) == plain
    assert same_person(f"  {text}\0 ") == plain
    assert named_person(text) in ("", plain)
    assert spellings([text, plain]) in (0, 1)
