"""The times of exports that write them as texts, such as FHIR resources and HL7 messages."""

import polars as pl

from consilium.client.sources.common.reasons import NO_ZONE, SKIPPED
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.patients.event_times import time_columns
from consilium.client.sources.own.settings.hospital import Midnight
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.reading import Spans, Written, read_times, spans_of


class TextTimes:
    """Turns the texts of one export's times into spans.

    Args:
        axis: whether the export's times have zones, and the hospital's clock.
        midnight: what midnights stand for, as the hospital's settings say.
        tally: counts what was decided.
    """

    def __init__(self, axis: Axis, midnight: Midnight, tally: Tally) -> None:
        self.axis, self.midnight, self._tally = axis, midnight, tally

    def spans(self, text: pl.Series) -> tuple[Spans, pl.Series]:
        """Return spans, null where a text is none, and which have no zone beside others."""
        written = read_times(text) or Written(local=text.cast(pl.Int64))
        stray = self.axis.unmatched(written)
        found = spans_of(written.without(stray) if stray.any() else written, self.axis.clock)
        self._tally.decide(SKIPPED, found.skipped)
        return found, stray

    def column(self, frame: pl.DataFrame, name: str, *, or_day: bool = False) -> pl.DataFrame:
        """Replace a column of texts by spans.

        Args:
            frame: the table.
            name: the column.
            or_day: take a time without a zone, where others have one, for its day.
        """
        text = frame[name]
        if or_day:
            stray = self.axis.unmatched(read_times(text) or Written(local=text.cast(pl.Int64)))
            text = text.str.head(len("YYYY-MM-DD")).zip_with(stray, text)
        found, stray = self.spans(text)
        self._tally.count(NO_ZONE, int(stray.sum()))
        return frame.with_columns(found.struct().alias(name))

    def events(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Replace the texts in ``time`` by the columns of times of a table of events."""
        found, stray = self.spans(frame["time"])
        columns = time_columns(found, self.axis.clock, self.midnight)
        more = [stray.alias("zoneless")] if stray.any() else []
        return frame.drop("time").with_columns(*columns, *more)
