"""Measurements in Prometheus' text format (version 0.0.4), which any collector reads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One value, with the labels that distinguish it within its metric."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named measurement; ``help`` says what and in which unit."""

    name: str
    help: str
    samples: tuple[Sample, ...]
    kind: Literal["gauge", "counter"] = "gauge"


def to_text(metrics: Iterable[Metric]) -> str:
    """Return the metrics in the text format; a metric without samples is left out."""
    lines = []
    for metric in metrics:
        if metric.samples:
            lines.append(f"# HELP {metric.name} {_escape(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [
                f"{metric.name}{_labels(s.labels)} {_number(s.value)}" for s in metric.samples
            ]
    return "\n".join([*lines, ""])


def gauge(name: str, help: str, value: float | None, **labels: str) -> Metric:  # noqa: A002 - the format's own word
    """Return a metric with one sample, or with none if ``value`` is None."""
    samples = () if value is None else (Sample(value=float(value), labels=labels),)
    return Metric(name=name, help=help, samples=samples)


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)
