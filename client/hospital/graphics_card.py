"""The graphics card of this hospital's machine: used if the policy allows it and it is fit for use.

Without permission PyTorch is not asked, or imported, for it.
"""

import logging
from typing import TYPE_CHECKING

from consilium.client.hospital.policy import Policy

if TYPE_CHECKING:
    from consilium.shared.model.graphics_card import GraphicsCard

log = logging.getLogger(__name__)


def allowed_card(policy: Policy) -> "GraphicsCard | None":
    """Return the card that computes recurrent layers in training, or None: the processor does."""
    if not policy.gpu:
        return None
    from consilium.shared.model.card_check import find_card

    card, told = find_card()
    log.info("%s", told)
    return card


def what_computes(policy: Policy) -> str:
    """Return one sentence for this hospital's people: what trains models, and why."""
    if not policy.gpu:
        return "the processor is used, as [machine] gpu = false says"
    from consilium.shared.model.card_check import find_card

    return find_card()[1]
