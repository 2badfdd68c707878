"""A running session leaves out whoever its hospital's file names before the next round."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.cohort import Cohort
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.shared.secure_sum.messages import Action
from tests.client.round.test_session import channel_request, cohort, refusal, session


def test_a_cohort_without_some_persons_is_one_that_never_had_them() -> None:
    whole = cohort()
    first, second, *rest = whole.training.patient_ids
    left = whole.without(OptOuts(frozenset({first, second, "somebody else"})))
    assert left.training.patient_ids == tuple(rest)
    kept_N = whole.training.patient_N >= 2
    assert np.array_equal(left.training.value_NTV, whole.training.value_NTV[kept_N], equal_nan=True)
    assert left.report.opted_out == (2, 3)
    again = left.without(OptOuts(frozenset({first, second, "somebody else"})))
    assert again is left
    assert left.without(OptOuts(frozenset(whole.training.patient_ids))).training.patients == 0


def test_a_file_that_cannot_be_read_stops_the_site_without_telling_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "opted-out.txt"
    read: list[Cohort] = []

    def records() -> Cohort:
        read.append(cohort())
        return read[-1]

    site = session(tmp_path, read=records)
    site._opted_out = lambda: OptOuts.read(file)
    with caplog.at_level(logging.WARNING):
        reply = site.handle(Action.CHANNEL, channel_request())
    assert refusal(reply).code == "UnableError"
    assert "opted" not in refusal(reply).sentence
    assert "names the persons who opted out, cannot be read" in caplog.text
    assert read == []  # not everybody
    file.write_text("")
    assert site.handle(Action.CHANNEL, channel_request()).refusal is None
    file.unlink()
    assert refusal(site.handle(Action.CHANNEL, channel_request())).code == "UnableError"


def test_a_name_added_while_the_site_runs_holds_from_the_next_round(tmp_path: Path) -> None:
    file = tmp_path / "opted-out.txt"
    file.write_text("")
    site = session(tmp_path)
    site._opted_out = lambda: OptOuts.read(file)
    before = site._renew_cohort()
    made = site._contributor
    assert site._renew_cohort() is before
    assert site._contributor is made
    file.write_text(before.training.patient_ids[0])
    after = site._renew_cohort()
    assert after.training.patients == before.training.patients - 1
    assert site._contributor is not made
    file.write_text("")  # a name taken away comes back with the next reading of the records
    assert site._renew_cohort().training.patients == after.training.patients
    assert replace(after.report, opted_out=(1, 0)) == site._renew_cohort().report
