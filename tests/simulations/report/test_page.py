"""The report's page: complete, self-contained, accessible, and safe to open."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consilium.simulations.figures.measures import FIGURES
from consilium.simulations.report.model_card import ITEMS
from consilium.simulations.report.run_page import report_page
from consilium.simulations.report.strategies_page import strategies_page
from tests.needs import browse
from tests.simulations.report.made_up import demo_study, estimate, group, one_round, record_of

CURVES = {"discrimination", "calibration", "decision", "alarms"}


class Parsed(HTMLParser):
    """Identifiers, links inside the page, and the elements and attributes it uses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name in ("src", "srcset", "data", "action") or name.startswith("on"):
                self.sources.append(f"{tag} {name}")


@pytest.fixture(scope="module")
def page() -> str:
    study = demo_study()
    return report_page(study, record_of(study), None)


def figures_of(page: str) -> set[str]:
    return set(re.findall(r"<figure id='([a-z0-9-]+)'", page))


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def test_a_page_needs_nothing_outside_itself_and_runs_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert not parsed.sources
    assert not parsed.tags & {"script", "img", "iframe", "object", "link", "form", "base"}
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_every_link_leads_somewhere_and_no_identifier_stands_twice(page: str) -> None:
    parsed = Parsed(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)


def test_every_figure_has_title_description_caption_and_its_numbers(page: str) -> None:
    names = figures_of(page)
    assert CURVES | {"sites", "subgroups", "learning", "epsilon", "seconds", "traffic"} == names
    for name in names:
        figure = page[page.index(f"<figure id='{name}'") :].split("</figure>")[0]
        assert re.search(rf"<title id='{name}-title'>[^<]+</title>", figure)
        assert len(re.search(rf"<desc id='{name}-desc'>([^<]+)</desc>", figure)[1]) > 20
        assert "<figcaption>" in figure
        numbers = page[page.index(f"<div id='{name}-numbers'") :].split("</table>")[0]
        assert "<th scope='row'>" in numbers


@pytest.mark.slow
def test_sections_appear_where_the_record_has_what_they_need() -> None:
    study = demo_study(privacy={"mode": "none"})
    bare = report_page(study, record_of(study, groups=[]), None)
    assert figures_of(bare) == {"learning", "seconds", "traffic"}
    assert "no differential privacy" in bare
    joined = {
        "figure": "auroc",
        "higher_is_better": True,
        "sites": [
            {"site": site, "trained_on": [site], "patients": 50, "judged": True,
             "local": estimate(0.7), "federated": estimate(0.8), "gain": estimate(gain)}
            for site, gain in (("hospital-1", 0.1), ("hospital-2", -0.1), ("hospital-3", 0.0))
        ],
    }  # fmt: skip
    settings = {
        "logistic-regression": record_of(study, test=record_of(study)["test"]),
        "federated-private": record_of(demo_study())
        | {"against": {"logistic-regression": dict.fromkeys(FIGURES["binary"], estimate(0.0))}},
    }
    output = {"auroc": 0.77, "auroc_low": 0.7, "auroc_high": 0.83, "auroc_error": 0.002}
    released = group("subgroup", "male") | {"released": True}
    held_back = group("subgroup", "held back") | {"released": False}
    last = {"patients": 90.0, "outputs": [output], "groups": [released, held_back]}
    outside = {
        **joined,
        "sites": [s | {"external": estimate(0.75), "calibration": estimate(1.6, 0.2)}
                  for s in joined["sites"]],
    }  # fmt: skip
    ratios = {way: estimate(1.2, 0.3) for way in ("before", "across", "own")}
    mended = {
        "across": [{"slope": 1.0, "intercept": 0.2}],
        "sites": [{"patients": 40.0}],
        "groups": [{"kind": "all", "name": "all", **ratios}],
        "verdicts": {"across": [], "own": []},
    }
    evaluated = [one_round(9, study) | {"purpose": "evaluation", "validation": last}]
    record = record_of(
        study, joining=joined, other_rounds=evaluated, external=outside, recalibration=mended
    )
    full = report_page(study, record, settings)
    assert "no difference beyond noise" in full
    assert {"joining", "settings", "rivals", "federated", "external", "recalibration"} < figures_of(
        full
    )
    assert "At hospital-1 a model that never saw it is worse: AUROC 0.75" in full
    assert "Across sites: log-odds times 1.00, +0.20." in full
    assert (
        "validation patients, by sums over the sites: 0.770 (0.700 to 0.830); male: 0.800" in full
    )
    assert "held back" not in full
    assert "1 of 3 hospitals surely gained; hospital-2 surely lost" in text_of(full)
    assert "federated, private, epsilon 7.9" in full


