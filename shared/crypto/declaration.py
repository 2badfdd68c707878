"""A site's declared size: a rounded number of patients, signed by the site's identity.

A hospital declares it once for a study, before the study begins. It is in the study's roster, as
public as the site's name: it is the site's weight in every sum of the study.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from consilium.shared.crypto.transcript import encode
from consilium.shared.errors import StudyError

SIZE_BYTES = 4
LARGEST_SIZE = 2**31 - 1
DECLARATION_BYTES = SIZE_BYTES + 64
"""Bytes of a declaration on the wire: the size, big-endian, and the Ed25519 signature."""


@dataclass(frozen=True)
class Declaration:
    """A declared size (patients) and the site's signature over :func:`size_statement`.

    Raises:
        StudyError: the size is below 1 or above 2^31 - 1.
    """

    patients: int
    signature: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= LARGEST_SIZE:
            raise StudyError(
                f"a declared size of {self.patients} patients is not between 1 and {LARGEST_SIZE}; "
                "declare the rounded number of patients"
            )

    @classmethod
    def signed(
        cls, patients: int, *, study_digest: bytes, site: str, sign: Callable[[bytes], bytes]
    ) -> Self:
        """Declare a size for a study; ``sign`` is that of the site's identity."""
        return cls(patients, sign(size_statement(study_digest, site, patients)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode what :meth:`to_bytes` made, ``DECLARATION_BYTES`` long; nothing is verified."""
        return cls(int.from_bytes(data[:SIZE_BYTES], "big"), data[SIZE_BYTES:])

    def to_bytes(self) -> bytes:
        """Encode as the size, four bytes big-endian, and the signature."""
        return self.patients.to_bytes(SIZE_BYTES, "big") + self.signature


def size_statement(study_digest: bytes, site: str, patients: int) -> bytes:
    """What a site signs to declare its size; it holds for one study."""
    return encode("size", study_digest, site, patients)
