import os

import pytest

from consilium.shared.crypto.boxes import BoxKeys, seal_box
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import AuthenticationError, ProtocolError
from consilium.shared.secure_sum.dealt_shares import (
    commit_share,
    judge,
    mask_use,
    open_dealt,
    seed_use,
)

KEYS = BoxKeys(bytes(range(32)))
SHARE, OTHER = (5).to_bytes(33, "big"), (6).to_bytes(33, "big")
USES = [
    seed_use(b"h" * 32, 3, "dealer", "holder", b"p" * 32),
    mask_use(b"h" * 32, 3, "dealer", "holder", b"c" * 32),
]


def sealed(use, share):
    return seal_box(share, to=KEYS.public("dealer"), use=use, ephemeral=ExchangeKey(os.urandom(32)))


@pytest.mark.parametrize("use", USES, ids=lambda use: use.kind)
def test_a_share_as_committed_to_is_taken_and_nobody_can_complain_of_it(use):
    box, commitment = sealed(use, SHARE), commit_share(use, SHARE)
    assert open_dealt(KEYS.key("dealer"), box, commitment, use) == SHARE
    with pytest.raises(ProtocolError, match="holder complained of a share of dealer that is as"):
        judge(KEYS.secret("dealer"), KEYS.public("dealer"), box, commitment, use)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.kind)
@pytest.mark.parametrize("wrong", ["another", "rubbish", "no element", "no element committed to"])
def test_a_wrong_share_is_refused_and_the_key_proves_it(use, wrong):
    none = b"\xff" * 33
    box = {"another": sealed(use, OTHER), "rubbish": bytes(81)}.get(wrong, sealed(use, none))
    committed = none if wrong == "no element committed to" else SHARE
    commitment = commit_share(use, committed)
    with pytest.raises(AuthenticationError):
        open_dealt(KEYS.key("dealer"), box, commitment, use)
    why = judge(KEYS.secret("dealer"), KEYS.public("dealer"), box, commitment, use)
    assert "dealer" in why
    assert "(holder shows the key that opens the box)" in why


def test_a_key_that_was_not_announced_proves_nothing():
    use = USES[0]
    box, commitment = sealed(use, OTHER), commit_share(use, SHARE)
    with pytest.raises(ProtocolError, match="with a key it never announced"):
        judge(KEYS.secret("other"), KEYS.public("dealer"), box, commitment, use)


def test_the_key_of_a_complaint_opens_nothing_of_another_dealer():
    use = seed_use(b"h" * 32, 3, "other", "holder", b"p" * 32)
    box = seal_box(SHARE, to=KEYS.public("other"), use=use, ephemeral=ExchangeKey(os.urandom(32)))
    with pytest.raises(AuthenticationError, match="does not open"):
        open_dealt(ExchangeKey(KEYS.secret("dealer")), box, commit_share(use, SHARE), use)


def test_commitments_of_the_two_kinds_differ():
    seed, mask = USES
    assert commit_share(seed, SHARE) != commit_share(mask, SHARE)