@pytest.mark.slow
def test_a_page_of_strategies_is_whole_and_says_how_sure_their_order_is() -> None:
    study = demo_study(privacy={"mode": "none"})
    by_site = {site: {"auroc": estimate(0.8, 0.1)} for site in study.sites}
    plain = {
        name: record_of(study, test_groups=by_site, bytes_up_per_site_per_round=sent)
        | {"test": record_of(study)["test"] | {"auroc": estimate(value)}}
        for name, value, sent in (
            ("local", 0.75, 0), ("pooled", 0.82, 0), ("fedavg", 0.80, 65), ("head+norm", 0.81, 64)
        )
    }  # fmt: skip
    private = record_of(demo_study(), test_groups=by_site)
    settings = {**plain, "head+norm, distributed": private}
    why = {"<b>": "[training] proximal does nothing in one step"}
    page = strategies_page(study, settings, why)
    parsed = Parsed(page)
    assert not parsed.sources
    assert not parsed.tags & {"script", "img", "form", "link"}
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    assert figures_of(page) == {"overall", "hospitals"}
    told = text_of(page)
    assert "Without privacy the best AUROC has head+norm, 0.810 (0.790 to 0.830)." in told
    assert "within the interval of the one other, so their order is not sure" in told
    assert "With privacy the best AUROC has head+norm, 0.800" in told
    assert "all records in one place: 0.820" in told
    assert "head: each hospital keeps its own maps to the outputs." in told
    assert "&lt;b&gt;: [training] proximal does nothing in one step" in page
    assert page == strategies_page(study, settings, why)


@pytest.mark.slow
def test_what_is_wrong_for_everybody_is_the_headline_though_no_group_stands_out() -> None:
    study = demo_study(evaluation={"validation_fraction": 0.0})
    low = [{"topic": "calibration", "kind": "all", "name": "all", "serious": True,
            "sentence": "Risks are too low for everybody together."}]  # fmt: skip
    worse = group("subgroup", "old", seed=6) | {"figures": {"auroc": estimate(0.75)}}
    record = record_of(study, verdicts=low)
    told = text_of(report_page(study, record | {"groups": [*record["groups"], worse]}, None))
    assert "For everybody alike: no group was found worse off than all together." in told
    assert "Risks are too low for everybody together. Whether recalibration mends it" in told
    assert "AUROC below that of all, 0.800, by the whole interval: old 0.750" in told
    assert "The same risk for everybody would have Brier 0.160 and accuracy 0.800." in told
    assert "No failure found" not in told


def test_hospitals_that_are_all_too_small_get_no_empty_figure_of_joining() -> None:
    study = demo_study()
    few = {"site": "hospital-1", "trained_on": ["hospital-1"], "patients": 5, "judged": False,
           "local": None, "federated": None, "gain": None}  # fmt: skip
    joined = {"figure": "auroc", "higher_is_better": True, "sites": [few]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = report_page(study, record_of(study, groups=[], joining=joined), None)
    assert "joining" not in figures_of(page)


@pytest.mark.slow
def test_words_of_strangers_stay_text() -> None:
    study = demo_study(study={"title": "<script>alert(1)</script> & $x^2$"})
    evil = "<img src=x onerror=alert(2)>"
    record = record_of(
        study,
        test_cohort=evil,
        groups=[group("all", "all"), group("site", evil, seed=5)],
        verdicts=[{"topic": "calibration", "kind": "site", "name": evil, "serious": True,
                   "sentence": f"Risks are too low in {evil}."}],
    )  # fmt: skip
    page = report_page(study, record, None)
    parsed = Parsed(page)
    assert not parsed.tags & {"script", "img"}
    assert not parsed.sources
    assert page.count("&lt;img src=x onerror=alert(2)&gt;") >= 4
    assert "$x^2$" in page


def test_the_model_card_has_every_item_and_says_what_is_not_reported(page: str) -> None:
    card = page[page.index("<section id='card'") :].split("</section>")[0]
    rows = dict(re.findall(r"<tr><th scope='row'>([^<]+)</th><td>[^<]*</td><td[^>]*>([^<]+)", card))
    assert list(rows) == list(ITEMS)
    parts = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef",
             20: "abc", 23: "ab", 27: "abc"}  # fmt: skip
    published = [f"{n}{part}" for n in range(1, 28) for part in parts.get(n, " ")]
    assert list(rows) == [item.strip() for item in published]  # 52, as in the checklist
    for item in ("17", "18a", "18b", "19", "5b"):  # ethics, funding, conflicts, patients, dates
        assert rows[item] == "Not reported."
    assert "In-hospital_death" in rows["8a"]


