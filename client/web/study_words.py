"""What the page of a study says: the sentences of ``consilium-site review``, put under headings."""

from collections.abc import Sequence
from dataclasses import dataclass

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
            found.append(Part(heading=heading, sentence=rest[:1].upper() + rest[1:]))
        else:
            found.append(Part(heading="", sentence=line))
    return found


def sentence_of(lines: Sequence[str], heading: str) -> str:
    """Return the sentence of a heading, such as ``What leaves``; empty if it is not there."""
    return next((one.sentence for one in parts(lines) if one.heading == heading), "")


def price(study: Study) -> float | None:
    """Return the study's epsilon of one patient; None without privacy."""
    costs = plan(study)
    return None if costs is None else costs.epsilon
