"""What ``consilium-site ledger`` shows of a ledger's summary: JSON, a table, bars, a figure.

Spent, reserved and left are values of epsilon at the delta shown beside them. Reserved counts as
spent until the release is confirmed. The studies' accounts do not add up to the lifetime account,
which composes all releases together at the hospital's own delta.
"""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from consilium.client.ledger.releases import PATIENT, Account, Summary
from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically

NAME_CELLS, BAR_CELLS = 22, 30
SPENT, RESERVED, LEFT = "#1f5fa8", "#c4601d", "#d9d9d9"
PICTURES = (".png", ".svg")


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary for programs; digests are hexadecimal."""
    studies = [
        asdict(study) | {"study_digest": study.study_digest.hex()} for study in summary.studies
    ]
    return {"studies": studies, "total": asdict(summary.total)}


def to_table(summary: Summary) -> Table:
    """Return a line for each study and one for the hospital's lifetime."""
    table = Table("study")
    recordings = any(study.unit != PATIENT for study in summary.studies)
    if recordings:
        table.add_column("of a")
    for name in ("releases", "spent", "reserved", "left", "bound", "delta"):
        table.add_column(name, justify="right")
    for study in summary.studies:
        unit = [Text(study.unit)] if recordings else []
        table.add_row(Text(study.study_name), *unit, str(study.releases), *_cells(study.account))
    table.add_section()
    total = sum(study.releases for study in summary.studies)
    table.add_row("lifetime", *([""] if recordings else []), str(total), *_cells(summary.total))
    return table


def to_bars(summary: Summary) -> list[str]:
    """Return one line of text per account: name, bar, charged epsilon of the bound."""
    rows = [(study.study_name, study.account) for study in summary.studies]
    return [
        f"{name[:NAME_CELLS]:>{NAME_CELLS}} {bar(account)} "
        f"{account.spent + account.reserved:.2f} of {account.bound:g}, delta {account.delta:g}"
        for name, account in [*rows, ("lifetime", summary.total)]
    ] + [f"{'':>{NAME_CELLS}} █ spent  ▒ reserved, counts as spent  · left", *caveats(summary)]


def caveats(summary: Summary) -> list[str]:
    """Return a sentence for each study whose epsilon is of a recording and not of a person."""
    return [
        f"{study.study_name}: epsilon is of one {study.unit}, as its records name no persons; of a "
        f"person with k {study.unit}s, k times as much has been charged"
        for study in summary.studies
        if study.unit != PATIENT
    ]


def bar(account: Account, cells: int = BAR_CELLS) -> str:
    """Return a bar of ``cells`` characters; every amount above 0 takes at least one."""
    used = [_share(account.spent, account, cells), _share(account.reserved, account, cells)]
    free = _share(account.left, account, cells)
    while sum(used) + (free > 0) > cells:  # make room for what is left, from the longer part
        used[used.index(max(used))] -= 1
    return "█" * used[0] + "▒" * used[1] + "·" * (cells - sum(used))


def draw(summary: Summary, path: Path) -> None:
    """Write the figure: a bar for each study and one for the lifetime, with the bounds.

    Raises:
        SettingsError: the name does not end in .png or .svg.
    """
    if path.suffix not in PICTURES:
        raise SettingsError(f"--plot {path}: must end in {' or '.join(PICTURES)}; rename it")
    from matplotlib.figure import Figure  # slow to import, and only needed here

    rows = [
        (f"{study.study_name}{'' if study.unit == PATIENT else f', a {study.unit}'}", study.account)
        for study in summary.studies
    ]
    rows = [*rows, ("lifetime, all studies", summary.total)]
    figure = Figure(figsize=(8, 1.6 + 0.55 * len(rows)), dpi=150, layout="constrained")
    axis = figure.subplots()
    for place, (_, account) in enumerate(rows):
        parts = ((account.spent, SPENT), (account.reserved, RESERVED), (account.left, LEFT))
        start = 0.0
        for size, colour in parts:
            axis.barh(place, size, left=start, height=0.6, color=colour)
            start += size
        axis.plot([account.bound] * 2, [place - 0.38, place + 0.38], color="black", lw=1.5)
        axis.annotate(
            f"{account.spent + account.reserved:.2f} of {account.bound:g}, delta {account.delta:g}",
            xy=(max(start, account.bound), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.invert_yaxis()
    widest = max(max(a.bound, a.spent + a.reserved) for _, a in rows)
    axis.set(
        xlim=(0, 1.32 * widest),
        xlabel=f"epsilon of one {_units(summary)}, at the delta beside the bar",
    )
    axis.set_title("Privacy budget: what has been charged", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    for name, colour in (("spent", SPENT), ("reserved", RESERVED), ("left", LEFT)):
        axis.bar(0, 0, color=colour, label=name)
    axis.plot([], [], color="black", lw=1.5, label="bound")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:])
    write_atomically(path, picture.getvalue())


def _units(summary: Summary) -> str:
    return " or ".join(sorted({PATIENT, *(study.unit for study in summary.studies)}))


def _cells(account: Account) -> list[str]:
    amounts = (account.spent, account.reserved, account.left, account.bound)
    return [*(f"{amount:.3f}" for amount in amounts), f"{account.delta:g}"]


def _share(amount: float, account: Account, cells: int) -> int:
    """Return how many cells an amount takes; ``cells`` stand for the bound, or for all charges."""
    whole = max(account.bound, account.spent + account.reserved)
    if amount <= 0 or whole <= 0:
        return 0
    return max(1, round(cells * amount / whole))
