"""From settings of records to the cohorts of a study: which source each site reads, and the test's.

The settings come from files (:mod:`consilium.simulations.cohorts.records_file`), one for each site
or one for a collection that is dealt out, or from data frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.registry import (
    HOSPITAL,
    OWN_SYSTEMS,
    open_source,
    read_data_settings,
)
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.dealing import (
    Dealing,
    DealtSource,
    PersonsAre,
    Pool,
    Rules,
    column_of,
)
from consilium.simulations.cohorts.partitions import Records
from consilium.simulations.cohorts.records_file import (
    Part,
    RecordsFile,
    Sites,
    Test,
    read_records_file,
)
from consilium.simulations.cohorts.study_sites import chosen_among, numbered, site_names

Simulated = tuple[Study, Cohorts]


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """Settings of records, and the folder at which their relative paths start.

    Attributes:
        file: the settings.
        where: names them in sentences.
        base: the folder.
        instead: if given, the one file that takes the place of ``path`` in ``[data]``.
        keeps: kept as long as the collection, such as a temporary folder with its files.
    """

    file: RecordsFile
    where: str
    base: Path
    instead: Path | None = None
    keeps: object = field(default=None, repr=False)

    @classmethod
    def read(cls, path: Path, data: Path | None = None) -> "Collection":
        """Read a file of settings.

        Args:
            path: the file.
            data: the folder at which its relative paths start, or one that holds this folder under
                its usual name; the file's own unless given. A file takes the place of its ``path``.

        Raises:
            SettingsError: it cannot be read; a key is wrong; or the folder is missing.
        """
        file = read_records_file(path)
        about = file.records
        if file.test.settings is not None:
            beside = str(path.resolve().parent / file.test.settings)
            test = file.test.model_copy(update={"settings": beside})
            file = file.model_copy(update={"test": test})
        if data is None and about.files is None:
            return cls(file=file, where=str(path), base=path.resolve().parent)
        if data is None or not data.exists():
            told = "no --data was given" if data is None else f"--data {data} does not exist"
            files = about.files or "the files that it names"
            raise SettingsError(f"records {path}: {told}; give the folder that holds {files}")
        if data.is_file():
            whole = data.resolve()
            return cls(file=file, where=str(path), base=whole.parent, instead=whole)
        named = data / about.folder if about.folder else data
        return cls(file=file, where=str(path), base=(named if named.is_dir() else data).resolve())

    def settings(self, *changes: Mapping[str, Any]) -> DataSettings:
        """Return the checked ``[data]``, with the changes of parts.

        Raises:
            SettingsError: a key is wrong.
        """
        table = dict(self.file.data)
        if self.instead is not None:
            table["path"] = str(self.instead)
        for changed in changes:
            table.update(changed)
        return read_data_settings(table, where=self.where, folder=self.base)

    def pool(self, study: Study, part: Part | None, *changes: Mapping[str, Any]) -> Pool:
        """Open the records of a part, or all, for a study.

        Raises:
            SettingsError: a key is wrong, or they are of another kind than the study's.
            DataError: the records are not there.
        """
        changes = changes if part is None else (part.data, *changes)
        chosen = self.settings(*changes)
        wanted = study.data.source
        if wanted != chosen.source and not (wanted == HOSPITAL and chosen.source in OWN_SYSTEMS):
            raise SettingsError(
                f"study {study.name} wants source {wanted!r}, and {self.where} has "
                f"{chosen.source!r}; choose the matching records or study"
            )
        sites = () if part is None else part.sites
        group = (part.name or sites[0]) if part is not None else ""
        where = self.where if part is None or not part.data else f"{self.where}, {group}"
        return Pool(records=Records(open_source(chosen, study)), where=where, group=group,
                    sites=sites)  # fmt: skip  # reads as one


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a command, or a call from Python, changes in the settings of a collection.

    Attributes:
        sites: number of made-up sites, to which a hash deals the persons.
        column: a column of the stays; each of its values is a site.
        test: who is kept for the test.
        persons: whether an identifier in two parts or files is the same person.
        key: of the hash that deals persons out.
        by_site: whether test persons are told apart, even if their sites are made up.
    """

    sites: int | None = None
    column: str | None = None
    test: Test | None = None
    persons: PersonsAre | None = None
    key: str | None = None
    by_site: bool = False


