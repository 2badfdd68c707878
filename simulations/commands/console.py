"""What is printed to the terminal: the study before it runs, a line for each round, the result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from consilium.server.figures.feasibility import persons_in_words
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.privacy.accounting import plan
from consilium.shared.service.terminal import Table, Terminal, styled
from consilium.shared.study.definition import Study
from consilium.simulations.commands.all_studies import TABLE, Row, as_markdown
from consilium.simulations.experiments.external import external_sentences
from consilium.simulations.experiments.planning import Choice, Margin, SumPlan
from consilium.simulations.experiments.recalibrating import recalibration_sentences
from consilium.simulations.experiments.rivals import (
    AGAINST,
    ALIKE,
    rival_title,
    standing,
)
from consilium.simulations.federation.clear_sum import CLEAR
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER
from consilium.simulations.report.records import (
    COMPARE,
    REPORT,
    RUN,
    STRATEGIES,
    bytes_up,
    size,
)
from consilium.simulations.runs.compare import PRIVATE

console = Terminal(soft_wrap=False)


def announce(study: Study, *, protocol: bool = False) -> None:
    """Print what the study is, what protects it, and from whom."""
    lines: list[str | Text] = [styled(study.title, "bold")]
    if study.data.source.startswith("synthetic"):
        lines.append(styled("Synthetic patients: nobody's data.", "yellow"))
    lines.append(
        f"{len(study.sites)} sites, {study.rounds} rounds, {study.model.described}; study "
        f"{study.digest.hex()[:12]}"
    )
    costs = plan(study)
    if costs is None:
        lines.append(styled("No differential privacy: for public data only.", "yellow"))
    else:
        lines.append(
            f"Each {study.privacy.unit}: epsilon at most {study.privacy.epsilon:g} at delta "
            f"{study.privacy.delta:g}, noise multiplier "
            f"{costs.training_round.noise_multiplier:.2f}, kept by a ledger at each site."
        )
        if study.privacy.caveat:
            lines.append(styled(study.privacy.caveat, "yellow"))
    groups = study.aggregation.groups
    if not protocol:
        lines.append("Updates are added in the clear; with --protocol, and among hospitals:")
    lines.append(
        f"Only masked updates leave a site; a sum opens with {study.minimum_sites} of "
        f"{study.group_size} sites ({study.dropouts_tolerated} may fail)"
        + (f", in each of {groups} groups." if groups > 1 else ".")
    )
    console.print(Panel(Group(*lines), expand=False))


class Progress:
    """A line for each round: sites, loss, the task's first figure, epsilon, bytes, seconds."""

    def __init__(self, study: Study) -> None:
        self._study, self._rounds = study, study.rounds
        self._figure = FIGURES[study.task.kind][0]
        self._trained = 0
        self._begun = False

    def round(self, record: dict[str, Any]) -> None:
        """Print one round's line, and why a round was void or a site did not take part."""
        if not self._begun:
            self._begun = True
            console.print(
                f"{'round':>10}  {'sites':>5}  {'loss':>6}  {TITLES[self._figure]:>8}  "
                f"{'epsilon':>7}  {'sent/site':>9}  {'seconds':>7}",
                style="bold",
            )
        trained = record["purpose"] == "training"
        self._trained += int(trained)
        label = f"{self._trained}/{self._rounds}" if trained else record["purpose"]
        test = record.get("test") or {}
        epsilon = record["epsilon"]
        console.print(
            f"{label:>10}  {len(record['sites']):>5}  {_number(test.get('loss')):>6}  "
            f"{_number(test.get(self._figure)):>8}  "
            f"{'-' if epsilon is None else format(epsilon, '.2f'):>7}  "
            f"{size(bytes_up([record])):>9}  {record['seconds']:>7.2f}"
        )
        for row in persons_in_words(self._study, record.get("persons", ())):
            console.print(f"  persons {' '.join(row)}", markup=False)
        if record.get("left_out"):
            doing = "looking for who sends garbage, " if record["narrowing"] else ""
            sentence = f"  {doing}without {', '.join(record['left_out'])}"
            console.print(sentence, style="yellow", markup=False)
        if record["void"]:
            console.print(f"  void: {record['void']}", style="yellow", markup=False)
        for site, sentence in record["refusals"].items():
            console.print(f"  {site}: {sentence}", style="yellow", markup=False)


