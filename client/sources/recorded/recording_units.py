"""Units as recordings write them, in UCUM."""

from types import MappingProxyType

from consilium.client.sources.common.persons import same_person
from consilium.shared.study.units import UnitError, conversion

_WRITTEN = MappingProxyType(
    {
        "": "1",
        "nu": "1",
        "nd": "1",
        "adu": "1",
        "uv": "uV",
        "microv": "uV",
        "microvolt": "uV",
        "mv": "mV",
        "v": "V",
        "mmhg": "mm[Hg]",
        "bpm": "/min",
        "1/min": "/min",
        "degc": "Cel",
        "degreec": "Cel",
        "deg c": "Cel",
        "percent": "%",
        "pm": "/min",
        "sec": "s",
    }
)


def channel_unit(written: str) -> str:
    """Return the UCUM code of a unit as WFDB and EDF headers write it; others as they stand.

    A micro sign of any kind is a ``u``. ``V`` and ``mV`` differ in size, so case counts first.
    """
    plain = written.strip().replace("\u00b5", "u").replace("\u03bc", "u")
    return _WRITTEN.get(same_person(plain), plain)


def is_voltage(unit: str) -> bool:
    """Return whether a UCUM unit is one of electric potential, whose baseline means nothing."""
    try:
        conversion(unit, "V")
    except UnitError:
        return False
    return True
