"""Who opts out in the midst of a study, one person or everybody, changes no message but its sum."""

import json
from pathlib import Path

import pytest

from consilium.client.sources.common.opt_outs import OptOuts
from tests.hostile.neighbours import OTHERS, STUDIES, pair
from tests.hostile.test_silence import play

NAMED = {
    "one": frozenset({"p0"}),
    "everybody": frozenset(f"p{number}" for number in range(OTHERS + 1)),
}
LATER = 3  # the file is read once when the run opens, then before every round


def play_with(folder: Path, name: str, then: frozenset[str]) -> list[tuple]:
    """Run a study in which the file names nobody at first, and ``then`` from its third reading."""
    study, reads = STUDIES[name], iter(range(1000))

    def opted_out() -> OptOuts:
        return OptOuts(then if next(reads) >= LATER else frozenset())

    two = pair(study, "ordinary")
    return play(folder, study, two.present, two.absent, opted_out)


def entries(folder: Path) -> list[dict]:
    lines = (folder / "a" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("distributed", "everybody"),
        ("site", "one"),
        *(
            pytest.param(name, who, marks=pytest.mark.slow)
            for name in STUDIES
            for who in NAMED
            if (name, who) not in (("distributed", "everybody"), ("site", "one"))
        ),
    ],
)
def test_whoever_opts_out_every_message_has_the_same_kind_code_and_size(
    tmp_path: Path, name: str, who: str
) -> None:
    nobody = play_with(tmp_path / "-", name, frozenset())
    some = play_with(tmp_path / "+", name, NAMED[who])
    assert some == nobody
    assert {code for _, _, code, _ in some} == {""}
    without, with_them = entries(tmp_path / "-"), entries(tmp_path / "+")
    kinds = [entry["event"] for entry in with_them]
    assert kinds == [entry["event"] for entry in without]  # the log's length, which others see
    counted = [entry for entry in with_them if entry["event"] == "opted-out"]
    named, later = len(NAMED[who]), 2 + STUDIES[name].calibration_rounds
    assert [entry["data"]["named"] for entry in counted] == [0, 0, *[named] * later]
    left_out = 2 * named  # the same names train and validate in this cohort
    assert [entry["data"]["left_out"] for entry in counted] == [0, 0, *[left_out] * later]
    assert len({entry["data"]["blind"] for entry in counted}) == len(counted)
