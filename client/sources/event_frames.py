"""The last steps that MEDS, OMOP and FHIR share: rows of events to the assembler.

Rows have ``patient`` (text), ``time`` (microseconds since 1970), ``code`` (text), ``value``
(number or null), ``unit`` and ``word`` (text or null).
"""

from collections.abc import Callable

import polars as pl

from client.sources.assembly import Assembler, StayTable
from client.sources.reasons import NO_TIME
from client.sources.translation import Translation
from shared.variables import KNOWN

SEX = "Gender"
SCHEMA = {
    "patient": pl.String,
    "time": pl.Int64,
    "code": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "word": pl.String,
}


class EventRows:
    """Places rows of events in stays and hands them to an assembler.

    Args:
        translation: of codes and units.
        stays: the cohort.
        assembler: takes the events.
        reach_h: given, stays may overlap and an event counts in each that began so recently.
    """

    def __init__(
        self,
        translation: Translation,
        stays: StayTable,
        assembler: Assembler,
        *,
        reach_h: float | None = None,
    ) -> None:
        self._translation, self._stays, self._assembler = translation, stays, assembler
        self._reach_h = reach_h
        self._index = pl.DataFrame(
            {
                "patient": pl.Series(stays.patient_ids, dtype=pl.String),
                "person": pl.Series(range(len(stays.patient_ids)), dtype=pl.Int32),
            }
        )

    def add(self, rows: pl.DataFrame, *, where: str) -> None:
        """Translate and place some rows; those of patients outside the cohort are passed over.

        Raises:
            DataError: a unit that cannot be converted.
        """
        count: Callable[[str, int], None] = self._assembler.count
        rows = rows.join(self._index, on="patient", how="inner", maintain_order="left")
        count(NO_TIME, rows["time"].null_count())
        timed = rows.filter(pl.col("time").is_not_null())
        done = self._translation.translate(timed, count, where=where)
        person_E, time_E = done["person"].to_numpy(), done["time"].to_numpy()
        variable_E = done["variable"].to_numpy()
        value_E = done["value"].cast(pl.Float32).to_numpy()
        if self._reach_h is None:
            stay_E, hours_E = self._stays.place(person_E, time_E)
            self._assembler.add(stay_E, hours_E, variable_E, value_E)
            return
        for at, stay_E, hours_E in self._stays.place_all(person_E, time_E, self._reach_h):
            self._assembler.add(stay_E, hours_E, variable_E[at], value_E[at])


def static_frame(
    stays: pl.DataFrame, people: pl.DataFrame, names: list[str], *, taken: set[int]
) -> pl.DataFrame:
    """Add birth, and sex as the dictionary's ``Gender``, from one row a patient.

    Args:
        stays: one row a stay.
        people: ``patient``, ``birth``, ``male`` (1, 0 or null).
        names: the study's variables.
        taken: variables that the hospital brings in another way.
    """
    joined = stays.join(people, on="patient", how="left", maintain_order="left")
    if SEX in names and names.index(SEX) not in taken:
        joined = joined.rename({"male": str(names.index(SEX))})
    return joined


def known_codes(name: str, write: Callable[[str, int | None], tuple[str, ...]]) -> tuple[str, ...]:
    """The dictionary's codes of a variable, as a system writes LOINC code and OMOP concept."""
    known = KNOWN.get(name)
    if known is None or known.loinc is None:
        return ()
    return write(known.loinc, known.omop)


def microseconds(column: str) -> pl.Expr:
    """A column of dates or date-times as int64 microseconds since 1970."""
    return pl.col(column).cast(pl.Datetime("us")).cast(pl.Int64)
