"""Finds the stays and patients of a cohort by their identifiers in other tables."""

import numpy as np
import polars as pl

from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.patients.clues import normal, note_changes
from consilium.client.sources.own.patients.stay_table import StayTable


class Keys:
    """Finds stays and patients by their identifiers in other tables."""

    def __init__(self, stays: StayTable, tally: Tally) -> None:
        self.stays, self._tally = stays, tally
        self._of = {"stay": stays.stay_ids, "patient": stays.patient_ids}
        self._tables: dict[tuple[str, pl.DataType], pl.DataFrame] = {}

    def index_of(
        self, series: pl.Series, kind: str
    ) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        """Return the index of each identifier, -1 if it is not in the cohort.

        Whole numbers are compared as numbers, so the types need not agree between files; texts that
        fit no identifier, in their normal form.
        """
        dtype = series.dtype if series.dtype.is_integer() else pl.String()
        if (kind, dtype) not in self._tables:
            ids = pl.Series(self._of[kind], dtype=pl.String).cast(dtype, strict=False)
            index = pl.Series(range(len(ids)), dtype=pl.Int32)
            table = pl.DataFrame({"key": ids, "index": index}).drop_nulls()
            self._tables[kind, dtype] = table
        frame = pl.DataFrame({"key": series.cast(dtype)})
        joined = frame.join(self._tables[kind, dtype], on="key", how="left", maintain_order="left")
        if dtype == pl.String and joined["index"].null_count():
            joined = self._in_normal_form(joined, self._tables[kind, dtype])
        return joined["index"].fill_null(-1).to_numpy()

    def _in_normal_form(self, joined: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        """Find the identifiers that fit in their normal form alone, and say so."""
        missing = joined.filter(pl.col("index").is_null())["key"].unique().drop_nulls()
        bare = normal(missing)
        other = pl.DataFrame({"key": missing, "bare": bare}).filter(missing != bare)
        found = other.join(table.rename({"key": "bare", "index": "found"}), on="bare")
        if found.is_empty():
            return joined
        rows = joined.join(found, on="key", how="left", maintain_order="left")
        used = rows.filter(pl.col("found").is_not_null())
        note_changes(used["key"], used["bare"], self._tally)
        return rows.select("key", pl.coalesce("index", "found").alias("index"))
