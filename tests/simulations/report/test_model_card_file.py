"""model-card.json: complete by its schema, of the page's own words, null where nothing is known."""

import html
import json
from pathlib import Path

import jsonschema

from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import write_json
from tests.simulations.report.made_up import demo_study, record_of

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "model-card.schema.json").read_text())


def test_the_card_fits_its_schema_and_says_what_the_page_says(tmp_path: Path) -> None:
    record = record_of(demo_study(), groups=[])
    write_json(tmp_path / "run.json", record)
    page = html.unescape(write_report(tmp_path).read_text())
    content = (tmp_path / "model-card.json").read_bytes()
    card = json.loads(content)
    jsonschema.Draft202012Validator(SCHEMA).validate(card)
    for item in card["tripod_ai"]:
        assert item["text"] is None or item["text"] in page
    assert {item["item"] for item in card["tripod_ai"] if item["text"] is None} >= {"17", "18a"}
    chai = card["chai_applied_model_card"]
    assert chai["BasicInfo"]["ModelDeveloper"] is None
    assert chai["TrustIngredients"]["TransparencyInformation"]["FundingSource"] is None
    (auroc, *_) = chai["KeyMetrics"]["UsefulnessUsabilityEfficacy"]["Results"]
    assert auroc["Value"] == record["test"]["auroc"]["value"]
    write_report(tmp_path, tmp_path / "again.html")
    assert (tmp_path / "again.model-card.json").read_bytes() == content
