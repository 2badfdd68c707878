"""Translates a hospital's codes, units and words to the study's variables and units."""

from collections.abc import Callable

import polars as pl

from consilium.client.sources.common.reasons import NO_VALUE, NOT_A_NUMBER
from consilium.client.sources.own.settings import HospitalSettings, Midnight
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import static_names
from consilium.shared.study.units import (
    SUBSTANCES,
    UNITLESS,
    LinearMap,
    UnitError,
    conversion,
    is_unit,
)

FEWEST_QUOTED = 10  # an error quotes a text only if at least so many rows have it
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
        self._names = tuple(study.variables)
        self.variable_of: dict[str, int] = {}
        for index, name in enumerate(self._names):
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
                        f"{self._names[self.variable_of[code]]}; leave it with one of them"
                    )
                self.variable_of[code] = index
        self._pairs: dict[tuple[int, str | None], LinearMap] = {}

    @property
    def midnight(self) -> Midnight:
        """What the hospital says of times at exactly midnight."""
        return self._settings.midnight

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the study's variables, in its order."""
        return self._names

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
            for index, name in enumerate(self._names)
            if (one := chosen.get(name)) is not None and (one.values or one.present is not None)
        }
        return tuple(code for code, index in self.variable_of.items() if index in speaking)

    def static_columns(self) -> dict[int, str]:
        """Return the columns of the table of stays with static variables, by variable index."""
        static = static_names(self._study)
        return {
            index: chosen.column
            for index, name in enumerate(self._names)
            if name in static
            and (chosen := self._settings.variables.get(name)) is not None
            and chosen.column is not None
        }

    def wide_columns(self) -> dict[str, int]:
        """Return each variable's index by its column in a wide table (by default its name)."""
        columns: dict[str, int] = {}
        for index, name in enumerate(self._names):
            chosen = self._settings.variables.get(name)
            if index in self.static_columns():
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
        name = self._names[variable]
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
        given = self._settings.units.get(given, given)
        return conversion(given, wanted, variable=name, substance=SUBSTANCES.get(name))

    def number(self, variable: int, word: str | None, code: str) -> float | None:
        """Return the number that a word, a code, or the presence of a row stands for."""
        chosen = self._settings.variables.get(self._names[variable])
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
        count: Callable[[str, int], None],
    ) -> pl.Series:
        """Convert a variable's own column to the study's unit; null if there is no number.

        Args:
            variable: its index in the study.
            number: the cells that are numbers, else null.
            word: the cells that are neither empty nor numbers, else null.
            count: called with the reason and the number of cells set aside.

        Raises:
            UnitError: no unit is stated, or it cannot be converted.
        """
        chosen = self._settings.variables.get(self._names[variable])
        linear = (
            self.linear(variable, None) if number.null_count() < len(number) else LinearMap(1.0)
        )
        rounded = number.cast(pl.Float32).cast(pl.Float64)  # as in translate
        value = (rounded * linear.factor + linear.offset).fill_nan(None)
        value = value.set(value.is_infinite().fill_null(value=False), None)
        if chosen is not None and chosen.values:
            meaning = word.replace_strict(chosen.values, default=None, return_dtype=pl.Float64)
            value, word = value.fill_null(meaning), word.set(meaning.is_not_null(), None)
        finite = number.is_not_null() & value.is_null()
        count(NOT_A_NUMBER, len(word) - word.null_count() + int(finite.sum()))
        return value

    def translate(
        self, frame: pl.DataFrame, count: Callable[[str, int], None], *, where: str
    ) -> pl.DataFrame:
        """Turn rows of (code, unit, value) into (variable, value) in the study's units.

        Args:
            frame: columns ``code`` (text, one of :attr:`codes`), ``value`` (a number; NaN or null
                if there is none), ``unit`` and ``word`` (text or null), and any others, which are
                kept.
            count: called with the reason and the number of rows set aside.
            where: the file or table, for errors.

        Returns:
            The rows with a finite value, in their old order, with int16 ``variable`` and float64
            ``value`` in place of code, unit and word.

        Raises:
            DataError: a unit that cannot be converted.
        """
        frame = self._with_words(frame)
        usable = pl.col("value").is_finite().fill_null(value=False)
        kept = frame.filter(usable)
        if len(kept) < len(frame):
            lost = frame.filter(~usable)
            empty = lost.filter(pl.col("value").is_null() & pl.col("word").is_null())
            count(NO_VALUE, len(empty))
            count(NOT_A_NUMBER, len(lost) - len(empty))
        table = self._table(kept.group_by("code", "unit").len(), where)
        joined = kept.join(
            table, on=["code", "unit"], how="inner", nulls_equal=True, maintain_order="left"
        )
        # MEDS holds float32: with all values rounded to it, every format gives the same tensors.
        value = pl.col("value").cast(pl.Float32) * pl.col("factor") + pl.col("offset")
        return joined.with_columns(value.alias("value")).drop(
            "code", "unit", "word", "factor", "offset"
        )

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

    def _checked(self, variable: int, unit: str | None, rows: int, where: str) -> LinearMap:
        """Return the map of one unit; an error does not quote a unit that only few rows have."""
        if unit == _MEANT:
            return LinearMap(1.0)
        rare = unit is not None and rows < FEWEST_QUOTED
        if rare and unit is not None and not is_unit(self._settings.units.get(unit, unit)):
            raise DataError(
                f"{where}: variable {self._names[variable]}: {rows} rows have a unit that is no "
                "known UCUM code (not quoted, as so few rows have it); correct the rows or the "
                "column that site.toml names as the unit"
            )
        try:
            return self.linear(variable, unit)
        except UnitError as error:
            raise DataError(f"{where}: {error}") from error

    def _table(self, pairs: pl.DataFrame, where: str) -> pl.DataFrame:
        """Return variable, factor and offset for each (code, unit, number of rows)."""
        rows = []
        for code, unit, number in pairs.iter_rows():
            variable = self.variable_of[code]
            if (variable, unit) not in self._pairs:
                self._pairs[variable, unit] = self._checked(variable, unit, number, where)
            linear = self._pairs[variable, unit]
            rows.append((code, unit, variable, linear.factor, linear.offset))
        return pl.DataFrame(
            rows,
            schema={
                "code": pl.String,
                "unit": pl.String,
                "variable": pl.Int16,
                "factor": pl.Float64,
                "offset": pl.Float64,
            },
            orient="row",
        )


def limits(text: pl.Series) -> pl.Series:
    """Return the numbers in texts such as ``>300`` and ``<= 0.01``, null for others."""
    pattern = r"^\s*[<>]=?\s*([+-]?[0-9]*\.?[0-9]+)\s*$"
    return text.str.extract(pattern, 1).cast(pl.Float64, strict=False)
