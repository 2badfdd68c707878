"""What the page of a study says: the sentences of ``consilium-site review``, put under headings."""

from collections.abc import Sequence
from dataclasses import dataclass

from consilium.client.hospital.roster_trust import RosterTrust, summed_with
from consilium.shared.crypto.keys import Roster
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study

LONGEST_HEADING = 40


@dataclass(frozen=True, kw_only=True)
class Part:
    """A heading, its sentence, and what stands below it line by line."""

    heading: str
    sentence: str
    below: tuple[str, ...] = ()


def parts(lines: Sequence[str]) -> list[Part]:
    """Return the sentences under what stands before their first colon, in order.

    Lines that are set in belong to the part before them; a sentence without a heading has none.
    """
    found: list[Part] = []
    for line in lines:
        if line.startswith("  ") and found:
            last = found[-1]
            found[-1] = Part(
                heading=last.heading,
                sentence=last.sentence,
                below=(*last.below, line.strip()),
            )
            continue
        heading, colon, rest = line.partition(": ")
        if colon and len(heading) <= LONGEST_HEADING:
            found.append(Part(heading=heading, sentence=rest))
        else:
            found.append(Part(heading="", sentence=line))
    return found


def sentence_of(lines: Sequence[str], heading: str) -> str:
    """Return the sentence of a heading, such as ``What leaves``; empty if it is not there."""
    return next((one.sentence for one in parts(lines) if one.heading == heading), "")


def unknown_sites(study: Study, roster: Roster, trust: RosterTrust) -> list[str]:
    """Return the sites, of those summed with this one, that nobody vouched for."""
    others = summed_with(study, trust.site)
    standings = trust.standings(study, roster)
    return [one.site for one in standings if one.site in others and not one.vouched]


def price(study: Study) -> float | None:
    """Return the study's epsilon of one patient; None without privacy."""
    costs = plan(study)
    return None if costs is None else costs.epsilon
