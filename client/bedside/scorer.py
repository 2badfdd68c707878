"""The streaming scorer: takes events of stays as they come, answers each with the current risk.

An event is one measurement. Its answer is the model's output for the stay so far: the same as batch
prediction gives for these events, with the stay observed to the end of the current step.
``outputs`` are described in :mod:`consilium.client.explain.answers`; each has ``reasons``, the
variables whose absence would change it most. ``effect`` is how much lower (or, if negative, higher)
the log-odds or the predicted quantity would be if the variable had never been measured in this
stay.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from consilium.client.bedside.drift import MeanDrift
from consilium.client.explain.answers import answers_of
from consilium.client.explain.stay_stream import StayStream, StreamedModel
from consilium.client.records.running_features import Layout
from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.source import Tally
from consilium.shared.errors import DataError
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.model.normalisation import CLIP, reference_scores
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_numbers
from consilium.shared.study.units import SUBSTANCES, UNITLESS, conversion

MOST_STAYS = 2000
LONGEST_NAME = 128
LARGEST_VALUE = float(np.finfo(np.float32).max)
KEYS = ("stay", "hours", "variable", "value", "unit", "code", "end")


class Scorer:
    """Scores any number of stays at once.

    Args:
        signed: the model.
        reasons: whether answers hold reasons; they take less time without.
        most_stays: how many stays are kept at once; each takes about 50 kB.
    """

    def __init__(
        self, signed: SignedModel, *, reasons: bool = True, most_stays: int = MOST_STAYS
    ) -> None:
        self._signed, self._study = signed, signed.trained.study
        self._layout = Layout(self._study)
        self._model = StreamedModel(signed.trained.model, self._layout, reasons=reasons)
        self._normalisation = signed.trained.normalisation
        self._column = {name: place for place, name in enumerate(self._layout.names)}
        self._numbers = token_numbers(self._study)
        self._tally = Tally()
        self._cleaner = Cleaner(self._study, self._tally)
        self._drift = MeanDrift(len(self._study.variables))
        self._maps: dict[tuple[str, str], Callable[[float], float]] = {}
        self._stays: dict[str, StayStream] = {}
        self._means: dict[tuple[str, int], float] = {}
        self._most = most_stays

    @property
    def stays(self) -> int:
        """Number of stays in memory."""
        return len(self._stays)

    def take(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Take one event and answer it.

        Args:
            event: ``stay`` (text) and ``hours`` since its start (in a study without hours, the
                place in the sequence); then either ``variable``, ``value`` and ``unit``, or
                ``variable`` and ``code``, or none of these, to ask for the risk at a later time.
                ``end: true`` forgets the stay.

        Raises:
            DataError: the event cannot be used; nothing of it is kept.
        """
        if unknown := set(event) - set(KEYS):
            key = min(unknown)
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0)[0]
            raise DataError(f"the event has a key {_shown(key)}; did you mean {near!r}?")
        name = event.get("stay")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise DataError(f"the event's stay must be a text of 1 to {LONGEST_NAME} characters")
        if not isinstance(event.get("end", False), bool):
            raise DataError("the event's end must be true or false")
        if event.get("end"):
            return self._end(name)
        if "variable" not in event and not {"value", "unit", "code"}.isdisjoint(event):
            raise DataError("the event names no variable; say in 'variable' what was measured")
        hours, step = self._when(event.get("hours"))
        warnings: list[str] = []
        measured = self._measured(event, hours, warnings) if "variable" in event else None
        stay = self._stay(name)
        stay.advance(step)
        if measured is not None:
            column, value = measured
            stay.put(step, column, hours, value)
            warnings += self._watch(name, stay, column, value)
        return {
            "stay": name,
            "hours": event["hours"],
            "steps": stay.step + 1,
            "outputs": answers_of(
                self._signed, stay.logits(), self._layout.names, reasons=self._model.reasons
            ),
            "warnings": warnings,
        }

    def forget(self, name: str) -> None:
        """Forget a stay as if it had never been known: its values do not count in the drift."""
        self._stays.pop(name, None)
        for column in range(len(self._study.variables)):
            if (mean := self._means.pop((name, column), None)) is not None:
                self._drift.forget(column, mean)

    def _end(self, name: str) -> dict[str, Any]:
        if self._stays.pop(name, None) is None:
            raise DataError(f"stay {_shown(name)} is not known here; there is nothing to end")
        for column in range(len(self._study.variables)):
            self._means.pop((name, column), None)
        return {"stay": name, "ended": True}

    def _stay(self, name: str) -> StayStream:
        if name not in self._stays:
            if len(self._stays) >= self._most:
                raise DataError(
                    f"{self._most} stays are kept already; end those that are over with "
                    '{"stay": ..., "end": true}'
                )
            self._stays[name] = StayStream(self._model, self._study.data.steps)
        return self._stays[name]

    def _when(self, hours: object) -> tuple[float, int]:
        """Return the hour and its step."""
        data = self._study.data
        unit = "hours" if data.clock == "hour" else "places"
        if isinstance(hours, bool) or not isinstance(hours, int | float):
            raise DataError(f"the event's hours must be a number of {unit} since the stay began")
        if not 0 <= hours <= data.window_h:
            raise DataError(
                f"hours {_shown(hours)} is outside 0 to {data.window_h}, the {unit} that the model "
                "reads"
            )
        rounded = float(np.float32(hours))
        return rounded, min(int(np.float32(hours) / data.step_h), data.steps - 1)

    def _measured(
        self, event: Mapping[str, Any], hours: float, warnings: list[str]
    ) -> tuple[int, float] | None:
        """Return column and normalised value; None if the value is dropped as out of range."""
        name = event["variable"]
        if not isinstance(name, str) or name not in self._column:
            near = difflib.get_close_matches(str(name), self._column, n=1, cutoff=0.0)[0]
            raise DataError(
                f"variable {_shown(name)} is none of this model's; did you mean {near!r}?"
            )
        column = self._column[name]
        if name not in self._study.variables:
            return column, self._number(name, event.get("code"), warnings)
        value = self._converted(name, event.get("value"), event.get("unit"))
        cleaned = self._cleaned(hours, column, value, warnings)
        if cleaned is None:
            return None
        z = reference_scores(np.array([cleaned], np.float32), self._study.variables[name])[0]
        z -= self._normalisation.mean_V[column].astype(np.float32)
        z /= self._normalisation.deviation_V[column].astype(np.float32)
        return column, float(np.clip(z, -CLIP, CLIP))

    def _number(self, name: str, code: object, warnings: list[str]) -> float:
        if not isinstance(code, str):
            raise DataError(f"variable {name} takes a code; give it as a text in 'code'")
        if code not in self._numbers:
            warnings.append(f"{name}: the code is not in the study's vocabulary")
        return float(self._numbers.get(code, UNKNOWN_TOKEN))

    def _converted(self, name: str, value: object, unit: object) -> float:
        """Return the value in the study's unit."""
        wanted = self._study.variables[name].unit
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= LARGEST_VALUE
        ):
            raise DataError(f"variable {name}: its value must be a finite number")
        if unit is None and wanted in UNITLESS:
            return float(value)
        if not isinstance(unit, str):
            raise DataError(f"variable {name}: the event says no unit; say it, such as {wanted!r}")
        if (name, unit) not in self._maps:
            self._maps[name, unit] = conversion(
                unit, wanted, variable=name, substance=SUBSTANCES.get(name)
            )
        converted = self._maps[name, unit](float(value))
        return min(max(converted, -LARGEST_VALUE), LARGEST_VALUE)

    def _cleaned(
        self, hours: float, column: int, value: float, warnings: list[str]
    ) -> float | None:
        """Clean the value as training data are cleaned; None if cleaning drops it."""
        name = self._layout.names[column]
        variable = self._study.variables[name]
        known = dict(self._tally.repaired), dict(self._tally.out_of_range)
        _, _, kept = self._cleaner.clean(
            np.array([hours], np.float32),
            np.array([column], np.int16),
            np.array([value], np.float32),
        )
        if self._tally.repaired != known[0]:
            warnings.append(f"{name}: {value:g} was read as {kept[0]:g} {variable.unit}")
        if self._tally.out_of_range != known[1]:
            used = f"taken as {kept[0]:g}" if len(kept) else "not used"
            warnings.append(
                f"{name}: {value:g} is outside {variable.low:g} to {variable.high:g} "
                f"{variable.unit} and was {used}"
            )
        return float(kept[0]) if len(kept) else None

    def _watch(self, name: str, stay: StayStream, column: int, value: float) -> list[str]:
        """Return warnings: this value is unusual, or the variable's mean over stays has moved."""
        if column >= len(self._study.variables):
            return []
        variable, warnings = self._layout.names[column], []
        if abs(value) >= CLIP:
            warnings.append(
                f"{variable}: {CLIP:g} deviations or more from the training patients' mean; the "
                "model sees it as just so far"
            )
        now = stay.mean_of(column)
        self._drift.note(column, self._means.get((name, column)), now)
        self._means[name, column] = now
        shift = self._drift.shift(column)
        if shift is not None:
            warnings.append(
                f"{variable}: drift, its mean over the stays here is {shift:+.2f} deviations from "
                "that of the training patients"
            )
        return warnings


def _shown(text: object) -> str:
    return repr(text)[:60]
