"""Enrolment: site and coordinator exchange and pin each other's keys, once, by an invitation."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.client.hospital.folder import Enrolment, SiteFolder, public_pem
from consilium.client.service.connection import Connection
from consilium.shared.enrolment.invitation import Invitation
from consilium.shared.enrolment.messages import (
    ENROL_PATH,
    EnrolReply,
    EnrolRequest,
    enrol_statement,
)
from consilium.shared.errors import SettingsError
from consilium.shared.version import VERSION


def enroll(folder: SiteFolder, invitation: Invitation) -> Enrolment:
    """Enrol this site with the inviting coordinator and pin what was agreed.

    The private keys stay in the folder. If the answer is lost, the same token works again.

    Raises:
        SettingsError: the settings name another site than the invitation.
        AuthenticationError: the other end is not the inviting coordinator, or it refuses.
        UnreachableError: no answer.
    """
    request = enrol_request(folder, invitation)
    with Connection(invitation.host, invitation.port, invitation.authority) as connection:
        reply = EnrolReply.from_bytes(connection.post(ENROL_PATH, request.to_bytes()))
    return pin_reply(folder, invitation, reply)


def enrol_request(folder: SiteFolder, invitation: Invitation) -> EnrolRequest:
    """Return what the site sends: its public keys, signed with them, and the invitation's secret.

    Raises:
        SettingsError: the settings name another site than the invitation.
    """
    named = folder.settings().site
    if named is not None and named != invitation.site:
        raise SettingsError(
            f"{folder.path / 'site.toml'}: names site {named!r}, and the invitation is for "
            f"{invitation.site!r}; ask for an invitation of this site, or correct the setting"
        )
    identity, node_key = folder.identity(), folder.node_key()
    public = public_pem(node_key)
    statement = enrol_statement(invitation.secret, invitation.site, identity.public, public)
    return EnrolRequest(
        secret=invitation.secret,
        site=invitation.site,
        identity=identity.public,
        node_key=public,
        version=VERSION,
        identity_signature=identity.sign(statement),
        node_signature=node_key.sign(statement, ec.ECDSA(hashes.SHA256())),
    )


def pin_reply(folder: SiteFolder, invitation: Invitation, reply: EnrolReply) -> Enrolment:
    """Check the coordinator's answer and store what was agreed.

    Raises:
        AuthenticationError: the answer is not signed by the inviting coordinator for these keys.
    """
    reply.check(invitation.coordinator, folder.identity().public, public_pem(folder.node_key()))
    enrolment = Enrolment(
        site=invitation.site,
        node_id=reply.node_id,
        host=invitation.host,
        port=invitation.port,
        coordinator=invitation.coordinator,
        authority=invitation.authority,
    )
    folder.pin(enrolment)
    return enrolment
