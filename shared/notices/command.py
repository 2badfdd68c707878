"""``notices``, the command of either side: what became of notices, or a test of all addresses."""

import json
from pathlib import Path

import httpx

from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.notices.kinds import Sender
from consilium.shared.notices.settings import NoticeSettings
from consilium.shared.notices.told import notices_lines, notices_status
from consilium.shared.notices.trial import try_out
from consilium.shared.service.terminal import Terminal


def show_notices(folder: Path, console: Terminal, *, as_json: bool) -> None:
    """Print what became of the notices of this side's folder."""
    status = notices_status(folder)
    if as_json:
        console.print_json(json.dumps(status))
        return
    for line in notices_lines(status) or ["none so far"]:
        console.print(line)


def send_test(
    settings: NoticeSettings | None,
    folder: Path,
    sender: Sender,
    console: Terminal,
    *,
    file: str,
    proxy: httpx.Proxy | None = None,
) -> None:
    """Send a test to every address, and print what each one's server said, a line each.

    Raises:
        SettingsError: nobody is named in the settings, or a file they name cannot be used.
        UnreachableError: an address did not take it.
    """
    if settings is None:
        raise SettingsError(
            f"{folder / file}: has no [notices]; say there whom to tell (docs/operations.md)"
        )
    found = try_out(settings, folder, sender, proxy=proxy)
    for trial in found:
        console.print(trial.told)
    failed = sum(not trial.ok for trial in found)
    if failed:
        raise UnreachableError(f"{failed} of {len(found)} addresses did not take the test")
