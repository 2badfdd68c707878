"""From a hospital's codes, units and words to the study's variables, in the study's units."""

from collections.abc import Callable

import polars as pl

from consilium.client.sources.common.reasons import NO_VALUE, NOT_A_NUMBER
from consilium.client.sources.own.settings import HospitalSettings
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

FEWEST_QUOTED = 10  # rows that must agree on a text before an error quotes it
_MEANT = "\x00meant"  # marks values that the hospital stated in the study's unit


class Translation:
    """One hospital's codes for one study.

    Args:
        study: the variables wanted, with their units.
        settings: what the hospital says about its codes.
        default_codes: the codes of a variable for which the hospital says none.
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
            said = settings.variables.get(name)
            codes = tuple(map(str, said.codes)) if said and said.codes else default_codes(name)
            if said is not None and said.column is not None and not said.codes:
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
    def codes(self) -> tuple[str, ...]:
        """Every code that means a variable of the study."""
        return tuple(self.variable_of)

    @property
    def wordless_codes(self) -> tuple[str, ...]:
        """Codes whose rows mean a number without bringing one: by ``present`` or ``values``."""
        said = self._settings.variables
        speaking = {
            index
            for index, name in enumerate(self._names)
            if (one := said.get(name)) is not None and (one.values or one.present is not None)
        }
        return tuple(code for code, index in self.variable_of.items() if index in speaking)

    def static_columns(self) -> dict[int, str]:
        """Columns of the table of stays that hold static variables, by the variable's index."""
        static = static_names(self._study)
        return {
            index: said.column
            for index, name in enumerate(self._names)
            if name in static
            and (said := self._settings.variables.get(name)) is not None
            and said.column is not None
        }

    def wide_columns(self) -> dict[str, int]:
        """Columns of a wide table by name: those stated, else the variable's own name."""
        columns: dict[str, int] = {}
        for index, name in enumerate(self._names):
            said = self._settings.variables.get(name)
            if index in self.static_columns():
                continue
            columns[said.column if said is not None and said.column is not None else name] = index
        return columns

    def linear(self, variable: int, unit: str | None) -> LinearMap:
        """The map from a value in the hospital's unit to the study's.

        Raises:
            UnitError: no unit is stated, or it cannot be converted.
        """
        name = self._names[variable]
        wanted = self._study.variables[name].unit
        said = self._settings.variables.get(name)
        given = unit or (said.unit if said is not None else None)
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
        """What a word, a code, or the mere presence of a row means as a number."""
        said = self._settings.variables.get(self._names[variable])
        if said is None:
            return None
        if word is not None and word in said.values:
            return said.values[word]
        return said.values.get(code, said.present)

    def column(
        self,
        variable: int,
        number: pl.Series,
        word: pl.Series,
        count: Callable[[str, int], None],
    ) -> pl.Series:
        """A variable's own column in the study's unit; null where there is no number.

        Args:
            variable: its index in the study.
            number: the cells' numbers, null where a cell is none.
            word: the cells that are no number, null where they are or are empty.
            count: told how many cells were set aside, and why.

        Raises:
            UnitError: no unit is stated, or it cannot be converted.
        """
        said = self._settings.variables.get(self._names[variable])
        linear = (
            self.linear(variable, None) if number.null_count() < len(number) else LinearMap(1.0)
        )
        rounded = number.cast(pl.Float32).cast(pl.Float64)  # as in translate
        value = (rounded * linear.factor + linear.offset).fill_nan(None)
        value = value.set(value.is_infinite().fill_null(value=False), None)
        if said is not None and said.values:
            meaning = word.replace_strict(said.values, default=None, return_dtype=pl.Float64)
            value, word = value.fill_null(meaning), word.set(meaning.is_not_null(), None)
        finite = number.is_not_null() & value.is_null()
        count(NOT_A_NUMBER, len(word) - word.null_count() + int(finite.sum()))
        return value

    def translate(
        self, frame: pl.DataFrame, count: Callable[[str, int], None], *, where: str
    ) -> pl.DataFrame:
        """Turn rows of (code, unit, value) into (variable, value) in the study's units.

        Args:
            frame: columns ``code`` (text, one of :attr:`codes`), ``value`` (a number, NaN or null
                where there is none), ``unit`` and ``word`` (text or null), and any others, which
                are kept.
            count: told how many rows were set aside, and why.
            where: the file or table, for errors.

        Returns:
            Rows with a finite value, in their old order, with int16 ``variable`` and
            float64 ``value`` in place of code, unit and word.

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
        # MEDS holds float32; rounding to it first gives every format of a cohort the same tensors.
        value = pl.col("value").cast(pl.Float32) * pl.col("factor") + pl.col("offset")
        return joined.with_columns(value.alias("value")).drop(
            "code", "unit", "word", "factor", "offset"
        )

    def _with_words(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Give rows without a number what their word or code means."""
        said = self._settings.variables.values()
        wordy = any(one.values or one.present is not None for one in said)
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
        # What a word means is in the study's unit already, so the row's own unit is left out.
        meant = pl.col("value").is_null() & pl.col("meaning").is_not_null()
        return joined.with_columns(
            pl.when(meant).then(pl.lit(_MEANT)).otherwise(pl.col("unit")).alias("unit"),
            pl.coalesce("value", "meaning").alias("value"),
        ).drop("meaning")

    def _checked(self, variable: int, unit: str | None, rows: int, where: str) -> LinearMap:
        """The map of one unit; a text that few rows have as a unit is not quoted."""
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
        """Variable, factor and offset for each (code, unit, number of rows) that occurs."""
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
    """Numbers of texts such as ``>300`` and ``<= 0.01``, null for others."""
    pattern = r"^\s*[<>]=?\s*([+-]?[0-9]*\.?[0-9]+)\s*$"
    return text.str.extract(pattern, 1).cast(pl.Float64, strict=False)
