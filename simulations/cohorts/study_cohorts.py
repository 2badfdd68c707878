"""The cohorts of a study: synthetic, or of the real records that it names."""

from pathlib import Path

from consilium.shared.errors import SettingsError, StudyError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts import hospitals
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.real_cohorts import REAL

SYNTHETIC = (hospitals.SOURCE_NAME, hospitals.FLAWED_NAME)


def cohorts_for(study: Study, data: Path | None) -> Cohorts:
    """Return the cohorts of a study's source of data.

    Args:
        study: names the source and the sites.
        data: the folder of real records; None for a synthetic source.

    Raises:
        SettingsError: the folder is missing, or given though the study's patients are synthetic.
        StudyError: no simulation supports the study's source, or one of its sites.
    """
    kind = study.data.source
    if kind in SYNTHETIC:
        if data is not None:
            raise SettingsError(
                f"study {study.name}: its patients are synthetic, so --data has no use; leave it"
            )
        return Cohorts(
            sites=hospitals.synthetic_sites(study),
            test=hospitals.synthetic_tests(study),
            synthetic=True,
            described="new synthetic patients of all hospitals",
        )
    if kind not in REAL:
        raise StudyError(
            f"study {study.name}: [data] source = {kind!r} cannot be simulated; "
            f"choose one of {', '.join(map(repr, (*SYNTHETIC, *REAL)))}"
        )
    real = REAL[kind]
    if data is None or not data.exists():
        where = "no --data was given" if data is None else f"--data {data} does not exist"
        raise SettingsError(f"study {study.name}: {where}; give the folder that holds {real.files}")
    return real.cohorts(study, data)
