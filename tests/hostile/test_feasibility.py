"""A coordinator that lies about the count learns no more, and each lie is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.errors import RoundVoidError
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    sum_parameters,
    vector_spec,
)
from consilium.shared.secure_sum.messages import Action, UnmaskRequest
from consilium.shared.study.definition import with_changes
from tests.hostile.neighbours import BASE, pair
from tests.hostile.test_silence import RUN, Federation
from tests.rosters import SIZE

STUDY = with_changes(BASE, study={"feasibility": {"epsilon": 0.2}})
ASKED = RoundConfiguration(purpose=Purpose.FEASIBILITY)
OTHERS = pair(STUDY, "ordinary").absent


class Count:
    """A federation, and a coordinator that counts it."""

    def __init__(self, folder: Path, cohort=OTHERS, run: bytes = RUN) -> None:
        self.sites = Federation(folder, STUDY, cohort, OTHERS)
        self.open(run)

    def open(self, run: bytes) -> None:
        parameters = sum_parameters(STUDY, self.sites.roster, run, site="a")
        self.secure = SecureSum(parameters, self.sites, timeout_s=60, threads=1)
        self.secure.open()

    def ask(self, number: int, asked: RoundConfiguration = ASKED) -> np.ndarray:
        spec = vector_spec(STUDY, ASKED, parameters=1, largest_size=SIZE)
        body = asked.to_bytes()
        total = self.secure.sum(round=number, spec=spec, model=b"", configuration=body)
        return total.parts["feasibility"][:]


@pytest.mark.parametrize("kind", ["sixty stays", "unknown label"])
def test_with_a_person_and_without_every_message_has_the_same_kind_code_and_size(
    tmp_path: Path, kind: str
) -> None:
    two = pair(STUDY, kind)
    with_person, without = Count(tmp_path / "+", two.present), Count(tmp_path / "-", two.absent)
    for federation in (with_person, without):
        assert np.isfinite(federation.ask(1)).all()
    assert with_person.sites.said == without.sites.said
    assert {code for _, _, code, _ in with_person.sites.said} == {""}


def test_asked_twice_in_the_run_or_in_another_every_site_refuses_and_charges_once(
    tmp_path: Path,
) -> None:
    count = Count(tmp_path)
    count.ask(1)
    for lie in ("a later round", "another run", "the same round"):
        if lie == "another run":
            count.open(bytes([7]) * 16)
        number = {"a later round": 2, "another run": 1, "the same round": 1}[lie]
        with pytest.raises(RoundVoidError):
            count.ask(number)
    answers = [code for action, _, code, _ in count.sites.said if action is Action.UPDATE]
    assert answers[0] == ""
    assert all(answers[1:])  # each lie is a refusal
    assert "BudgetError" in answers
    [account] = count.sites.sessions["a"]._state.ledger.summary().studies
    assert account.releases == 1


def test_counted_beside_an_evaluation_it_is_refused_before_anything_is_charged(
    tmp_path: Path,
) -> None:
    count = Count(tmp_path)
    with pytest.raises(RoundVoidError):
        count.ask(1, replace(ASKED, evaluate=True))
    assert count.sites.said[-1][2] == "MessageError"
    assert count.sites.sessions["a"]._state.ledger.entries() == ()


def test_a_sum_of_one_site_is_not_opened(tmp_path: Path) -> None:
    count, ask, told = Count(tmp_path), Federation.ask, []

    def alone(self, action, bodies, *, timeout_s):
        if action is Action.UNMASK:
            bodies = {
                site: replace(
                    UnmaskRequest.from_bytes(bodies[site]),
                    survivors=("a",),
                    signatures={},
                    boxes={},
                ).to_bytes()
                for site in bodies
            }
        for site, reply in ask(self, action, bodies, timeout_s=timeout_s):
            told.append((action, site))
            yield site, reply

    count.sites.ask = alone.__get__(count.sites)
    with pytest.raises(RoundVoidError):
        count.ask(1)
    assert (Action.UNMASK, "a") in told
    assert count.sites.said[-1][:2] == (Action.UNMASK, "refusal")
