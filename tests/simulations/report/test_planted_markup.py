"""A tag planted in every text of a run's record: each stands in the page as text, none as a tag."""

import re
from typing import Any

import pytest

from consilium.simulations.report.run_page import report_page
from consilium.simulations.report.strategies_page import strategies_page
from tests.simulations.report.made_up import demo_study, estimate, group, one_round, record_of

# Of these a run writes one of a few words, numbers or digests, which choose what is shown.
CHOSEN = {"kind", "purpose", "mode", "topic", "figure", "negatives", "positives_by_bin", "bins",
          "study_digest", "study_declared", "unit"}  # fmt: skip
NAMED = {"data", "phases", "bytes_up", "bytes_down", "effects", "out_of_range", "test_groups"}
# Texts of a record that no page shows; sites are listed as they stand in bytes_up.
UNSHOWN = {"study", "rounds.void", "rounds.sites", "rounds.bytes_down", "other_rounds.sites",
           "other_rounds.bytes_up", "other_rounds.bytes_down", "other_rounds.phases",
           "joining.sites.trained_on", "external.sites.trained_on", "verdicts.name"}  # fmt: skip


def planted(content: Any, found: dict[str, str], path: tuple[str, ...] = ()) -> Any:
    """Return content with a numbered tag in each text; ``found`` gets each tag's place."""

    def plant(text: str, place: tuple[str, ...]) -> str:
        tag = f"<script>{'.'.join(place)}</script>"
        found[tag] = ".".join(place)
        return text + tag

    if isinstance(content, str):
        return content if path[-1] in CHOSEN else plant(content, path)
    if isinstance(content, list):
        return [planted(one, found, path) for one in content]
    if isinstance(content, dict) and path and path[-1] in NAMED:
        return {
            plant(key, path): planted(one, found, (*path, "of")) for key, one in content.items()
        }
    if isinstance(content, dict):
        return {key: planted(one, found, (*path, key)) for key, one in content.items()}
    return content


def whole_record() -> dict[str, Any]:
    """A record with everything that a run may say."""
    study = demo_study()
    sites = [
        {"site": site, "trained_on": [site], "patients": 50, "judged": judged,
         **{way: estimate(0.7) for way in ("local", "federated", "gain", "external")},
         "calibration": estimate(1.6, 0.2)}
        for site, judged in (("hospital-1", True), ("hospital-2", True), ("hospital-3", False))
    ]  # fmt: skip
    joining = {"figure": "auroc", "higher_is_better": True, "sites": sites}
    ratios = {way: estimate(1.2, 0.3) for way in ("before", "across", "own")}
    output = {"auroc": 0.77, "auroc_low": 0.7, "auroc_high": 0.83, "auroc_error": 0.002}
    evaluation = {
        "patients": 90.0,
        "outputs": [output],
        "groups": [group("subgroup", "male") | {"released": True}],
        "attributions": {
            "patients": 60.0, "clipped": 6.0, "deviation": 0.0,
            "effects": {name: [0.1, 0.2, 0.3, 0.4] for name in study.variables},
        },
    }  # fmt: skip
    counts = ("patients", "stays", "events", "unlabelled", "filtered", "outside_window",
              "duplicates", "skipped")  # fmt: skip
    return record_of(
        study,
        joining=joining,
        external=joining,
        recalibration={
            "across": [{"slope": 1.0, "intercept": 0.2}],
            "sites": [{"patients": 40.0}],
            "groups": [{"kind": "site", "name": "hospital-1", **ratios}],
            "verdicts": {"across": [], "own": []},
        },
        other_rounds=[one_round(9, study) | {"purpose": "evaluation", "validation": evaluation}],
        verdicts=[{"topic": "calibration", "kind": "site", "name": "hospital-2", "serious": True,
                   "sentence": "Risks are too low at hospital-2."}],
        data={site: dict.fromkeys(counts, 7) | {"out_of_range": {}} for site in study.sites},
    )  # fmt: skip


def places_shown(page: str, found: dict[str, str]) -> set[str]:
    return {
        place
        for tag, place in found.items()
        if tag.replace("<", "&lt;").replace(">", "&gt;") in page
    }


def assert_only_text(page: str) -> None:
    assert not re.search(r"<\s*/?\s*script", page, flags=re.I)
    assert "&amp;lt;" not in page  # nothing is escaped twice
    assert not re.search(r"<[^>]*\son\w+=", page)


@pytest.mark.slow
def test_every_text_of_a_record_is_escaped_in_the_report() -> None:
    found: dict[str, str] = {}
    record = planted(whole_record(), found)
    title, purpose = "<script>title</script>", "<script>purpose</script>"
    study = demo_study(study={"title": title, "purpose": purpose})
    page = report_page(study, record, {"other<script>name</script>": record})
    assert_only_text(page)
    for words in ("title", "purpose", "name"):
        assert f"&lt;script&gt;{words}&lt;/script&gt;" in page
    assert set(found.values()) - places_shown(page, found) == UNSHOWN


def test_every_text_of_a_comparison_of_strategies_is_escaped() -> None:
    found: dict[str, str] = {}
    study = demo_study(study={"title": "<script>title</script>"})
    groups = {site: {"auroc": estimate(0.8)} for site in study.sites}
    record = planted(record_of(study, test_groups=groups), found)
    settings = {"fedavg<script>name</script>": record, "local": record}
    page = strategies_page(study, settings, {"<script>a</script>": "<script>why</script>"})
    assert_only_text(page)
    for words in ("title", "name", "a", "why"):
        assert f"&lt;script&gt;{words}&lt;/script&gt;" in page
    assert {"software", "test_cohort", "test_groups"} <= places_shown(page, found)
