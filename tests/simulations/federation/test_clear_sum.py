"""The sum in the clear against the whole protocol: the same weights, figures and bytes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consilium.client.ledger.releases import LedgerEntry
from consilium.client.ledger.store import Ledger, Release
from consilium.shared.errors import PrivacyError, RoundVoidError, SettingsError
from consilium.shared.kernels.build import load_kernel
from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.federation.faults import Fault, FaultKind
from consilium.simulations.federation.run import Federation
from consilium.simulations.figures.held_out import HeldOut
from tests.fixed_draws import fix_draws
from tests.simulations.federation.both_sums import Ran, require_the_same, trained
from tests.simulations.passing_time import let_time_pass

TEXT = """
schema = 2
name = "tiny"
title = "Tiny"
rounds = 2
seed = 7
sites = ["north", "east", "south", "west"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 12
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 2
sampling_rate = 0.2
[privacy]
mode = "none"
[aggregation]
round_timeout_s = 600.0
[evaluation]
validation_fraction = 0.3
passes = 1
every = 2
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
GCS = { unit = "{score}", low = 3, high = 15, center = 12, spread = 4 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""
STUDY = parse_study(TEXT)


@pytest.fixture(autouse=True)
def _nobody_waits_for_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_pass(monkeypatch)


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    tests = cohorts_for(STUDY, None).test
    return HeldOut.read({"north": tests["north"]}, STUDY)


def run(
    study: Study,
    test: HeldOut,
    folder: Path,
    *,
    protocol: bool,
    faults: tuple[Fault, ...] = (),
) -> Ran:
    sources = cohorts_for(study, None).sites
    test = replace(test, study=study)
    return trained(study, sources, test, folder, protocol=protocol, faults=faults)


def lost(site: str, kind: FaultKind, *occurrences: int) -> tuple[Fault, ...]:
    return tuple(
        Fault(site=site, message_type="query.update", occurrence=number, kind=kind, delay_s=1e9)
        for number in occurrences
    )


PATTERNS = {
    "nobody is lost": (),
    "a request is lost": lost("south", FaultKind.LOSE_REQUEST, 1),
    "replies are lost or late": (
        *lost("south", FaultKind.LOSE_REPLY, 0),
        *lost("west", FaultKind.DELAY, 2),
    ),
    "too few are left": (*lost("east", FaultKind.CRASH, 1), *lost("west", FaultKind.LOSE_REPLY, 1)),
}


def both(
    study: Study, test: HeldOut, folder: Path, faults: tuple[Fault, ...] = ()
) -> tuple[Ran, Ran]:
    return (
        run(study, test, folder / "protocol", protocol=True, faults=faults),
        run(study, test, folder / "clear", protocol=False, faults=faults),
    )


def test_weights_figures_and_bytes_are_the_protocols_to_the_bit_with_sites_lost_and_back(
    held_out: HeldOut, tmp_path: Path
) -> None:
    faults = (
        *lost("east", FaultKind.LOSE_REQUEST, 0),
        *lost("south", FaultKind.LOSE_REPLY, 2),
        *lost("west", FaultKind.CRASH, 3),
    )
    protocol, clear = both(STUDY, held_out, tmp_path, faults)
    require_the_same(protocol, clear)
    assert [len(record["sites"]) for record in clear.records] == [3, 4, 3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_of_lost_sites_gives_the_protocols_result_to_the_bit(
    held_out: HeldOut, tmp_path: Path, pattern: str
) -> None:
    require_the_same(*both(STUDY, held_out, tmp_path, PATTERNS[pattern]))


KINDS: dict[str, dict[str, Any]] = {
    "personal heads": {"personalisation": {"parts": ["head"]}},
    "a second model": {"personalisation": {"ditto": {"pull": 0.2, "learning_rate": 0.5}}},
    "control variates": {"training": {"control_variates": True, "optimizer": "sgd"}},
    "one step": {"training": {"local_steps": 1}},
    "a ring of 24 bits": {"aggregation": {"ring_bits": 24}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_study_gives_the_protocols_result_to_the_bit(
    held_out: HeldOut, tmp_path: Path, kind: str
) -> None:
    require_the_same(*both(with_changes(STUDY, **KINDS[kind]), held_out, tmp_path))


@pytest.mark.parametrize(
    ("mode", "steps"), [("distributed", 1), pytest.param("site", 2, marks=pytest.mark.slow)]
)
def test_with_the_same_noise_all_sites_at_once_give_the_protocols_result_to_the_bit(
    held_out: HeldOut, tmp_path: Path, mode: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ledgers in memory hold what the protocol's hold on disk."""
    if load_kernel()[0] is None:
        pytest.skip("the kernel was not compiled here; plain PyTorch rounds otherwise")
    fix_draws(monkeypatch)
    study = with_changes(STUDY, privacy={"mode": mode}, training={"local_steps": steps})
    faults = (*lost("east", FaultKind.LOSE_REQUEST, 0), *lost("south", FaultKind.LOSE_REPLY, 1))
    ran = both(study, held_out, tmp_path, faults)
    require_the_same(*ran)
    for site in study.sites:
        theirs, ours = (one.federation.ledger(site) for one in ran)
        assert list(map(charged, ours.entries())) == list(map(charged, theirs.entries()))
        left = Ledger(
            tmp_path / "clear" / "sites" / site / "ledger.sqlite",
            lifetime_epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
        )
        assert left.entries() == ours.entries()
        assert left.summary() == ours.summary()


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_with_the_same_noise_branches_learn_at_once_what_each_site_learns_alone(
    held_out: HeldOut, tmp_path: Path, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if load_kernel()[0] is None:
        pytest.skip("the kernel was not compiled here; plain PyTorch rounds otherwise")
    fix_draws(monkeypatch)
    branches = [
        {"kind": "linear"},
        {"kind": "summary", "hidden": 4},
        {"kind": "recurrent", "hidden": 3, "dropout": dropout},
        {"kind": "convolution", "channels": 3, "inputs": ["HR", "Age"]},
    ]
    model = {"branches": branches, "hidden": 32}
    study = with_changes(STUDY, privacy={"mode": "site"}, model=model)
    require_the_same(*both(study, held_out, tmp_path))


def charged(entry: LedgerEntry) -> tuple[Any, ...]:
    release = entry.release
    return release.round, release.purpose, release.events, release.shards, entry.confirmed


def test_a_run_cut_off_goes_on_with_what_its_ledgers_had_charged(
    held_out: HeldOut, tmp_path: Path
) -> None:
    study = with_changes(STUDY, privacy={"mode": "site"}, evaluation={"validation_fraction": 0.0})
    test = replace(held_out, study=study)

    class CutError(Exception):
        pass

    def show(record: dict[str, Any]) -> None:
        if record["round"] == 2:
            raise CutError

    begun = Federation(study, cohorts_for(study, None).sites, tmp_path, workers=2)
    with pytest.raises(CutError):
        begun.train(show, test)
    shutil.rmtree(tmp_path / "sites")  # as if the process had been killed before it left them
    with pytest.raises(SettingsError, match=r"begun without the protocol \(--protocol\)"):
        run(study, test, tmp_path, protocol=True)
    ended = run(study, test, tmp_path, protocol=False)
    numbers = [record["round"] for record in ended.records]
    assert numbers == [1, 2, 4, 5]  # the third may have begun when it was cut off
    entries = ended.federation.ledger("north").entries()
    assert [(e.release.round, e.release.purpose) for e in entries] == [
        (1, "statistics"),
        (2, "training"),
        (4, "calibration"),
        (5, "calibration"),
    ]


def test_a_ledger_in_memory_refuses_what_a_ledger_on_disk_refuses(tmp_path: Path) -> None:
    event = PrivacyEvent(noise_multiplier=1.0, sampling_rate=1.0, steps=1)
    bound = epsilon_spent((event,), 1e-5)
    told = []
    for path in (None, tmp_path / "ledger.sqlite"):
        ledger = Ledger(path, lifetime_epsilon=bound, delta=1e-5)
        first = Release(study_digest=b"s" * 32, study_hash=b"h" * 32, study_name="s", round=1,
                        purpose="training", events=(event,), shards=(0, 100))  # fmt: skip
        spent = [ledger.reserve(first, study_epsilon=bound, study_delta=1e-5) for _ in range(2)]
        assert spent[0] == spent[1] == bound
        refusals = []
        for second in (replace(first, round=2), replace(first, shards=(0, 50))):
            with pytest.raises(PrivacyError) as refused:
                ledger.reserve(second, study_epsilon=bound, study_delta=1e-5)
            refusals.append(str(refused.value))
        with pytest.raises(PrivacyError, match="never reserved"):
            ledger.confirm(replace(first, round=3))
        ledger.confirm(first)
        told.append((refusals, [entry.confirmed for entry in ledger.entries()], ledger.summary()))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("message", "kind"), [("unmask", FaultKind.LOSE_REPLY), ("update", FaultKind.CORRUPT)]
)
def test_a_fault_that_only_the_protocol_has_is_refused(
    held_out: HeldOut, tmp_path: Path, message: str, kind: FaultKind
) -> None:
    fault = Fault(site="south", message_type=f"query.{message}", occurrence=0, kind=kind)
    with pytest.raises(SettingsError, match="run the protocol"):
        run(STUDY, held_out, tmp_path, protocol=False, faults=(fault,))


def test_too_few_sites_for_the_statistics_end_the_run_with_the_protocols_sentence(
    held_out: HeldOut, tmp_path: Path
) -> None:
    faults = (*lost("east", FaultKind.CRASH, 0), *lost("west", FaultKind.LOSE_REQUEST, 0))
    told = []
    for protocol in (True, False):
        with pytest.raises(RoundVoidError) as void:
            run(STUDY, held_out, tmp_path / str(protocol), protocol=protocol, faults=faults)
        told.append(str(void.value))
    assert told[0] == told[1]
    assert "2 of 4 sites sent a masked update, and 3 are needed" in told[0]
