"""Asks an OMOP database whether it answers and has what every study needs, without reading rows."""

from consilium.client.sources.own.databases.omop_database import open_database
from consilium.client.sources.own.settings.systems import OmopSettings
from consilium.shared.errors import DataError


def answer_of(settings: OmopSettings) -> str:
    """Connect as a reading would; return a sentence of what answered.

    Raises:
        DataError: the database does not answer, or lacks a table that every study reads.
        SettingsError: the settings cannot be used, the password among them.
    """
    needed = ("person", settings.stays, "measurement")
    with open_database(settings) as database:
        lacking = [table for table in needed if not database.columns(table)]
        schema = settings.database_schema
        if lacking:
            raise DataError(
                f"{database.name} answers, but has no table {', '.join(lacking)} that this account "
                f"may see in {f'schema {schema!r}' if schema else 'its default schema'}; correct "
                "[data] database_schema, or grant the account SELECT"
            )
        return f"{database.name} answers, and has {', '.join(needed)}"
