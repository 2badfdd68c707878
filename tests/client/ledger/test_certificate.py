"""A certificate carries all that a ledger counts as spent into a new one, and nothing less."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consilium.client.ledger.certificate import (
    carried_release,
    from_bytes,
    spent_budget,
    to_bytes,
)
from consilium.client.ledger.releases import Release
from consilium.client.ledger.store import Ledger
from consilium.shared.errors import AuditError, BudgetError, PrivacyError
from consilium.shared.privacy.accounting import PrivacyEvent

OLD, NEW = b"o" * 32, b"n" * 32
SPLIT = b"k" * 32


def release(
    study: int, round: int, *, noise: float = 2.0, shards: tuple[int, int] = (0, 80)
) -> Release:
    return Release(
        study_digest=bytes([study]) * 32,
        study_hash=bytes([study]) * 32,
        study_name=f"study-{study}",
        round=round,
        purpose="training",
        events=(PrivacyEvent(sampling_rate=0.25, noise_multiplier=noise, steps=1),),
        shards=shards,
    )


def ledger(path: Path, lifetime: float = 16.0) -> Ledger:
    return Ledger(path, lifetime_epsilon=lifetime, delta=1e-5)


def spend(to: Ledger, one: Release) -> None:
    to.reserve(one, study_epsilon=8.0, study_delta=1e-5)


def carried(of: Ledger, to: Ledger) -> int:
    spent = spent_budget(of.entries(), of.written_off(), identity=OLD, split_key=SPLIT)
    return to.carry(from_bytes(to_bytes(spent), OLD))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([2.0, 4.0]), st.sampled_from([(0, 80), (80, 100)])
        ),
        max_size=6,
    )
)
def test_a_new_ledger_has_every_account_of_the_lost_one(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, float, tuple[int, int]]]
) -> None:
    place = tmp_path_factory.mktemp("ledgers")
    lost, new = ledger(place / "lost"), ledger(place / "new")
    for round, (study, noise, shards) in enumerate(made, 1):
        spend(lost, release(study, round, noise=noise, shards=shards))
    carried(lost, new)
    before, after = lost.summary(), new.summary()
    assert after.total.spent == pytest.approx(before.total.spent + before.total.reserved)
    accounts = {study.study_digest: study.account for study in after.studies}
    assert accounts.keys() == {study.study_digest for study in before.studies}
    for study in before.studies:
        of_study = study.account.spent + study.account.reserved
        assert accounts[study.study_digest].spent == pytest.approx(of_study)


def test_a_certificate_grows_with_studies_not_with_rounds(tmp_path: Path) -> None:
    lost = ledger(tmp_path / "lost")
    sizes = []
    for round in range(1, 9):
        spend(lost, release(1, round, noise=9.0))
        spent = spent_budget(lost.entries(), lost.written_off(), identity=OLD, split_key=SPLIT)
        sizes.append(len(to_bytes(spent)))
    assert max(sizes) == min(sizes)


def test_carrying_twice_counts_once_and_carrying_again_keeps_all(tmp_path: Path) -> None:
    lost, new, newer = (ledger(tmp_path / name) for name in ("lost", "new", "newer"))
    spend(lost, release(1, 1))
    assert carried(lost, new) == 1
    assert carried(lost, new) == 0
    spend(new, release(1, 2))
    spent = spent_budget(new.entries(), new.written_off(), identity=NEW, split_key=SPLIT)
    newer.carry(spent)
    both = ledger(tmp_path / "both")
    for round in (1, 2):
        spend(both, release(1, round))
    total = both.summary().total
    assert newer.summary().total.spent == pytest.approx(total.spent + total.reserved)


def test_a_ledger_in_use_takes_no_former_budget(tmp_path: Path) -> None:
    lost, used = ledger(tmp_path / "lost"), ledger(tmp_path / "used")
    spend(lost, release(1, 1))
    spend(used, release(2, 1))
    with pytest.raises(PrivacyError, match="has entries of its own"):
        carried(lost, used)


def test_what_was_written_off_stays_spent_on_the_new_machine(tmp_path: Path) -> None:
    lost, new = ledger(tmp_path / "lost"), ledger(tmp_path / "new")
    spend(lost, release(1, 1))
    lost.write_off()
    carried(lost, new)
    assert new.summary().total.spent == pytest.approx(16.0)
    raised = ledger(tmp_path / "new", lifetime=32.0)
    with pytest.raises(BudgetError, match="written off"):
        spend(raised, release(1, 2))
    spend(raised, release(2, 1))


def test_the_log_brings_the_carried_budget_back(tmp_path: Path) -> None:
    lost = ledger(tmp_path / "lost")
    for round in (1, 2, 3):
        spend(lost, release(round % 2, round, noise=3.0 + round))
    spent = spent_budget(lost.entries(), lost.written_off(), identity=OLD, split_key=SPLIT)
    assert tuple(map(carried_release, spent.events(OLD, bytes(32)))) == spent.releases


def test_a_malformed_content_is_refused() -> None:
    for content in (b"", b"{}", b'{"releases": [1], "written_off": 0, "split_key": ""}'):
        with pytest.raises(AuditError, match="malformed"):
            from_bytes(content, OLD)
