"""Charts of a run by round: what it learned, the privacy it spent, the bytes it sent, its time."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.federation.clear_sum import CLEAR
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.drawing import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    Chart,
    Table,
    delta_text,
    number,
    picture,
    round_axis,
    thinned,
)
from consilium.simulations.report.records import left_out_sentence, size

COUNTED = " This run summed in the clear: these bytes were counted, not sent."
PHASES = {
    "keys": "exchanging keys",
    "update": "training at the sites",
    "agree": "agreeing who survived",
    "unmask": "opening the sum",
    "remove": "checking the sum",
}


def learning_charts(study: Study, record: JsonRecord) -> list[Chart]:
    """Return the charts of a run's rounds; none for a record without training rounds."""
    if not record["rounds"]:
        return []
    charts = [_learning(study, record)]
    if record["privacy"]["epsilon"] is not None:
        charts.append(_epsilon(record))
    return [*charts, _seconds(record), _traffic(record)]


def _learning(study: Study, record: JsonRecord) -> Chart:
    name = FIGURES[study.task.kind][0]
    done = [(n, r) for n, r in enumerate(record["rounds"], start=1) if r["void"] is None]
    judged = [(n, r["test"]) for n, r in done if r.get("test")]
    validated = [
        (n - 1, value)
        for n, r in done
        if r["validation"] and (value := _validated(r["validation"], name)) is not None
    ]
    void = [n for n, r in enumerate(record["rounds"], start=1) if r["void"] is not None]
    final, loss_name = record["test"][name], _loss_name(study)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        rounds = [n for n, _ in judged]
        left.plot(rounds, [t[name] for _, t in judged], color=BLUE, label="test patients")
        left.axhspan(final["low"], final["high"], color=BLUE, alpha=0.12, lw=0)
        if validated:
            left.plot(*zip(*validated, strict=True), ".", color=ORANGE, label="sums over sites")
            left.legend(loc="best")
        left.set_title(f"{TITLES[name]} on test patients")
        right.plot(rounds, [t["loss"] for _, t in judged], color=BLUE)
        right.set_title(loss_name)
        for axes in (left, right):
            round_axis(axes)
            for n in void:
                axes.axvline(n, color=ORANGE, lw=0.8, ls=":")

    first = judged[0][1][name] if judged else None
    caption = (
        f"Left: {TITLES[name]} after each round; the band is the 95 % interval of the final "
        "model. Right: the loss, lower is better."
        + (" Dots: sites' validation patients, from sums over the sites." if validated else "")
        + (
            f" Dotted lines: {len(void)} void rounds, which left the model unchanged."
            if void
            else ""
        )
        + (f" {out}" if (out := left_out_sentence(record)) else "")
        + " No round was chosen by this curve: the final model is that of the last round."
    )
    return Chart(
        name="learning",
        title="Learning curves",
        alt=f"{TITLES[name]} goes from {number(first)} after the first round to "
        f"{number(final['value'])} ({number(final['low'])} to {number(final['high'])}) after the "
        f"last of {len(record['rounds'])} rounds.",
        caption=caption,
        drawing=picture("learning", draw),
        table=Table(
            headings=("round", f"{TITLES[name]}, test", "loss, test"),
            rows=thinned((str(n), number(t[name]), number(t["loss"])) for n, t in judged),
        ),
    )


def _validated(validation: JsonRecord, name: str) -> float | None:
    """Return the figure from the sites' secure sums: the mean over outputs that have it."""
    if name == "auroc":
        values = [output[name] for output in validation["outputs"] if output]
    elif name == "c_index":
        found = validation.get("survival")
        return None if found is None else float(found[name]["value"])
    else:
        values = [value for value in np.ravel(validation[name]) if value is not None]
    return float(np.mean(values)) if values else None


def _loss_name(study: Study) -> str:
    if study.task.kind == "regression":
        return "Squared error (spreads², a patient)"
    if study.task.kind == "survival":
        return "Negative log-likelihood (nats, a patient)"
    return "Cross entropy (nats, a patient)"


