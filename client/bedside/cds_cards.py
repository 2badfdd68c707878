"""CDS Hooks cards: what a clinician reads of an assessment. HL7, "CDS Hooks 2.0".

A card's text is made of the study, the model and its numbers; nothing that a resource says is
quoted.
"""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from consilium.client.bedside.assessment import Assessment
from consilium.client.bedside.risk_assessment import (
    interval_sentence,
    missing_sentence,
    percent,
    reasons_sentence,
)
from consilium.shared.export.limits import limits_of
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.figures.operating_range import Threshold

LONGEST_SUMMARY = 139  # characters; the specification says below 140
CRITICAL, WARNING, INFO = "critical", "warning", "info"
_MARKDOWN = re.compile(r"([\\`*_\[\]#|<>~])")


def cards_of(
    signed: SignedModel, one: Assessment, levels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a card for each output.

    Args:
        signed: the model.
        one: what it says.
        levels: the indicator that each of the model's thresholds calls for, by their names, the
            most urgent first.
    """
    return [_answered(signed, one, place, levels) for place in range(len(one.outputs))]


def refusal_card(signed: SignedModel, sentence: str) -> dict[str, Any]:
    """Return a card that gives no answer, and says why."""
    return _card(signed, sentence, INFO, [_plain(sentence), *_about(signed)])


def _answered(
    signed: SignedModel, one: Assessment, place: int, levels: Mapping[str, str]
) -> dict[str, Any]:
    output = one.outputs[place]
    reached = threshold_reached(signed, place, output["value"], levels)
    interval = ""
    if "low" in output:
        interval = (
            f" (of patients like this, {percent(output['low'])} to {percent(output['high'])} %)"
        )
    summary = f"{percent(output['value'])} % risk: {output['name']}{interval}"
    said = [
        f"**{_plain(output['name'])}: {percent(output['value'])} %**",
        interval_sentence(output),
        "" if reached is None else _alarm(reached[1]),
        _window(one),
        _plain(reasons_sentence(output)),
        _plain(missing_sentence(one)),
        *_about(signed),
    ]
    return _card(signed, summary, INFO if reached is None else reached[0], said)


def threshold_reached(
    signed: SignedModel, output: int, risk: float, levels: Mapping[str, str]
) -> tuple[str, Threshold] | None:
    """Return the highest indicator that a risk calls for, with its threshold."""
    validation = signed.trained.validation
    points = validation.thresholds[output] if validation and validation.thresholds else ()
    for name, indicator in levels.items():
        for point in points:
            if point.name == name and risk >= point.threshold:
                return indicator, point
    return None


def _alarm(point: Threshold) -> str:
    return (
        f"Alarm from {percent(point.threshold)} % ({_plain(point.name)}); among validation "
        f"patients it found {percent(point.sensitivity)} % of those with the outcome, and "
        f"{percent(1 - point.specificity)} % of those without it had an alarm."
    )


def _window(one: Assessment) -> str:
    if one.begin is None or one.end is None:
        return ""
    return f"From {one.begin:%Y-%m-%d %H:%M} to {one.end:%Y-%m-%d %H:%M} UTC."


def _about(signed: SignedModel) -> list[str]:
    manifest = signed.manifest
    return [
        *(_plain(sentence) for sentence in limits_of(manifest, signed.trained.study)),
        f"Model of study {_plain(manifest.study)}, {signed.manifest_digest[:16]}, "
        f"made {manifest.made[:10]}.",
    ]


def _card(signed: SignedModel, summary: str, indicator: str, said: list[str]) -> dict[str, Any]:
    if signed.manifest.simulated:
        summary = f"SIMULATION, not for patients: {summary}"
    if len(summary) > LONGEST_SUMMARY:
        summary = summary[: LONGEST_SUMMARY - 3].rstrip() + "..."
    return {
        "uuid": str(uuid.uuid4()),
        "summary": summary,
        "indicator": indicator,
        "detail": "\n\n".join(sentence for sentence in said if sentence),
        "source": {"label": f"Consilium: {signed.manifest.title}"[:LONGEST_SUMMARY]},
    }


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", text)
