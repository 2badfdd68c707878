"""What a researcher's own script does with the API; mypy strict must find nothing in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import polars as pl

import consilium


class Mine:
    name = "mine"

    @property
    def report(self) -> consilium.ReadReport:
        raise NotImplementedError

    def read_patients(self, study: consilium.Study) -> Iterator[consilium.Patient]:
        del study
        yield from ()


def main(path: Path) -> None:
    study = consilium.load_study(path)
    records = consilium.Records(sites={"north": Mine()}, test=Mine())
    try:
        with consilium.simulate(study, records, out=path.parent / "out", seed=3) as result:
            assert_type(result, consilium.SimulationResult)
            assert_type(result.test.auroc.value, float)
            assert_type(result.by_site["north"].mae, consilium.Estimate)
            assert_type(result.rounds, pl.DataFrame)
            assert_type(result.rounds_table()[0].epsilon, float | None)
            assert_type(result.model.predict(Mine())[0].stay_id, str)
            assert_type(result.report(), Path)
        compared = consilium.compare(study, "records", epsilons=(8.0, 1.0), modes=["site"])
        assert_type(compared.setting("federated").test.auroc.low, float)
        assert_type(compared.table(), pl.DataFrame)
        assert_type(consilium.plan(study, epsilons=(1.0,)).choices[0], consilium.Choice)
    except consilium.StudyError as error:
        assert_type(error, consilium.StudyError)
    except consilium.ConsiliumError as error:
        assert_type(error, consilium.ConsiliumError)
    assert_type(consilium.__version__, str)


if __name__ == "__main__":
    main(Path("study.toml"))
