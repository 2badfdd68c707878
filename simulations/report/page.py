"""The page of a report: one HTML file without script, font, picture or address outside itself.

The same record gives the same bytes.
"""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from consilium.shared.study.definition import Study
from consilium.simulations.report.answers import answer_charts
from consilium.simulations.report.attributions import attributions_chart
from consilium.simulations.report.card import NOT_REPORTED, model_card
from consilium.simulations.report.checks import Check, checks
from consilium.simulations.report.drawing import Chart, Table
from consilium.simulations.report.external import external_chart
from consilium.simulations.report.federated import federated_chart
from consilium.simulations.report.forests import group_charts, joining_chart, settings_chart
from consilium.simulations.report.groups import everyone, read_groups
from consilium.simulations.report.learning import learning_charts
from consilium.simulations.report.recalibration import recalibration_chart
from consilium.simulations.report.risks import risk_charts
from consilium.simulations.report.statement import statement
from consilium.simulations.report.style import STYLE
from consilium.simulations.report.summary import Answer, answers

Record = Mapping[str, Any]
COUNTS = ("patients", "stays", "events", "unlabelled", "filtered", "outside_window", "duplicates",
          "skipped")  # fmt: skip


def report_page(study: Study, record: Record, settings: Record | None) -> str:
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
        *answer_charts(study, record.get("final_tables") or {}),
        *federated_chart(study, record),
    ]
    by_group = group_charts(study, groups, record.get("verdicts") or ())
    if record.get("joining"):
        by_group += joining_chart(record["joining"])
    by_group += recalibration_chart(record)
    rivals = [settings_chart(study, settings)] if settings else []
    training = learning_charts(study, record)
    outside = external_chart(record)
    looks = attributions_chart(study, record)
    charts = [*answer, *looks, *by_group, *outside, *rivals, *training]
    parts = [
        ("summary", "Summary", _summary(answers(study, record, groups, settings, whose))),
        ("answers", "How good are its answers?", _charts(answer)),
        ("looks", "What it looks at", _charts(looks)),
        ("groups", "For whom?", _charts(by_group)),
        ("outside", "At hospitals it never saw", _charts(outside)),
        ("rivals", "Against rivals", _charts(rivals)),
        ("training", "How it was trained", _charts(training)),
        ("privacy", "What is protected, from whom", _statement(study, record)),
        ("checks", "Before anyone uses it", _checks(checks(study, record, groups, settings))),
        ("data", "Data", _data(study, record)),
        ("card", "Model card (TRIPOD+AI)", _card(study, record, groups, settings)),
        ("numbers", "The numbers of the figures", "".join(chart.numbers() for chart in charts)),
    ]
    return document(f"Report: {study.title}", _head(study, record, settings), parts)


def document(title: str, head: str, parts: Iterable[tuple[str, str, str]]) -> str:
    """Return a page that needs nothing outside itself and runs nothing.

    Args:
        title: of the window.
        head: HTML of the header.
        parts: name, heading and HTML of each section; those without content are left out.
    """
    shown = [part for part in parts if part[2]]
    links = "".join(f"<li><a href='#{name}'>{heading}</a></li>" for name, heading, _ in shown)
    body = "".join(
        f"<section id='{name}' aria-labelledby='{name}-head'><h2 id='{name}-head'>{heading}</h2>"
        f"{content}</section>"
        for name, heading, content in shown
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header>{head}</header>"
        f"<nav aria-label='Contents'><ul>{links}</ul></nav><main>{body}</main></body></html>\n"
    )


def whose_risks(study: Study) -> str:
    """Return what has a risk of its own: patients, or steps or labels of theirs."""
    if study.task.kind == "multilabel":
        return "labels of patients"
    if not study.task.per_step:
        return "patients"
    return "hours" if (study.data.clock, study.data.step_h) == ("hour", 1) else "steps"


