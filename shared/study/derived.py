"""Variables that are computed from the windows of a recording: beside ``[variables]``, how.

Windows are what a source of recordings cuts: stretches, or what lies around heart beats or other
annotations. Every window is first freed of its own median, so a channel's baseline means nothing.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.dictionary import Finite, Positive, Variable
from consilium.shared.study.units import UnitError, conversion

BEFORE = 0.4  # share of a beat's window that lies before the beat
SOURCES = ("waveforms", "edf")  # which cut recordings into windows
RECALLED = 32  # windows, the present one included, that a running reference is made of
HIGHEST_SHARE = 0.45  # of the rate, up to which resampled signals keep their spectrum
SEGMENT_S = 4.0  # of Welch's method: frequencies are told apart by 0.25 Hz, if windows are so long


class Signal(StrictTable):
    """A variable made of a channel's windows.

    ``of`` is the channel, as the records, or their settings, name it; ``unit`` is the UCUM unit in
    which it is read, not needed if it is one of the study's variables itself.
    """

    of: str = Field(min_length=1, max_length=256)
    unit: str = Field(default="", max_length=30)

    @property
    def role(self) -> str:
        """The role of the variable: one number a window is static."""
        return "static"

    def unit_of(self, unit: str) -> str:
        """Return the variable's unit for a channel in that unit."""
        raise NotImplementedError


class Compared(Signal):
    """A window beside others of its recording.

    ``reference`` "running" takes it and up to 31 windows before it, as a monitor can; "recording"
    takes all windows, and so needs the finished recording. A window without another to be compared
    with is missing.

    With ``from_s`` and ``until_s`` it is one number, the mean of a part of the window, in seconds
    from the beat (label ``aami``) or from the window's begin.
    """

    reference: Literal["running", "recording"] = "running"
    from_s: Finite | None = None
    until_s: Finite | None = None

    @model_validator(mode="after")
    def _part_has_two_ends(self) -> Self:
        if (self.from_s is None) != (self.until_s is None):
            raise ValueError(
                "of a part of the window needs from_s and until_s; give both, or neither"
            )
        return self

    @property
    def role(self) -> str:
        """A whole window is a series."""
        return "series" if self.from_s is None else "static"

    @property
    def whole(self) -> "Compared":
        """The same of the whole window."""
        return self.model_copy(update={"from_s": None, "until_s": None})

    def part(self, rate_hz: float, steps: int, *, at_beats: bool) -> slice:
        """Return the samples of the window that count."""
        if self.from_s is None or self.until_s is None:
            return slice(0, steps)
        zero = beat_place(steps) if at_beats else 0
        first, last = (zero + round(edge * rate_hz) for edge in (self.from_s, self.until_s))
        return slice(first, last)


class Deviation(Compared):
    """A window less the median window: how this beat differs from the usual one of this heart."""

    kind: Literal["deviation"]

    def unit_of(self, unit: str) -> str:
        """See :class:`Signal`."""
        return unit


class Normalised(Compared):
    """A window over the median size (root mean square) of windows, so that records are alike."""

    kind: Literal["normalised"]

    def unit_of(self, unit: str) -> str:
        """See :class:`Signal`."""
        del unit
        return "1"


class BandPower(Signal):
    """A window's power from ``low_hz`` to below ``high_hz``, by Welch's method.

    It is the integral of the spectral density, in the square of the channel's unit (Welch, IEEE
    Trans Audio Electroacoust 1967;15:70-73). ``relative`` divides it by the power of all
    frequencies up to 0.45 times the rate.
    """

    kind: Literal["band-power"]
    low_hz: Positive
    high_hz: Positive
    relative: bool = False

    def unit_of(self, unit: str) -> str:
        """See :class:`Signal`."""
        return "1" if self.relative else f"{unit}2"


Derived = Annotated[Deviation | Normalised | BandPower, Field(discriminator="kind")]


def beat_place(steps: int) -> int:
    """Return the sample of a beat's window at which the beat lies."""
    return round(BEFORE * steps)


def segment(rate_hz: float, steps: int) -> int:
    """Return the samples of a segment of Welch's method, for windows of so many samples."""
    return min(steps, max(1, round(SEGMENT_S * rate_hz)))


