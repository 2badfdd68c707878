"""What the coordinator makes of calibration sums: the shift, whose it is, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from consilium.server.secure_sum.group_sums import GroupTotals
from consilium.server.secure_sum.protocol import SumResult
from consilium.server.study.aggregation import ServerState, shifted, start
from consilium.server.study.plausibility import check_plausible
from consilium.server.study.run import RunState, _shift
from consilium.shared.errors import RoundVoidError
from consilium.shared.model.intercepts import intercepts
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.privacy.shared_noise import calibration_share, noisy_sum
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, vector_spec
from consilium.shared.secure_sum.fixed_point import encode
from consilium.shared.study.definition import Study, load_study, with_changes
from tests.client.round.made_up_patients import stream
from tests.rosters import sized_roster
from tests.server.study.test_claimed_weights import KEYS, SITES, SIZES, result_of
from tests.study_text import small_study

ROOT = Path(__file__).parents[3]
CALIBRATION = RoundConfiguration(purpose=Purpose.CALIBRATION)
NOISY = {"calibration_rounds": 2, "epsilon": 50.0}
SHARED = with_changes(
    small_study(
        privacy={"mode": "distributed", **NOISY},
        training={"local_steps": 1},
        aggregation={"max_weight": 10_000},
    ),
    study={"sites": tuple(SITES)},
)


def total(study: Study, sums: dict[str, list[float]]) -> SumResult:
    """The sum of what these sites send, each with its share of the noise."""
    roster = sized_roster(KEYS, study.digest, **SIZES)
    spec = vector_spec(study, CALIBRATION, parameters=0, largest_size=roster.largest_size)
    vectors = {}
    for number, (site, values) in enumerate(sums.items()):
        part, source = np.array(values), stream(number)
        if study.privacy.mode == "distributed":
            part = noisy_sum(part, calibration_share(study), source)
        vectors[site] = encode({"calibration": part}, spec, source)
    return result_of(vectors, spec, roster)


@pytest.mark.parametrize("mode", ["distributed", "site"])
def test_sums_that_sites_of_these_sizes_can_have_are_taken_and_longer_ones_refused(mode) -> None:
    study = with_changes(SHARED, privacy={"mode": mode})
    honest = {site: [float(SIZES[site]), 0.0, 0.0] for site in SITES}
    check_plausible(study, total(study, honest))
    longer = {site: [500.0, 0.0, 0.0] for site in SITES}
    with pytest.raises(RoundVoidError, match="the sum of a calibration round has norm"):
        check_plausible(study, total(study, longer))


def test_the_second_round_counts_half_and_of_groups_the_median_counts() -> None:
    sums = {site: [30.0, 150.0, 0.0] for site in SITES}  # Newton's step is 30 / 50
    once = GroupTotals(totals=(total(SHARED, sums),), refusals={})
    state = RunState(server=start(np.zeros(3, np.float32)))
    first = _shift(SHARED, state, once)
    assert first.by_K == pytest.approx([0.6], abs=0.03)
    next_state = RunState(server=state.server, calibrated=1, doubt=tuple(first.doubt_K))
    second = _shift(SHARED, next_state, once)
    assert 0.4 * first.by_K[0] < second.by_K[0] < first.by_K[0]
    poisoned = {site: [290.0, 3.0, 0.0] for site in SITES}
    three = (total(SHARED, sums), total(SHARED, poisoned), total(SHARED, sums))
    median = _shift(SHARED, state, GroupTotals(totals=three, refusals={}))
    assert median.by_K == pytest.approx(first.by_K)


@pytest.mark.parametrize(
    "model",
    [
        {"hidden": 3, "skip": True},
        {"branches": [{"kind": "linear"}, {"kind": "summary"}, {"kind": "recurrent", "hidden": 3}]},
    ],
)
def test_the_shift_moves_each_outputs_log_odds_by_itself_and_nothing_else(model) -> None:
    study = small_study(model=model, task={"kind": "multilabel", "outputs": 2})
    network = study_model(study).eval()
    x_NTF = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3, network.features)))
    mask_NT = torch.ones(4, 3, dtype=torch.bool)
    with torch.no_grad():
        before = network(x_NTF.float(), mask_NT)
        weights_D = to_vector(network)
        server = ServerState(weights_D=weights_D, average_D=weights_D.astype(np.float64))
        after = shifted(server, intercepts(study, [0.5, -1.0]))
        for moved_D in (after.weights_D, after.model_weights):
            load_vector(network, moved_D)
            found = network(x_NTF.float(), mask_NT) - before
            assert found.numpy() == pytest.approx(np.tile([0.5, -1.0], (4, 1)), abs=1e-6)
    assert shifted(start(weights_D), intercepts(study, [0.0, 0.0])).average_D.size == 0


def test_the_places_are_those_of_the_output_layers_biases_in_every_example_study() -> None:
    """Against a model of zeros whose biases alone are set."""
    studies = [load_study(file) for file in sorted((ROOT / "studies").glob("*.toml"))]
    calibrated = [study for study in studies if study.calibration_rounds]
    assert len(calibrated) > 5
    for study in calibrated:
        model = study_model(study)
        shift_K = [0.25 + k for k in range(study.task.outputs)]
        with torch.no_grad():
            for value in model.state_dict().values():
                value.zero_()
            for layer in model.output_layers:
                if layer.bias is not None:
                    layer.bias.copy_(torch.tensor(shift_K))
        places, added = intercepts(study, shift_K)
        moved_D = np.zeros_like(to_vector(model))
        moved_D[places] += added
        assert np.array_equal(moved_D, to_vector(model)), study.name
        assert places.size >= len(shift_K)
