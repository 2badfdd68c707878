"""Scores the windows of recordings in progress: samples and beats go in, answers come out.

A line is ``{"recording": name, "rate_hz": 360, "units": {"MLII": "mV"}, "samples": {"MLII": [...]},
"beats_s": [...]}``: the next samples of every channel that the study reads, and the seconds from
the recording's first sample to each R peak found since the line before. Rate and units stand in a
recording's first line (with ``static``, values of other static variables by name), and may stand in
each. ``"end": true`` ends it. The answer has the windows that became whole, each with the second at
which it begins and the outputs; they are those of a batch of the finished record.
"""

import math
from collections.abc import Mapping
from typing import Any

from consilium.client.bedside.prediction import predict_patients
from consilium.client.explain.answers import answer
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.matrices import stay_of
from consilium.client.sources.common.source import Patient, Tally
from consilium.client.sources.recorded.prepared import Window
from consilium.client.sources.recorded.signal_stream import SignalStream, require_streamable
from consilium.shared.errors import DataError
from consilium.shared.export.signed_model import SignedModel

MOST_RECORDINGS = 200
LONGEST_NAME = 128
KEYS = frozenset({"recording", "rate_hz", "units", "static", "samples", "beats_s", "end"})


class SignalScorer:
    """Scores any number of recordings at once.

    Args:
        signed: the model.

    Raises:
        DataError: a variable of its study needs the finished recording.
    """

    def __init__(self, signed: SignedModel) -> None:
        require_streamable(signed.trained.study)
        self._signed, self._study = signed, signed.trained.study
        self._cleaner = Cleaner(self._study, Tally())
        self._streams: dict[str, SignalStream] = {}

    @property
    def stays(self) -> int:
        """Number of recordings in memory."""
        return len(self._streams)

    def take(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Take the next samples and beats of a recording; answer with the windows they make whole.

        Raises:
            DataError: the line cannot be used; nothing of it is kept.
        """
        if unknown := set(line) - KEYS:
            raise DataError(
                f"the line has a key {min(unknown)[:60]!r}; use {', '.join(sorted(KEYS))}"
            )
        name = line.get("recording")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise DataError(f"recording must be a text of 1 to {LONGEST_NAME} characters")
        if not isinstance(line.get("end", False), bool):
            raise DataError("end must be true or false")
        stream = self._streams.get(name) or self._begin(line)
        windows: list[Window] = []
        if "samples" in line:
            windows += stream.add(_table(line, "samples"), line.get("beats_s", ()))
        self._streams[name] = stream
        if line.get("end"):
            windows += stream.end()
            del self._streams[name]
        return {"recording": name, "windows": self._answers(windows)}

    def _begin(self, line: Mapping[str, Any]) -> SignalStream:
        if len(self._streams) >= MOST_RECORDINGS:
            raise DataError(
                f"{MOST_RECORDINGS} recordings are kept already; end those that are over with "
                '{"recording": ..., "end": true}'
            )
        rate = line.get("rate_hz")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate):
            raise DataError("a recording's first line must say rate_hz, samples a second")
        units = {name: str(unit) for name, unit in _table(line, "units").items()}
        static = _table(line, "static") if "static" in line else {}
        if not all(
            name in self._study.variables
            and isinstance(value, int | float)
            and math.isfinite(value)
            for name, value in static.items()
        ):
            raise DataError("static must hold finite numbers by the study's variables; correct it")
        return SignalStream(self._study, rate_hz=float(rate), units=units, static=static)

    def _answers(self, windows: list[Window]) -> list[dict[str, Any]]:
        rate = float(self._study.data.rate_hz or 1.0)
        starts = {str(window.start): window for window in windows}
        stays = tuple(
            stay_of(
                window.value_TV, self._study, self._cleaner, stay_id=name, label=math.nan,
                end_h=float(self._study.data.steps),
            )
            for name, window in starts.items()
        )  # fmt: skip
        patient = Patient(patient_id="stream", stays=stays)
        found = predict_patients(self._signed.trained, [patient] if stays else [])
        return [
            {
                "begins_s": starts[one.stay_id].start / rate,
                "outputs": [
                    answer(self._signed, output, float(score))
                    for output, score in enumerate(one.scores)
                ],
            }
            for one in found
        ]


def _table(line: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = line.get(key)
    if not isinstance(table, dict):
        raise DataError(f"{key} must be an object by channel or variable; correct the line")
    return table
