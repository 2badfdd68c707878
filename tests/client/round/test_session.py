"""A session answers the approved study alone, refuses in one sentence, and never quotes data."""

from dataclasses import replace
from datetime import datetime, time
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.hospital.working_hours import DAYS, WorkingHours
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.client.records.features import select
from consilium.client.round.answer import Answer
from consilium.client.round.session import BYTES_A_SITE, Session, local_now
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import DataError, MessageError, PolicyError, UnableError
from consilium.shared.rounds.contents import sum_parameters
from consilium.shared.secure_sum.messages import (
    Action,
    AgreeRequest,
    ChannelKey,
    ChannelRequest,
    Delivered,
    KeysRequest,
    Letter,
    Refusal,
    SignedKey,
    UnmaskRequest,
    UpdateRequest,
    declared_sizes,
)
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.rosters import SIZE, sized_roster

STUDY = parse_study("""
name = "one"
title = "One"
rounds = 2
sites = ["a", "b", "c"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")
KEYS = {site: IdentityKey.generate() for site in STUDY.sites}
KEYS_IN_ORDER = dict(sorted(KEYS.items()))
ROSTER = sized_roster(KEYS_IN_ORDER, STUDY.digest)
RUN = bytes(16)


def cohort() -> Cohort:
    return read_cohort(synthetic_hospital(0, STUDY), STUDY, site="a", split_key=bytes(32))


def session(
    folder: Path,
    *,
    study: Study = STUDY,
    read: object = cohort,
    policy: Policy | None = None,
    clock: object = local_now,
    sizes: KnownSizes | None = None,
) -> Session:
    state = SiteState(
        identity=KEYS["a"],
        ledger=Ledger(folder / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
        journal=RoundJournal(folder / "journal.sqlite"),
        split_key=bytes(32),
        personal=PersonalStore(folder / "personal"),
    )
    return Session(
        site="a",
        study=study,
        roster=Roster(ROSTER.members),
        sizes=sizes or KnownSizes({"a": SIZE}),
        read=read,
        policy=policy or Policy(),
        state=state,
        clock=clock,
    )


def channel_request(study: Study = STUDY, roster: Roster = ROSTER) -> bytes:
    parameters = sum_parameters(study, roster, RUN, site="a")
    return ChannelRequest(
        study_digest=study.digest,
        run_id=RUN,
        study_hash=parameters.study_hash,
        declared=declared_sizes(roster),
    ).to_bytes()


def refusal(answer: Answer) -> Refusal:
    assert answer.refusal == Refusal.from_bytes(answer.body)
    return answer.refusal


def test_the_approved_study_is_answered_with_a_signed_channel_key(tmp_path: Path) -> None:
    reply = session(tmp_path).handle(Action.CHANNEL, channel_request())
    assert reply.refusal is None
    assert ChannelKey.from_bytes(reply.body).site == "a"


def test_another_study_is_refused_before_any_record_is_read(tmp_path: Path) -> None:
    def read() -> Cohort:
        raise AssertionError("records were read")

    other = with_changes(STUDY, privacy={"epsilon": 7.0})
    reply = session(tmp_path, read=read).handle(Action.CHANNEL, channel_request(other))
    assert refusal(reply).code == "PolicyError.not-approved"
    assert "site a has not approved study" in reply.reason


def test_another_roster_is_refused(tmp_path: Path) -> None:
    keys = {site: IdentityKey.generate() for site in STUDY.sites}
    strangers = sized_roster(keys, STUDY.digest)
    asked = ChannelRequest.from_bytes(channel_request(roster=strangers))
    reply = session(tmp_path).handle(Action.CHANNEL, asked.to_bytes())
    assert "the declared size of site a does not verify" in reply.reason
    asked = replace(asked, declared=declared_sizes(ROSTER))
    reply = session(tmp_path).handle(Action.CHANNEL, asked.to_bytes())
    assert "another roster" in reply.reason


def test_a_roster_with_another_size_is_refused(tmp_path: Path) -> None:
    """Whoever changed it: the coordinator, which cannot sign it, or a site that signs two sizes."""
    seen = KnownSizes({"a": SIZE, "b": SIZE})
    for site, sentence in {
        "a": "site a declared 7 patients, and the coordinator now shows 70",
        "b": "site b declared 7 patients, and the coordinator now shows 70",
    }.items():
        lied = sized_roster(KEYS_IN_ORDER, STUDY.digest, **{site: 70})
        reply = session(tmp_path, sizes=seen).handle(Action.CHANNEL, channel_request(roster=lied))
        assert refusal(reply).code == "PolicyError.size"
        assert sentence in reply.reason
        forged = Roster(
            lied.members,
            tuple(
                Declaration(new.patients, old.signature)
                for new, old in zip(lied.declared, ROSTER.declared, strict=True)
            ),
        )
        reply = session(tmp_path).handle(Action.CHANNEL, channel_request(roster=forged))
        assert f"the declared size of site {site} does not verify" in reply.reason


def test_sizes_that_are_missing_or_above_the_studys_bound_are_refused(tmp_path: Path) -> None:
    asked = ChannelRequest.from_bytes(channel_request())
    fewer = {site: asked.declared[site] for site in ("a", "b")}
    reply = session(tmp_path).handle(Action.CHANNEL, replace(asked, declared=fewer).to_bytes())
    assert "2 sizes are declared for 3 sites" in reply.reason
    huge = declared_sizes(sized_roster(KEYS_IN_ORDER, STUDY.digest, c=100_001))
    reply = session(tmp_path).handle(Action.CHANNEL, replace(asked, declared=huge).to_bytes())
    assert "site c declares 100001 patients, above" in reply.reason


EARLY = {
    Action.KEYS: KeysRequest(study_hash=bytes(32), round=1, channel_keys=()),
    Action.UPDATE: UpdateRequest(
        study_hash=bytes(32), round=1, participants=(), letters={}, model=b"", configuration=b""
    ),
    Action.AGREE: AgreeRequest(study_hash=bytes(32), round=1, context=bytes(32), survivors=("a",)),
    Action.UNMASK: UnmaskRequest(
        study_hash=bytes(32),
        round=1,
        context=bytes(32),
        survivors=("a",),
        signatures={},
        boxes={},
    ),
}


@pytest.mark.parametrize("action", EARLY)
def test_nothing_is_answered_before_the_channel_is_open(tmp_path: Path, action: Action) -> None:
    reply = refusal(session(tmp_path).handle(action, EARLY[action].to_bytes()))
    assert reply.code == "ProtocolError.no-open-run"
    assert "has no open run" in reply.sentence


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 100, bytes(1000)])
@pytest.mark.parametrize("action", Action)
def test_rubbish_is_refused_in_one_sentence(tmp_path: Path, action: Action, body: bytes) -> None:
    reply = refusal(session(tmp_path).handle(action, body))
    assert reply.site == "a"
    assert "\n" not in reply.sentence


def test_an_oversized_round_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    one = session(tmp_path)
    one.handle(Action.CHANNEL, channel_request())
    reply = one.handle(Action.UPDATE, bytes(1 << 24))
    assert refusal(reply).code == "MessageError"
    assert "16777216 bytes" in reply.reason


def test_whatever_is_wrong_with_the_records_the_refusal_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [
        DataError("no patient has a positive label"),
        ValueError("could not convert 'patient 4711, HIV positive' to float"),
        MemoryError("Unable to allocate an array with shape (4711, 48)"),
    ]
    replies = []
    for number, error in enumerate(errors):

        def read(error: Exception = error) -> Cohort:
            raise error

        (tmp_path / str(number)).mkdir()
        site = session(tmp_path / str(number), read=read)
        replies.append(site.handle(Action.CHANNEL, channel_request()))
    assert {reply.body for reply in replies} == {Refusal.of("a", UnableError()).to_bytes()}
    assert "no patient has a positive label" in caplog.text  # the site's log tells its own people
    assert "needs more memory" in caplog.text


def test_a_study_beyond_the_policy_never_gets_a_session(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="epsilon"):
        session(tmp_path, study=with_changes(STUDY, privacy={"epsilon": 9.0}))


def test_a_run_opened_again_keeps_its_channel_and_a_restart_makes_a_new_one(
    tmp_path: Path,
) -> None:
    one = session(tmp_path)
    first = ChannelKey.from_bytes(one.answer(Action.CHANNEL, channel_request()))
    again = ChannelKey.from_bytes(one.answer(Action.CHANNEL, channel_request()))
    assert first.keys == again.keys
    restarted = session(tmp_path)
    other = ChannelKey.from_bytes(restarted.answer(Action.CHANNEL, channel_request()))
    assert not set(other.keys.values()) & set(first.keys.values())


def test_the_bound_of_a_request_has_room_for_every_site_of_the_largest_study() -> None:
    """A thousand sites with the longest names, each sharing masks with all others."""
    sites = [f"{number:064d}" for number in range(1000)]
    letter = Letter(commitment=bytes(32), box=bytes(81), mask_key=bytes(32), seed_key=bytes(32))
    signed = {"public": bytes(32), "root": bytes(32), "signature": bytes(64)}
    request = UpdateRequest(
        study_hash=bytes(32),
        round=1,
        participants=tuple(SignedKey(site=site, **signed) for site in sites),
        letters=dict.fromkeys(sites, Delivered(letter=letter, path=bytes(320))),
        model=b"",
        configuration=b"",
    )
    assert len(request.to_bytes()) < BYTES_A_SITE * len(sites)


def test_the_cohort_is_read_once(tmp_path: Path) -> None:
    reads = []

    def read() -> Cohort:
        reads.append(1)
        return cohort()

    one = session(tmp_path, read=read)
    for _ in range(3):
        one.handle(Action.CHANNEL, channel_request())
    assert np.sum(reads) == 1


NIGHTS = WorkingHours(days=frozenset(DAYS), start=time(20), end=time(6))


@pytest.mark.parametrize("action", [Action.KEYS, Action.UPDATE, Action.CHANNEL])
def test_no_work_begins_outside_the_hospitals_hours(tmp_path: Path, action: Action) -> None:
    now = [datetime(2030, 1, 7, 22)]
    site = session(tmp_path, policy=Policy(hours=NIGHTS), clock=lambda: now[0])
    site.handle(Action.CHANNEL, channel_request())
    now[0] = datetime(2030, 1, 8, 6)
    body = channel_request() if action is Action.CHANNEL else EARLY[action].to_bytes()
    reply = site.handle(action, body)
    assert refusal(reply).code == "PolicyError.hours"
    assert "takes part from 20:00 to 06:00" in reply.reason
    assert "20:00" not in refusal(reply).sentence  # a hospital's hours are its own affair


@pytest.mark.parametrize("action", [Action.AGREE, Action.UNMASK])
def test_a_round_that_has_begun_is_helped_to_its_end_at_any_hour(
    tmp_path: Path, action: Action
) -> None:
    now = [datetime(2030, 1, 7, 22)]
    site = session(tmp_path, policy=Policy(hours=NIGHTS), clock=lambda: now[0])
    site.handle(Action.CHANNEL, channel_request())
    now[0] = datetime(2030, 1, 8, 6)
    assert refusal(site.handle(action, EARLY[action].to_bytes())).code == ("ProtocolError")


def test_a_site_that_approved_takes_part_however_few_patients_it_has(tmp_path: Path) -> None:
    """Whether it has enough was decided before the approval; here it would tell their number."""
    one_outcome = cohort().training
    few = select(one_outcome, np.flatnonzero(one_outcome.y_N == 0)[:3])
    read = lambda: replace(cohort(), training=few)  # noqa: E731
    study = with_changes(STUDY, data={"minimum_patients": 20})
    site = session(tmp_path, study=study, read=read, policy=Policy(minimum_patients=100))
    reply = site.handle(Action.CHANNEL, channel_request(study))
    assert ChannelKey.from_bytes(reply.body).site == "a"


def test_with_a_fixed_answering_time_a_round_is_answered_then_and_a_late_one_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    now = [0.0]
    monkeypatch.setattr("consilium.client.round.session.time.sleep", waited.append)
    monkeypatch.setattr("consilium.client.round.session.time.monotonic", lambda: now[0])
    site = session(tmp_path, policy=Policy(answer_after_s=60.0))
    site.handle(Action.CHANNEL, channel_request())
    assert waited == []

    took_s: list[float] = []

    def slowly(*_: object, **__: object) -> None:
        now[0] += took_s[-1]
        raise MessageError("refused, and yet not at once")

    monkeypatch.setattr("consilium.client.round.session.UpdateRequest.from_bytes", slowly)
    for seconds in (0.5, 20.0, 61.5):
        took_s.append(seconds)
        caplog.clear()
        site.handle(Action.UPDATE, b"")
    assert waited == [59.5, 40.0, 0.0]
    assert "1.5 s more than [machine] answer_after_s" in caplog.text
