"""policy.toml says what it means, or one sentence says what is wrong with it."""

import re
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.hospital.policy import DecisionPolicy, Policy
from consilium.client.hospital.policy_file import FILE_NAME, TEMPLATE, parse_policy, read_policy
from consilium.client.hospital.working_hours import WorkingHours
from consilium.shared.errors import SettingsError

FULL = re.sub(r"^# (?=(\[|[a-z_]+ = ))", "", TEMPLATE, flags=re.M).replace("9f2c...", "9f" * 32)


def test_the_default_file_is_the_default_policy_and_so_is_an_empty_one(tmp_path):
    (tmp_path / FILE_NAME).write_text(TEMPLATE)
    assert read_policy(tmp_path) == Policy() == parse_policy("")


def test_every_commented_setting_of_the_default_file_works_when_uncommented():
    assert parse_policy(FULL) == Policy(
        studies=frozenset({bytes.fromhex("9f" * 32)}),
        vouched_at_least=3,
        sources=frozenset({"physionet2012"}),
        installed_sources=frozenset({"our-laboratory"}),
        installed_models=frozenset({"our-transformer"}),
        variables=frozenset({"HR", "Temp", "Lactate"}),
        hours=WorkingHours(
            days=frozenset({"mon", "tue", "wed", "thu", "fri", "sat", "sun"}),
            start=time(20),
            end=time(6),
        ),
        memory_mib=4096,
        answer_after_s=60.0,
        decisions=DecisionPolicy(),
    )


def test_every_value_of_the_file_reaches_the_policy():
    text = """
    [privacy]
    study_epsilon = 1.5
    lifetime_epsilon = 3.0
    delta = 1e-6
    allow_without_privacy = true
    [federation]
    minimum_sites = 5
    minimum_patients = 100
    [roster]
    vouched_at_least = 0
    [release]
    smallest_group = 7
    own_figures = true
    budget_left = true
    [data]
    tasks = []
    sources = []
    on_moved_cohort = "stop"
    [decisions]
    required = false
    keep_days = 7
    largest_mib = 2
    identifiers = "clear"
    [hours]
    days = ["sat"]
    start = "08:30"
    end = "17:00"
    [machine]
    threads = 3
    gpu = true
    """
    assert parse_policy(text) == Policy(
        largest_study_epsilon=1.5,
        lifetime_epsilon=3.0,
        delta=1e-6,
        allow_without_privacy=True,
        minimum_sites=5,
        vouched_at_least=0,
        minimum_patients=100,
        smallest_group=7,
        release_own_figures=True,
        tell_budget_left=True,
        tasks=frozenset(),
        sources=frozenset(),
        on_moved_cohort="stop",
        decisions=DecisionPolicy(required=False, keep_days=7, largest_mib=2, identifiers="clear"),
        hours=WorkingHours(days=frozenset({"sat"}), start=time(8, 30), end=time(17)),
        threads=3,
        gpu=True,
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[privacy]\nepsilon = 3.0", r"\[privacy\] epsilon is not a known key; did you mean 's"),
        ("[privacy]\nstudy_epsilon = 0.0", "study_epsilon = 0.0 must be above 0.0; raise it"),
        ("[privacy]\nstudy_epsilon = inf", "study_epsilon = inf is not acceptable"),
        ("[privacy]\nstudy_epsilon = true", "study_epsilon = True is not acceptable"),
        ("[privacy]\ndelta = 0.1", "delta = 0.1 must be at most 0.01; lower it"),
        ("[federation]\nminimum_sites = 2", "minimum_sites = 2 must be at least 3; raise it"),
        ("[hours]\nstart = '24:00'\nend = '06:00'", "'24:00' is not a time of day"),
        ("[hours]\nstart = '20:00'", r"\[hours\] end is missing; add it"),
        ("[hours]\nstart = '20:00'\nend = '06:00'\ndays = []", "days is not acceptable"),
        ("[studies]\nallowed = ['ABC']", "'ABC' is not a study's digest of 64 hexadecimal"),
        ("[data]\ntasks = ['guess']", "must be one of 'binary', 'multiclass'"),
        ("[machine]\nmemory_mib = 512", "memory_mib = 512 must be at least 1024; raise it"),
        ("[machine]\ngpu = 'yes'", "gpu = 'yes' is not acceptable"),
        ("[release]\nown_metrics = true", r"\[release\] own_metrics is not a known key"),
        ("[release]\nsmallest_group = 0", "smallest_group = 0 must be at least 1; raise it"),
        ("[decisions]\nkeep_days = 0", "keep_days = 0 must be at least 1; raise it"),
        ("[privacy", "is not valid TOML"),
    ],
)
def test_a_slip_in_the_file_is_one_sentence_with_the_key_and_the_remedy(text, sentence):
    with pytest.raises(SettingsError, match=sentence) as caught:
        parse_policy(text, where="policy.toml")
    assert str(caught.value).startswith("policy policy.toml: ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_one_plain_error(text):
    try:
        parse_policy(text)
    except SettingsError:
        return


def test_a_policy_that_vanished_does_not_leave_the_default_behind(tmp_path):
    with pytest.raises(SettingsError, match="is missing, and without it nothing is allowed"):
        read_policy(tmp_path)
    assert read_policy(tmp_path / "no site yet") == Policy()


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read_policy(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_policy(tmp_path)
