"""Results as data frames of polars, which is an extra of the package.

Polars and not pandas: it is typed, so a strict type checker sees a frame and not Any; it needs no
other package; and hospitals' tables are read with it already. For pandas:
``pandas.DataFrame(frame.to_dict(as_series=False))``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consilium.shared.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl

INSTALL = "pip install 'consilium-fl[frames]'"


def data_frame(rows: Sequence[Mapping[str, Any]], *, instead: str) -> "pl.DataFrame":
    """Return rows as a frame with a column for each name; what a row lacks is null.

    Args:
        rows: for each row its values by column name.
        instead: what to use without polars, for the error's sentence.

    Raises:
        SettingsError: polars is not installed; the sentence says what to do.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise SettingsError(
            f"a data frame needs polars, which is not installed; {INSTALL}, or use {instead}"
        ) from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, strict=False)
