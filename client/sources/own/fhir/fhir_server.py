"""FHIR resources from a server: a bulk export, or searches page by page, into unnamed files.

What comes is kept in temporary files without names, one for each type of resource, and read from
there like the files of an export; the operating system frees them when the process ends. Every
address that the server gives must be its own, or a host that the settings name; the token goes to
the server alone. HL7, "FHIR Bulk Data Access", https://hl7.org/fhir/uv/bulkdata/
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urljoin

from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir.bundles import LARGEST_DOCUMENT, unbundled
from consilium.client.sources.own.fhir.fhir_connection import Connection, host_of
from consilium.client.sources.own.fhir.ndjson import LONGEST_LINE, objects
from consilium.client.sources.own.settings.systems import FhirSettings
from consilium.shared.errors import DataError

PAGE_COUNT = 1000
MOST_PAGES = 1_000_000
_GIB = 1 << 30


@contextmanager
def fetched(settings: FhirSettings, kinds: Sequence[str]) -> Iterator["ServerExport"]:
    """Fetch resources of these types, and keep them until the reading is done.

    Raises:
        DataError: the server cannot be reached, refuses, or gives what is no FHIR.
        SettingsError: the settings cannot be used, or a library is missing.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(Connection.open(settings))
        export = ServerExport(settings, connection, kinds, stack)
        export.fetch()
        yield export


def answer_of(settings: FhirSettings) -> str:
    """Ask the server what it is, as a reading would; return a sentence of what answered.

    Raises:
        DataError: the server does not answer, or is none of FHIR.
        SettingsError: the settings cannot be used, the key among them.
    """
    with Connection.open(settings) as connection:
        found = connection.json(f"{settings.server}/metadata", "what the server is")
    if found.get("resourceType") != "CapabilityStatement":
        raise DataError(f"{settings.server} is no FHIR server; correct [data] server in site.toml")
    return f"{settings.server} answers"