def _head(study: Study, record: Record, settings: Record | None) -> str:
    made_from = "run.json and compare.json" if settings else "run.json alone"
    return (
        f"{opening('Report of a federated run', study, record)}"
        f"<p class='small'>Study {html.escape(study.name)}, "
        f"<code>{html.escape(record['study_digest'][:12])}</code>; {len(study.sites)} sites; "
        f"{len(record['rounds'])} rounds; Consilium {html.escape(record['software'])}. "
        f"A simulation on one machine. Made from {made_from}.</p>"
    )


def opening(kind: str, study: Study, record: Record) -> str:
    """Return what a page begins with: its kind, the study, and whether its patients are real."""
    label = (
        "<p class='warning'>SYNTHETIC patients: made by a generator, nobody's data.</p>"
        if record["synthetic"]
        else ""
    )
    return (
        f"<p class='kind'>{kind}</p><h1>{html.escape(study.title)}</h1>"
        f"<p>{html.escape(study.purpose)}</p>{label}"
    )


def _summary(found: list[Answer]) -> str:
    cards = (
        f"<article><h3>{html.escape(a.question)}</h3><p><b>{html.escape(a.headline)}</b></p>"
        f"{bullets(a.support)}</article>"
        for a in found
    )
    return f"<div class='cards'>{''.join(cards)}</div>"


def _charts(charts: Iterable[Chart]) -> str:
    return "".join(chart.to_html() for chart in charts)


def _statement(study: Study, record: Record) -> str:
    return "".join(
        f"<h3>{html.escape(heading)}</h3>{bullets(sentences)}"
        for heading, sentences in statement(study, record)
    )


def _checks(found: list[Check]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(c.what)}</th>"
        f"<td class='{c.state}'>{c.state}</td><td>{html.escape(c.why)}</td></tr>"
        for c in found
    )
    return (
        "<div class='scroll'><table class='words'><caption>What must be shown first, and whether "
        "this run shows it</caption><thead><tr><th scope='col'>condition</th><th scope='col'>here"
        f"</th><th scope='col'>why</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _data(study: Study, record: Record) -> str:
    parts = []
    read = record.get("data") or {}
    if read:
        table = Table(
            headings=("site", *(name.replace("_", " ") for name in COUNTS)),
            rows=tuple((site, *(f"{told[n]:,}" for n in COUNTS)) for site, told in read.items()),
        )
        parts.append(table.to_html("What each site read, and what it set aside"))
    outside = {
        name: sum(told["out_of_range"].get(name, 0) for told in read.values())
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
    parts.append(table.to_html("Variables, as the study declares them"))
    test = record["test"]
    events = (
        f"{test['positives']} with the outcome" if "positives" in test else "no outcome counted"
    )
    told = f"Test patients: {test['patients']}, {test['rows']} known outcomes, {events}."
    return f"<p>{html.escape(told)}</p>{''.join(parts)}"


def _card(study: Study, record: Record, groups: Any, settings: Record | None) -> str:
    items = model_card(study, record, groups, settings)
    rows = "".join(
        f"<tr><th scope='row'>{i.number}</th><td>{html.escape(i.name)}</td>"
        f"<td{'' if i.text else ' class=unknown'}>{html.escape(i.text or NOT_REPORTED)}</td></tr>"
        for i in items
    )
    missing = sum(i.text is None for i in items)
    return (
        f"<p>{len(items) - missing} of {len(items)} items are filled from the run; the others are "
        "for the authors.</p><div class='scroll'><table class='words'><caption>Items of TRIPOD+AI "
        "(BMJ 2024;385:e078378), numbered as published, in our words</caption><thead><tr>"
        "<th scope='col'>item</th><th scope='col'>about</th><th scope='col'>reported</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def bullets(sentences: Iterable[str]) -> str:
    """Return sentences as a list; nothing of none."""
    items = "".join(f"<li>{html.escape(s)}</li>" for s in sentences)
    return f"<ul>{items}</ul>" if items else ""
