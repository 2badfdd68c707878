"""Which resources the events of a stay were read from, and its static values as they stood."""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.common.source import Stay
from consilium.client.sources.own.patients.stay_table import StayTable
from consilium.client.sources.own.times.spans import US_PER_HOUR


class Provenance:
    """Answers for the stays of one reading.

    Args:
        stays: the cohort.
        origins: as :class:`..patients.event_frames.EventRows` has them.
    """

    def __init__(self, stays: StayTable, origins: Iterable[pl.DataFrame]) -> None:
        self._stays = stays
        self._place = {stay: place for place, stay in enumerate(stays.stay_ids)}
        self._person = {patient: place for place, patient in enumerate(stays.patient_ids)}
        found = [one for one in origins if len(one)]
        parts = pl.concat(found).partition_by("person", as_dict=True) if found else {}
        self._origins: Mapping[object, pl.DataFrame] = {key[0]: part for key, part in parts.items()}

    def static_values(self, patient_id: str, stay_id: str, variable: int) -> tuple[float, ...]:
        """Return all values of a static variable that the records have, in range or not."""
        found = []
        if (column := self._stays.static.get(variable)) is not None:
            found.append(float(column[self._place[stay_id]]))
        rows = self._origins.get(self._person.get(patient_id))
        if rows is not None:
            found += rows.filter(pl.col("variable") == variable)["value"].to_list()
        return tuple(value for value in found if not np.isnan(value))

    def references(self, patient_id: str, stay: Stay, used_E: NDArray[np.bool_]) -> tuple[str, ...]:
        """Return references to the resources of some of a stay's events, in order of time.

        Of several resources with a value of one variable at one time, the last is the one that was
        used.

        Args:
            patient_id: whose stay it is.
            stay: as the source yielded it.
            used_E: which of its events.
        """
        rows = self._origins.get(self._person.get(patient_id))
        if rows is None or stay.start_us is None:
            return ()
        hours = ((rows["at"] - stay.start_us) / US_PER_HOUR).cast(pl.Float32)
        when = zip(rows["variable"].to_list(), hours.to_list(), strict=True)
        last = dict(zip(when, rows["reference"].to_list(), strict=True))
        events = zip(stay.variable_E[used_E].tolist(), stay.hours_E[used_E].tolist(), strict=True)
        found = (last.get(event) for event in events)
        return tuple(dict.fromkeys(one for one in found if one is not None))
