"""What a site tells of an error that ends a message: a code, and the fixed sentence of that code.

Guarantee: what leaves is one of :data:`TOLD`, whatever the error says; so nothing of a record, a
path, a setting or a policy's figures can be in it. The error's own sentence stays at the site.
"""

from consilium.shared.errors import (
    AuthenticationError,
    BudgetError,
    ConsiliumError,
    EncodingError,
    MessageError,
    OldStateError,
    PolicyError,
    ProtocolError,
    StudyError,
    UnableError,
)
from consilium.shared.secure_sum.messages import Refusal

UNABLE = str(UnableError())
_THERE = "the hospital sees more in 'consilium-site status'"
_POLICY = "this hospital's policy does not allow"

TOLD = {
    "PolicyError": f"{_POLICY} what was asked; {_THERE}",
    "PolicyError.not-approved": "this hospital has not approved the study; it must review and "
    "approve it",
    "PolicyError.study": f"{_POLICY} this study, which is not among those that it names; {_THERE}",
    "PolicyError.sites": f"{_POLICY} sums of so few sites; raise [aggregation] minimum_sites or "
    "ask the hospital",
    "PolicyError.privacy": f"{_POLICY} studies without differential privacy; set [privacy] mode or "
    "ask the hospital",
    "PolicyError.epsilon": f"{_POLICY} the study's epsilon; lower [privacy] epsilon or ask the "
    "hospital",
    "PolicyError.delta": f"{_POLICY} the study's delta; lower [privacy] delta or ask the hospital",
    "PolicyError.task": f"{_POLICY} the study's task; ask the hospital",
    "PolicyError.source": f"{_POLICY} the study's source; ask the hospital",
    "PolicyError.variables": f"{_POLICY} a variable of the study; ask the hospital which",
    "PolicyError.module": f"{_POLICY} the study's installed module; ask the hospital",
    "PolicyError.hours": "it is outside this site's working hours; it joins the next round within "
    "them",
    "PolicyError.unvouched": "too few of the study's sites are vouched for at this hospital; its "
    "people must telephone the others and run 'consilium-site vouch'",
    "PolicyError.another-key": "a site of the study's roster has ANOTHER KEY than the one that was "
    "checked; telephone this hospital before anything else",
    "PolicyError.roster": "this site has pinned another roster or other parameters than the "
    "coordinator; compare the roster's fingerprints at both ends",
    "PolicyError.size": "a declared size is another one than this site was shown before, and it "
    "never changes; submit the study again",
    "BudgetError": "this site's privacy budget does not cover the round",
    "OldStateError": "this site's audit log is older than what it signed and others hold, so its "
    "folder was put back; the hospital must restore a newer backup or write it off",
    "StudyError": f"the study or its roster is not one that this site can take part in; {_THERE}",
    "ProtocolError": f"the message does not follow the protocol; {_THERE}",
    "ProtocolError.no-open-run": "this site has no open run of the study; ask for its channel key "
    "first",
    "ProtocolError.masked-before": "this site masked the round or a later one before; a round is "
    "masked once, so continue with a higher number",
    "ProtocolError.peer-log": "another site's audit log is shown at an earlier entry than this "
    "site knows of; this hospital's log says whose",
    "MessageError": f"the message is malformed, or not of this study; {_THERE}",
    "AuthenticationError": f"a signature, key or seal in the message does not verify; {_THERE}",
    "EncodingError": f"a vector of the message cannot be represented; {_THERE}",
    "UnableError": UNABLE,
}

_MAY_BE_TOLD = (
    AuthenticationError,
    BudgetError,
    EncodingError,
    MessageError,
    OldStateError,
    PolicyError,
    ProtocolError,
    StudyError,
)


def refusal_of(site: str, error: Exception) -> Refusal:
    """Return what the coordinator is told of an error; of most, that the site is unable."""
    kind = next((kind for kind in _MAY_BE_TOLD if isinstance(error, kind)), UnableError)
    case = error.case if isinstance(error, ConsiliumError) else ""
    code = next(code for code in (f"{kind.__name__}.{case}", kind.__name__) if code in TOLD)
    return Refusal(site=site, code=code, sentence=TOLD[code])