class ServerExport:
    """Resources fetched from a server.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
        connection: to the server.
        kinds: types of resources.
        stack: closes the temporary files.
    """

    def __init__(
        self,
        settings: FhirSettings,
        connection: Connection,
        kinds: Sequence[str],
        stack: ExitStack,
    ) -> None:
        self._settings, self._connection = settings, connection
        self._base = settings.server or ""
        self._left = int(settings.largest_gib * _GIB)
        self._files: dict[str, IO[bytes]] = {
            kind: stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            for kind in kinds
        }

    def __str__(self) -> str:
        return self._base

    def has(self, kind: str) -> bool:
        """Whether resources of a type were asked for: if none came, the server has none."""
        return kind in self._files

    def resources(self, kind: str, tally: Tally) -> Iterator[tuple[dict[str, Any], Path]]:
        """Yield every resource of a type, and what to call its file."""
        file = self._files.get(kind)
        if file is None:
            return
        file.seek(0)
        name = Path(f"{host_of(self._base)}:{kind}.ndjson")
        for resource in objects(file, name, tally):
            if resource.get("resourceType") == kind:
                yield resource, name

    def fetch(self) -> None:
        """Fetch everything, as the settings say.

        Raises:
            DataError: as :func:`fetched`.
        """
        if self._settings.fetch == "search":
            for kind in self._files:
                self._search(kind)
        else:
            self._export()

    def _search(self, kind: str) -> None:
        """Fetch every page of a search, and the resources in them."""
        asked = {str(name): text for name, text in self._settings.search.items()}.get(kind, "")
        url: str | None = f"{self._base}/{kind}?{urlencode({'_count': PAGE_COUNT})}" + (
            f"&{asked}" if asked else ""
        )
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) > MOST_PAGES:
                raise DataError(
                    f"{self._base}: the search for {kind} leads in a circle, or has more than "
                    f"{MOST_PAGES} pages; fetch an export instead"
                )
            seen.add(url)
            page = self._connection.json(url, f"the search for {kind}", largest=LARGEST_DOCUMENT)
            if page.get("resourceType") != "Bundle":
                raise DataError(
                    f"{self._base}: the search for {kind} is answered by no Bundle; check [data] "
                    "server in site.toml"
                )
            for resource in unbundled(page, f"{self._base}: the search for {kind}"):
                self._keep(kind, json.dumps(resource).encode() + b"\n")
            url = self._next(page, url)

    def _next(self, page: dict[str, Any], url: str) -> str | None:
        links = page.get("link")
        for link in links if isinstance(links, list) else ():
            if isinstance(link, dict) and link.get("relation") == "next":
                return self._own(urljoin(url, str(link.get("url"))), "a page")
        return None

    def _keep(self, kind: str, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise DataError(
                f"{self._base}: has more than {self._settings.largest_gib:g} GiB for this study; "
                "raise [data] largest_gib in site.toml, or narrow search or group"
            )
        self._files[kind].write(content)

    def _own(self, url: str, what: str) -> str:
        """Return an address that is the server's own.

        Raises:
            DataError: it is another's.
        """
        if host_of(url) != host_of(self._base) or not url.startswith("https://"):
            raise DataError(
                f"{self._base}: the server names {what} elsewhere than on itself; it may be behind "
                "a proxy that it does not know: have its base address corrected"
            )
        return url

    def _export(self) -> None:
        """Ask for an export, wait for it, fetch its files, and let the server delete them."""
        group = self._settings.group
        where = f"{self._base}/Group/{group}/$export" if group else f"{self._base}/$export"
        status = self._connection.begin_export(
            f"{where}?{urlencode({'_type': ','.join(self._files)})}"
        )
        status = self._own(urljoin(f"{self._base}/", status), "the state of the export")
        try:
            manifest = self._connection.wait_for_export(status, self._settings.longest_wait_h)
            for one in self._listed(manifest, "error"):
                self._refuse_errors(one)
            for one in self._listed(manifest, "output"):
                kind = one.get("type")
                if kind in self._files:
                    self._fetch_file(str(kind), one)
        finally:
            self._connection.end_export(status)

    def _listed(self, manifest: dict[str, Any], key: str) -> list[dict[str, Any]]:
        listed = manifest.get(key)
        found = listed if isinstance(listed, list) else []
        for one in found:
            if not isinstance(one, dict) or not isinstance(one.get("url"), str):
                raise DataError(
                    f"{self._base}: the export's list of files is not as FHIR says; see the "
                    "server's log"
                )
        return found

    def _fetch_file(self, kind: str, listed: dict[str, Any]) -> None:
        url = self._allowed(str(listed["url"]))
        file = self._files[kind]
        begin, left = file.tell(), self._left
        what = f"a file of {kind}"

        def again() -> None:
            file.seek(begin)
            file.truncate()
            self._left = left

        def keep(content: bytes) -> None:
            self._keep(kind, content)

        self._connection.fetch(url, what, keep=keep, again=again)
        self._refuse_cut(file, begin, what)
        file.write(b"\n")  # a last line without an end is not joined to the next file's first

    def _refuse_cut(self, file: IO[bytes], begin: int, what: str) -> None:
        """Refuse a file that ends inside a line: what is missing after it, nobody knows."""
        end = file.tell()
        file.seek(max(begin, end - LONGEST_LINE))
        last = file.read().rpartition(b"\n")[2]
        try:
            json.loads(last or b"{}")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self._base}: {what} ends inside a line; it was cut short, ask again"
            ) from error

    def _allowed(self, url: str) -> str:
        """Return a file's address; the settings must name other hosts than the server's."""
        host = host_of(url)
        if not url.startswith("https://") or host not in (
            host_of(self._base),
            *self._settings.file_hosts,
        ):
            raise DataError(
                f"{self._base}: the export lies on {host[:100] or 'no host'}; if that is right, "
                "add it to [data] file_hosts in site.toml"
            )
        return url

    def _refuse_errors(self, listed: dict[str, Any]) -> None:
        """Refuse an export of which the server says that parts are missing."""
        with tempfile.TemporaryFile() as file:
            size = 0

            def keep(content: bytes) -> None:
                nonlocal size
                size += len(content)
                if size <= LONGEST_LINE:
                    file.write(content)

            def again() -> None:
                nonlocal size
                size = 0
                file.seek(0)
                file.truncate()

            self._connection.fetch(
                self._allowed(str(listed["url"])), "the export's errors", keep=keep, again=again
            )
            file.seek(0)
            severe = 0
            for one in objects(file, Path("errors.ndjson"), Tally()):
                issues = one.get("issue")
                for issue in issues if isinstance(issues, list) else ():
                    severe += isinstance(issue, dict) and issue.get("severity") in (
                        "fatal",
                        "error",
                    )
        if severe:
            raise DataError(
                f"{self._base}: the server says that {severe} parts of the export failed; see its "
                "log, and ask again"
            )
