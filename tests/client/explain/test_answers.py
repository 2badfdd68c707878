"""Every answer says how such answers turned out, and only what is known."""

import pytest

from consilium.client.explain.answers import answer, meaning
from consilium.shared.export.manifest import Validation
from consilium.shared.figures.operating_range import Band, Threshold
from tests.signed_models import some_signed
from tests.study_text import small_study

BANDS = (
    Band(low=0, high=0.2, patients=90, observed=0.1, observed_low=0.05, observed_high=0.2),
    Band(low=0.2, high=1, patients=10, observed=0.7, observed_low=0.4, observed_high=0.9),
)
ALARM = Threshold(name="alarms 0.1", threshold=0.3, sensitivity=1, specificity=1, alarm_rate=0.1)


def test_a_risk_comes_with_the_share_of_its_band_and_the_alarms_it_reaches() -> None:
    told = Validation(of="v", patients=100, bands=(BANDS,), thresholds=((ALARM,),))
    model = some_signed(small_study(), validation=told)
    assert answer(model, 0, 0.25) == {
        "name": "y", "value": 0.25, "observed": 0.7, "low": 0.4, "high": 0.9, "alarms": []
    }  # fmt: skip
    assert answer(model, 0, 0.3)["alarms"] == ["alarms 0.1"]
    assert answer(model, 0, 0.1)["observed"] == 0.1
    assert "Wilson" in meaning(model)


def test_a_predicted_quantity_has_the_reach_of_normal_errors() -> None:
    study = small_study(task={"kind": "regression", "outputs": 2})
    model = some_signed(study, validation=Validation(of="v", patients=9, errors=(2.0, None)))
    found = answer(model, 0, 5.0)
    assert found["low"] == pytest.approx(5 - 1.959964 * 2.0)
    assert found["high"] == pytest.approx(5 + 1.959964 * 2.0)
    assert answer(model, 1, 5.0) == {"name": "y 1", "value": 5.0}
    assert "mean squared error" in meaning(model)


def test_without_validation_patients_nothing_is_claimed() -> None:
    model = some_signed(small_study(), validation=None)
    assert answer(model, 0, 0.9) == {"name": "y", "value": 0.9}
    assert meaning(model).startswith("no interval")
