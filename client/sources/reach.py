"""Whether the records that settings name are there and answer, asked without a study and a reading.

A source that is more than files, such as a database, has a line in ASKED: a function that asks it
and returns a sentence, and imports its module only when called.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from consilium.client.sources.common.named_files import check_readable, named_files
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.own.settings.systems import FhirSettings, OmopSettings, SqlSettings
from consilium.client.sources.registry import needs


def _omop(chosen: OmopSettings) -> str:
    needs("polars", chosen.source)
    from consilium.client.sources.own.databases.omop_answer import answer_of

    return answer_of(chosen)


def _sql(chosen: SqlSettings) -> str:
    needs("polars", chosen.source, "sql")
    from consilium.client.sources.own.databases.sql_tables import answer_of

    return answer_of(chosen)


def _fhir(chosen: FhirSettings) -> str | None:
    if chosen.server is None:
        return None
    needs("polars", chosen.source)
    from consilium.client.sources.own.fhir.fhir_server import answer_of

    return answer_of(chosen)


ASKED: Mapping[str, Callable[[Any], str | None]] = MappingProxyType(
    {"fhir": _fhir, "omop": _omop, "sql": _sql}
)


def ask_source(chosen: DataSettings) -> list[str]:
    """Open all files that the settings name, and ask what else they name.

    Returns:
        A sentence for each file and folder that can be read, and for a database that answers.

    Raises:
        DataError: something is not there, cannot be read, or does not answer.
        SettingsError: something that the settings name cannot be used.
    """
    told = []
    for path in named_files(chosen):
        count = check_readable(path)
        told.append(f"{path} can be read" + (f", {count} files" if count > 1 else ""))
    ask = ASKED.get(chosen.source)
    answer = None if ask is None else ask(chosen)
    return told if answer is None else [*told, answer]
