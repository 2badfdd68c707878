"""model-card.json: complete by its schema, of the page's own words, null where nothing is known."""

import html
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from consilium.simulations.report.files import write_report
from consilium.simulations.report.model_card import model_card
from consilium.simulations.report.model_card_file import model_card_file
from consilium.simulations.report.records import write_json
from tests.simulations.report.made_up import demo_study, record_of

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "model-card.schema.json").read_text())


def card_of(record: dict[str, Any]) -> dict[str, Any]:
    study = demo_study()
    items = model_card(study, record, (), None)
    return dict(json.loads(model_card_file(study, record, items)))


def test_the_card_fits_its_schema_and_invents_nothing() -> None:
    record = record_of(demo_study(), groups=[])
    card = card_of(record)
    jsonschema.Draft202012Validator(SCHEMA).validate(card)
    assert {item["item"] for item in card["tripod_ai"] if item["text"] is None} >= {"17", "18a"}
    chai = card["chai_applied_model_card"]
    assert chai["BasicInfo"]["ModelDeveloper"] is None
    assert chai["TrustIngredients"]["TransparencyInformation"]["FundingSource"] is None
    (auroc, *_) = chai["KeyMetrics"]["UsefulnessUsabilityEfficacy"]["Results"]
    assert auroc["Value"] == record["test"]["auroc"]["value"]
    unknown = card_of(record | {"test": record["test"] | {"auroc": None}})
    jsonschema.Draft202012Validator(SCHEMA).validate(unknown)
    (auroc, *_) = unknown["chai_applied_model_card"]["KeyMetrics"]["UsefulnessUsabilityEfficacy"][
        "Results"
    ]
    assert (auroc["Value"], auroc["Low"], auroc["High"]) == (None, None, None)


@pytest.mark.slow
def test_the_card_beside_a_report_says_what_the_page_says(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", record_of(demo_study(), groups=[]))
    page = html.unescape(write_report(tmp_path).read_text())
    content = (tmp_path / "model-card.json").read_bytes()
    for item in json.loads(content)["tripod_ai"]:
        assert item["text"] is None or item["text"] in page
    write_report(tmp_path, tmp_path / "again.html")
    assert (tmp_path / "again.model-card.json").read_bytes() == content
