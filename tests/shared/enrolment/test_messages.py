import os

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.invitation import SECRET_BYTES
from consilium.shared.enrolment.messages import EnrolRequest, enrol_statement
from consilium.shared.errors import AuthenticationError

NODE = ec.generate_private_key(ec.SECP384R1())
NODE_PEM = NODE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
SECRET = os.urandom(SECRET_BYTES)


def request(identity, sign):
    statement = enrol_statement(SECRET, "north", identity, NODE_PEM)
    return EnrolRequest(
        secret=SECRET,
        site="north",
        identity=identity,
        node_key=NODE_PEM,
        version="0.1.0",
        identity_signature=sign(statement),
        node_signature=NODE.sign(statement, ec.ECDSA(hashes.SHA256())),
    )


def test_a_site_that_holds_both_keys_enrols():
    key = IdentityKey.generate()
    request(key.public, key.sign).check()


def test_a_site_without_the_key_of_its_identity_does_not_enrol():
    with pytest.raises(AuthenticationError, match="not signed by the keys it brings"):
        request(IdentityKey.generate().public, IdentityKey.generate().sign).check()


def test_an_identity_of_low_order_does_not_enrol_though_its_signature_verifies():
    """Under the neutral point (y = 1) the signature R = neutral, S = 0 fits every statement."""
    neutral = b"\x01" + bytes(31)
    with pytest.raises(AuthenticationError, match="the identity of site north is a point of low"):
        request(neutral, lambda statement: neutral + bytes(32)).check()
