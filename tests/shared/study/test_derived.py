"""What a study says of derived variables: refused unless they have a meaning; digests as before."""

import pytest

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import parse_canonical, parse_study
from tests.client.sources.recorded.heart import STUDY, heart_study


def test_derived_variables_are_a_part_of_the_digest_and_absent_ones_are_not() -> None:
    study = heart_study()
    assert parse_canonical(study.to_canonical_json()) == study
    assert study.digest != heart_study(("until_s = 0.02", "until_s = 0.03")).digest
    plain = STUDY[: STUDY.index("[data.derived]")] + STUDY[STUDY.index("[task]") :]
    assert b"derived" not in parse_study(plain).to_canonical_json()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('clock = "position"', 'clock = "hour"', "is computed from whole windows of recordings"),
        ('source = "waveforms"', 'source = "molecules"', "is computed from whole windows of rec"),
        ("rate_hz = 100\n", "", "is computed from whole windows of recordings"),
        ('unlike = { kind', 'other = { kind', "names 'other', which is not one of"),
        ('of = "V1", unit = "mV"', 'of = "V1"', "channel 'V1', whose unit is not said"),
        ('alike = { kind = "normalised", of = "MLII" }',
         'alike = { kind = "normalised", of = "MLII", unit = "uV" }', "give it one unit"),
        ('of = "V1"', 'of = "alike"', "is derived itself"),
        ('unit = "mV2"', 'unit = "mV"', "has the unit 'mV2', not 'mV'"),
        ('alike = { unit = "1"', 'alike = { unit = "mV"', "has the unit '1', not 'mV'"),
        (', role = "static" }\nslow', ' }\nslow', "of role 'static', not 'series'"),
        ("high_hz = 30", "high_hz = 46", "show 1.66667 to 45 Hz"),
        ("low_hz = 5,", "low_hz = 1,", "show 1.66667 to 45 Hz"),
        ("low_hz = 5,", "low_hz = 29,", "tell 1.66667 Hz apart"),
        ("from_s = -0.02", "from_s = -0.3", "from -0.24 to 0.36 s"),
        ("from_s = -0.02", "from_s = 0.019", "that holds one"),
        (", until_s = 0.02", "", "give both, or neither"),
        ('kind = "deviation"', 'kind = "difference"', "data.derived"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        heart_study((old, new))


def test_a_task_of_every_step_is_refused() -> None:
    with pytest.raises(StudyError, match="per_step = false, or remove it"):
        heart_study(("outputs = 5", "outputs = 5\nper_step = true"))
