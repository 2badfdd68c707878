"""Laboratories' spellings of units: each means one UCUM code, and an ambiguous one means none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.study import unit_spellings
from consilium.shared.study.unit_spellings import (
    AMBIGUOUS,
    ambiguity,
    is_spelling,
    same_unit,
    ucum_of,
)
from consilium.shared.study.units import UnitError, is_unit, parse_unit

# From laboratory reports, monitors and wards in English, German and French.
MEANT = {
    "mmol/L": "mmol/l MMOL/L mMol/L mmol/Liter millimol/L mmol*L-1 mmol·L⁻¹ mM umol/mL",
    "meq/L": "mEq/L meq/l MEQ/L mval/l mVal/L mEQ/l milliequivalents/L",
    "mg/dL": "mg/dl MG/DL mg% mg/100mL mg/100ml Mg/dL mgs/dL",
    "g/dL": "G/DL g/100ml gm/dl gms/dL g%",
    "ug/L": "mcg/L µg/l μg/L UG/L MCG/L micrograms/L ng/mL NG/ML",
    "umol/L": "µmol/l UMOL/L mcmol/L mikromol/l uM",
    "pg/mL": "PG/ML ng/L",
    "/min": "bpm BPM 1/min /Min. min-1 min^-1 beats/min Schl./min Schläge/min breaths/min AZ/min "
    "insp/min batt/min battements/min {beats}/min",
    "10*9/L": "x10E9/L X10E9/L 10E9/l 10e9/L x10^9/l 10⁹/L ×10^9/L 10**9/L 10*9/l x10*9/L E9/L "
    "10(9)/L G/l Gpt/l Gpt/L giga/l K/uL K/µl k/ul K/mm3 thou/uL Tsd/µl Tsd./µl 10^3/uL x10E3/uL "
    "10(3)/mcL x10^3/mm3 K/cumm 1000/uL Zellen/nl /nl",
    "10*12/L": "T/l T/L Tpt/l x10E12/L 10^12/l Mio/µl Mio./µl M/uL 10^6/uL x10E6/uL million/mm3",
    "/uL": "cells/uL cells/µL cells/mm3 /mm3 /mm³ /cumm #/uL Zellen/µl cellules/mm3 CELLS/UL",
    "[IU]/L": "IU/l iu/L UI/L U.I./L IE/l mIU/mL",
    "U/L": "u/l U/l units/L Einheiten/l mU/mL",
    "m[IU]/L": "mIU/L mUI/l µIU/mL uIU/mL mcIU/mL",
    "%": "Vol% vol% Vol.-% Prozent percent pct",
    "mm[Hg]": "mmHg MMHG mmhg mm/Hg Torr",
    "cm[H2O]": "cmH2O cmH20 CMH2O cmWS",
    "kPa": "kpa KPA KPa",
    "Cel": "°C ºC ℃ C degC",
    "[degF]": "°F F degF",
    "mm/h": "mm/hr mm/Std MM/H",
    "mL/h": "ml/h cc/hr ML/HR mL/Std. ml/heure",
    "L/min": "l/min LPM L/Min",
    "mL/min/{1.73_m2}": "ml/min/1,73m² mL/min/1.73m2 mL/min/1.73m^2",
    "ug/kg/min": "mcg/kg/min µg/kg/min UG/KG/MIN",
    "mosm/kg": "mOsm/kg mosmol/kg mOsmol/kg",
    "kg": "KG Kg kgs",
    "[lb_av]": "lb lbs LBS pounds",
    "s": "sec Sek. SEC seconds secondes",
    "h": "hr hrs Std Stunden heures",
    "a": "years yrs Jahre ans",
    "fL": "fl FL",
    "ukat/L": "µkat/l ukat/l",
    "[pH]": "pH PH",
    "1": "ratio INR",
}
CASES = [(spelling, code) for code, spellings in MEANT.items() for spelling in spellings.split(" ")]
UNREADABLE = {"mgs/dL"}  # in the list above to show that it is not guessed
SPOKEN = [
    ("mmol per L", "mmol/L"), ("mm Hg", "mm[Hg]"), ("cm H2O", "cm[H2O]"), ("Vol %", "%"),
    ("mmol L-1", "mmol/L"), ("mg / dL", "mg/dL"), ("Grad Celsius", "Cel"), ("deg C", "Cel"),
    ("x 10E9/L", "10*9/L"), ("10^9 /L", "10*9/L"), ("g/100 mL", "g/dL"), (" /min ", "/min"),
    ("mL/min/1.73 m²", "mL/min/{1.73_m2}"), ("beats per minute", "/min"),
]  # fmt: skip  # with blanks in them
REFUSED = [
    "G/L", "M/L", "m/uL", "MU/L", "MIU/ML", "mE/l", "E/l", "mil/uL", "mill/mm3", "M/mm3", "gr",
    "ppm", "S/min", "MM", "UM", "10 9/L", "G",
]  # fmt: skip


@pytest.mark.parametrize(("spelling", "code"), [*CASES, *SPOKEN])
def test_a_spelling_equals_its_code(spelling: str, code: str) -> None:
    if spelling in UNREADABLE:
        assert not is_spelling(spelling)
    else:
        assert same_unit(ucum_of(spelling), code), ucum_of(spelling)


@pytest.mark.parametrize("spelling", REFUSED)
def test_an_ambiguous_spelling_is_refused_with_what_it_may_mean(spelling: str) -> None:
    with pytest.raises(UnitError, match=r"can mean .*; say which in site\.toml"):
        ucum_of(spelling)
    assert ambiguity(spelling) in AMBIGUOUS.values()
    assert is_spelling(spelling)


@given(st.sampled_from([unit for unit in MEANT if is_unit(unit)]))
def test_a_ucum_code_stays_as_it_is(code: str) -> None:
    assert ucum_of(code) == code


ATOMS, FOLDED = unit_spellings._tables()


def test_no_spelling_of_an_atom_means_two_units() -> None:
    meanings: dict[str, set[str]] = {}
    for spelling, code in unit_spellings._spelled():
        meanings.setdefault(spelling, set()).add(code)
    assert [spelling for spelling, codes in meanings.items() if len(codes) > 1] == []
    everything = [*ATOMS.values(), *FOLDED.values(), *unit_spellings._WHOLE.values()]
    assert [code for code in everything if not is_unit(code)] == []


@given(st.sampled_from(sorted(ATOMS)), st.sampled_from(sorted(ATOMS)), st.sampled_from("/ "))
def test_a_spelling_put_together_means_what_its_atoms_mean(one: str, two: str, blank: str) -> None:
    text = f"{one}{blank}/{blank}{two}"
    if ambiguity(text) or one.lower() in unit_spellings._COUNTED:
        return
    expected = f"{ATOMS[one]}/{ATOMS[two]}"
    if is_spelling(text) and "//" not in text and text.replace(" ", "") not in ("mm/hg", "mm/Hg"):
        assert same_unit(ucum_of(text), expected), (ucum_of(text), expected)


@given(
    st.sampled_from(["x10E{n}", "10^{n}", "10e{n}", "×10^{n}", "10*{n}", "10**{n}", "E{n}"]),
    st.sampled_from([3, 6, 9, 12]),
    st.sampled_from([("L", "L"), ("l", "L"), ("µl", "uL"), ("mm3", "uL"), ("mcL", "uL"),
                     ("mL", "mL")]),
    st.sampled_from(["", " ", "cells", "Zellen", "#"]),
)  # fmt: skip  # reads as one
def test_a_count_in_a_volume_is_a_power_of_ten(
    power: str, n: int, volume: tuple[str, str], counted: str
) -> None:
    written, code = volume
    spelling = f"{power.format(n=n)}{' ' + counted if counted.strip() else counted}/{written}"
    assert same_unit(ucum_of(spelling), f"10*{n}/{code}")


@given(st.text(max_size=70))
def test_any_text_is_a_unit_or_refused_in_one_sentence(text: str) -> None:
    if is_spelling(text) and ambiguity(text) is None:
        assert parse_unit(ucum_of(text)).factor > 0
        return
    with pytest.raises(UnitError, match="unit") as caught:
        ucum_of(text)
    assert "\n" not in str(caught.value)
