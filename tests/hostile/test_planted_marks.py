"""Marks planted in every field of every source: no answer and no support bundle has one."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilium.client.hospital.folder import LOG_NAME
from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.client.round.session import Session
from consilium.client.round.told import TOLD, refusal_of
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.sources.registry import SOURCES
from consilium.shared import errors
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import ConsiliumError, UnableError
from consilium.shared.secure_sum.messages import Action, ChannelKey, Refusal
from consilium.shared.service.log_file import LogFileHandler, templates
from tests.client.service.test_study_sessions import KEYS, ROSTER, STUDY, channel_request
from tests.client.sources import test_damaged_files, test_damaged_systems
from tests.client.sources.test_damaged_files import Format

FORMATS = {
    **test_damaged_files.FORMATS,
    **test_damaged_systems.FORMATS,
    **test_damaged_systems.NEW_AND_SLOW,
}
MARK = "Kennmarke4711"
FORMS = {"tables": "xlsx"}  # of a source whose name is no format's
FIELDS, ALL_FIELDS = 3, 40
UNABLE = Refusal.of("a", UnableError()).to_bytes()


def planted(content: bytes, field: int) -> bytes:
    """The content with a mark in place of one field, a cell or a stretch of bytes."""
    for separator in (b",", b"|", b'"', b" "):
        cells = content.split(separator)
        if len(cells) > 4:
            cells[(field * 7) % len(cells)] = MARK.encode()
            return separator.join(cells)
    at = (field * 97) % max(1, len(content))
    return content[:at] + MARK.encode() + content[at + len(MARK) :]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The site's log file, as its process writes it; the folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = LogFileHandler(folder, LOG_NAME)
    logging.getLogger().addHandler(handler)
    yield folder
    logging.getLogger().removeHandler(handler)
    handler.close()


def answers(form: Format, folder: Path, site: Path, fields: int) -> list[bytes]:
    """What a site answers whose records are whole, then marked in one field after another."""
    form.write(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    state = SiteState(
        identity=KEYS["a"],
        ledger=Ledger(site / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
        journal=RoundJournal(site / "journal.sqlite"),
        split_key=bytes(32),
        personal=PersonalStore(site / "personal"),
    )

    def read() -> Cohort:
        return read_cohort(form.open(folder), form.study, site="a", split_key=bytes(32))

    def answer() -> bytes:
        session = Session(
            site="a",
            study=STUDY,
            roster=Roster(ROSTER.members),
            sizes=KnownSizes({}),
            read=read,
            policy=Policy(),
            state=state,
        )
        return session.handle(Action.CHANNEL, channel_request()).body

    said = [answer()]
    for field in range(fields):
        path = files[field % len(files)]
        path.write_bytes(planted(whole[path], field))
        said.append(answer())
        path.write_bytes(whole[path])
    for path in files:
        path.unlink()
    said.append(answer())
    return said


def check(name: str, tmp_path: Path, site: Path, fields: int) -> None:
    folder = tmp_path / f"{MARK}-records"
    folder.mkdir()
    for body in answers(FORMATS[name], folder, site, fields):
        assert MARK.encode() not in body
        if body != UNABLE:  # all that goes wrong with records is one refusal of these bytes
            assert ChannelKey.from_bytes(body).site == "a"
    log = (site / "logs" / f"{LOG_NAME}.jsonl").read_text()
    kept = templates(site, LOG_NAME, 1000)
    assert kept
    assert MARK not in json.dumps(kept)
    assert MARK in log or "exception" in log  # the site's own people are told which file


def test_every_source_has_a_format_whose_fields_are_marked() -> None:
    marked = {form.study.data.source for form in FORMATS.values()} | set(FORMATS)
    assert {FORMS.get(name, name) for name in SOURCES} <= marked


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(FORMATS)[::3])
def test_of_a_few_marked_fields_of_a_source_nothing_leaves(
    name: str, tmp_path: Path, log: Path
) -> None:
    check(name, tmp_path, log, FIELDS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_of_any_marked_field_of_any_source_nothing_leaves(
    name: str, tmp_path: Path, log: Path
) -> None:
    check(name, tmp_path, log, ALL_FIELDS)


@pytest.mark.parametrize("error", sorted(TOLD))
def test_whatever_an_error_says_its_code_and_its_fixed_sentence_are_all_that_leaves(
    error: str,
) -> None:
    kind, _, case = error.partition(".")
    raised = UnableError() if kind == "UnableError" else getattr(errors, kind)(MARK, case=case)
    told = refusal_of("a", raised)
    assert (told.code, told.sentence) == (error, TOLD[error])
    assert MARK.encode() not in told.to_bytes()
    unknown = refusal_of("a", ConsiliumError(MARK, case=MARK))
    assert (unknown.code, unknown.sentence) == ("UnableError", str(UnableError()))
