"""The ledger as bars in SVG, and as rows of the table beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from consilium.client.ledger.releases import PATIENT, Account, Summary

WIDTH, ROW = 640, 58  # of the drawing: units of its own


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar: what it is of, its account, and the widths of its parts in the drawing."""

    name: str
    releases: int
    account: Account
    top: int
    spent: float
    reserved: float
    left: float
    bound: float

    @property
    def told(self) -> str:
        """The account in one sentence."""
        used = self.account.spent + self.account.reserved
        return (
            f"{self.name}: epsilon {used:.2f} of {self.account.bound:g} charged, at delta "
            f"{self.account.delta:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Bars:
    """All bars, each on the scale of the largest account."""

    rows: tuple[Bar, ...]
    height: int


def budget_bars(summary: Summary) -> Bars:
    """Return a bar for each study and, last, one for the hospital's lifetime."""
    accounts = [
        (
            study.study_name + ("" if study.unit == PATIENT else f", of a {study.unit}"),
            study.releases,
            study.account,
        )
        for study in summary.studies
    ]
    total = sum(study.releases for study in summary.studies)
    rows = [*accounts, ("Lifetime, all studies", total, summary.total)]
    scale = WIDTH / _longest([account for _, _, account in rows])
    return Bars(
        rows=tuple(
            Bar(
                name=name,
                releases=releases,
                account=account,
                top=ROW * place,
                spent=scale * account.spent,
                reserved=scale * account.reserved,
                left=scale * max(0.0, account.left),
                bound=scale * account.bound,
            )
            for place, (name, releases, account) in enumerate(rows)
        ),
        height=ROW * len(rows),
    )


def _longest(accounts: Sequence[Account]) -> float:
    return max(max(one.bound, one.spent + one.reserved) for one in accounts) or 1.0
