"""The operator's page: who is there, how far each study is, what happened; read-only.

Made anew for each request, without scripts: the browser asks again every few seconds. What a site,
a study or a log says is shown as text, because ``templates/operator.html`` escapes every value.
The page shows sums and totals, no site's own figures, except the lifetime budget that a hospital
says it has left, if its policy lets it say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.round_records import recent_records, rounds_file
from consilium.server.service.operator_tables import (
    Table,
    events_table,
    last_round_table,
    rounds_table,
    sites_table,
)
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.recent import recent_entries
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.service.pages import render_page

AGAIN_S = 5
PACKAGE = "consilium.server.service"
MOST_ROUNDS = 300
_LOOKED_AT = 400  # audit entries; most only note another log's head and are not shown
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A small curve: its points in a box of 200 by 44, and the texts beside it."""

    name: str
    told: str
    points: str
    last: str
    low: str
    high: str


@dataclass(frozen=True, kw_only=True)
class StudyShown:
    """What the page shows of a study; ``planned`` is None where the study cannot be read."""

    title: str
    name: str
    digest: str
    state: str
    detail: str | None
    done: int
    planned: int | None
    privacy: str
    curves: tuple[Curve, ...]
    tables: tuple[Table, ...]


def read_page(folder: CoordinatorFolder, status: JsonRecord, wrong: Sequence[str]) -> str:
    """Return the page for the folder's present state.

    Args:
        folder: of the coordinator.
        status: what :func:`consilium.server.service.overview.status` returns.
        wrong: one sentence for each thing that is wrong.
    """
    return render_page(
        PACKAGE, "operator.html", again_s=AGAIN_S, **page_content(folder, status), wrong=wrong
    )


def sign_in_elsewhere() -> str:
    """Return the page that stands in the place of the other where persons sign in."""
    return render_page(PACKAGE, "elsewhere.html")


def page_content(folder: CoordinatorFolder, status: JsonRecord) -> dict[str, Any]:
    """Return what ``operator_main.html`` shows, for every page that has it.

    Args:
        folder: of the coordinator.
        status: what :func:`consilium.server.service.overview.status` returns.
    """
    rounds = {
        study["digest"]: recent_records(
            rounds_file(folder, bytes.fromhex(study["digest"])), MOST_ROUNDS
        )[::-1]
        for study in status["studies"]
    }
    return {
        "version": status["version"],
        "certificate_ends": status["certificate_ends"][:10],
        "sites": sites_table(status["sites"]),
        "studies": [
            _study(study, rounds[study["digest"]], status["sites"])
            for study in reversed(status["studies"])
        ],
        "events": events_table(recent_entries(folder.path / AUDIT_FILE, _LOOKED_AT)),
    }


def _study(
    study: JsonRecord, rounds: Sequence[JsonRecord], sites: Sequence[JsonRecord]
) -> StudyShown:
    trained = [r for r in rounds if r["purpose"] == "training"]
    return StudyShown(
        title=study["title"],
        name=study["study"],
        digest=study["digest"][:16],
        state=study["state"],
        detail=study["detail"],
        done=_trained_in_all(study, trained),
        planned=study["rounds"],
        privacy=_budget(study),
        curves=_curves(trained),
        tables=(last_round_table(study, rounds, sites), rounds_table(rounds)) if rounds else (),
    )


def _trained_in_all(study: JsonRecord, trained: Sequence[JsonRecord]) -> int:
    """Return the number of training rounds so far, also of those before the ones read.

    It follows from the last round's number, which counts all rounds; round 1 is for statistics.
    """
    if not trained:
        return 0
    if "trained" in trained[-1]:
        return int(trained[-1]["trained"])
    if len(trained) < MOST_ROUNDS - 2:
        return len(trained)
    return int(min(trained[-1]["round"] - 1, study["rounds"] or trained[-1]["round"]))


def _budget(study: JsonRecord) -> str:
    last, bound = study["last_round"], study["epsilon_bound"]
    if bound is None:
        return "No differential privacy."
    spent = (last or {}).get("epsilon") or 0.0
    return (
        f"Epsilon of a training {study.get('unit') or 'patient'}: {spent:.2f} spent, "
        f"{max(bound - spent, 0.0):.2f} left "
        f"of the study's {bound:g}. What a hospital has left for its lifetime, it does not send: "
        "'consilium-site status' there tells."
    )


def _curves(trained: Sequence[JsonRecord]) -> tuple[Curve, ...]:
    """Return small curves of the sums' figures by round, each with two values at least."""
    judged = [r["validation"] for r in trained if r.get("validation")]
    risks = [[o["auroc"] for o in v["outputs"] if o] for v in judged]
    ranks = [v["survival"]["c_index"]["value"] for v in judged if v.get("survival")]
    series = (
        ("validation loss", [v["loss"] for v in judged]),
        ("validation AUROC, mean", [sum(v) / len(v) for v in risks if v]),
        ("validation C-index", ranks),
        ("epsilon spent", [r["epsilon"] for r in trained]),
        ("seconds a round", [r["seconds"] for r in trained]),
    )
    known = ((name, [v for v in values if v is not None]) for name, values in series)
    return tuple(_curve(name, values) for name, values in known if len(values) > 1)


def _curve(name: str, values: Sequence[float]) -> Curve:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return Curve(
        name=name,
        told=f"{name}: now {values[-1]:.4g}; from {low:.4g} to {high:.4g} in {len(values)} rounds",
        points=" ".join(
            f"{200 * i / (len(values) - 1):.1f},{44 - 40 * (value - low) / span:.1f}"
            for i, value in enumerate(values)
        ),
        last=f"{values[-1]:.4g}",
        low=f"{low:.4g}",
        high=f"{high:.4g}",
    )
