"""The coordinator's own certificate authority: sites accept its certificates and no others.

The authority signs one server certificate. The certificate begins a day before it was made, so that
a site whose clock is slow accepts it too.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.permissions import PRIVATE_FILE

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
RENEW_BEFORE = timedelta(days=45)  # before the operator is warned, at 30 (the monitor)
WORTHWHILE = timedelta(days=7)  # a renewed certificate lasts so much longer at least
CLOCK_SLACK = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class CertificateFiles:
    """Where the authority and the server certificate lie; keys are mode 0600."""

    authority: Path
    authority_key: Path
    server: Path
    server_key: Path

    @classmethod
    def under(cls, folder: Path) -> "CertificateFiles":
        """The files in a coordinator's ``tls`` folder."""
        return cls(
            authority=folder / "authority.pem",
            authority_key=folder / "authority-key.pem",
            server=folder / "server.pem",
            server_key=folder / "server-key.pem",
        )

    def authority_der(self) -> bytes:
        """The authority's certificate as invitations carry it."""
        return _read(self.authority).public_bytes(serialization.Encoding.DER)

    def expires(self) -> datetime:
        """When the server certificate ends, in UTC."""
        return _read(self.server).not_valid_after_utc

    def authority_expires(self) -> datetime:
        """When the authority ends, in UTC."""
        return _end(_read(self.authority))

    def names(self) -> tuple[str, ...]:
        """The host names and addresses that the server certificate is for."""
        alternatives = _read(self.server).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return tuple(str(name.value) for name in alternatives.value)


def make_authority(files: CertificateFiles, *, name: str, now: datetime | None = None) -> None:
    """Make a new authority that may sign server certificates and nothing below them."""
    begins = (now or datetime.now(UTC)) - CLOCK_SLACK
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Consilium {name}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomically(files.authority_key, _private_pem(key), mode=PRIVATE_FILE)
    write_atomically(files.authority, certificate.public_bytes(serialization.Encoding.PEM))


def issue_server_certificate(
    files: CertificateFiles,
    names: Sequence[str],
    *,
    days: float = SERVER_DAYS,
    now: datetime | None = None,
) -> None:
    """Issue a new key and certificate for these host names and addresses.

    The key is written before the certificate; a server that uses them restarts after both.

    Raises:
        SettingsError: no names, or one that is neither an address nor a host name; or the authority
            has ended.
    """
    if not names:
        raise SettingsError("a server certificate needs a host name; give --host at least once")
    begins = (now or datetime.now(UTC)) - CLOCK_SLACK
    authority = _read(files.authority)
    if begins + CLOCK_SLACK >= _end(authority):
        raise SettingsError(
            f"the coordinator's certificate authority ended {_end(authority):%Y-%m-%d}, after "
            f"{AUTHORITY_DAYS // 365} years, and sites trust no other; run 'init' in a new folder "
            "and invite the sites again"
        )
    authority_key = _read_key(files.authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(common)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(min(begins + CLOCK_SLACK + timedelta(days=days), _end(authority)))
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    write_atomically(files.server_key, _private_pem(key), mode=PRIVATE_FILE)
    write_atomically(files.server, certificate.public_bytes(serialization.Encoding.PEM))


def renew_in_time(files: CertificateFiles, *, now: datetime | None = None) -> bool:
    """Issue the server certificate anew, for the same names, if it ends soon; return whether so.

    Near the end of the authority there is nothing to gain by it, and it is left as it is.

    Raises:
        SettingsError: a file is missing or damaged.
    """
    now = now or datetime.now(UTC)
    ends, last = files.expires(), _end(_read(files.authority))
    if (
        ends - now > RENEW_BEFORE
        or min(now + timedelta(days=SERVER_DAYS), last) < ends + WORTHWHILE
    ):
        return False
    issue_server_certificate(files, files.names(), now=now)
    return True


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.rstrip(".").split(".")
    valid = all(
        0 < len(label) < 64 and label.replace("-", "").isalnum() and label.isascii()
        for label in labels
    )
    if not valid or len(name) > 253:
        raise SettingsError(
            f"--host {name}: is neither an internet address nor a host name; "
            "give the name under which sites reach the coordinator"
        )
    return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _end(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path}: is not a certificate; run 'consilium-coordinator init', or restore the "
            "folder from a backup"
        ) from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(
            f"{path}: is not the authority's private key; restore the folder from a backup"
        )
    return key
