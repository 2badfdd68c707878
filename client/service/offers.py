"""Fetches the studies that the coordinator offers to this site, and declares its size for one."""

from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection
from consilium.client.service.pinned_connection import connect
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.enrolment.messages import (
    DECLARE_PATH,
    DIGEST_BYTES,
    PROGRESS_PATH,
    STUDIES_PATH,
    STUDY_PATH,
    SizeDeclaration,
    StudyList,
    StudyOffer,
    StudyProgress,
    StudyRequest,
)
from consilium.shared.errors import SettingsError


def fetch_offers(folder: SiteFolder) -> list[StudyOffer]:
    """Return all studies offered to this site.

    Raises:
        UnreachableError: no answer.
        AuthenticationError: the other end is not the pinned coordinator, or rejects this site.
        MessageError: the answer is malformed.
    """
    with connect(folder) as connection:
        return [fetch_offer(connection, digest) for digest in list_offers(connection)]


def find_offer(folder: SiteFolder, named: str) -> StudyOffer:
    """Return the offered study of this name or digest (its first hexadecimal digits suffice).

    Raises:
        SettingsError: there is none, or several; otherwise as :func:`fetch_offers`.
    """
    coordinator = folder.enrolment().coordinator
    found, names = [], []
    for offer in fetch_offers(folder):
        study, _ = offer.check(coordinator)
        names.append(study.name)
        exact = study.name == named
        if exact or (len(named) >= 8 and study.digest.hex().startswith(named.lower())):
            found.append(offer)
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(f"several studies named {named} are offered; name its digest")
    raise SettingsError(
        f"no study {named!r} is offered to this site; offered: {', '.join(names) or 'none'}",
        case="not-offered",
    )


def declare_size(folder: SiteFolder, digest: bytes, declared: Declaration) -> None:
    """Tell the coordinator this site's declared size for the study with this digest.

    Raises:
        UnreachableError: no answer; it may or may not have arrived, and may be sent again.
        ProtocolError: the coordinator refused: another size was declared before, say.
    """
    message = SizeDeclaration(digest=digest, declared=declared.to_bytes())
    with connect(folder) as connection:
        connection.post(DECLARE_PATH, message.to_bytes())


def list_offers(connection: Connection) -> list[bytes]:
    """Return the digests of the studies offered to this site.

    Raises:
        ConsiliumError: as :func:`fetch_offers`.
    """
    listed = StudyList.from_bytes(connection.post(STUDIES_PATH, b"")).digests
    digests = [listed[at : at + DIGEST_BYTES] for at in range(0, len(listed), DIGEST_BYTES)]
    return [digest for digest in digests if len(digest) == DIGEST_BYTES]


def fetch_progress(connection: Connection, digest: bytes) -> StudyProgress:
    """Return how far the study with this digest is, as the coordinator says.

    Raises:
        ConsiliumError: as :func:`fetch_offer`; a coordinator of an older version refuses.
    """
    request = StudyRequest(digest=digest).to_bytes()
    return StudyProgress.from_bytes(connection.post(PROGRESS_PATH, request))


def fetch_offer(connection: Connection, digest: bytes) -> StudyOffer:
    """Return the offer of the study with this digest, not checked yet.

    Raises:
        UnreachableError: no answer.
        ProtocolError: no such study is open to this site.
        MessageError: the answer is malformed.
    """
    request = StudyRequest(digest=digest).to_bytes()
    return StudyOffer.from_bytes(connection.post(STUDY_PATH, request))
