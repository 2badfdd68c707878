"""Who opted out at this hospital, read from the file that its settings name."""

from consilium.client.hospital.folder import SiteFolder
from consilium.client.sources.common.opt_outs import OptOuts


def opt_outs(folder: SiteFolder) -> OptOuts | None:
    """Read who opted out, from the file that the settings name now; None if they name none.

    Raises:
        DataError: the file cannot be read.
        SettingsError: the settings cannot.
    """
    settings = folder.settings()
    if settings.data is None or "opted_out" not in settings.data:
        return None
    file = settings.records(folder.path).opted_out
    return None if file is None else OptOuts.read(file)
