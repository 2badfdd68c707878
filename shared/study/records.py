"""What a study says of records: which ones a site brings, which hours count, how codes are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.derived import Derived
from consilium.shared.study.dictionary import Finite, Positive

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class Landmarks(StrictTable):
    """Rolling windows for early warning: from every landmark, does the outcome happen soon?

    Landmarks stand every ``every_h`` hours of the first ``longest_h`` of a stay, before its end and
    before the outcome. Each is a window of the ``window_h`` hours before it, with the label 1 if
    the outcome happens within ``horizon_h`` after it.
    """

    every_h: int = Field(ge=1)
    horizon_h: int = Field(ge=1)
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class BeforeEvent(StrictTable):
    """A window of ``window_h`` that ends ``gap_h`` before the outcome, or the end of the stay.

    Outcomes more than ``longest_h`` after the start of a stay have no window.
    """

    gap_h: int = Field(default=1, ge=1)
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class AfterEvent(StrictTable):
    """A window of ``window_h`` that begins when ``variable`` is first at ``least`` or above.

    A stay has no window where that does not happen, or where the stay, the outcome or the first
    ``longest_h`` end before the window does.
    """

    variable: str = Field(min_length=1, max_length=256)
    least: Finite
    longest_h: int = Field(default=24 * 14, ge=1, le=24 * 365)


class Data(StrictTable):
    """Which records a site must bring, and how they become steps.

    With ``clock`` "hour" times are hours. With "position" a record is a sequence without hours
    (samples of a heart beat, slices, tokens, visits), and ``window_h`` and ``step_h`` count places
    in it: place 0 lies at hour 0, place 1 at hour 1. ``rate_hz`` is the samples a second to which
    sources of waveforms resample. ``derived`` says of variables that no record has how they are
    computed from a recording's windows.
    """

    source: Name
    clock: Literal["hour", "position"] = "hour"
    rate_hz: Positive | None = None
    label: str = Field(min_length=1, max_length=256)
    window_h: int = Field(default=48, ge=1, le=24 * 365)
    step_h: int = Field(default=1, ge=1)
    on_bad_file: Literal["refuse", "skip"] = "refuse"
    on_out_of_range: Literal["drop", "clip"] = "drop"
    minimum_patients: int = Field(default=20, ge=1)
    landmarks: Landmarks | None = None
    before_event: BeforeEvent | None = None
    after_event: AfterEvent | None = None
    derived: dict[str, Derived] = Field(default_factory=dict, max_length=1000)

    @model_validator(mode="after")
    def _one_kind_of_window(self) -> Self:
        if len(self._placed) > 1:
            raise ValueError(f"has {' and '.join(self._placed)}; keep one of these tables")
        if not self.fixed and self.clock == "position":
            raise ValueError(
                'has windows that end in the middle of a stay, and clock = "position", which has '
                'no hours; set clock = "hour" or remove the table'
            )
        return self

    @property
    def fixed(self) -> bool:
        """Whether the window is the first hours of every stay."""
        return not self._placed

    @property
    def reach_h(self) -> int:
        """Hours from the start of a stay in which its events are read."""
        return next((table.longest_h for table in self._placed.values()), self.window_h)

    @property
    def _placed(self) -> dict[str, Landmarks | BeforeEvent | AfterEvent]:
        """The tables that place windows elsewhere than in the first hours, by name."""
        tables = {
            "landmarks": self.landmarks,
            "before_event": self.before_event,
            "after_event": self.after_event,
        }
        return {name: table for name, table in tables.items() if table is not None}

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return -(-self.window_h // self.step_h)


class Tokens(StrictTable):
    """Codes that become learned vectors: diagnoses, drugs, atoms.

    ``names`` are the source's columns of codes; the vectors of several codes in one step are added.
    ``vocabulary`` is a public list; all codes outside it share one more vector. ``width`` is the
    length of a vector.
    """

    names: tuple[str, ...] = Field(min_length=1, max_length=64, strict=False)
    vocabulary: tuple[str, ...] = Field(min_length=1, max_length=65_000, strict=False)
    width: int = Field(default=16, ge=1, le=4096)

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        for key in ("names", "vocabulary"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key} must not hold an entry twice; remove the repetition")
        return self
