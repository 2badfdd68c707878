"""Commands by which hospitals make sure of each other: ``identity`` and ``vouch``."""

import getpass
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json
from consilium.shared.errors import SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.enrolment.vouchers import Vouchers

console = Terminal()

WORDS_A_LINE = 4


def add_vouch_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command()(identity)
    app.command()(vouch)


def identity(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show this site's fingerprint, to be read to other hospitals: words, digits, QR code."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.enrolment.fingerprint import fingerprint, to_hex, to_qr_text, to_words

    opened = SiteFolder.open(folder)
    site = _name(opened)
    own = fingerprint(site, opened.identity().public)
    words, text = to_words(own), to_qr_text(site, own)
    if as_json:
        told = {"site": site, "words": " ".join(words), "fingerprint": own.hex(), "qr": text}
        console.print_json(json.dumps(told))
        return
    _say(f"The fingerprint of {site}:")
    for at in range(0, len(words), WORDS_A_LINE):
        line = (f"{at + n + 1:>2} {word:<9}" for n, word in enumerate(words[at : at + 4]))
        _say(f"  {' '.join(line).rstrip()}")
    _say(f"  {to_hex(own)}")
    _say(text if console.options.ascii_only else qr_blocks(text))
    _say(
        "It is not secret. Another hospital telephones you, under a number that it looked up "
        f"itself; you read it all twelve words, and it runs 'consilium-site vouch {site} WORDS'."
    )


def vouch(
    hospital: Annotated[
        str | None,
        typer.Argument(help="The other hospital's name, or its QR code's text alone."),
    ] = None,
    fingerprint: Annotated[
        list[str] | None,
        typer.Argument(help="Its fingerprint: twelve words, or 32 digits, or its QR code's text."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    show: Annotated[bool, typer.Option("--list", help="List who vouches for whom.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write this site's signed vouchers, for other hospitals.")
    ] = None,
    take: Annotated[
        Path | None, typer.Option("--import", help="Take over another hospital's vouchers.")
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option(metavar="HOSPITAL", help="Vouch for a hospital no longer.")
    ] = None,
) -> None:
    """Vouch for a hospital whose fingerprint was checked by telephone, before any study or after.

    A study is refused if its roster shows a hospital under another key than the one checked, or if
    too few hospitals of it are vouched for.
    """
    from consilium.client.hospital.folder import SiteFolder

    asked = [hospital is not None, show, export is not None, take is not None, withdraw is not None]
    if sum(asked) != 1:
        raise SettingsError(
            "vouch does one thing at a time: HOSPITAL FINGERPRINT, --list, --export FILE, "
            "--import FILE or --withdraw HOSPITAL"
        )
    opened = SiteFolder.open(folder)
    if hospital is not None:
        _vouch(opened, hospital, " ".join(fingerprint or ()))
    elif export is not None:
        _export(opened, export)
    elif take is not None:
        _import(opened, take)
    elif withdraw is not None:
        _withdraw(opened, withdraw)
    else:
        _list(opened)


def qr_blocks(text: str) -> str:
    """Return a QR code in half blocks, light on a dark terminal, with its quiet zone."""
    import segno

    drawn = io.StringIO()
    segno.make_qr(text, error="m").terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")


def _vouch(folder: "SiteFolder", hospital: str, typed: str) -> None:
    from consilium.shared.audit.events import Vouched
    from consilium.shared.audit.own_log import open_audit
    from consilium.shared.crypto.keys import SITE_NAME
    from consilium.shared.enrolment.fingerprint import from_qr_text, read_fingerprint, to_hex

    if typed:
        found = read_fingerprint(typed, site=hospital)
    elif ":" in hospital:
        hospital, found = from_qr_text(hospital)
    else:
        raise SettingsError(
            f"the fingerprint of {hospital} is missing; telephone it and type what "
            "'consilium-site identity' shows there"
        )
    if not SITE_NAME.fullmatch(hospital):
        raise SettingsError(
            f"{hospital[:80]!r} is not a hospital's name of 1 to 64 letters, digits, or . - _; "
            "type the name as studies have it"
        )
    event = Vouched(hospital=hospital, fingerprint=found, vouched=True, by=getpass.getuser())
    audit = open_audit(folder)
    new = folder.vouchers().vouch(hospital, found, recorded=lambda: audit.append(event))
    _say(
        f"This site {'now vouches' if new else 'vouches already'} for {hospital}, {to_hex(found)}."
    )


def _withdraw(folder: "SiteFolder", hospital: str) -> None:
    from consilium.shared.audit.events import Vouched
    from consilium.shared.audit.own_log import open_audit

    audit, by = open_audit(folder), getpass.getuser()

    folder.vouchers().withdraw(
        hospital,
        recorded=lambda known: audit.append(
            Vouched(hospital=hospital, fingerprint=known, vouched=False, by=by)
        ),
    )
    _say(f"This site vouches for {hospital} no longer; give others the new list with --export.")


def _export(folder: "SiteFolder", file: Path) -> None:
    from consilium.shared.files.atomic_file import write_atomically

    own = folder.vouchers().own_list()
    if own is None:
        raise SettingsError("this site vouches for nobody yet; run 'vouch HOSPITAL FINGERPRINT'")
    try:
        write_atomically(file, own.to_bytes())
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be written ({error.strerror}); name another file"
        ) from error
    _say(f"{file}: this site's word for {_named(own)}; signed, and not secret.")


def _import(folder: "SiteFolder", file: Path) -> None:
    from consilium.shared.audit.events import VouchersTaken
    from consilium.shared.audit.own_log import open_audit
    from consilium.shared.crypto.transcript import sha256
    from consilium.shared.enrolment.vouchers import Vouchers

    audit = open_audit(folder)
    try:
        with file.open("rb") as opened:
            content = opened.read(Vouchers.max_bytes + 1)
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); name what 'vouch --export' wrote"
        ) from error

    def record(given: Vouchers) -> None:
        audit.append(
            VouchersTaken(
                signer=given.site,
                signer_identity=given.identity,
                issued=given.issued,
                list_digest=sha256(content),
                by=getpass.getuser(),
            )
        )

    given = folder.vouchers().take(content, recorded=record)
    _say(f"{given.site} vouches for {_named(given)}.")


def _list(folder: "SiteFolder") -> None:
    from consilium.shared.enrolment.fingerprint import to_hex

    trust = folder.vouchers().trust()
    if not trust.own:
        _say("This site vouches for nobody yet.")
    for hospital, known in sorted(trust.own.items()):
        _say(f"{hospital}  {to_hex(known)}  by this site")
    for signer, given in sorted(trust.given.items()):
        counts = trust.own.get(signer) == given.signer
        note = "" if counts else " (does not count: this site has not checked that key)"
        for hospital, known in sorted(given.fingerprints.items()):
            _say(f"{hospital}  {to_hex(known)}  by {signer}{note}")


def _named(given: "Vouchers") -> str:
    return ", ".join(sorted(given.fingerprints)) or "nobody"


def _name(folder: "SiteFolder") -> str:
    """Return this site's name: as enrolled, or as site.toml gives it before."""
    try:
        return folder.owner()
    except SettingsError:
        named = folder.settings().site
    if named is None:
        raise SettingsError(
            f"{folder.path / 'site.toml'}: this site has no name yet, and its fingerprint is of "
            'name and key; say there: site = "NAME", as studies will have it'
        )
    return named


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)
