"""The page of a run's report: its sections and their content.

The same record gives the same bytes.
"""

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.report.answer_charts import answer_charts
from consilium.simulations.report.attribution_chart import attributions_chart
from consilium.simulations.report.checks import checks
from consilium.simulations.report.document import Section, Tables, document
from consilium.simulations.report.drawing import Table
from consilium.simulations.report.external_chart import external_chart
from consilium.simulations.report.federated_chart import federated_chart
from consilium.simulations.report.forest_plots import group_charts, joining_chart, settings_chart
from consilium.simulations.report.groups import everyone, read_groups
from consilium.simulations.report.model_card import model_card
from consilium.simulations.report.privacy_statement import statement
from consilium.simulations.report.recalibration_chart import recalibration_chart
from consilium.simulations.report.risk_charts import risk_charts
from consilium.simulations.report.rivals_chart import rivals_chart
from consilium.simulations.report.round_charts import learning_charts
from consilium.simulations.report.summary import answers
from consilium.simulations.report.survival_charts import curves_by_group, survival_charts

COUNTS = ("patients", "stays", "events", "unlabelled", "filtered", "outside_window", "duplicates",
          "skipped")  # fmt: skip


def report_page(study: Study, record: JsonRecord, settings: JsonRecord | None) -> str:
    """Return the whole page.

    Args:
        study: what was run.
        record: content of ``run.json``.
        settings: of ``compare.json`` of the same study, or None.
    """
    groups, whose = read_groups(record), whose_risks(study)
    whole = everyone(groups)
    answer = [
        *(risk_charts(whole, whose=whose) if whole else ()),
        *survival_charts(study, record),
        *answer_charts(study, record.get("final_tables") or {}),
        *federated_chart(study, record),
    ]
    by_group = group_charts(study, groups, record.get("verdicts") or ())
    by_group += curves_by_group(study, record)
    if record.get("joining"):
        by_group += joining_chart(record["joining"])
    by_group += recalibration_chart(record)
    rivals = [settings_chart(study, settings), *rivals_chart(study, settings)] if settings else []
    training = learning_charts(study, record)
    outside = external_chart(record)
    looks = attributions_chart(study, record)
    charts = [*answer, *looks, *by_group, *outside, *rivals, *training]
    sections = [
        Section(name=name, heading=heading, kind=kind, content=content)
        for name, heading, kind, content in (
            ("summary", "Summary", "summary", answers(study, record, groups, settings, whose)),
            ("answers", "How good are its answers?", "figures", answer),
            ("looks", "What it looks at", "figures", looks),
            ("groups", "For whom?", "figures", by_group),
            ("outside", "At hospitals it never saw", "figures", outside),
            ("rivals", "Against rivals", "figures", rivals),
            ("training", "How it was trained", "figures", training),
            ("privacy", "What is protected, from whom", "statement", statement(study, record)),
            ("checks", "Before anyone uses it", "checks", checks(study, record, groups, settings)),
            ("data", "Data", "tables", _data(study, record)),
            ("card", "Model card (TRIPOD+AI)", "card", model_card(study, record, groups, settings)),
            ("numbers", "The numbers of the figures", "numbers", charts),
        )
    ]
    return document("run.html", study, record, sections, compared=bool(settings))


def whose_risks(study: Study) -> str:
    """Return the word for what has a risk of its own: patients, or their steps or labels."""
    if study.task.kind == "multilabel":
        return "labels of patients"
    if not study.task.per_step:
        return "patients"
    return "hours" if (study.data.clock, study.data.step_h) == ("hour", 1) else "steps"


def _data(study: Study, record: JsonRecord) -> Tables:
    tables = []
    read = record.get("data") or {}
    if read:
        table = Table(
            headings=("site", *(name.replace("_", " ") for name in COUNTS)),
            rows=tuple(
                (site, *(f"{report[n]:,}" for n in COUNTS)) for site, report in read.items()
            ),
        )
        tables.append(("What each site read, and what it set aside", table))
    outside = {
        name: sum(report["out_of_range"].get(name, 0) for report in read.values())
        for name in study.variables
    }
    with_range = [
        (
            name,
            v.unit,
            f"{v.low:g} to {v.high:g}",
            f"{v.center:g}",
            f"{v.spread:g}{' (of the logarithm)' if v.scale == 'log' else ''}",
            "fixed" if v.role == "static" else "series",
            *((str(outside[name]),) if read else ()),
        )
        for name, v in study.variables.items()
    ]
    headings = ("variable", "unit (UCUM)", "believed range", "center", "spread", "kind")
    table = Table(headings=headings + (("outside",) if read else ()), rows=tuple(with_range))
    tables.append(("Variables, as the study declares them", table))
    test = record["test"]
    events = (
        f"{test['positives']} with the outcome" if "positives" in test else "no outcome counted"
    )
    lead = f"Test patients: {test['patients']}, {test['rows']} known outcomes, {events}."
    return Tables(lead=lead, tables=tuple(tables))
