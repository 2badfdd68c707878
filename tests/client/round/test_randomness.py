"""Randomness is fresh where there is privacy to keep, and repeatable only where there is none."""

import pytest

from consilium.client.round.randomness import RoundRandomness
from tests.study_text import small_study


def drawn(mode: str, use: str = "noise", *, site: str = "a", round_number: int = 3) -> bytes:
    steps = {"local_steps": 1} if mode == "distributed" else {}
    study = small_study(privacy={"mode": mode}, training=steps)
    return RoundRandomness(study=study, site=site, round_number=round_number).stream(use).bytes(16)


@pytest.mark.parametrize("mode", ["site", "distributed"])
def test_under_privacy_no_two_streams_are_alike(mode: str) -> None:
    assert len({drawn(mode) for _ in range(8)}) == 8


def test_without_privacy_a_stream_follows_from_seed_site_round_and_use() -> None:
    assert drawn("none") == drawn("none")
    others = {drawn("none", "rounding"), drawn("none", site="b"), drawn("none", round_number=4)}
    assert len(others | {drawn("none")}) == 4
