"""What a person sees of the records before deciding: verdict, findings, figures, size."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consilium.client.hospital.folder import SiteFolder
from consilium.client.quality.finding import Finding
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

if TYPE_CHECKING:
    from consilium.client.quality.findings import Verdict  # it imports PyTorch


@dataclass(frozen=True, kw_only=True, repr=False)
class DataCheck:
    """What ``consilium-site check`` finds, its page, and the size that would be declared.

    Attributes:
        verdict: of the check.
        findings: what there is to know, with remedies.
        patients: how many patients the records hold for this study.
        numbers: this hospital's persons by outcome and by variable, exact, in sentences;
            empty if the study does not count them.
        page: the whole report with figures, HTML.
        size: the rounded number of training patients; None if the records cannot serve the study.
        unsuitable: why they cannot; empty if they can.
    """

    verdict: "Verdict"
    findings: tuple[Finding, ...]
    patients: int
    numbers: tuple[str, ...]
    page: str
    size: int | None
    unsuitable: str


def check_data(folder: SiteFolder, study: Study) -> DataCheck:
    """Read this hospital's records for a study and judge them, as the command ``check`` does.

    Raises:
        DataError: the records cannot be read.
        SettingsError: ``site.toml`` does not say where they are.
    """
    # These read records, draw and compute: too heavy for the start of the page's process.
    from consilium.client.commands.own_numbers import person_lines
    from consilium.client.quality.findings import judge, verdict
    from consilium.client.quality.measure import check_quality
    from consilium.client.quality.page import quality_page
    from consilium.client.records.declared_size import usual_size
    from consilium.client.service.site_cohort import suitable_cohort
    from consilium.client.sources.registry import open_source

    records = folder.settings().records(folder.path)
    quality = check_quality(open_source(records, study, counts_units=True), study)
    findings = judge(quality, study)
    ruling = verdict(findings)
    size, unsuitable = None, ""
    try:
        size = usual_size(suitable_cohort(folder, study).training.patients, study)
    except DataError as error:
        unsuitable = str(error)
    return DataCheck(
        verdict=ruling,
        findings=findings,
        patients=quality.patients,
        numbers=tuple(person_lines(quality.persons, study)) if study.feasibility else (),
        page=quality_page(quality, findings, ruling, study),
        size=size,
        unsuitable=unsuitable,
    )
