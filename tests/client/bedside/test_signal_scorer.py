"""Recordings in progress: the answers are those of a batch of the finished record."""

import json
from pathlib import Path

import numpy as np
import pytest

from consilium.client.bedside.prediction import predict_patients
from consilium.client.bedside.signal_scorer import SignalScorer
from consilium.client.bedside.stream_service import answer_line
from consilium.client.sources.recorded.waveforms import Waveforms
from consilium.shared.errors import DataError
from tests.client.sources.recorded.heart import beats_every, heart, heart_study, write_heart
from tests.signed_models import some_signed

BEATS_S = beats_every(0.8, 20.0)
FIRST = {"recording": "bed 7", "rate_hz": 250, "units": {"MLII": "mV", "V1": "mV"}}


def test_answers_are_those_of_the_finished_record(tmp_path: Path) -> None:
    study = heart_study()
    signed = some_signed(study)
    scorer = SignalScorer(signed)
    leads, answers = heart(22.0, 250, BEATS_S), []
    for second in range(22):
        part = leads[250 * second : 250 * (second + 1)]
        line = FIRST | {
            "samples": {"MLII": part[:, 0].tolist(), "V1": part[:, 1].tolist()},
            "beats_s": BEATS_S[BEATS_S.astype(int) == second].tolist(),
            "end": second == 21,
        }
        answer, taken = answer_line(scorer, json.dumps(line).encode())
        assert taken, answer
        answers += json.loads(answer)["windows"]
    write_heart(tmp_path, 250, BEATS_S, seconds=22.0)
    batch = list(
        predict_patients(signed.trained, Waveforms(tmp_path, same_person=()).read_patients(study))
    )
    assert len(answers) == len(batch) == len(BEATS_S) - 2
    for one, other in zip(answers, batch, strict=True):
        values = [output["value"] for output in one["outputs"]]
        assert np.allclose(values, other.scores, rtol=0, atol=1e-5)
    assert scorer.stays == 0


def test_a_model_of_finished_recordings_is_refused() -> None:
    whole = heart_study(('of = "MLII", unit', 'of = "MLII", reference = "recording", unit'))
    with pytest.raises(DataError, match=r"which a monitor does not have yet; train a study with"):
        SignalScorer(some_signed(whole))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"stay": "a"}, "the line has a key 'stay'; use beats_s"),
        ({"recording": ""}, "recording must be a text"),
        ({"recording": "a"}, "first line must say rate_hz"),
        ({"recording": "a", "rate_hz": 250}, "units must be an object"),
        (FIRST | {"end": 1}, "end must be true or false"),
        (FIRST | {"static": {"Age": "old"}}, "static must hold finite numbers"),
        (FIRST | {"samples": {"MLII": [1]}}, "lack channel 'V1'"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(line: dict, told: str) -> None:
    scorer = SignalScorer(some_signed(heart_study()))
    answer, taken = answer_line(scorer, json.dumps(line).encode())
    assert not taken
    assert told in json.loads(answer)["error"]
    assert scorer.stays == 0