def simulated_collection(study: Study, collection: Collection, choice: Choice) -> Simulated:
    """Return the study, with the records' sites, and its cohorts: one collection dealt to sites.

    Raises:
        SettingsError: the settings are wrong, or do not fit the study.
        StudyError: the study is not valid with so many sites.
        DataError: the records cannot be read.
    """
    file = _with_choice(collection.file, choice)
    collection = replace(collection, file=file)
    sites, test = file.sites, file.test
    of_value: dict[str, str] = {}
    if sites.parts:
        parts = sites.parts
        names = [site for part in parts for site in part.sites]
        study = chosen_among(study, names, collection.where)
        parts = tuple(part for part in parts if set(part.sites) & set(study.sites))
        pools = [collection.pool(study, part) for part in parts]
    else:
        whole = collection.pool(study, None)
        if sites.column is not None:
            named = _named_values(whole, sites.column, file)
            study = chosen_among(study, list(named), f"{collection.where}, {sites.column}")
            of_value = {named[site]: site for site in study.sites}
        elif choice.sites is not None:
            study = numbered(study, choice.sites)
        pools = [replace(whole, sites=study.sites)]
    by_site = test.settings is None and _by_site(file, choice)
    tests: list[Pool] = []
    if test.data is not None:
        tests = (
            [collection.pool(study, part, test.data) for part in parts]
            if by_site and sites.parts
            else [collection.pool(study, None, test.data)]
        )
        by_site = by_site and bool(sites.parts)
    elif test.settings is not None:
        tests = [_test_pool(study, Path(test.settings))]
    rules = _rules(test, sites.key, file.records.persons, by_site=by_site)
    rules = replace(rules, column=sites.column, site_of_value=of_value)
    owners = {
        part.name: tuple(site for site in part.sites if site in study.sites)
        for part in sites.parts
        if part.name is not None and set(part.sites) & set(study.sites)
    }
    return study, _cohorts(study, Dealing(study.sites, pools, tests, rules), test, owners)


def simulated_sites(
    study: Study, collections: Mapping[str, Collection], choice: Choice
) -> Simulated:
    """Return the study, with these sites, and its cohorts: a file of settings for each site.

    Raises:
        SettingsError: the settings are wrong, do not fit the study, or two are the same.
        StudyError: the study is not valid with so many sites.
        DataError: the records cannot be read.
    """
    read: dict[str, DataSettings] = {}
    for site, one in collections.items():
        if one.file.sites != Sites() or one.file.test != Test():
            raise SettingsError(
                f"{one.where}: is the settings of one site of several, and has [sites] or [test], "
                "which deal out a collection; remove them, or give the file alone as --records"
            )
        chosen = one.settings()
        if same := [name for name, other in read.items() if other == chosen]:
            raise SettingsError(
                f"{one.where}: reads the same records as {collections[same[0]].where}; every site "
                "has records of its own, name another file"
            )
        read[site] = chosen
    study = chosen_among(study, list(collections), "the list of settings")
    used = {site: collections[site] for site in study.sites}
    pools = [one.pool(study, Part(sites=(site,))) for site, one in used.items()]
    test = choice.test or Test()
    tests = [_test_pool(study, Path(test.settings))] if test.settings is not None else []
    by_site = test.settings is None
    rules = _rules(test, choice.key or "", choice.persons, by_site=by_site)
    return study, _cohorts(study, Dealing(study.sites, pools, tests, rules), test, {})


def _by_site(file: RecordsFile, choice: Choice) -> bool:
    """Return whether test persons are told apart: as the settings say, or where it makes sense."""
    if file.test.by_site is not None:
        return file.test.by_site
    made_up = not file.sites.parts and file.sites.column is None
    return not made_up or (choice.by_site and file.test.data is None)


def _test_pool(study: Study, path: Path) -> Pool:
    return Collection.read(path).pool(study, None)


def _with_choice(file: RecordsFile, choice: Choice) -> RecordsFile:
    """Return the settings as the choice changes them."""
    sites, about = file.sites, file.records
    if choice.column is not None:
        sites = Sites(column=choice.column, key=sites.key)
    elif choice.sites is not None:
        sites = Sites(key=sites.key)
    if choice.key is not None:
        sites = sites.model_copy(update={"key": choice.key})
    if choice.persons is not None:
        about = about.model_copy(update={"persons": choice.persons})
    changes = {"sites": sites, "test": choice.test or file.test, "records": about}
    return file.model_copy(update=changes)


def _named_values(pool: Pool, column: str, file: RecordsFile) -> dict[str, str]:
    """Return the value of a column by the site's name, in the file's order or sorted."""
    values = set(column_of(pool, column).values())
    if file.sites.names:
        return {site: str(value) for site, value in file.sites.names.items()}
    values.discard("")
    return site_names(values, file.sites.prefix, f"{pool.where}: column {column!r}")


def _rules(test: Test, key: str, persons: PersonsAre | None, *, by_site: bool) -> Rules:
    return Rules(
        key=key,
        share=test.share,
        test_column=test.column,
        test_values=tuple(map(str, test.values)),
        test_from=test.from_,
        persons=persons,
        by_site=by_site,
    )


def _cohorts(
    study: Study, dealing: Dealing, test: Test, owners: Mapping[str, tuple[str, ...]]
) -> Cohorts:
    return Cohorts(
        sites={site: DealtSource(dealing, site, test=False) for site in study.sites},
        test={group: DealtSource(dealing, group, test=True) for group in dealing.groups},
        described=test.described or _described(test, several=len(dealing.groups) > 1),
        owners=owners,
        constant=test.constant,
        dealing=dealing,
    )


def _described(test: Test, *, several: bool) -> str:
    """Return who the test persons are."""
    if test.share is not None:
        whose = "of each site's persons" if several else "of the persons"
        return f"{test.share:.0%} {whose}, drawn by a hash"
    if test.column is not None:
        return f"persons with {test.column} {', '.join(map(str, test.values))}"
    if test.from_ is not None:
        return f"persons whose first stay began on {test.from_} or later"
    return f"the records of {Path(test.settings).name}" if test.settings else "records set apart"