def channel_units(derived: dict[str, Derived], variables: dict[str, Variable]) -> dict[str, str]:
    """Return the unit of each channel that a study reads, by the channel's name.

    Raises:
        ValueError: one sentence: a channel has no unit, or two.
    """
    units = {
        name: variable.unit
        for name, variable in variables.items()
        if variable.role == "series" and name not in derived
    }
    # Those that say a unit first: the order of a table's keys means nothing.
    for name, one in sorted(derived.items(), key=lambda item: (not item[1].unit, item[0])):
        known = units.get(one.of, "")
        if not (unit := one.unit or known):
            raise ValueError(
                f"[data.derived] {name} is of channel {one.of!r}, whose unit is not said; add "
                'unit, such as unit = "mV"'
            )
        if known and unit != known:
            raise ValueError(
                f"[data.derived] {name} reads channel {one.of!r} in {unit!r}, elsewhere it is read "
                f"in {known!r}; give it one unit"
            )
        units[one.of] = unit
    return units


def check_derived(
    derived: dict[str, Derived],
    variables: dict[str, Variable],
    *,
    source: str,
    rate_hz: float | None,
    steps: int,
    positions: bool,
    per_step: bool,
    at_beats: bool,
) -> None:
    """Refuse derived variables that the study does not declare, or that have no meaning in it.

    Args:
        derived: by the variable's name.
        variables: the study's.
        source: the kind of its records.
        rate_hz: samples a second.
        steps: samples of a window.
        positions: whether the study's clock counts positions.
        per_step: whether its task asks at every step.
        at_beats: whether windows lie around heart beats.

    Raises:
        ValueError: one sentence: what does not fit, and the remedy.
    """
    if not derived:
        return
    if source not in SOURCES or not positions or rate_hz is None or per_step:
        raise ValueError(
            "[data.derived] is computed from whole windows of recordings; set [data] source = "
            '"waveforms" or "edf", clock = "position" and rate_hz, and [task] per_step = false, or '
            "remove it"
        )
    units = channel_units(derived, variables)
    for name, one in derived.items():
        variable = variables.get(name)
        if variable is None:
            raise ValueError(
                f"[data.derived] names {name!r}, which is not one of [variables]; declare its "
                "range, center and spread there"
            )
        if one.of in derived:
            raise ValueError(
                f"[data.derived] {name} is of {one.of!r}, which is derived itself; name a channel "
                "of the records"
            )
        if variable.role != one.role:
            raise ValueError(
                f"[data.derived] {name} is of kind {one.kind!r}, which is a variable of role "
                f'{one.role!r}, not {variable.role!r}; set role = "{one.role}"'
            )
        wanted = one.unit_of(units[one.of])
        if not _same(wanted, variable.unit):
            raise ValueError(
                f"[data.derived] {name} of a channel in {units[one.of]!r} has the unit {wanted!r}, "
                f"not {variable.unit!r}; state its unit, range, center and spread in {wanted!r}"
            )
        if isinstance(one, BandPower):
            _check_band(name, one, rate_hz, steps)
            continue
        part = one.part(rate_hz, steps, at_beats=at_beats)
        if not 0 <= part.start < part.stop <= steps:
            zero = beat_place(steps) if at_beats else 0
            raise ValueError(
                f"[data.derived] {name} is from {one.from_s:g} to {one.until_s:g} s, and a window "
                f"has samples from {-zero / rate_hz:.3g} to {(steps - zero) / rate_hz:.3g} s, "
                f"{rate_hz:g} a second; choose a part of it that holds one"
            )


def _check_band(name: str, band: BandPower, rate_hz: float, steps: int) -> None:
    """Refuse a band that windows of this rate and length do not show.

    Raises:
        ValueError: one sentence.
    """
    highest, slowest = HIGHEST_SHARE * rate_hz, rate_hz / segment(rate_hz, steps)
    if not slowest <= band.low_hz < band.high_hz <= highest:
        raise ValueError(
            f"[data.derived] {name} is from {band.low_hz:g} to {band.high_hz:g} Hz, and windows of "
            f"{steps} samples at {rate_hz:g} Hz show {slowest:g} to {highest:g} Hz; choose a band "
            "within, or another [data] rate_hz or window_h"
        )
    if band.high_hz - band.low_hz < slowest:
        raise ValueError(
            f"[data.derived] {name} is {band.high_hz - band.low_hz:g} Hz wide, and windows of "
            f"{steps} samples at {rate_hz:g} Hz tell {slowest:g} Hz apart; widen it, or raise "
            "[data] window_h"
        )


def _same(unit: str, other: str) -> bool:
    """Return whether two UCUM units are one."""
    try:
        found = conversion(unit, other)
    except UnitError:
        return unit == other
    return found.factor == 1.0 and not found.offset
