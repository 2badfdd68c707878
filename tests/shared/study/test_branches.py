"""What a study may say of branches, and what it is told otherwise."""

import json

import pytest

from consilium.shared.errors import StudyError
from consilium.shared.study.branches import Model
from consilium.shared.study.definition import Study, parse_study
from consilium.shared.study.input_names import feature_names, inputs_of
from tests.branch_studies import study_of_branches
from tests.study_text import TEXT

CODES = '[tokens]\nnames = ["code"]\nvocabulary = ["x"]\n'


def branch(*keys: str) -> str:
    return "\n".join(["[[model.branches]]", *keys, ""])


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (branch('kind = "lineer"'), "number 1 has kind 'lineer', which must be one of 'recurrent'"),
        (branch("hidden = 3"), "number 1 has kind None, which must be one of"),
        (
            branch('kind = "linear"', "hidden = 3"),
            "number 1, of kind 'linear', knows inputs, kind and not 'hidden'; remove it",
        ),
        (branch('kind = "linear"', "members = 2"), "and not 'members'; remove it"),
        (
            branch('kind = "linear"') + branch('kind = "summary"', "hiden = 3"),
            "number 2, of kind 'summary', knows inputs, members, kind, hidden, layers, dropout and "
            "not 'hiden'; did you mean 'hidden'?",
        ),
        (branch('kind = "summary"', "hidden = 0"), "hidden = 0 must be at least 1; raise it"),
        (branch('kind = "summary"', "members = 65"), "members = 65 must be at most 64; lower it"),
        (branch('kind = "convolution"', "kernel = 0"), "kernel = 0 must be at least 1; raise it"),
        (branch('kind = "recurrent"', 'cell = "gru-d"', "layers = 2"), "is one layer, forwards"),
        (
            branch('kind = "linear"', 'inputs = ["hr", "hr"]'),
            "must not hold an entry twice; remove the repetition",
        ),
        (
            branch('kind = "linear"', 'inputs = ["bp"]'),
            "[[model.branches]] number 1, of kind 'linear', reads 'bp', which is not one of",
        ),
        (
            CODES + branch('kind = "recurrent"') + branch('kind = "linear"', 'inputs = ["code"]'),
            "number 2, of kind 'linear', reads no codes; remove 'code' from its inputs",
        ),
        (
            CODES + branch('kind = "linear"') + branch('kind = "recurrent"', 'inputs = ["hr"]'),
            "[tokens] names 'code', which no branch reads; add a branch of kind",
        ),
        (
            CODES + branch('kind = "recurrent"', 'inputs = ["code"]', "projection = 4"),
            "reads codes alone, and projection and skip read variables; add one to its inputs",
        ),
        (
            CODES + branch('kind = "recurrent"', 'inputs = ["code"]', 'cell = "gru-d"'),
            'has cell "gru-d", which fades what was measured hours ago',
        ),
        (
            "[model]\nhidden = 8\n" + branch('kind = "linear"'),
            "[model] has hidden of one network and also branches; move hidden into a branch",
        ),
        ("[model]\nskip = true\n" + branch('kind = "linear"'), "has skip of one network and also"),
        (
            branch('kind = "summary"') + '[personalisation]\nparts = ["norm"]\n',
            "set [[model.branches]] layer_norm = true or leave it out",
        ),
        (branch('kind = "summary"') * 17, "at most 16 items"),
        ("[model]\nbranches = 3\n", "[model] branches = 3 is not acceptable"),
        ("[model]\nbranches = [3]\n", "is not acceptable"),
    ],
)
def test_a_mistake_in_branches_is_one_sentence(extra: str, sentence: str) -> None:
    with pytest.raises(StudyError) as error:
        parse_study(TEXT + extra)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_of_branches_is_the_same_however_it_is_written() -> None:
    one = parse_study(TEXT + branch('kind = "linear"') + branch('kind = "summary"'))
    full = branch('kind = "linear"', "inputs = []")
    full += branch('kind = "summary"', "hidden = 32", "layers = 1", "dropout = 0.0", "members = 1")
    other = parse_study(TEXT + full)
    assert one.digest == other.digest
    assert Study.model_validate(one.model_dump(by_alias=True)) == one
    turned = parse_study(TEXT + branch('kind = "summary"') + branch('kind = "linear"'))
    assert turned.digest != one.digest


def test_a_study_without_branches_says_nothing_of_them_in_what_its_digest_is_of() -> None:
    assert "branches" not in json.loads(parse_study(TEXT).to_canonical_json())["model"]


def test_a_group_is_all_inputs_of_its_variables_and_codes() -> None:
    study = study_of_branches("all")
    names = feature_names(study)
    for group in (("hr",), ("age", "drug"), ("code", "bp"), tuple(study.variables)):
        expected = [place for place, name in enumerate(names) if name.split(" ")[0] in group]
        assert inputs_of(study, group) == expected


def test_a_model_is_left_without_any_dropout() -> None:
    text = "dropout = 0.5"
    found = parse_study(TEXT + f"[model]\n{text}\n").model
    assert found.drops
    assert Model.model_validate(found.without_dropout()) == Model()
    found = parse_study(TEXT + branch('kind = "linear"') + branch('kind = "summary"', text)).model
    assert found.branches[1].dropout == 0.5
    assert found.drops
    left = Model.model_validate(found.without_dropout())
    assert left.branches[1].dropout == 0.0
    assert not left.drops


def test_branches_are_told_in_words() -> None:
    assert study_of_branches("all").model.described == (
        "4 branches (a linear map; 2 x summaries, 5 hidden units, 1 layer(s), dropout 0; LSTM, 4 "
        "hidden units, 1 layer(s), one direction, pooling last, dropout 0; convolutions, 4 "
        "channels, 1 layer(s) of 3 steps, pooling max, dropout 0)"
    )
