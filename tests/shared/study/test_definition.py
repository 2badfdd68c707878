"""A study is what a hospital approves, so every way to get one wrong must be told plainly."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.errors import StudyError
from consilium.shared.files.strict_toml import LARGEST_BYTES
from consilium.shared.study.definition import (
    Study,
    load_study,
    parse_canonical,
    parse_study,
    with_changes,
)
from tests.study_text import small_study

STUDIES = Path(__file__).parents[3] / "studies"
TEXT = """
name = "small"
title = "Small"
rounds = 3
sites = ["a", "b", "c", "d"]
[data]
source = "physionet2012"
label = "death"
[variables]
HR = { unit = "/min", low = 0, high = 300, center = 80, spread = 15 }
"""


def study(extra: str = "") -> Study:
    return parse_study(TEXT + extra, where="small.toml")


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_study_is_valid_and_named_after_its_file(file: Path) -> None:
    assert load_study(file).name == file.stem


def test_digest_ignores_layout_and_spelled_out_defaults_but_not_meaning() -> None:
    spelled_out = study('[privacy]\nmode = "site"\n# the same\nepsilon = 8.0\n')
    assert spelled_out.digest == study().digest
    assert study("[privacy]\nepsilon = 7.9\n").digest != study().digest


@pytest.mark.parametrize("deep", [False, True])
def test_a_changed_copy_has_a_digest_of_its_own(deep: bool) -> None:
    before = study()
    digest = before.digest
    assert before.model_copy(deep=deep).digest == digest
    changed = before.model_copy(update={"seed": before.seed + 1}, deep=deep)
    assert changed.digest == parse_canonical(changed.to_canonical_json()).digest != digest
    assert before.digest == digest
    assert before == study()


def test_digest_changes_with_the_order_of_variables_because_inputs_do() -> None:
    other = 'RR = { unit = "/min", low = 0, high = 80, center = 20, spread = 5 }\n'
    lines = TEXT.strip().splitlines()
    before = parse_study("\n".join([*lines[:-1], other, lines[-1]]))
    after = parse_study("\n".join([*lines, other]))
    assert set(before.variables) == set(after.variables)
    assert before.digest != after.digest


def test_digest_is_pinned_so_that_sites_of_this_version_agree() -> None:
    assert study().digest.hex() == (
        "463493443022760bf42df329a41d3b0b7f137349e38a6b3cd6c6c7187753b5c8"
    )


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("[privacy]\nepsilon = 0\n", "[privacy] epsilon = 0 must be above 0"),
        ("[privacy]\nepsilon = -1.5\n", "[privacy] epsilon = -1.5 must be above 0"),
        ("[privacy]\nepsilon = inf\n", "[privacy] epsilon = inf"),
        ("[privacy]\nepsilom = 3\n", "epsilom is not a known key; did you mean 'epsilon'?"),
        ("[pivacy]\nepsilon = 3\n", "pivacy is not a known key; did you mean 'privacy'?"),
        ("[aggregation]\nminimum_sites = 2\n", "minimum_sites = 2 must be at least 3; raise it"),
        ("[aggregation]\nminimum_sites = 5\n", "sites names 4, below minimum_sites 5"),
        ("[aggregation]\nthreshold = 4\nminimum_sites = 3\n", "threshold 4 must not exceed"),
        (
            "[aggregation]\nthreshold = 2\n",
            "threshold 2 must be at least 3 for 4 sites of which 1 may collude; raise it",
        ),
        (
            "[aggregation]\ntolerated_collusion = 2\nminimum_sites = 3\nthreshold = 4\n",
            "minimum_sites 3 less tolerated_collusion 2 must leave at least 2 honest sites",
        ),
        ('[aggregation]\nprofile = "malicious"\n', "profile"),
        ('[model]\ncell = "lsmt"\n', "'lsmt' must be one of 'rnn', 'lstm', 'gru' or 'gru-d'"),
        ('[model]\nhidden = "32"\n', "[model] hidden = '32' is not acceptable"),
        ("[model]\nhidden = 5000\n", "[model] hidden = 5000 must be at most 4096; lower it"),
        ('[task]\nkind = "multiclass"\n', "outputs 1 must be at least 2"),
        ('[task]\nkind = "binary"\noutputs = 3\n', "outputs 3 must be 1 for a binary task"),
        ('[privacy]\nmode = "distributed"\n', "local_steps 10 must be 1"),
        ("[training]\nproximal = -1\n", "[training] proximal = -1 must be at least 0"),
        ("[training]\nproximal = 0.1\nlocal_steps = 1\n", "which one step never leaves"),
        ("[training]\ncontrol_variates = true\nlocal_steps = 1\n", "cancel in the sum over sites"),
        (
            '[training]\ncontrol_variates = true\noptimizer = "adam"\n',
            "steps of optimizer 'adam' with momentum 0 do not show",
        ),
        ("[training]\ncontrol_variates = true\nmomentum = 0.5\n", "with momentum 0.5 do not show"),
        ("[training]\ncontrol_variates = true\nproximal = 0.1\n", "hold back the same drift"),
        (
            '[training]\ncontrol_variates = true\n[personalisation]\nparts = ["head"]\n',
            "whose gradients no other site knows",
        ),
        (
            '[personalisation]\nparts = ["tail"]\n',
            "'tail' must be one of 'head', 'norm' or 'inputs'",
        ),
        ('[personalisation]\nparts = ["head", "head"]\n', "must not hold an entry twice"),
        ('[personalisation]\nparts = ["norm"]\n', "set [model] layer_norm = true or leave it out"),
        (
            '[personalisation]\nparts = ["inputs", "head"]\n[training]\nlocal_steps = 1\n'
            '[privacy]\nmode = "distributed"\n',
            'parts names "head", which a site trains from its own gradients',
        ),
        ('[task]\nkind = "regression"\nprevalence = 0.1\n', "prevalence is for a binary task"),
        (
            'RR = { unit = "x", low = 5, high = 3, center = 4, spread = 1 }\n',
            "[variables.RR] low 5 must be below high 3",
        ),
        (
            'RR = { unit = "x", low = 0, high = 3, center = 4, spread = 1 }\n',
            "center 4 must lie in 0 to 3",
        ),
        (
            'RR = { unit = "x", low = -1, high = 3, center = 0, spread = 1, scale = "log" }\n',
            "center 0 must be above 0 on a log scale",
        ),
        (
            'RR = { unit = "x", low = 0, high = 3, center = 1 }\n',
            "[variables.RR] spread is missing",
        ),
        ('RR = { unit = "x", lo = 0 }\n', "[variables.RR] low is missing"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_key_and_bound(extra: str, sentence: str) -> None:
    with pytest.raises(StudyError) as error:
        study(extra)
    assert str(error.value).startswith("study small.toml: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rounds = ", "is not valid TOML"),
        ("rounds = 3", "name is missing; add it"),
        (TEXT.replace('"a", "b"', '"a", "a"'), "must not name a site twice"),
        (TEXT.replace('"a", "b"', '"A b", "b"'), "must be lower-case letters, digits and hyphens"),
    ],
)
def test_a_text_that_is_no_study_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        parse_study(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.toml: cannot be read \(No such file"):
        load_study(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="is not UTF-8 text"):
        load_study(tmp_path / "x.toml")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"#" * (LARGEST_BYTES + 1))
    with pytest.raises(StudyError, match="is above the bound of 1048576"):
        load_study(tmp_path / "x.toml")


def test_a_changed_study_is_validated_again_and_the_old_one_stays() -> None:
    changed = with_changes(study(), privacy={"epsilon": 3.0}, study={"seed": 5})
    assert (changed.privacy.epsilon, changed.seed) == (3.0, 5)
    assert study().privacy.epsilon == 8.0
    with pytest.raises(StudyError, match="epsilon"):
        with_changes(study(), privacy={"epsilon": -3.0})
    assert with_changes(study(), feasibility={"epsilon": 0.5}).feasibility is not None
    with pytest.raises(StudyError, match="rounds is no table of keys; give rounds as study="):
        with_changes(study(), rounds={"rounds": 3})
    with pytest.raises(StudyError, match="nonsense"):
        with_changes(study(), nonsense={"rounds": 3})


@given(
    sites=st.integers(3, 60),
    collusion=st.integers(0, 10),
)
def test_the_default_threshold_keeps_the_rules_of_the_protocol(sites: int, collusion: int) -> None:
    names = ", ".join(f'"s{i}"' for i in range(sites))
    text = TEXT.replace('"a", "b", "c", "d"', names)
    text += f"[aggregation]\ntolerated_collusion = {collusion}\n"
    if collusion + 2 > sites or (sites + collusion) // 2 + 1 > sites:
        with pytest.raises(StudyError, match="below minimum_sites"):
            parse_study(text)
        return
    made = parse_study(text)
    t, least = made.threshold, made.minimum_sites
    assert t > sites / 2
    assert t > collusion
    assert t <= least <= sites
    assert least - collusion >= 2
    assert 2 * t > sites + collusion
    assert 3 * t > 2 * sites or 3 * collusion >= sites


def test_a_study_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        study().rounds = 4  # type: ignore[misc]


def grouped(sites: int, **aggregation: object) -> Study:
    names = ", ".join(f'"s{i:03d}"' for i in range(sites))
    lines = "\n".join(f"{key} = {value}" for key, value in aggregation.items())
    text = TEXT.replace('sites = ["a", "b", "c", "d"]', f"sites = [{names}]")
    return parse_study(f"{text}\n[aggregation]\n{lines}\n")


def test_groups_are_consecutive_and_the_bounds_are_a_groups() -> None:
    made = grouped(12, groups=3)
    assert made.groups == tuple(tuple(f"s{i:03d}" for i in range(g, g + 4)) for g in (0, 4, 8))
    assert (made.group_size, made.threshold, made.minimum_sites) == (4, 3, 3)
    assert made.dropouts_tolerated == 1
    assert made.degree == 3


@pytest.mark.parametrize("groups", [2, 5, 7])
def test_groups_that_are_uneven_or_two_are_refused(groups: int) -> None:
    with pytest.raises(StudyError, match=f"groups {groups} must be 1, or at least 3 and divide"):
        grouped(12, groups=groups)


def test_groups_too_small_for_a_sum_are_refused() -> None:
    with pytest.raises(StudyError, match="each group of sites has 2, below minimum_sites 3"):
        grouped(12, groups=6)


def test_everyone_is_a_neighbour_up_to_two_hundred_sites_and_a_few_are_beyond() -> None:
    assert grouped(100).degree == 99
    assert grouped(101).degree == 44
    assert grouped(201).degree == 58
    assert grouped(201, neighbours=64).degree == 64


def test_a_graph_that_is_not_safe_is_refused_when_the_study_is_read() -> None:
    with pytest.raises(StudyError, match="neighbours: 10 neighbours among 201 sites of which 1"):
        grouped(201, neighbours=10)


def test_the_canonical_form_gives_the_study_back_and_nothing_else_does() -> None:
    study = small_study(model={"cell": "gru"}, tokens={"names": ["c"], "vocabulary": ["x", "y"]})
    content = study.to_canonical_json()
    assert parse_canonical(content) == study
    assert parse_canonical(content).digest == study.digest
    for other, told in (
        (b"no json", "is not a study's canonical JSON"),
        (b"[]", "is not a study's canonical JSON"),
        (content.replace(b'"gru"', b'"elman"'), "must be one of"),
        (content.replace(b":", b": ", 1), "not in the canonical form"),
    ):
        with pytest.raises(StudyError, match=told):
            parse_canonical(other)


def test_control_variates_do_not_go_with_medians_of_groups() -> None:
    sites = [f"site-{number}" for number in range(9)]
    tables = {"study": {"sites": sites}, "training": {"control_variates": True}}
    with pytest.raises(StudyError, match="groups 3 take a median; set groups = 1"):
        with_changes(study(), **tables, aggregation={"groups": 3, "tolerated_collusion": 0})
