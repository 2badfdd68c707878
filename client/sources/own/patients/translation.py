"""Translates a hospital's codes, units and words to the study's variables and units."""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.common.reasons import (
    NO_TIME,
    NO_VALUE,
    NOT_A_NUMBER,
    STAGE_NO_NUMBER,
    STAGE_NO_TIME,
    STAGE_UNKNOWN_UNIT,
)
from consilium.client.sources.common.source import Tally, UnknownUnit
from consilium.client.sources.own.patients.clues import note_commas
from consilium.client.sources.own.settings.hospital import HospitalSettings, Midnight
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import static_names
from consilium.shared.study.unit_spellings import ucum_of
from consilium.shared.study.units import SUBSTANCES, UNITLESS, LinearMap, UnitError, conversion

MOST_COUNTED = 1 << 20
MOST_UNITS_KEPT, MOST_PAIRS_KEPT = 1000, 10_000
_MEANT = "\x00meant"  # "unit" of values that settings give in the study's unit


class Translation:
    """One hospital's codes for one study.

    Args:
        study: gives the variables and their units.
        settings: the hospital's codes, units and words.
        default_codes: returns a variable's codes where the settings give none.
        where: names the settings in errors.

    Raises:
        SettingsError: two variables claim one code, or settings for a variable that the study does
            not have are the only ones for a code.
    """

    def __init__(
        self,
        study: Study,
        settings: HospitalSettings,
        *,
        default_codes: Callable[[str], tuple[str, ...]],
        where: str = "site.toml",
    ) -> None:
        self._study, self._settings, self._where = study, settings, where
        self.names = tuple(study.variables)
        self.variable_of: dict[str, int] = {}
        for index, name in enumerate(self.names):
            chosen = settings.variables.get(name)
            codes = (
                tuple(map(str, chosen.codes)) if chosen and chosen.codes else default_codes(name)
            )
            if chosen is not None and chosen.column is not None and not chosen.codes:
                codes = ()
            for code in codes:
                if code in self.variable_of:
                    raise SettingsError(
                        f"{where}: [data.variables.{name}] codes: {code!r} already means "
                        f"{self.names[self.variable_of[code]]}; leave it with one of them"
                    )
                self.variable_of[code] = index
        self._pairs: dict[tuple[int, str | None], LinearMap | UnitError] = {}
        self._units: list[str] = []  # those seen

    @property
    def midnight(self) -> Midnight:
        """What the hospital says of times at exactly midnight."""
        return self._settings.midnight

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code that stands for a variable of the study."""
        return tuple(self.variable_of)

    @property
    def wordless_codes(self) -> tuple[str, ...]:
        """Codes whose rows need no number, as ``present`` or ``values`` gives it."""
        chosen = self._settings.variables
        speaking = {
            index
            for index, name in enumerate(self.names)
            if (one := chosen.get(name)) is not None and (one.values or one.present is not None)
        }
        return tuple(code for code, index in self.variable_of.items() if index in speaking)

    def static_columns(self) -> dict[int, str]:
        """Return the columns of the table of stays with static variables, by variable index."""
        static = static_names(self._study)
        return {
            index: chosen.column
            for index, name in enumerate(self.names)
            if name in static
            and (chosen := self._settings.variables.get(name)) is not None
            and chosen.column is not None
        }

    def wide_columns(self) -> dict[str, int]:
        """Return each variable's index by its column in a wide table (by default its name).

        A variable that has codes and no column is one of long tables.
        """
        columns: dict[str, int] = {}
        for index, name in enumerate(self.names):
            chosen = self._settings.variables.get(name)
            if index in self.static_columns():
                continue
            if chosen is not None and chosen.codes and chosen.column is None:
                continue
            columns[chosen.column if chosen is not None and chosen.column is not None else name] = (
                index
            )
        return columns

    def linear(self, variable: int, unit: str | None) -> LinearMap:
        """Return the map from values in the hospital's unit to the study's.

        Raises:
            UnitError: no unit is stated, or it cannot be converted.
        """
        name = self.names[variable]
        wanted = self._study.variables[name].unit
        chosen = self._settings.variables.get(name)
        given = unit or (chosen.unit if chosen is not None else None)
        if given is None:
            if wanted in UNITLESS:
                return LinearMap(1.0)
            raise UnitError(
                f"variable {name}: its rows say no unit, and the study wants {wanted!r}; state "
                f'[data.variables.{name}] unit = "..." in {self._where}'
            )
        units = self._settings.units
        given = units.get(given) or units.get(given.strip()) or given
        if given == wanted:
            return LinearMap(1.0)
        try:
            given = ucum_of(given)
        except UnitError as error:
            raise UnitError(f"variable {name}: {error}") from error
        return conversion(given, wanted, variable=name, substance=SUBSTANCES.get(name))

    def number(self, variable: int, word: str | None, code: str) -> float | None:
        """Return the number that a word, a code, or the presence of a row stands for."""
        chosen = self._settings.variables.get(self.names[variable])
        if chosen is None:
            return None
        if word is not None and word in chosen.values:
            return chosen.values[word]
        return chosen.values.get(code, chosen.present)

    def column(
        self,
        variable: int,
        number: pl.Series,
        word: pl.Series,
        tally: Tally,
        *,
        where: str,
    ) -> pl.Series:
        """Convert a variable's own column to the study's unit; null if there is no number.

        A column whose unit is not understood gives no number; that is counted.

        Args:
            variable: its index in the study.
            number: the cells that are numbers, else null.
            word: the cells that are neither empty nor numbers, else null.
            tally: counts the cells set aside.
            where: the file or table.
        """
        name = self.names[variable]
        chosen = self._settings.variables.get(name)
        known = len(number) - number.null_count()
        linear = self._linear(variable, None) if known else LinearMap(1.0)
        if isinstance(linear, UnitError):
            self._not_understood(variable, None, known, linear, tally, where)
            number, linear = (
                pl.Series([None], dtype=pl.Float64).new_from_index(0, len(number)),
                LinearMap(1.0),
            )
        rounded = number.cast(pl.Float32).cast(pl.Float64)  # as in translate
        value = (rounded * linear.factor + linear.offset).fill_nan(None)
        value = value.set(value.is_infinite().fill_null(value=False), None)
        if chosen is not None and chosen.values:
            meaning = word.replace_strict(chosen.values, default=None, return_dtype=pl.Float64)
            value, word = value.fill_null(meaning), word.set(meaning.is_not_null(), None)
        finite = number.is_not_null() & value.is_null()
        lost = len(word) - word.null_count() + int(finite.sum())
        tally.count(NOT_A_NUMBER, lost)
        tally.ends(STAGE_NO_NUMBER, name, lost)
        if lost:
            note_commas(word, tally)
        return value

    def translate(
        self, frame: pl.DataFrame, tally: Tally, *, where: str, when: str | None
    ) -> pl.DataFrame:
        """Turn rows of (code, unit, value) into (variable, value) in the study's units.

        Args:
            frame: columns ``code`` (text, one of :attr:`codes`), ``value`` (a number; NaN or null
                if there is none), ``unit`` and ``word`` (text or null), and any others, which are
                kept.
            tally: counts the rows set aside: without a time, a number, a unit that is understood.
            where: the file or table, for errors.
            when: the column of the time, null if unknown; None if the rows need no time.

        Returns:
            The other rows, in their old order, with int16 ``variable`` and float64 ``value`` in
            place of code, unit and word.
        """
        frame = self._with_words(frame)
        usable = pl.col("value").is_finite().fill_null(value=False)
        timed = pl.lit(value=True) if when is None else pl.col(when).is_not_null()
        kept = frame.filter(usable & timed)
        if len(kept) < len(frame):
            self._count_lost(frame.filter(~(usable & timed)), timed, tally)
        maps, map_E = self._maps(kept, tally, where)
        variable, factor, offset = (np.array(column) for column in zip(*maps, strict=True))
        # MEDS holds float32: with all values rounded to it, every format gives the same tensors.
        rounded_E = kept["value"].cast(pl.Float32).to_numpy().astype(np.float64)
        done = kept.drop("code", "unit", "word").with_columns(
            pl.Series("variable", variable.astype(np.int16)[map_E]),
            pl.Series("value", rounded_E * factor[map_E] + offset[map_E]),
        )
        understood_E = variable[map_E] >= 0
        return done if understood_E.all() else done.filter(pl.Series(understood_E))

    def ends(self, stage: str, codes: pl.Series, tally: Tally) -> None:
        """Count rows whose way ended at a stage, by the variables of their codes."""
        for code, number in codes.value_counts().iter_rows():
            tally.ends(stage, self.names[self.variable_of[code]], number)

    def _with_words(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Give rows without a number the number that their word or code stands for."""
        chosen = self._settings.variables.values()
        wordy = any(one.values or one.present is not None for one in chosen)
        if not wordy or not frame["value"].is_null().any():
            return frame
        meanings = [
            (word, code, self.number(self.variable_of[code], word, code))
            for word, code in frame.filter(pl.col("value").is_null())
            .select("word", "code")
            .unique()
            .iter_rows()
        ]
        table = pl.DataFrame(
            meanings,
            schema={"word": pl.String, "code": pl.String, "meaning": pl.Float64},
            orient="row",
        )
        joined = frame.join(
            table, on=["word", "code"], how="left", nulls_equal=True, maintain_order="left"
        )
        # The number of a word is in the study's unit already, so the row's own unit is dropped.
        meant = pl.col("value").is_null() & pl.col("meaning").is_not_null()
        return joined.with_columns(
            pl.when(meant).then(pl.lit(_MEANT)).otherwise(pl.col("unit")).alias("unit"),
            pl.coalesce("value", "meaning").alias("value"),
        ).drop("meaning")

    def _count_lost(self, lost: pl.DataFrame, timed: pl.Expr, tally: Tally) -> None:
        """Count rows without a time or, of those with one, without a number, by variable."""
        empty = pl.col("value").is_null() & pl.col("word").is_null()
        counts = lost.group_by("code").agg(
            (~timed).sum().alias("untimed"), (timed & empty).sum().alias("empty"), pl.len()
        )
        for code, untimed, without, rows in counts.iter_rows():
            name = self.names[self.variable_of[code]]
            tally.count(NO_TIME, untimed)
            tally.count(NO_VALUE, without)
            tally.count(NOT_A_NUMBER, rows - untimed - without)
            tally.ends(STAGE_NO_TIME, name, untimed)
            tally.ends(STAGE_NO_NUMBER, name, rows - untimed)
        note_commas(lost.filter(timed)["word"], tally)

    def _linear(self, variable: int, unit: str | None) -> LinearMap | UnitError:
        """Return the map of one unit, or why there is none."""
        if unit == _MEANT:
            return LinearMap(1.0)
        if (variable, unit) not in self._pairs:
            if len(self._pairs) >= MOST_PAIRS_KEPT:
                self._pairs.clear()
            try:
                self._pairs[variable, unit] = self.linear(variable, unit)
            except UnitError as error:
                self._pairs[variable, unit] = error
        return self._pairs[variable, unit]

    def _not_understood(
        self, variable: int, unit: str | None, rows: int, error: UnitError, tally: Tally, where: str
    ) -> None:
        name = self.names[variable]
        tally.ends(STAGE_UNKNOWN_UNIT, name, rows)
        tally.not_understood(
            UnknownUnit(variable=name, unit=unit, rows=rows, where=where, told=str(error))
        )

    def _maps(
        self, rows: pl.DataFrame, tally: Tally, where: str
    ) -> tuple[list[tuple[int, float, float]], NDArray[np.int64]]:
        """Return variable, factor and offset of each code with each unit, and which a row has.

        A unit that is not understood has variable -1; its rows are counted.
        """
        unit = rows["unit"]
        unit_E = _places(unit, self._units)
        if np.count_nonzero(unit_E < 0) > unit.null_count():
            found = unit.drop_nulls().unique(maintain_order=True).to_list()
            kept = self._units if len(self._units) < MOST_UNITS_KEPT else []
            self._units = list(dict.fromkeys((*kept, *found)))
            unit_E = _places(unit, self._units)
        codes, units = self.codes, [*self._units, None]  # the place -1 is the last one
        code_E, places = _places(rows["code"], list(codes)), len(units)
        pair_E = code_E * places + unit_E % places
        pairs, map_E, numbers = _counted(pair_E, len(codes) * places)
        maps = [(-1, 1.0, 0.0)] * max(1, len(pairs))
        for index, (pair, number) in enumerate(zip(pairs.tolist(), numbers.tolist(), strict=True)):
            variable, unit = self.variable_of[codes[pair // places]], units[pair % places]
            linear = self._linear(variable, unit)
            if isinstance(linear, UnitError):
                self._not_understood(variable, unit, number, linear, tally, where)
            else:
                maps[index] = (variable, linear.factor, linear.offset)
        return maps, map_E


def _places(text: pl.Series, among: list[str]) -> NDArray[np.int64]:
    """Return each text's place in a list, -1 for null."""
    place = text.cast(pl.Enum(among), strict=False).to_physical()
    return place.cast(pl.Int64).fill_null(-1).to_numpy()


def _counted(
    number_E: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the different numbers, ascending, each element's place among them, and how many each.

    Args:
        number_E: from 0, below ``most``.
        most: if it is small, nothing needs to be sorted.
    """
    if most > MOST_COUNTED:
        return np.unique(number_E, return_inverse=True, return_counts=True)
    counts = np.bincount(number_E, minlength=most)
    found = np.flatnonzero(counts)
    place = np.zeros(most, dtype=np.int64)
    place[found] = np.arange(len(found))
    return found, place[number_E], counts[found]


def limits(text: pl.Series) -> pl.Series:
    """Return the numbers in texts such as ``>300`` and ``<= 0.01``, null for others."""
    pattern = r"^\s*[<>]=?\s*([+-]?[0-9]*\.?[0-9]+)\s*$"
    return text.str.extract(pattern, 1).cast(pl.Float64, strict=False)
