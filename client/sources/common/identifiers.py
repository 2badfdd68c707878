"""One normal form of identifiers: of persons, stays and codes, in every file that names them."""

import re

_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


def normal_identifier(text: str) -> str:
    """Return the identifier without blanks around it, and without the ``.0`` of a spreadsheet.

    Leading zeros and capital letters make different identifiers.
    """
    bare = text.strip()
    whole = _WHOLE.fullmatch(bare)
    return whole[1] if whole else bare