def _epsilon(record: JsonRecord) -> Chart:
    statistics = [r["epsilon"] for r in record["other_rounds"] if r["purpose"] == "statistics"]
    calibration = [r["epsilon"] for r in record["other_rounds"] if r["purpose"] == "calibration"]
    spent = [*statistics[-1:], *(r["epsilon"] for r in record["rounds"]), *calibration]
    first = 1 - len(statistics[-1:])
    rounds = list(range(first, first + len(spent)))
    budget, unit = record["privacy"]["epsilon_budget"], record["privacy"].get("unit", "patient")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.step(rounds, spent, where="post", color=BLUE, label=f"spent on a training {unit}")
        axes.axhline(budget, color=GREY, ls="--", label=f"the study's bound, {budget:g}")
        axes.set_ylim(0, budget * 1.15)
        axes.set_ylabel("epsilon")
        axes.legend(loc="lower right")
        round_axis(axes)

    share = f"{number(spent[0], 2)} before the first round, " if first == 0 else ""
    return Chart(
        name="epsilon",
        title=f"Privacy budget spent on one training {unit}",
        alt=f"Epsilon {share}{number(spent[-1], 2)} after the last, of at most {budget:g}.",
        caption="Cumulative epsilon of all that left the sites, at delta "
        f"{delta_text(record['privacy'])}; round 0 is the normalisation statistics"
        + (f", the last {len(calibration)} are calibration" if calibration else "")
        + ". Patients held out for validation pay for evaluations only.",
        drawing=picture("epsilon", draw, height=2.8),
        table=Table(
            headings=("round", "epsilon spent"),
            rows=thinned((str(n), number(e, 3)) for n, e in zip(rounds, spent, strict=True)),
        ),
    )


def _seconds(record: JsonRecord) -> Chart:
    rounds = record["rounds"]
    phases = [p for p in PHASES if any(p in r["phases"] for r in rounds)]
    phases += sorted({p for r in rounds for p in r["phases"]} - set(phases))
    taken = {p: np.array([r["phases"].get(p, 0.0) for r in rounds]) for p in phases}
    numbers = np.arange(1, len(rounds) + 1)
    labels = [PHASES.get(p, p) for p in phases]
    seconds = [r["seconds"] for r in rounds]
    median, top = float(np.median(seconds)), 1.3 * float(np.percentile(seconds, 98))
    cut = f" The longest round, {max(seconds):.2f} s, is cut off." if max(seconds) > top else ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(phases))]
        axes.stackplot(
            numbers, list(taken.values()), labels=labels, colors=colours, step="mid", lw=0
        )
        axes.set_ylabel("seconds")
        axes.set_ylim(0, top)
        axes.margins(x=0)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        round_axis(axes)

    return Chart(
        name="seconds",
        title="Seconds per round, by phase",
        alt=f"A round took {median:.2f} s in the median; "
        + "; ".join(
            f"{lab} {np.median(taken[p]):.3f} s" for p, lab in zip(phases, labels, strict=True)
        )
        + ".",
        caption="All sites of this run shared one machine, so a federation of real machines "
        f"trains faster and waits longer for the network.{cut}",
        drawing=picture("seconds", draw, height=3.2),
        table=Table(
            headings=("phase", "median s", "largest s", "sum s"),
            rows=tuple(
                (lab, *(f"{f(taken[p]):.3f}" for f in (np.median, np.max, np.sum)))
                for p, lab in zip(phases, labels, strict=True)
            ),
        ),
    )


def _traffic(record: JsonRecord) -> Chart:
    done = [r for r in record["rounds"] if r["void"] is None] or record["rounds"]
    sites = sorted({site for r in done for site in r["bytes_up"]})

    def mean(direction: str, site: str) -> float:
        return float(np.mean([r[direction].get(site, 0) for r in done]))

    up, down = ([mean(d, s) for s in sites] for d in ("bytes_up", "bytes_down"))
    rows = np.arange(len(sites))
    total = sum(sum(r[d].values()) for r in record["rounds"] for d in ("bytes_up", "bytes_down"))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh(rows - 0.19, [b / 1000 for b in up], 0.36, color=BLUE, label="sent by the site")
        axes.barh(rows + 0.19, [b / 1000 for b in down], 0.36, color=ORANGE, label="received")
        name_rows(axes, sites)
        axes.set_xlabel("kB a round, mean")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)

    return Chart(
        name="traffic",
        title="Bytes per round and site",
        alt=f"A site sends {size(float(np.mean(up)))} and receives {size(float(np.mean(down)))} "
        f"a round on average; {size(total)} in the whole run.",
        caption="Everything of a training round: keys, the masked update, shares. Before transport "
        f"encryption. All training rounds: {size(total)}."
        + (COUNTED if record.get("sum") == CLEAR else ""),
        drawing=picture("traffic", draw, height=1.5 + 0.32 * len(sites)),
        table=Table(
            headings=("site", "sent a round", "received a round"),
            rows=tuple((s, size(u), size(d)) for s, u, d in zip(sites, up, down, strict=True)),
        ),
    )


def name_rows(axes: Axes, names: list[str]) -> None:
    """Label the vertical axis with a row for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
