"""The page about a hospital's data: whole, and safe to open whatever a study or a finding says."""

from dataclasses import replace
from html.parser import HTMLParser

from consilium.client.quality.findings import Finding
from consilium.client.quality.page import quality_page
from consilium.shared.study.definition import parse_study, with_changes
from tests.client.quality.test_measure import TEXT, Given, checked

EVIL = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


class Tags(HTMLParser):
    """The elements of a page, and its attributes' names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_words_of_strangers_stay_text() -> None:
    study = with_changes(parse_study(TEXT), study={"title": f"A study {EVIL}"})
    quality, findings = checked(Given(20))
    evil = [replace(f, about=EVIL, told=EVIL, remedy=EVIL) for f in findings]
    page = quality_page(quality, tuple(evil), "not ready", study)
    parsed = Tags(page)
    assert "script" not in parsed.tags
    assert parsed.attributes <= {"lang", "charset", "class", "style", "alt", "src"}
    assert page.count(ESCAPED) == 2 + 3 * len(evil)  # the title stands twice


def test_it_has_the_verdict_the_facts_the_findings_and_three_figures() -> None:
    quality, _ = checked(Given())
    finding = Finding(level="warns", about="HR", told="it is 'low'", remedy="look & see")
    page = quality_page(quality, (finding,), "ready with warnings", parse_study(TEXT))
    assert page.startswith("<!doctype html>")
    tags = Tags(page).tags
    assert (tags.count("figure"), tags.count("img"), tags.count("table")) == (3, 3, 2)
    assert "style='background:#a86a00'>ready with warnings</p>" in page
    assert "<td class='warns'>warning</td><td>HR</td><td>it is &#39;low&#39;</td>" in page
    assert "<td>look &amp; see</td>" in page
    assert "<td>patients</td><td class='number'>60</td>" in page


def test_without_findings_it_says_so() -> None:
    quality, _ = checked(Given())
    page = quality_page(quality, (), "ready", parse_study(TEXT))
    assert "Nothing to report." in page
    assert Tags(page).tags.count("table") == 1
