"""What a round's vector holds, derived alike at both sides."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import MessageError, PrivacyError, StudyError
from consilium.shared.figures.score_counts import first_edges
from consilium.shared.rounds.contents import (
    NOISE_MARGIN,
    Purpose,
    RoundConfiguration,
    edges_from_bytes,
    edges_to_bytes,
    gradient_sum_bound,
    group_parameters,
    metrics_noise,
    metrics_sensitivity,
    statistics_noise,
    sum_parameters,
    update_share,
    validation_patients,
    vector_spec,
)
from tests.rosters import sized_roster
from tests.study_text import small_study

PRIVATE = small_study()
CALIBRATED = small_study(privacy={"calibration_rounds": 1})
PLAIN = small_study(privacy={"mode": "none"})
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in PRIVATE.sites}


@given(
    purpose=st.sampled_from(Purpose),
    evaluate=st.booleans(),
    normalisation=st.binary(max_size=100),
    head=st.binary(max_size=512),
    edges=st.binary(max_size=100),
    site_heads=st.lists(st.binary(max_size=512), max_size=3).map(tuple),
)
def test_a_configuration_comes_back_from_its_bytes(
    purpose: Purpose,
    evaluate: bool,
    normalisation: bytes,
    head: bytes,
    edges: bytes,
    site_heads: tuple[bytes, ...],
) -> None:
    asked = RoundConfiguration(
        purpose=purpose,
        evaluate=evaluate,
        normalisation=normalisation,
        audit_head=head,
        edges=edges,
        site_heads=site_heads,
    )
    assert RoundConfiguration.from_bytes(asked.to_bytes()) == asked


@given(st.binary(max_size=60))
def test_bytes_that_are_no_configuration_are_refused(data: bytes) -> None:
    try:
        asked = RoundConfiguration.from_bytes(data)
    except MessageError:
        return
    assert RoundConfiguration.from_bytes(asked.to_bytes()) == asked


def test_an_audit_head_beyond_its_bound_is_refused() -> None:
    for heads in (
        {"audit_head": bytes(513)},
        {"site_heads": (bytes(9), bytes(513))},
        {"site_heads": (b"",) * 1001},
        {"site_heads": b"no list"},
    ):
        asked = RoundConfiguration(purpose=Purpose.TRAINING, **heads)
        with pytest.raises(MessageError, match="not of this version"):
            RoundConfiguration.from_bytes(asked.to_bytes())


def test_an_oversized_configuration_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MessageError, match="above the bound of 1048576"):
        RoundConfiguration.from_bytes(bytes((1 << 20) + 1))


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("study", [CALIBRATED, PLAIN], ids=["private", "plain"])
def test_no_vector_can_wrap_and_counts_are_summed_exactly(study, purpose, evaluate) -> None:
    if purpose is Purpose.CALIBRATION and study is PLAIN:
        with pytest.raises(PrivacyError, match="has no calibration rounds"):
            vector_spec(study, RoundConfiguration(purpose=purpose), parameters=9, largest_size=9)
        return
    largest = study.aggregation.max_weight
    asked = RoundConfiguration(purpose=purpose, evaluate=evaluate)
    spec = vector_spec(study, asked, parameters=9, largest_size=largest)
    spec.check_headroom(len(study.sites), largest)
    for segment in spec.segments:
        assert np.log2(segment.scale) == round(np.log2(segment.scale))
        if segment.name in ("loss", "scores", "statistics"):
            assert segment.linf >= largest


def test_each_purpose_has_its_own_segments() -> None:
    def names(purpose: Purpose, *, evaluate: bool = False) -> list[str]:
        asked = RoundConfiguration(purpose=purpose, evaluate=evaluate)
        return [
            s.name for s in vector_spec(PRIVATE, asked, parameters=9, largest_size=500).segments
        ]

    assert names(Purpose.STATISTICS) == ["statistics"]
    assert names(Purpose.TRAINING) == ["update"]
    assert names(Purpose.TRAINING, evaluate=True) == ["update", "loss", "scores"]
    assert names(Purpose.EVALUATION) == ["loss", "scores"]
    regression = small_study(task={"kind": "regression"})
    asked = RoundConfiguration(purpose=Purpose.EVALUATION)
    found = vector_spec(regression, asked, parameters=9, largest_size=500).segments
    assert [(s.name, s.length) for s in found] == [("loss", 2), ("hits", 3)]
    classes = small_study(task={"kind": "multiclass", "outputs": 3})
    found = vector_spec(classes, asked, parameters=9, largest_size=500).segments
    assert [(s.name, s.length) for s in found] == [("loss", 2), ("scores", 192), ("hits", 9)]


def test_noise_fits_its_segment_and_there_is_none_without_privacy() -> None:
    assert statistics_noise(PLAIN) == metrics_noise(PLAIN) == 0
    assert statistics_noise(PRIVATE) > 0
    asked = RoundConfiguration(purpose=Purpose.EVALUATION)
    bound = vector_spec(PRIVATE, asked, parameters=9, largest_size=500).segments[0].linf
    assert metrics_sensitivity(PRIVATE) == pytest.approx(3**0.5)
    assert bound == pytest.approx(500 * 3**0.5 + NOISE_MARGIN * metrics_noise(PRIVATE))


def test_updates_are_weighted_by_declared_sizes_or_alike() -> None:
    roster = sized_roster(KEYS, PRIVATE.digest, a=50, b=200, c=100)
    assert update_share(PRIVATE, roster, ["a"]) == 0.25
    assert update_share(PRIVATE, roster, ["a", "b", "c"]) == 1.75
    alike = small_study(aggregation={"weighting": "uniform"})
    assert update_share(alike, roster, ["a"]) == 1.0
    assert update_share(alike, roster, ["a", "c"]) == 2.0


def test_a_run_has_no_size_above_the_studys_bound_and_no_site_that_it_does_not_name() -> None:
    small = small_study(aggregation={"max_weight": 90})
    within, above = (sized_roster(KEYS, small.digest, b=size) for size in (90, 91))
    assert sum_parameters(small, within, bytes(16), site="a").roster.sizes["b"] == 90
    for refused in (group_parameters, partial(sum_parameters, site="a")):
        with pytest.raises(StudyError, match=r"site b declares 91 patients, above .* 90"):
            refused(small, above, bytes(16))
    with pytest.raises(StudyError, match="does not name site d"):
        sum_parameters(small, within, bytes(16), site="d")


@given(size=st.integers(1, 10**6), rate=st.floats(0.01, 1.0))
def test_a_gradient_sums_bound_is_that_of_a_likely_sample_of_the_declared_patients(
    size: int, rate: float
) -> None:
    study = small_study(
        privacy={"mode": "distributed"}, training={"local_steps": 1, "sampling_rate": rate}
    )
    found = gradient_sum_bound(study, size) / study.privacy.clip_norm
    assert found <= size * (1 + 1e-9)
    assert found >= min(size, rate * size) * (1 - 1e-9)
    assert found == pytest.approx(min(size, rate * size + 5 * (rate * size) ** 0.5))


@pytest.mark.parametrize(("held_out", "times"), [(0.0, 1), (0.2, 1), (0.5, 1), (0.75, 3)])
def test_more_validation_patients_than_declared_ones_count_where_more_validate_than_train(
    held_out: float, times: float
) -> None:
    study = small_study(evaluation={"validation_fraction": held_out})
    assert validation_patients(study, 40) == pytest.approx(40 * times)


def test_edges_come_back_from_their_bytes_and_none_mean_those_of_a_first_look() -> None:
    study = small_study(task={"kind": "multilabel", "outputs": 2}, evaluation={"bins": 9})
    edges_KL = np.sort(np.random.default_rng(0).random((2, 8)).astype(np.float32))
    assert np.array_equal(edges_from_bytes(edges_to_bytes(edges_KL, study), study), edges_KL)
    assert np.array_equal(
        edges_from_bytes(b"", study)[1], first_edges(9, (0.05, 0.1, 0.2, 0.3, 0.5))
    )


def test_edges_that_would_not_fit_a_message_are_not_sent() -> None:
    study = small_study(task={"kind": "multilabel", "outputs": 4096}, evaluation={"bins": 40})
    assert edges_to_bytes(np.ones((4096, 39), dtype=np.float32), study) == b""


@pytest.mark.parametrize(
    "edges", [[0.5, 0.4, 0.6], [0.0, 0.1, 0.2], [0.1, 0.2, 1.5], [0.1, np.nan, 0.3], [0.1, 0.2]]
)
def test_edges_that_do_not_ascend_between_0_and_1_are_refused(edges: list[float]) -> None:
    study = small_study(evaluation={"bins": 8, "thresholds": []})
    data = np.array([*edges, 0.7, 0.8, 0.9, 0.95], dtype="<f4").tobytes()
    with pytest.raises(MessageError, match="edges of bins are"):
        edges_from_bytes(data, study)
