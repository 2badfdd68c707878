"""What the ledger's view shows: amounts, bars, figure."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from consilium.client.ledger import view as ledger_view
from consilium.client.ledger.releases import Account, StudyAccount, Summary
from consilium.shared.errors import SettingsError


def account(spent: float, reserved: float, bound: float = 8.0) -> Account:
    left = max(0.0, bound - spent - reserved)
    return Account(spent=spent, reserved=reserved, left=left, bound=bound, delta=1e-5)


SUMMARY = Summary(
    studies=(
        StudyAccount(
            study_digest=b"\1" * 32,
            study_name="icu-mortality[2012]",  # brackets are no markup
            releases=41,
            account=account(6.1, 0.25),
        ),
        StudyAccount(
            study_digest=b"\2" * 32, study_name="sepsis", releases=1, account=account(0.0, 0.4)
        ),
    ),
    total=account(6.2, 0.5, bound=16.0),
)


def test_json_has_every_amount_each_with_its_delta():
    shown = ledger_view.to_json(SUMMARY)
    assert [s["study_digest"] for s in shown["studies"]] == ["01" * 32, "02" * 32]
    for part in (*(s["account"] for s in shown["studies"]), shown["total"]):
        assert set(part) == {"spent", "reserved", "left", "bound", "delta"}
    assert shown["total"]["left"] == pytest.approx(9.3)


def test_table_and_bars_fit_eighty_columns_and_name_study_and_lifetime():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(ledger_view.to_table(SUMMARY))
        for line in ledger_view.to_bars(SUMMARY):
            console.print(line, markup=False)
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= 80
    assert "icu-mortality[2012]" in shown
    assert "6.100" in shown
    assert "6.70 of 16, delta 1e-05" in shown


@given(
    spent=st.floats(0, 20),
    reserved=st.floats(0, 20),
    bound=st.floats(0, 16),
    cells=st.integers(3, 60),
)
def test_a_bar_has_its_length_and_hides_nothing_that_is_more_than_nothing(
    spent, reserved, bound, cells
):
    shown = ledger_view.bar(account(spent, reserved, bound), cells)
    assert len(shown) == cells
    assert ("█" in shown) == (spent > 0)
    assert ("▒" in shown) == (reserved > 0)
    assert "·" in shown or spent + reserved >= bound or bound == 0


@pytest.mark.parametrize("name", ["ledger.png", "ledger.svg"])
def test_the_figure_is_written_in_the_format_its_name_asks_for(tmp_path, name):
    path = tmp_path / name
    ledger_view.draw(SUMMARY, path)
    if path.suffix == ".png":
        assert path.read_bytes().startswith(b"\x89PNG")
    else:
        assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - our own file


def test_an_empty_ledger_can_be_drawn(tmp_path):
    ledger_view.draw(Summary(studies=(), total=account(0.0, 0.0)), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_another_format_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(SettingsError, match=r"must end in \.png or \.svg"):
        ledger_view.draw(SUMMARY, tmp_path / "ledger.pdf")
    assert not list(tmp_path.iterdir())
