"""The sites of a simulated study: as it names them, or as the records do."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.study.definition import Study, with_changes
from consilium.shared.study.rounds import MINIMUM_SITES

MOST_SITES = 1000  # of one machine; more are an identifier that was taken for a ward
_LONGEST = 64


def with_sites(study: Study, sites: Sequence[str]) -> Study:
    """Return the study of these sites; bounds or groups that no longer fit take defaults.

    Raises:
        StudyError: these are too few for a secure sum, or the study is not valid with them.
    """
    if tuple(sites) == study.sites:
        return study
    if len(sites) < MINIMUM_SITES:
        raise StudyError(
            f"study {study.name}: its records have {len(sites)} of the {MINIMUM_SITES} sites that "
            f"a secure sum needs ({', '.join(sites) or 'none'}); give more sites"
        )
    how, most = study.aggregation, len(sites)
    bounds = ("minimum_sites", "threshold", "neighbours")
    fits = all((getattr(how, name) or 0) <= most - (name == "neighbours") for name in bounds)
    changes: dict[str, object] = {}
    if how.groups > 1 or not fits:
        changes = {"groups": 1, **dict.fromkeys(bounds)}
    return with_changes(study, study={"sites": tuple(sites)}, aggregation=changes)


def numbered(study: Study, count: int) -> Study:
    """Return the study of so many made-up sites; its own names, if it has so many.

    Raises:
        StudyError: they are too few for a secure sum.
        SettingsError: they are more than one machine can simulate.
    """
    if count == len(study.sites):
        return study
    _not_too_many(count, f"--sites {count}")
    return with_sites(study, [f"site-{number}" for number in range(1, count + 1)])


def chosen_among(study: Study, found: Sequence[str], where: str) -> Study:
    """Return the study of the records' sites: those of them that it names, or all of them.

    Args:
        study: if the records have all of its sites, it stays as it is; if they have none, its
            names were made up and the records' take their place.
        found: the sites that the records have.
        where: names the records in the sentence.

    Raises:
        SettingsError: the records have some of the study's sites and not all, or too many.
        StudyError: they have too few for a secure sum.
    """
    missing = [site for site in study.sites if site not in found]
    if not missing:
        return study
    if len(missing) < len(study.sites):
        raise SettingsError(
            f"study {study.name}: {where} has no site {missing[0]!r}; its sites are "
            f"{_listed(found)}: correct the study's sites"
        )
    _not_too_many(len(found), where)
    return with_sites(study, found)


def site_names(values: Iterable[str], prefix: str, where: str) -> dict[str, str]:
    """Return a site's name for each value of a column, sorted by value.

    Raises:
        SettingsError: two values have the same name.
    """
    named: dict[str, str] = {}
    for number, value in enumerate(sorted(set(values)), 1):
        name = site_name(prefix + value) or f"value-{number}"
        if (other := named.get(name)) is not None:
            raise SettingsError(
                f"{where}: the values {other!r} and {value!r} would both be site {name!r}; name "
                "them in [sites] names"
            )
        named[name] = value
    return named


def site_name(text: str) -> str:
    """Return text as a site's name: lower-case letters, digits and hyphens; perhaps empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST].strip("-")


def _not_too_many(count: int, where: str) -> None:
    if count > MOST_SITES:
        raise SettingsError(
            f"{where}: {count} sites are more than the {MOST_SITES} of a simulation; give fewer, "
            "or a column with fewer values"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