@pytest.mark.slow
def test_what_the_summary_accuses_stands_out_in_the_forest_plot() -> None:
    study = demo_study()
    told = {"topic": "calibration", "kind": "site", "name": "hospital-2", "serious": True,
            "sentence": "Risks are too low at hospital-2."}  # fmt: skip
    orange = "#b84a00"
    groups = [g for g in record_of(study)["groups"] if g["kind"] == "site"]
    for verdicts in ([told], [{**told, "serious": False}]):
        page = report_page(study, record_of(study, groups=groups, verdicts=verdicts), None)
        figure = page[page.index("<figure id='sites'") :].split("</figure>")[0]
        assert (orange in figure) == verdicts[0]["serious"]
        assert ("Orange: a finding of the summary." in figure) == verdicts[0]["serious"]


@pytest.mark.slow
def test_what_the_model_looks_at_is_drawn_from_the_last_evaluation() -> None:
    study = demo_study(evaluation={"validation_fraction": 0.2, "explained_patients": 50})
    effects = {name: [0.1, 0.2, 0.3, 0.4 + 0.1 * n] for n, name in enumerate(study.variables)}
    for noise in (0.0, 0.01):
        told = {"patients": 60.0, "clipped": 6.0, "deviation": noise, "effects": effects}
        last = {"patients": 90.0, "outputs": [None], "attributions": told}
        evaluated = [one_round(9, study) | {"purpose": "evaluation", "validation": last}]
        page = report_page(study, record_of(study, groups=[], other_rounds=evaluated), None)
        figure = page[page.index("<figure id='attributions'") :].split("</figure>")[0]
        assert f"<desc id='attributions-desc'>{list(effects)[-1]}: 2.500" in figure
        for said in ("not what causes the outcome", "10 % were"):
            assert said in figure
        assert ("95 % of the privacy noise" in figure) == bool(noise)
        assert (">hours 36 to 48<" in figure) == (not noise)


@pytest.mark.slow
class TestInABrowser:
    """The page in a real browser, without a network."""

    def browse(self, page: str, tmp_path: Path, *arguments: str) -> Any:
        (tmp_path / "report.html").write_text(page)
        address = (tmp_path / "report.html").as_uri()
        return browse(address, tmp_path, "--enable-logging=stderr", *arguments)

    def test_it_is_drawn_without_a_complaint(self, page: str, tmp_path: Path) -> None:
        picture = tmp_path / "report.png"
        told = self.browse(page, tmp_path, "--window-size=1060,3000", f"--screenshot={picture}")
        assert "CONSOLE" not in told.stderr  # violated policy, missing resource, bad markup
        pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
        blue = np.abs(pixels - (0x0A, 0x5C, 0x9E)).sum(axis=2) < 30
        assert blue[1300:].sum() > 2000  # curves, below the summary's cards

    def test_it_prints_with_all_its_numbers(self, page: str, tmp_path: Path) -> None:
        paper = tmp_path / "report.pdf"
        self.browse(page, tmp_path, f"--print-to-pdf={paper}")
        pages = re.search(rb"/Type /Pages[^>]*?/Count (\d+)", paper.read_bytes(), flags=re.S)
        assert pages
        assert 6 < int(pages[1]) < 30


@pytest.mark.slow
def test_a_run_that_nothing_can_be_fitted_to_across_sites_still_has_its_page() -> None:
    study = demo_study()
    alone = {
        "across": None,
        "sites": [{"patients": 40.0}],
        "groups": [
            {"kind": "all", "name": "all", "before": estimate(1.2, 0.3), "across": None,
             "own": estimate(1.1, 0.3)}
        ],
        "verdicts": {"own": []},
    }  # fmt: skip
    page = report_page(study, record_of(study, recalibration=alone), {})
    assert "Recalibrated at each hospital by its own validation patients" in page
    assert "Across sites: log-odds" not in page


@pytest.mark.slow
def test_a_run_in_the_clear_says_that_the_secure_sum_did_not_run(page: str) -> None:
    study = demo_study()
    clear = text_of(report_page(study, record_of(study) | {"sum": "clear"}, None))
    for sentence in (
        "The secure sum did not run: the same whole numbers were added as they are",
        "Among hospitals (the secure sum did not run in this simulation), a hospital",
        "these bytes were counted, not sent",
        "a round in the secure sum, which did not run here",
    ):
        assert sentence in clear
        assert sentence not in text_of(page)
