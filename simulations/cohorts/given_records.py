"""The records that a command's options, or a call from Python, name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.dealing import Dealing
from consilium.simulations.cohorts.records_plan import (
    Choice,
    Collection,
    Simulated,
    simulated_collection,
    simulated_sites,
)
from consilium.simulations.cohorts.study_cohorts import SYNTHETIC, cohorts_for, synthetic
from consilium.simulations.cohorts.study_records import collection_of
from consilium.simulations.cohorts.study_sites import site_name

FEW = 12  # sites whose sizes are shown one by one


@dataclass(frozen=True, kw_only=True)
class Given:
    """What names the records, and how they are dealt out.

    Attributes:
        beside: the study's file, beside which its own settings of records may lie.
        data: the folder, or the file, with the records of the study's own settings.
        settings: a file of settings for each site, ``FILE`` or ``SITE=FILE``.
        records: the settings of one collection.
        choice: how it is dealt out.
    """

    beside: Path | None = None
    data: Path | None = None
    settings: Sequence[str] = ()
    records: Path | None = None
    choice: Choice = field(default_factory=Choice)


def simulated(study: Study, given: Given) -> Simulated:
    """Return the study, with the sites that the records have, and its cohorts.

    Raises:
        SettingsError: nothing names the records, or options contradict each other.
        StudyError: the study is not valid with so many sites.
        DataError: the records cannot be read.
    """
    choice = _absolute(given.choice)
    options = _named(given)
    if study.data.source in SYNTHETIC:
        if options:
            raise SettingsError(
                f"study {study.name}: its patients are synthetic, so {options[0]} has no use; "
                "leave it out"
            )
        return synthetic(study)
    if given.settings:
        if excess := [name for name in options if name not in ("--settings", *_OF_ALL)]:
            raise SettingsError(
                f"{excess[0]} deals out one collection, and --settings names the records of each "
                "site; leave one of them out"
            )
        return simulated_sites(study, _by_site(given.settings), choice)
    if given.records is not None:
        return simulated_collection(study, Collection.read(given.records, given.data), choice)
    if replace(choice, by_site=False) == Choice():
        return study, cohorts_for(study, given.data, given.beside, by_site=choice.by_site)
    collection = collection_of(study, given.data, given.beside)
    return simulated_collection(study, collection, choice)


_OF_ALL = ("--test", "--persons", "--key")  # options that go with any records


def _named(given: Given) -> list[str]:
    """Return the options that were given."""
    choice = given.choice
    values = {
        "--data": given.data,
        "--settings": given.settings or None,
        "--records": given.records,
        "--sites": choice.sites,
        "--by": choice.column,
        "--test": choice.test,
        "--persons": choice.persons,
        "--key": choice.key,
    }
    if choice.sites is not None and choice.column is not None:
        raise SettingsError(
            "--sites deals persons out by a hash and --by by a column; give one of them"
        )
    return [name for name, value in values.items() if value is not None]


def _absolute(choice: Choice) -> Choice:
    """Return the choice with the test's file from the folder in which the command was given."""
    if choice.test is None or choice.test.settings is None:
        return choice
    path = str(Path(choice.test.settings).absolute())
    return replace(choice, test=choice.test.model_copy(update={"settings": path}))


def _by_site(settings: Sequence[str]) -> Mapping[str, Collection]:
    """Return each site's settings by its name: as given, as the file says, or the file's own.

    Raises:
        SettingsError: a file is named twice, or two would have one site's name.
    """
    found: dict[str, Collection] = {}
    seen: dict[Path, str] = {}
    for text in settings:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "", text
        whole = Path(path).resolve()
        if whole in seen:
            raise SettingsError(
                f"--settings {text}: is the same file as {seen[whole]}; every site has records of "
                "its own, name it once"
            )
        seen[whole] = text
        one = Collection.read(Path(path))
        name = site_name(name or one.file.site or _stem(Path(path)))
        if not name or name in found:
            raise SettingsError(
                f"--settings {text}: its site would be called {name!r}"
                + (f", as that of {found[name].where}" if name in found else "")
                + "; give it a name, --settings NAME=FILE"
            )
        found[name] = one
    return found


def _stem(path: Path) -> str:
    """Return a file's name, or its folder's if all hospitals call their file so."""
    return path.resolve().parent.name if path.name == "site.toml" else path.stem


def dealt_sentences(dealing: Dealing, study: Study) -> tuple[str, ...]:
    """Return sentences: how many persons each site and the test have, and what was left out.

    Raises:
        DataError: as :meth:`.Dealing.dealt`.
    """
    dealt = dealing.dealt(study)
    sizes = {site: len(patients) for site, patients in dealt.held.items()}
    if len(sizes) <= FEW:
        told = ", ".join(f"{count} at {site}" for site, count in sizes.items())
    else:
        least, most = min(sizes.values()), max(sizes.values())
        told = f"{least} to {most} at each of {len(sizes)} sites"
    tested = sum(map(len, dealt.test.values()))
    left_out = ", ".join(f"{count} {reason}" for reason, count in dealt.left_out.items())
    return (
        f"Persons: {told}; {tested} for the test.",
        *((f"Left out: {left_out}.",) if left_out else ()),
    )
