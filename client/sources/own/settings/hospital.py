"""What the ``[data]`` tables of all of a hospital's own systems have in common.

A study says which variables it wants; these settings say where the hospital keeps them, how it
writes them, and how the label is derived.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.client.sources.common.settings import (
    DataSettings,
    Listed,
    Number,
    SettingsPart,
)

Midnight = Literal["detect", "day", "instant"]


class VariableSettings(SettingsPart):
    """Where the hospital keeps one of the study's variables.

    Attributes:
        codes: its codes in the records: item numbers, LOINC codes, OMOP concept ids.
        column: its column in a wide table or, for a static variable, in the table of stays.
        unit: UCUM unit of values in rows without a unit.
        values: numbers for words and codes, such as ``{ M = 1, F = 0 }``.
        present: number for rows that only say that something happened, such as a drug given.
    """

    codes: Annotated[tuple[str | int, ...], Listed] = ()
    column: str | None = None
    unit: str | None = None
    values: dict[str, Number] = Field(default_factory=dict)
    present: Number | None = None


class HospitalSettings(DataSettings):
    """Settings common to the sources that read a hospital's own system.

    Attributes:
        variables: settings by the variable's name in the study; others have the source's defaults.
        units: the UCUM unit for each of the hospital's own spellings.
        time_zone: the hospital's zone, such as ``Europe/Berlin`` or ``+10:00``: of times without an
            offset, and of days.
        midnight: whether times at exactly 00:00 stand for their day: by their share in the column
            (``detect``), always (``day``), or never (``instant``).
    """

    variables: dict[str, VariableSettings] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    time_zone: str | None = Field(default=None, min_length=1, max_length=64)
    midnight: Midnight = "detect"


class OutcomeSettings(SettingsPart):
    """How the study's label is derived if no column holds it.

    ``death``: death during the stay. ``condition``: one of ``codes`` begins during the stay.
    ``length-of-stay``: in days, for regression. ``readmission``: the patient's next stay begins at
    most ``within_days`` after the end of this one.
    """

    kind: Literal["death", "condition", "length-of-stay", "readmission"] = "death"
    codes: Annotated[tuple[str | int, ...], Listed] = ()
    within_days: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _a_condition_has_codes(self) -> Self:
        if (self.kind == "condition") != bool(self.codes):
            raise ValueError("codes belong to kind = 'condition', and it needs them; correct one")
        return self