def show_result(study: Study, record: dict[str, Any], out: Path) -> None:
    """Print the final table and the paths of the files."""
    table = Table(title=_title(record), title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for group, figures in {"": record["test"], **record.get("test_groups", {})}.items():
        shown = FIGURES[study.task.kind][: 1 if group else None]
        for key in shown:
            estimate = figures[key]
            table.add_row(
                f"{TITLES[key]}, {group}" if group else TITLES[key],
                f"{estimate['value']:.3f}",
                f"{estimate['low']:.3f} to {estimate['high']:.3f}",
            )
    for number, share in enumerate(record["test"].get("sensitivity", ())):
        table.add_row(f"sensitivity, class {number}", _number(share), "")
    privacy = record["privacy"]
    if privacy["epsilon"] is None:
        table.add_row("epsilon", "none", "no differential privacy")
    else:
        table.add_row(
            "epsilon spent",
            f"{privacy['epsilon']:.2f}",
            f"a {privacy['unit']}, delta {privacy['delta']:g}",
        )
    sent = "a round, by the protocol" if record.get("sum") == CLEAR else "a round, masked"
    table.add_row("sent by a site", size(record["bytes_up_per_site_per_round"]), sent)
    table.add_row("seconds", f"{record['seconds']:.1f}", f"{study.rounds} rounds")
    console.print(table)
    for verdict in record["verdicts"]:
        style = "yellow" if verdict["serious"] else None
        console.print(verdict["sentence"], style=style, markup=False)
    for sentence in recalibration_sentences(record):
        console.print(sentence, markup=False)
    if record.get("external"):
        _show_external(record["external"])
    for name, what in (
        ("model.safetensors", "model"),
        (RUN, "record"),
        (REPORT, "report"),
    ):
        console.print(f"{what:>7}  {out / name}", markup=False, soft_wrap=True)


def _show_external(found: dict[str, Any]) -> None:
    """Print three models for each hospital: its own, one trained without it, one with it."""
    console.print()
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(f"{TITLES[found['figure']]} at", no_wrap=True)
    for heading in ("n", "alone", "never saw it", "included", "gain", "obs/exp"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in found["sites"]:
        if not site["judged"]:
            continue
        shown = (site[key] for key in ("local", "external", "federated", "gain", "calibration"))
        cells = ("-" if one is None or one["value"] is None else _interval(one) for one in shown)
        table.add_row(site["site"], str(site["patients"]), *cells)
    console.print(table)
    console.print(
        "never saw it: the study run without this hospital. gain: included over never saw it. "
        "obs/exp: outcomes for each one predicted, by the model that never saw it. 95 % intervals."
    )
    for sentence in external_sentences(found):
        console.print(sentence, markup=False)


def show_comparison(study: Study, compared: dict[str, dict[str, Any]], out: Path) -> None:
    """Print the table of all settings; it fits 80 columns."""
    first = FIGURES[study.task.kind][0]
    _show_settings(study, compared)
    _show_groups(compared, first)
    _show_rivals(compared, first)
    pooled, federated = (compared[setting]["test"] for setting in ("pooled", "federated"))
    kept = {
        name: f"{100 * federated[name]['value'] / pooled[name]['value']:.1f} %"
        for name in (first, "accuracy")
        if name in pooled and pooled[name]["value"] != 0  # no share can be kept of nothing
    }
    if study.task.kind == "regression" and kept:
        console.print(f"{TITLES[first]} of federated without privacy is {kept[first]} of pooled.")
    elif kept:
        shares = " and ".join(f"{share} of pooled {TITLES[name]}" for name, share in kept.items())
        console.print(f"Federated without privacy keeps {shares}.")
    _show_classes(compared)
    for name, what in ((COMPARE, "record"), (REPORT, "report")):
        console.print(f"{what}  {out / name}", markup=False, soft_wrap=True)


def show_strategies(
    study: Study, compared: dict[str, dict[str, Any]], refused: dict[str, str], out: Path
) -> None:
    """Print the table of all strategies, and why some make no sense in this study."""
    _show_settings(study, compared)
    _show_groups(compared, FIGURES[study.task.kind][0])
    _show_classes(compared)
    console.print(
        "Where hospitals have models of their own (local, or parts that stay), each is judged on "
        "its own patients. ε: what a patient pays; - is without privacy."
    )
    for name, sentence in refused.items():
        console.print(f"  {name}: {sentence}", style="yellow", markup=False)
    for file, what in ((STRATEGIES, "record"), (REPORT, "report")):
        console.print(f"{what}  {out / file}", markup=False, soft_wrap=True)


def _show_settings(study: Study, compared: dict[str, dict[str, Any]]) -> None:
    """Print title, test cohort, and a row of figures for each setting."""
    console.print(f"{study.title}\n{_title(next(iter(compared.values())))}")
    first, second, *others = FIGURES[study.task.kind]
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("setting", no_wrap=True)
    titles = [TITLES[name] for name in (first, second, *others)]
    for heading in (*titles, "ε", "s", "sent"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, record in compared.items():
        epsilon = record["privacy"]["epsilon"]
        sent = record["bytes_up_per_site_per_round"]
        table.add_row(
            name.split("-epsilon-")[0] + (", mean" if "sites" in record else ""),
            *(_interval(record["test"][key]) for key in (first, second)),
            *(f"{record['test'][key]['value']:.3f}" for key in others),
            "-" if epsilon is None else f"{epsilon:.2f}",
            f"{record['seconds']:.0f}",
            size(sent) if sent else "-",
        )
    console.print(table)
    console.print(
        f"Below {TITLES[first]} and {TITLES[second]}: 95 % bootstrap intervals. "
        "s: seconds. sent: by a site, each round."
    )


def show_sum_plan(found: SumPlan) -> None:
    """Print who shares masks with how many, and how many sites may fail."""
    everyone = found.neighbours == found.sites - 1
    console.print(
        (f"{found.groups} secure sums, each of" if found.groups > 1 else "One secure sum of")
        + f" {found.sites} sites; opened with {found.minimum_sites} or more. Each site shares "
        f"masks with {'all others' if everyone else f'{found.neighbours} neighbours'}; "
        f"{found.sharing_threshold} shares open a secret. Of these sites: {found.affords}."
    )
    for failed, probability in found.void_probability.items():
        console.print(
            f"  {failed} sites failing at random void a round with p <= {probability:.1e}"
        )


def _show_classes(compared: dict[str, dict[str, Any]]) -> None:
    """Print the share of each class that every setting recognises, in a multi-class task."""
    classes = [(name, record["test"].get("sensitivity", ())) for name, record in compared.items()]
    if not classes[0][1]:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("sensitivity for class", no_wrap=True)
    for number in range(len(classes[0][1])):
        table.add_column(str(number), justify="right")
    for name, shares in classes:
        table.add_row(name, *(_number(share) for share in shares))
    console.print(table)


def _show_rivals(compared: dict[str, dict[str, Any]], figure: str) -> None:
    """Print how much better each setting is than each model without recurrence, and in words.

    ``figure`` is the task's first. A comparison of an older version has no such differences.
    """
    ours = {name: record[AGAINST] for name, record in compared.items() if record.get(AGAINST)}
    if not ours:
        return
    rivals = list(next(iter(ours.values())))
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(f"{TITLES[figure]} better by, over", no_wrap=True)
    for rival in rivals:
        table.add_column(rival, justify="right", no_wrap=True)
    for name, gains in ours.items():
        table.add_row(name, *(_signed(gains[rival][figure]) for rival in rivals))
    console.print(table)
    console.print("Above: differences on the same test patients, 95 % paired bootstrap intervals.")
    better = min if figure in LOWER_IS_BETTER else max
    best = better(rivals, key=lambda rival: compared[rival]["test"][figure]["value"] or 0)
    for name, gains in ours.items():
        if name.startswith("federated"):
            found = standing(gains[best][figure])
            told = found if found == ALIKE else f"{found} than it, beyond noise"
            sentence = f"{name} beside {rival_title(best)}, the best of them: {told}."
            console.print(sentence, markup=False)


def _show_groups(compared: dict[str, dict[str, Any]], figure: str) -> None:
    """Print the figure in every group of test patients, by setting and by each site's own model."""
    groups = list(next(iter(compared.values())).get("test_groups", ()))
    if not groups:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    kinds = {name.rpartition("-")[0] + "-" for name in groups if "-" in name}
    every = len(kinds) == 1 and all("-" in name for name in groups)
    alike = kinds.pop() if every else ""  # common beginning: "hospital-" of hospital-1, ...
    table.add_column(f"{TITLES[figure]} at {alike}".rstrip(), no_wrap=True)
    for group in groups:
        table.add_column(group.removeprefix(alike), justify="right")
    for name, record in compared.items():
        rows = {name: record["test_groups"]}
        if "sites" in record:
            rows = {f"{site} alone": by["groups"] for site, by in record["sites"].items()}
        for label, by_group in rows.items():
            table.add_row(label, *(_number(by_group[group][figure]["value"]) for group in groups))
    console.print(table)


def show_studies(rows: list[Row], out: Path) -> None:
    """Print the table of all studies as Markdown, to be pasted elsewhere."""
    console.print(as_markdown(rows), markup=False, soft_wrap=True)
    console.print(f"table  {out / TABLE}", markup=False, soft_wrap=True)


def show_seeds(study: Study, summary: dict[str, Any], out: Path) -> None:
    """Print the means of a comparison over seeds; it fits 80 columns."""
    settings = summary["settings"]
    first, second, *_ = next(iter(settings.values()))["test"]
    console.print(f"{study.title}\nMeans of {len(summary['seeds'])} seeds")
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("setting", no_wrap=True)
    for heading in ("epsilon", first.upper(), "95 % interval", "of pooled", "by seed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(second.upper(), justify="right", no_wrap=True)
    for name, setting in settings.items():
        figure = setting["test"][first]
        private = setting["epsilon"] is not None
        table.add_row(
            setting["mode"] if name.startswith(PRIVATE) else name,
            f"{setting['epsilon']:.2f}" if private else "-",
            f"{figure['value']:.3f}",
            f"{figure['low']:.3f}-{figure['high']:.3f}",
            "-" if setting["kept"] is None else f"{100 * setting['kept']:.1f} %",
            " ".join(f"{value:.3f}".lstrip("0") for value in figure["by_seed"]),
            f"{setting['test'][second]['value']:.3f}",
        )
    console.print(table)
    console.print(
        f"of pooled: the mean {first.upper()} over that of pooled training without privacy. "
        "Intervals cover the test's patients and the seeds."
    )
    _show_groups(settings, first)
    _show_rivals(settings, first)
    console.print(f"record  {out / 'seeds.json'}", markup=False, soft_wrap=True)


def show_sweep(study: Study, found: Mapping[str, JsonRecord], out: Path) -> None:
    """Print a line for each setting of a sweep."""
    console.print(f"{study.title}\n{len(found)} settings")
    first = next(name for name, value in next(iter(found.values()))["test"].items()
                 if isinstance(value, dict))  # fmt: skip
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("setting", no_wrap=True)
    for heading in ("epsilon", first.upper(), "95 % interval", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, record in found.items():
        figure, spent = record["test"][first], record["privacy"]["epsilon"]
        table.add_row(
            name,
            "-" if spent is None else f"{spent:.2f}",
            _number(figure["value"]),
            _interval(figure),
            f"{record['seconds']:.1f}",
        )
    console.print(table)
    console.print(f"record  {out / 'sweep.json'}", markup=False, soft_wrap=True)


def show_engine(computed: Mapping[str, int]) -> None:
    """Print which machine of a cluster computed how many of the sites' vectors."""
    machines = ", ".join(f"{count} on {machine}" for machine, count in computed.items())
    console.print(f"sites' vectors computed: {machines}", markup=False, soft_wrap=True)


def show_plan(study: Study, found: list[Choice], patients: int) -> None:
    """Print the trade-off table of a study."""
    console.print(
        f"{study.name}, mode {study.privacy.mode}, {len(study.sites)} sites of {patients} "
        f"patients, clip norm {study.privacy.clip_norm:g}, delta {study.privacy.delta:g}"
    )
    table = Table()
    for heading in ("epsilon", "rounds", "multiplier", "noise", "SNR step", "SNR study"):
        table.add_column(heading, justify="right")
    for choice in found:
        own = choice.epsilon == study.privacy.epsilon and choice.rounds == study.rounds
        table.add_row(
            f"{choice.epsilon:g}",
            str(choice.rounds),
            f"{choice.noise_multiplier:.3f}",
            f"{choice.step_noise:.2e}",
            f"{choice.step_signal_to_noise:.2f}",
            f"{choice.study_signal_to_noise:.2f}",
            style="bold" if own else None,
        )
    console.print(table)
    console.print(
        "multiplier: noise / clip norm on the sum of a step. noise: a coordinate of the mean step, "
        "in clip norms. SNR: clip norm over the length of the noise, at best. Bold: the study as "
        "it stands. Nothing was spent."
    )
    costs = plan(study)
    if costs is not None and costs.calibration is not None:
        console.print(
            f"Of the study's epsilon {study.privacy.epsilon:g}, {costs.calibrations} calibration "
            f"round(s) with multiplier {costs.calibration.noise_multiplier:.3f} are paid too."
        )


def show_margins(study: Study, found: list[Margin]) -> None:
    """Print what it costs to count on the noise of fewer sites or more; nothing if not shared."""
    if not found:
        return
    table = Table()
    for heading in ("must answer", "may collude", "counted on", "noise", "or epsilon"):
        table.add_column(heading, justify="right")
    for margin in found:
        table.add_row(
            f"{margin.minimum_sites} of {study.group_size}",
            str(margin.colluding),
            str(margin.counted),
            f"{margin.noise:.2f}",
            f"{margin.epsilon:.2f}",
            style="bold" if margin.own else None,
        )
    console.print(table)
    console.print(
        "Of the sites that must answer, some may tell the coordinator their noise; the rest's is "
        f"counted on. noise: all sites' at epsilon {study.privacy.epsilon:g}, where 1 trusts all. "
        "or epsilon: what a study with noise 1 would cost. Choose with [aggregation] minimum_sites "
        "and tolerated_collusion."
    )


def _title(record: dict[str, Any]) -> str:
    test = record["test"]
    kind = "SYNTHETIC, " if record["synthetic"] else ""
    known = "" if test["rows"] == test["patients"] else f", {test['rows']} outcomes"
    positive = f", {test['positives']} with the outcome" if "positives" in test else ""
    return f"Test: {kind}{record['test_cohort']}; {test['patients']} patients{known}{positive}"


def _interval(estimate: dict[str, float]) -> str:
    """Return a value above its interval."""
    return f"{estimate['value']:.3f}\n{estimate['low']:.3f}-{estimate['high']:.3f}"


def _signed(gain: dict[str, Any]) -> str:
    """Return a difference above its interval, with signs."""
    if gain["value"] is None:
        return "-"
    return f"{gain['value']:+.3f}\n{gain['low']:+.3f} to {gain['high']:+.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
