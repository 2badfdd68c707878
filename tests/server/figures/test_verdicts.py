"""Verdicts name whom a model fails, in one sentence, and nobody whom chance explains."""

import numpy as np

from consilium.client.round.subgroups import group_blocks
from consilium.server.figures.groups import GroupFigures, groups_from_sums
from consilium.server.figures.verdicts import verdicts
from consilium.shared.rounds.contents import edges_from_bytes
from consilium.shared.rounds.patient_groups import group_edges, patient_groups
from tests.study_text import small_study

AGE = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}


def study_of(**task: object):
    return small_study(
        task=task or {"kind": "binary"},
        variables={"age": AGE},
        privacy={"mode": "none"},
        evaluation={"per_site": True, "subgroups": {"age": {"cuts": [50, 70]}}},
    )


STUDY = study_of()
SITES = STUDY.sites


def figures(
    *,
    seed: int = 1,
    size: int = 3000,
    young: float = 1.0,
    first_site: float = 0.0,
    everywhere: float = 0.0,
    released: tuple[str, ...] = SITES,
    noise: float = 0.0,
) -> tuple[GroupFigures, ...]:
    """Simulated patients; ``young`` scales what risks say of them, ``first_site`` shifts odds."""
    stream = np.random.default_rng(seed)
    rank = stream.normal(size=size)
    part, site = stream.integers(0, 3, size), stream.integers(0, len(SITES), size)
    risk = 1 / (1 + np.exp(1.5 - 1.3 * rank))
    truth = -1.5 + 1.3 * rank * np.where(part == 0, young, 1.0) + first_site * (site == 0)
    truth += everywhere
    y = (stream.random(size) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    everyone = np.ones(size, dtype=np.bool_)
    members = [
        everyone,
        *(part == number for number in range(3)),
        *(site == i if name in released else None for i, name in enumerate(SITES)),
    ]
    edges_KL = edges_from_bytes(b"", STUDY)
    blocks = group_blocks(
        risk[:, None], y, np.ones(size), everyone, members, STUDY, group_edges(STUDY, edges_KL)
    )
    blocks += stream.normal(0, noise, blocks.shape)
    return groups_from_sums(blocks.ravel(), STUDY, edges_KL=edges_KL, noise=noise)


def said(groups: tuple[GroupFigures, ...]) -> dict[tuple[str, str], str]:
    edges_L = group_edges(STUDY, edges_from_bytes(b"", STUDY))
    return {(v.topic, v.name): v.sentence for v in verdicts(groups, edges_L) if v.serious}


def test_of_a_good_model_nothing_serious_is_said() -> None:
    alarms = [len(said(figures(seed=seed))) for seed in range(40)]
    assert sum(alarms) <= 4
    edges_L = group_edges(STUDY, edges_from_bytes(b"", STUDY))
    sentences = [v.sentence for v in verdicts(figures(), edges_L)]
    assert "the model's AUROC is 0." in sentences[0]
    assert f"None of the {3 + len(SITES)} groups judged stands out" in sentences[1]


def test_a_group_that_risks_do_not_tell_apart_is_named_and_no_other() -> None:
    found = said(figures(young=0.0))
    assert ("discrimination", "age below 50") in found
    assert (
        "tells patients apart worse in the group age below 50: AUROC 0."
        in found["discrimination", "age below 50"]
    )
    assert {topic for topic, name in found if name != "age below 50"} == set()


def test_a_hospital_whose_risks_are_too_low_is_named_and_no_other_hospital() -> None:
    found = said(figures(first_site=1.2))
    assert {name for _, name in found} & set(SITES) == {SITES[0]}
    assert {topic for topic, _ in found} == {"calibration"}
    assert found["calibration", SITES[0]].startswith(f"Risks are too low at {SITES[0]}: ")


def test_risks_too_low_for_everybody_are_said_once_and_worse_ones_beside() -> None:
    assert set(said(figures(everywhere=0.7))) == {("calibration", "all")}
    found = said(figures(everywhere=0.5, first_site=1.5))
    assert {("calibration", "all"), ("calibration", SITES[0])} <= set(found)
    assert " for everybody." in found["calibration", SITES[0]]


def test_what_was_not_released_or_is_too_small_has_no_figures_and_is_said_to_have_none() -> None:
    groups = figures(released=SITES[1:])
    told = {group.group.name: group.to_json() for group in groups}
    assert told[SITES[0]]["released"] is False
    assert told[SITES[0]]["patients"] == 0
    assert told[SITES[0]]["negatives"] is told[SITES[0]]["figures"] is None
    assert told[SITES[1]]["released"] is True
    last = verdicts(groups, group_edges(STUDY, edges_from_bytes(b"", STUDY)))[-1]
    assert last.sentence == f"Not judged, too few patients, or not released: {SITES[0]}."
    few = figures(size=60)
    assert not any(group.released for group in few if group.group.kind == "site")


def test_noise_alone_never_passes_for_a_group() -> None:
    names = set(SITES)
    for seed in range(50):
        groups = figures(seed=seed, size=500, released=(), noise=20.0)
        assert not any(group.released for group in groups if group.group.name in names)


def test_figures_from_sums_are_those_of_the_groups_patients() -> None:
    everybody, *parts = figures()
    bands = parts[:3]
    assert sum(group.patients for group in bands) == everybody.patients == 3000
    assert sum(group.positives for group in bands) == everybody.positives
    assert np.isclose(sum(group.expected for group in bands), everybody.expected)
    assert everybody.calibration.low < 1 < everybody.calibration.high


def test_groups_of_other_tasks_are_judged_by_accuracy_or_error() -> None:
    for task, block, told in (
        ({"kind": "multiclass", "outputs": 3}, (1000.0, 800.0), "accuracy 0.50"),
        ({"kind": "regression", "spread": 2.0}, (1000.0, 100.0), "mean absolute error 5.00"),
    ):
        study = study_of(**task)
        blocks = np.tile(block, (len(patient_groups(study)), 1))
        blocks[1, 1] = 500.0
        groups = groups_from_sums(
            blocks.ravel(), study, edges_KL=edges_from_bytes(b"", study), noise=0.0
        )
        serious = [v for v in verdicts(groups, None) if v.serious]
        assert [v.name for v in serious] == ["age below 50"]
        assert told in serious[0].sentence
