"""Networks of installed packages: which are taken, what they are asked, and what they cannot do."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from consilium.client.explain.integrated_gradients import CLOSE, explain
from consilium.client.explain.stay_stream import StayStream, StreamedModel
from consilium.client.hospital.policy import Policy
from consilium.client.records.running_features import Layout, RunningFeatures
from consilium.shared.errors import MessageError, StudyError
from consilium.shared.export.signed_model import load_signed_model
from consilium.shared.figures.recalibration import Recalibration, with_recalibration
from consilium.shared.model import module_check
from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.installed_module import (
    installed_table,
    require_modules,
    require_trainable,
)
from consilium.shared.model.module_check import check_module, check_modules
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import parameter_count, to_vector
from consilium.shared.study.definition import Study, parse_canonical
from consilium.shared.study.training import Task
from tests import outside_models as made
from tests.branch_studies import TOKENS, VARIABLES
from tests.signed_models import KEY, some_trained, written
from tests.study_text import small_study

DATA = {"window_h": 12, "step_h": 2}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = made.install_example(tmp_path / "packages")
    made.put_on_path(folder, monkeypatch)
    return folder


def study_of(*branches: dict[str, object], **tables: dict[str, object]) -> Study:
    changes = {"data": DATA, "variables": VARIABLES} | tables
    return small_study(model={"branches": branches}, **changes)


@pytest.mark.parametrize("module", ["acme-transformer", "acme-convolution"])
@pytest.mark.parametrize(
    "task",
    [{"kind": "binary"}, {"kind": "multiclass", "outputs": 3, "per_step": True}],
    ids=["of a stay", "of steps"],
)
def test_the_example_modules_are_taken(module: str, task: dict, installed: Path) -> None:
    check_modules(study_of(made.branch(module), task=task))


def test_a_module_reads_codes_and_settings_and_stands_beside_other_branches(
    installed: Path,
) -> None:
    settings = {"width": 8, "heads": 2, "dropout": 0.0}
    one = made.branch(settings=settings)
    study = study_of(one, {"kind": "linear"}, tokens=TOKENS)
    check_modules(study)
    model = study_model(study)
    inner = model.networks[0].module
    assert inner.width == 8
    assert inner.codes.weight.shape == (len(TOKENS["vocabulary"]) + 2, 8)
    assert parse_canonical(study.to_canonical_json()) == study
    assert "installed module acme-transformer 1.0" in study.model.described
    assert model.onnx_obstacle == "the code of the installed module 'acme-transformer'"
    assert study.model.drops
    other = study_of(made.branch(settings=settings | {"width": 4}), {"kind": "linear"})
    assert other.digest != study.digest


def test_initial_weights_depend_on_the_seed_alone_and_the_random_state_stays(
    installed: Path,
) -> None:
    study = study_of(made.branch())
    state = torch.random.get_rng_state()
    first = to_vector(study_model(study))
    torch.rand(3)
    assert np.array_equal(first, to_vector(study_model(study)))
    assert not np.array_equal(first, to_vector(study_model(small_seed(study))))
    torch.random.set_rng_state(state)
    study_model(study)
    assert torch.equal(state, torch.random.get_rng_state())
    model = study_model(study)
    assert parameter_count(model) == sum(p.numel() for p in model.parameters())


def small_seed(study: Study) -> Study:
    return study.model_copy(update={"seed": study.seed + 1})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "0.9"}, r"installed here in version 1\.0 .* names version 0\.9; install that"),
        ({"digest": "0" * 64}, r"has the digest [0-9a-f]{64}, and the study names 0000"),
        ({"module": "acme-nothing"}, "'acme-nothing' is added by no package that is installed"),
    ],
)
def test_another_package_than_the_study_names_is_refused_before_it_is_loaded(
    changes: dict, sentence: str, installed: Path
) -> None:
    study = study_of(made.branch() | changes)
    for refuses in (require_modules, check_modules, study_model):
        with pytest.raises(StudyError, match=sentence):
            refuses(study)
    assert "acme_models" not in sys.modules


def test_code_that_was_changed_or_put_beside_it_has_another_digest(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(made.branch("acme-convolution"))
    study_model(study)
    file = installed / "acme_models" / "convolution.py"
    file.write_text(file.read_text() + "\n# changed\n")
    with pytest.raises(StudyError, match="has the digest"):
        study_model(study)
    changed = study_of(made.branch("acme-convolution"))
    with pytest.raises(StudyError, match="was changed after this process had loaded it; start"):
        study_model(changed)
    made.forget(monkeypatch)
    study_model(changed)
    (installed / "acme_models" / "more.py").write_text("")
    with pytest.raises(StudyError, match="has the digest"):
        require_modules(changed)


def test_two_packages_of_one_name_and_code_from_elsewhere_are_refused(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(made.branch())
    shadow = tmp_path / "shadow"
    (shadow / "acme_models").mkdir(parents=True)
    (shadow / "acme_models" / "__init__.py").write_text("")
    with monkeypatch.context() as there:
        there.syspath_prepend(str(shadow))
        with pytest.raises(StudyError, match="Python would load 'acme_models' from elsewhere"):
            require_modules(study)
    made.install_example(tmp_path / "packages", name="other-models")
    with pytest.raises(StudyError, match="added by 2 installed packages"):
        require_modules(study)


def test_the_table_for_a_study_is_printed_as_the_study_reads_it(installed: Path) -> None:
    (table,) = tomllib.loads(installed_table("acme-transformer"))["model"]["branches"]
    assert table == made.branch()


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (made.Normed, r"norm is a BatchNorm1d, which mixes .* use GroupNorm or LayerNorm"),
        (made.Recurrent, r'cell is a LSTM, .* use a branch of kind "recurrent", or opacus\.layers'),
        (made.Buffered, r"table is a buffer, .*persistent=False"),
        (made.Tied, r"other\.weight is a buffer, or a weight under a second name"),
        (made.Frozen, r"first\.weight is not trained in float32"),
        (made.Halved, r"first\.weight is not trained in float32"),
        (nn.Identity, r"it has no weights to train"),
    ],
)
def test_what_has_other_state_than_weights_is_refused_with_the_remedy(
    module: type[nn.Module], sentence: str
) -> None:
    with pytest.raises(StudyError, match=sentence):
        require_trainable(module(), "made-up")


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (made.Mixing, r"mixes patients, or reads padding; .*LayerNorm"),
        (made.ReadingPadding, r"mixes patients, or reads padding"),
        (made.Remembering, r"keeps state of its own from stay to stay"),
        (made.Changing, r"keeps state of its own from stay to stay"),
        (made.Idle, r"no gradient reaches its weight 'unused\.weight'"),
        (made.OfOtherShape, r"gives logits of shape \(5,\), and the task needs \(5, 1\)"),
        (made.Failing, r"fails on made-up stays of up to 6 steps \(RuntimeError\)"),
        (made.Endless, r"logits that are not finite with its initial weights"),
        (made.Branching, r"Opacus takes no per-patient gradients of it, neither by hooks nor"),
    ],
)
def test_what_mixes_patients_or_keeps_state_is_found_by_numbers(
    module: type[nn.Module], sentence: str
) -> None:
    with pytest.raises(StudyError, match=sentence) as caught:
        check_module(made.network(module()), 6)
    assert "Meier" not in str(caught.value)


def test_of_a_step_a_module_must_say_what_it_says_before_later_ones() -> None:
    with pytest.raises(StudyError, match="when later steps are known; look at this step and ear"):
        check_module(made.network(made.LookingAhead(), Task(per_step=True)), 6)


def test_hooks_serve_layers_and_functorch_serves_weights_outside_of_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(
        module_check, "vmap", lambda *a, **k: asked.append(1) or torch.vmap(*a, **k)
    )
    check_module(made.network(made.Plain()), 6)
    assert not asked
    check_module(made.network(made.Direct()), 6)
    assert asked == [1]


@pytest.mark.parametrize("module", [made.Plain, made.Direct])
def test_gradients_that_differ_from_opacus_are_refused(
    module: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = module_check._own_gradients
    monkeypatch.setattr(
        module_check, "_own_gradients", lambda *of: [one * 1.001 for one in right(*of)]
    )
    with pytest.raises(StudyError, match="Opacus's gradients of single patients are not those"):
        check_module(made.network(module()), 6)


def test_gradients_per_stay_are_those_of_ordinary_autograd() -> None:
    model = made.network(made.Plain(outputs=2), Task(kind="multilabel", outputs=2)).train()
    x_NTF, mask_NT = module_check._made_up_stays(model, 6)
    y = torch.tensor([[0.0, 1.0]] * len(x_NTF))
    books = Bookkeeping()
    model.training_loss(x_NTF, mask_NT, y, books=books).sum().backward()
    parameters = list(model.parameters())
    for row in range(len(x_NTF)):
        one = slice(row, row + 1)
        loss_N = model.training_loss(x_NTF[one], mask_NT[one], y[one])
        expected = torch.autograd.grad(loss_N.sum(), parameters)
        for found, right in zip(books.per_row(parameters), expected, strict=True):
            torch.testing.assert_close(found[row], right, rtol=1e-5, atol=1e-6)


def test_outputs_begin_at_the_prevalence_and_risks_can_be_put_right() -> None:
    model = made.network(made.Plain(), Task(prevalence=0.2)).eval()
    x_NTF, mask_NT = module_check._made_up_stays(model, 6)
    with torch.no_grad():
        said = model(x_NTF, mask_NT)
        away = model.together(x_NTF, mask_NT)
        torch.testing.assert_close(said, away + np.log(0.25))
        right = with_recalibration(model, [Recalibration(slope=2.0, intercept=0.5)])
        torch.testing.assert_close(right(x_NTF, mask_NT), 2 * said + 0.5)


def test_a_stay_on_which_the_module_fails_counts_as_zero_and_changes_no_other() -> None:
    model = made.network(made.Refusing()).train()
    x_NTF, mask_NT = module_check._made_up_stays(model, 6)
    strange = x_NTF.clone()
    strange[2, 0, 0] = 99.0
    found = []
    for x in (x_NTF, strange):
        books = Bookkeeping()
        logits = model(x, mask_NT, books=books)
        logits.sum().backward()
        with torch.no_grad():
            found.append([logits.detach(), model(x, mask_NT), *books.per_row(model.parameters())])
    with torch.no_grad():
        assert model(x_NTF[:0], mask_NT[:0]).shape == (0, 1)
    others = [0, 1, 3, 4]
    for before, after in zip(*found, strict=True):
        assert torch.equal(before[others], after[others])
        assert torch.isfinite(after).all()
    assert not any(one[2].any() for one in found[1][2:6])


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("module", ["acme-transformer", "acme-convolution"])
def test_a_stay_that_comes_event_by_event_is_told_what_the_batch_is_told(
    module: str, per_step: bool, installed: Path
) -> None:
    study = study_of(
        made.branch(module), {"kind": "recurrent", "hidden": 3}, task={"per_step": per_step}
    )
    model, steps = study_model(study).eval(), study.data.steps
    layout = Layout(study)
    streamed = StreamedModel(model, layout, reasons=True)
    stay, draw = StayStream(streamed, steps), np.random.default_rng(2)
    rows: list[np.ndarray] = []
    now = RunningFeatures.start(layout)
    for step in range(steps):
        value_C = np.where(draw.random(3) < 0.6, draw.normal(size=3), np.nan).astype(np.float32)
        for column in np.flatnonzero(~np.isnan(value_C)):
            stay.put(step, int(column), 2.0 * step, float(value_C[column]))
        stay.advance(step)
        rows.append(now.inputs(value_C))
        now = now.after_step(value_C)
        x_NTF = torch.zeros(2, steps, len(rows[0]))
        x_NTF[0, : step + 1] = torch.from_numpy(np.stack(rows)).float()
        mask_NT = torch.arange(steps).unsqueeze(0) < torch.tensor([[step + 1], [steps]])
        with torch.inference_mode():
            said = model(x_NTF, mask_NT)[0]
        said = said[step] if per_step else said
        np.testing.assert_allclose(stay.logits()[0], said.numpy(), rtol=1e-5, atol=1e-5)


def test_dropout_is_drawn_from_the_given_generator_alone(installed: Path) -> None:
    model = study_model(study_of(made.branch(settings={"dropout": 0.5}))).train()
    assert model.dropout == 0.5
    x_NTF, mask_NT = torch.ones(3, 6, model.features), torch.ones(3, 6, dtype=torch.bool)
    for books in (None, Bookkeeping()):
        said = []
        for seed in (1, 1, 2):
            torch.rand(1)
            given = torch.Generator().manual_seed(seed)
            said.append(model(x_NTF, mask_NT, books=books, generator=given).detach())
        assert torch.equal(said[0], said[1])
        assert not torch.equal(said[0], said[2])


def test_a_stay_is_explained_by_variable_and_step(installed: Path) -> None:
    study = study_of(made.branch("acme-convolution"))
    layout, draw, rows = Layout(study), np.random.default_rng(3), []
    now = RunningFeatures.start(layout)
    for _ in range(study.data.steps):
        value_C = draw.normal(size=3).astype(np.float32)
        rows.append(now.inputs(value_C))
        now = now.after_step(value_C)
    x_TF = torch.from_numpy(np.stack(rows)).float()
    explanation = explain(some_trained(study, 5), x_TF, output=0)
    assert explanation.effect_TC.shape == (study.data.steps, 3)
    assert (np.abs(explanation.effect_TC).sum(0) > 0).all()
    assert explanation.gap < 10 * CLOSE
    assert explanation.attention_T is None


def test_an_exported_model_loads_no_module_that_the_policy_does_not_list(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = written(tmp_path / "export", study_of(made.branch("acme-convolution")))
    made.forget(monkeypatch)
    with pytest.raises(MessageError, match=r"policy does not allow; .*\[models\] installed"):
        load_signed_model(tmp_path / "export", KEY.public, allow=Policy().check_modules)
    assert "acme_models" not in sys.modules
    allows = Policy(installed_models=frozenset({"acme-convolution"})).check_modules
    found = load_signed_model(tmp_path / "export", KEY.public, allow=allows).trained
    assert np.array_equal(to_vector(found.model), to_vector(trained.model))
