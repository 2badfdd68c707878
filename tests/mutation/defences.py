"""Every defence of the secure sum: the line that is it, what removes it, the test that dies.

`docs/threat-model.md` explains each by the same name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Defence:
    """A defence and its removal: `line` occurs once in `file` and becomes `removed`."""

    name: str
    file: str
    line: str
    removed: str
    test: str


MASKING = "tests/client/secure_sum/test_masking.py::"
NARROWED = "tests/server/secure_sum/test_narrowed_rounds.py::"
NARROWING = "tests/server/secure_sum/test_narrowing.py::"
BREAKS = "tests/server/secure_sum/test_published_breaks.py::"
SITES = "tests/server/secure_sum/test_misbehaving_sites.py::"
MESSAGES = "tests/shared/secure_sum/test_messages.py::"
POINT = "tests/shared/secure_sum/test_fixed_point.py::"
JOURNAL = "tests/client/secure_sum/test_journal.py::"
KEYS = "tests/shared/crypto/test_keys.py::"
BLAME = "tests/server/secure_sum/test_blame.py::"
THIEF = "tests/server/secure_sum/test_forward_secrecy.py::"
DEALT = "tests/shared/secure_sum/test_dealt_shares.py::"
SPARSE = "tests/server/secure_sum/test_sparse_sums.py::"
GRAPH = "tests/shared/secure_sum/test_mask_graph.py::"
TRUST = "tests/client/hospital/test_roster_trust.py::"
STORE = "tests/client/hospital/test_voucher_store.py::"
STORES = "tests/client/hospital/test_stores.py::"
WEIGHTS = "tests/server/secure_sum/test_declared_weights.py::"
SESSION = "tests/client/round/test_session.py::"
ROSTERS = "tests/client/service/test_roster_agreement.py::"
HOSTILE = "tests/client/round/test_hostile_weights.py::"
CALIBRATION = "tests/client/round/test_calibration_round.py::"
NEVER = "if False:"


def _d(name: str, file: str, line: str, removed: str, test: str) -> Defence:
    return Defence(name, file, line, removed, test)


DEFENCES = (
    _d(
        "study and run bound",
        "client/secure_sum/masking.py",
        "if study_hash != self.parameters.study_hash:",
        NEVER,
        MASKING + "test_a_round_for_another_study_is_refused",
    ),
    _d(
        "channel bound to study and run",
        "client/secure_sum/masking.py",
        "if asked != (self.parameters.study_digest, self.parameters.run_id):",
        NEVER,
        MASKING + "test_a_channel_for_another_study_or_run_is_refused",
    ),
    _d(
        "rounds strictly rise",
        "client/secure_sum/masking.py",
        "if round <= highest:",
        NEVER,
        MASKING + "test_keys_are_refused_before_a_channel_for_another_study_and_for_a_masked_round",
    ),
    _d(
        "durable claim before masking",
        "client/secure_sum/masking.py",
        "self._journal.claim(self.parameters.study_hash, state.round)",
        "pass",
        MASKING + "test_a_round_that_another_process_of_the_site_masked_is_not_masked_again",
    ),
    _d(
        "a claim is granted once",
        "client/secure_sum/journal.py",
        "if round <= highest:",
        NEVER,
        JOURNAL + "test_a_round_is_claimed_once_and_only_upwards_also_after_a_restart",
    ),
    _d(
        "claims serialised between processes",
        "client/secure_sum/journal.py",
        "BEGIN IMMEDIATE",
        "SELECT 1",
        JOURNAL + "test_of_many_threads_one_claims_a_round",
    ),
    _d(
        "claims flushed to disk",
        "client/secure_sum/journal.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        JOURNAL + "test_every_claim_is_flushed_to_the_disk",
    ),
    _d(
        "one masked update a round",
        "client/secure_sum/masking.py",
        "if state is None or state.context is not None:",
        "if state is None:",
        MASKING + "test_an_update_is_masked_once",
    ),
    _d(
        "keys of a begun round stay",
        "client/secure_sum/masking.py",
        "if self._round is not None and request.round <= self._round.round:",
        NEVER,
        MASKING + "test_a_round_that_has_begun_keeps_its_keys",
    ),
    _d(
        "fresh keys each round",
        "client/secure_sum/masking.py",
        "if self._next is None or self._next.round != request.round:",
        "if self._next is None:",
        MASKING + "test_a_round_cannot_begin_without_fresh_keys",
    ),
    _d(
        "minimum participants",
        "client/secure_sum/round_state.py",
        "if len(keys) < parameters.minimum_sites:",
        NEVER,
        MASKING + "test_a_doctored_list_of_participants_is_refused",
    ),
    _d(
        "own key unchanged",
        "client/secure_sum/round_state.py",
        "if keys.get(site) != own:",
        NEVER,
        MASKING + "test_a_doctored_list_of_participants_is_refused",
    ),
    _d(
        "no key twice",
        "client/secure_sum/round_state.py",
        "if len(set(keys.values())) != len(keys):",
        NEVER,
        MASKING + "test_a_doctored_list_of_participants_is_refused",
    ),
    _d(
        "model bound into the context",
        "shared/crypto/transcript.py",
        "sha256(model), sha256(configuration)",
        "sha256(configuration)",
        BREAKS + "test_a_model_crafted_for_one_site_opens_nothing_of_it",
    ),
    _d(
        "layout bound into the context",
        "shared/crypto/transcript.py",
        'return digest("context", begun, spec_digest)',
        'return digest("context", begun)',
        SITES + "test_a_layout_the_sites_do_not_have_gives_no_sum",
    ),
    _d(
        "masks salted with the context",
        "shared/crypto/keys.py",
        'salt=context, label="pair"',
        'salt=bytes(32), label="pair"',
        KEYS + "test_derived_keys_differ_in_every_input",
    ),
    _d(
        "weights as declared",
        "shared/secure_sum/tail.py",
        "if int(tail[1]) != weight:",
        NEVER,
        WEIGHTS + "test_a_site_that_claims_another_size_than_it_declared_voids_the_round",
    ),
    _d(
        "declared sizes in the study's hash",
        "shared/secure_sum/parameters.py",
        "for part in (site, key, sizes[site])",
        "for part in (site, key)",
        WEIGHTS + "test_a_coordinator_with_another_size_in_its_roster_gets_no_channel",
    ),
    _d(
        "declared sizes signed",
        "shared/crypto/keys.py",
        'self.verify(site, statement, size.signature, "the declared size")',
        "pass",
        SESSION + "test_a_roster_with_another_size_is_refused",
    ),
    _d(
        "declared sizes never change",
        "client/hospital/known_sizes.py",
        "if self._known.get(site, patients) != patients:",
        NEVER,
        SESSION + "test_a_roster_with_another_size_is_refused",
    ),
    _d(
        "no more patients than declared",
        "client/records/declared_size.py",
        "return sum_D if length <= longest else sum_D * (longest * _ROUNDING / length)",
        "return sum_D",
        "tests/client/round/test_contribution.py::"
        "test_a_gradient_sum_is_no_longer_than_the_declared_size_allows",
    ),
    _d(
        "updates by declared shares",
        "client/round/training_round.py",
        "clip_update(moved_D[shared_D], norm) * share.of_update}",
        "clip_update(moved_D[shared_D], norm)}",
        "tests/client/round/test_contribution.py::"
        "test_an_update_is_no_longer_than_the_sites_declared_share_of_the_clip_bound",
    ),
    _d(
        "headroom checked at the site",
        "client/secure_sum/round_state.py",
        "    spec.check_headroom(len(parameters.roster), parameters.roster.largest_size)\n",
        "",
        MASKING + "test_what_does_not_fit_the_ring_is_refused_and_the_round_stays_open",
    ),
    _d(
        "headroom exact",
        "shared/secure_sum/fixed_point.py",
        "if sites * magnitude >= bound:",
        "if sites * magnitude > bound:",
        POINT + "test_headroom_counts_values_and_weights_to_the_last_unit",
    ),
    _d(
        "finite and in range",
        "shared/secure_sum/fixed_point.py",
        "if not peak <= bound:",
        "if peak > bound:",
        POINT + "test_values_that_are_not_finite_or_out_of_range_are_refused",
    ),
    _d(
        "self mask hides the vector",
        "client/secure_sum/masking.py",
        "plus=[seed, *plus]",
        "plus=[*plus]",
        "tests/vectors/test_vectors.py::test_a_whole_round_matches_byte_for_byte",
    ),
    _d(
        "survivors took part",
        "client/secure_sum/round_state.py",
        "if not set(survivors) <= state.keys.keys():",
        NEVER,
        MASKING + "test_survivors_that_must_not_be_opened_are_neither_signed_nor_unmasked",
    ),
    _d(
        "the site survives itself",
        "client/secure_sum/round_state.py",
        "if site not in survivors:",
        NEVER,
        MASKING + "test_survivors_that_must_not_be_opened_are_neither_signed_nor_unmasked",
    ),
    _d(
        "minimum survivors",
        "client/secure_sum/round_state.py",
        "if len(survivors) < least:",
        NEVER,
        MASKING + "test_survivors_that_must_not_be_opened_are_neither_signed_nor_unmasked",
    ),
    _d(
        "survivors' neighbours survive",
        "client/secure_sum/round_state.py",
        "if parameters.supported(survivors) != set(survivors):",
        NEVER,
        SPARSE + "test_survivors_without_enough_neighbours_are_neither_signed_nor_unmasked",
    ),
    _d(
        "enough of the circle takes part",
        "client/secure_sum/masking.py",
        "if len(circle) < self.parameters.sharing_threshold:",
        NEVER,
        SPARSE + "test_a_site_most_of_whose_circle_is_absent_does_not_mask",
    ),
    _d(
        "honest survivors stay connected",
        "shared/secure_sum/mask_graph.py",
        "return surviving - second_eigenvalue(sites, degree) > collusion + _MARGIN",
        "return True",
        GRAPH + "test_degrees_that_do_not_surely_connect_are_refused",
    ),
    _d(
        "both secrets never within reach",
        "shared/secure_sum/mask_graph.py",
        "return (degree + 1 + collusion) // 2 + 1",
        "return (degree + 1) // 2",
        GRAPH + "test_holders_and_colluding_sites_cannot_open_both_secrets",
    ),
    _d(
        "one list of survivors",
        "client/secure_sum/round_state.py",
        "if state.agreed not in (None, survivors):",
        NEVER,
        MASKING + "test_one_list_of_survivors_is_signed_in_a_round",
    ),
    _d(
        "never unmasked twice",
        "client/secure_sum/masking.py",
        "if done.survivors != request.survivors:",
        NEVER,
        MASKING + "test_a_repeated_request_gets_the_same_answer_and_another_one_none",
    ),
    _d(
        "agreement signatures verified",
        "client/secure_sum/round_state.py",
        'parameters.roster.verify(signer, statement, signature, "the survivors")',
        "pass",
        MASKING + "test_nothing_is_revealed_without_enough_true_signatures",
    ),
    _d(
        "own agreement remembered",
        "client/secure_sum/round_state.py",
        "if signer == site and state.agreed == request.survivors:",
        "if signer == site:",
        MASKING + "test_a_site_that_has_not_agreed_is_not_told_that_it_has",
    ),
    _d(
        "signers survive",
        "client/secure_sum/round_state.py",
        "if signer not in request.survivors:",
        NEVER,
        MASKING + "test_a_signature_by_a_site_that_does_not_survive_does_not_count",
    ),
    _d(
        "threshold of signatures",
        "client/secure_sum/round_state.py",
        "if len(request.signatures) < parameters.threshold:",
        NEVER,
        MASKING + "test_nothing_is_revealed_without_enough_true_signatures",
    ),
    _d(
        "one secret of each site",
        "client/secure_sum/masking.py",
        "dropped = sorted(circle & state.keys.keys() - set(request.survivors))",
        "dropped = sorted(state.seed_shares)",
        MASKING + "test_of_each_site_one_secret_is_revealed_and_never_both",
    ),
    _d(
        "secrets never printed or pickled",
        "shared/crypto/keys.py",
        "def __reduce_ex__(",
        "def _unused(",
        KEYS + "test_secret_objects_print_pickle_and_copy_nothing",
    ),
    _d(
        "roster is closed",
        "shared/crypto/keys.py",
        "        self.position(site)\n        try:",
        "        site = site if site in self else self.names[0]\n        try:",
        BREAKS + "test_invented_peers_are_refused",
    ),
    _d(
        "never fewer than three sites",
        "shared/secure_sum/parameters.py",
        "(least >= 3,",
        "(True,",
        "tests/shared/secure_sum/test_parameters.py::test_parameters_without_their_guarantee_are_refused",
    ),
    _d(
        "no two lists with enough signatures",
        "shared/secure_sum/thresholds.py",
        "return (sites + collusion) // 2 + 1",
        "return sites // 2 + 1",
        "tests/shared/secure_sum/test_parameters.py::test_parameters_without_their_guarantee_are_refused",
    ),
    _d(
        "whole seeds",
        "shared/crypto/keystream.py",
        "if len(seed) != 32:",
        NEVER,
        "tests/shared/crypto/test_keystream.py::test_no_seeds_change_nothing_and_a_short_seed_is_a_defect",
    ),
    _d(
        "messages bounded in bytes",
        "shared/wire/encoding.py",
        "if len(data) > max_bytes:",
        NEVER,
        MESSAGES + "test_a_message_beyond_its_bound_is_refused_unread",
    ),
    _d(
        "messages bounded in memory",
        "shared/wire/encoding.py",
        '"max_array_len": MAX_SITES,',
        '"max_array_len": 2**31 - 1,',
        MESSAGES + "test_bytes_that_claim_a_huge_structure_take_little_memory",
    ),
    _d(
        "one version",
        "shared/wire/encoding.py",
        "if type(version) is not int or version != VERSION:",
        NEVER,
        MESSAGES + "test_another_version_is_refused_with_both_versions_named",
    ),
    _d(
        "no site listed twice",
        "shared/wire/encoding.py",
        "if list(names) != sorted(set(names)):",
        NEVER,
        MESSAGES + "test_sites_out_of_order_or_double_are_refused",
    ),
    _d(
        "coordinator refuses small sums",
        "server/secure_sum/protocol.py",
        'self.parameters.minimum_sites, "sent a masked update"',
        '0, "sent a masked update"',
        BREAKS + "test_small_survivor_sets_are_refused_at_every_site_and_by_the_coordinator",
    ),
    _d(
        "self mask matches its commitment",
        "server/secure_sum/unmasking.py",
        "if transcript.commit_self_mask(context, owner, seed) != commitment:",
        NEVER,
        SITES + "test_a_self_mask_shared_wrongly_voids_one_round_and_its_dealer_is_out",
    ),
    _d(
        "round key matches its public key",
        "server/secure_sum/unmasking.py",
        "if key.public != public:",
        NEVER,
        SITES + "test_a_round_key_shared_wrongly_voids_the_round_in_which_its_dealer_drops",
    ),
    _d(
        "sites left out are not asked",
        "server/secure_sum/key_exchange.py",
        "asked = self.parameters.roster.names if asked is None else asked",
        "asked = self.parameters.roster.names",
        NARROWED + "test_garbage_in_a_check_coordinate_is_traced_by_real_rounds_of_enough_sites",
    ),
    _d(
        "garbage blamed on the sum's sites",
        "server/secure_sum/protocol.py",
        "garbage=[sites]) from error",
        "garbage=[]) from error",
        NARROWED + "test_garbage_in_a_check_coordinate_is_traced_by_real_rounds_of_enough_sites",
    ),
    _d(
        "no round of fewer than the minimum",
        "server/secure_sum/narrowing.py",
        "spare = _Belief(self.sites, self.seen), len(self.sites) - self.minimum",
        "spare = _Belief(self.sites, self.seen), len(self.sites) - 1",
        NARROWING + "test_never_fewer_than_the_minimum_and_never_more_rounds_than_the_bound",
    ),
    _d(
        "agreement required",
        "client/secure_sum/masking.py",
        "        check_agreement(self.parameters, self.site, state, request)\n",
        "",
        MASKING + "test_nothing_is_revealed_without_enough_true_signatures",
    ),
    _d(
        "secrets dropped after unmask",
        "client/secure_sum/masking.py",
        "        self._round = None\n        return reply",
        "        return reply",
        MASKING + "test_no_secret_shared_with_others_is_alive_after_unmask",
    ),
    _d(
        "pair secrets dropped when masked",
        "client/secure_sum/masking.py",
        "        state.pair_secrets = {}\n",
        "",
        MASKING + "test_no_secret_shared_with_others_is_alive_after_unmask",
    ),
    _d(
        "channel keys dropped when used",
        "client/secure_sum/masking.py",
        "self._next = self._finished = self._dealt = self._channel = None",
        "self._next = self._finished = self._dealt = None",
        THIEF + "test_nothing_of_a_finished_round_opens_with_the_memory_of_all_sites",
    ),
    _d(
        "fresh keys for boxes each round",
        "client/secure_sum/letters.py",
        "masks, following = BoxKeys(me.entropy(SECRET_BYTES)), BoxKeys(me.entropy(SECRET_BYTES))",
        "masks, following = BoxKeys(bytes(32)), BoxKeys(bytes(32))",
        THIEF + "test_nothing_of_a_finished_round_opens_with_the_memory_of_all_sites",
    ),
    _d(
        "a key for each dealer",
        "shared/crypto/boxes.py",
        'label="box-key", parts=(dealer,)',
        'label="box-key", parts=()',
        DEALT + "test_the_key_of_a_complaint_opens_nothing_of_another_dealer",
    ),
    _d(
        "boxes bound to their use",
        "shared/crypto/boxes.py",
        "parts = (use.kind, use.round, use.dealer,",
        "parts = (use.kind, use.dealer,",
        "tests/shared/crypto/test_boxes.py::test_a_box_opens_for_no_other_use",
    ),
    _d(
        "channel keys signed",
        "client/secure_sum/letters.py",
        'me.parameters.roster.verify(key.site, statement, key.signature, "the channel key")',
        "pass",
        MASKING + "test_a_doctored_list_of_channel_keys_is_refused",
    ),
    _d(
        "round keys signed",
        "client/secure_sum/letters.py",
        "me.parameters.roster.verify(\n            sender.site",
        "str(\n            sender.site",
        MASKING + "test_a_doctored_list_of_participants_is_refused",
    ),
    _d(
        "letters are their sender's own",
        "client/secure_sum/letters.py",
        "if hash_tree.root_from(leaf_of(letter, me.site, own.public), delivered.path) != "
        "sender.root:",
        NEVER,
        MASKING + "test_every_letter_must_be_there_and_be_the_one_that_was_written",
    ),
    _d(
        "low-order keys refused at the site",
        "client/secure_sum/letters.py",
        "if is_low_order(key):",
        NEVER,
        MASKING + "test_a_letter_with_a_low_order_key_is_refused",
    ),
    _d(
        "low-order keys name their sender",
        "server/secure_sum/key_exchange.py",
        "if is_low_order(key):",
        NEVER,
        BLAME + "test_a_low_order_key_for_boxes_names_its_sender",
    ),
    _d(
        "copied keys name the copier",
        "server/secure_sum/key_exchange.py",
        "if (owner := owners.get(key, site)) != site:",
        NEVER,
        BLAME + "test_a_copied_key_of_the_round_names_the_copier",
    ),
    _d(
        "low-order identities refused",
        "shared/crypto/keys.py",
        "if y >= _P or y in _SMALL_ORDER_Y:",
        "if y >= _P:",
        KEYS + "test_an_identity_of_low_order_is_no_identity",
    ),
    _d(
        "low-order identities do not enrol",
        "shared/enrolment/messages.py",
        'check_identity(self.identity, f"the identity of site {self.site}")',
        "pass",
        "tests/shared/enrolment/test_messages.py::"
        "test_an_identity_of_low_order_does_not_enrol_though_its_signature_verifies",
    ),
    _d(
        "one encoding of an identity",
        "shared/crypto/keys.py",
        "if y >= _P or y in",
        "if y in",
        KEYS + "test_a_second_encoding_of_an_identity_is_refused",
    ),
    _d(
        "shares checked by their holder",
        "shared/secure_sum/dealt_shares.py",
        "if commit_share(use, share) != commitment:",
        NEVER,
        BLAME + "test_wrong_seed_shares_name_their_dealer_at_once",
    ),
    _d(
        "shares are field elements",
        "shared/secure_sum/dealt_shares.py",
        "        read_share(share)\n",
        "        pass\n",
        DEALT + "test_a_wrong_share_is_refused_and_the_key_proves_it",
    ),
    _d(
        "a complaint shows the announced key",
        "shared/secure_sum/dealt_shares.py",
        "if own.public != announced:",
        NEVER,
        BLAME + "test_a_complaint_that_proves_nothing_names_who_complains",
    ),
    _d(
        "only survivors' boxes are opened",
        "client/secure_sum/letters.py",
        "request.boxes.keys() & set(request.survivors) & set(me.peers)",
        "request.boxes.keys() & set(me.peers)",
        MASKING + "test_no_box_of_a_site_outside_the_survivors_is_opened_or_complained_of",
    ),
    _d(
        "proved liars stay out",
        "server/secure_sum/key_exchange.py",
        'self._expelled.setdefault(site, f"taken out of this run: {why}")',
        "pass",
        BLAME + "test_wrong_mask_shares_for_all_void_one_round_that_names_their_dealer",
    ),
    _d(
        "self masks dealt under a signature",
        "server/secure_sum/protocol.py",
        "self.parameters.roster.verify(site, statement, reply.signature, "
        '"the self mask\'s shares")',
        "pass",
        SITES + "test_a_site_that_breaks_the_protocol_before_its_update_is_dropped_and_named",
    ),
    _d(
        "shares match their commitments",
        "server/secure_sum/protocol.py",
        "if committed is None or found != committed:",
        "if committed is None:",
        SITES + "test_a_site_that_breaks_the_protocol_after_its_update_is_named_and_the_sum_stands",
    ),
    _d(
        "updates of this context only",
        "server/secure_sum/protocol.py",
        "if reply.round != round or reply.context != context:",
        NEVER,
        SITES + "test_sites_shown_another_model_are_left_out",
    ),
    _d(
        "no vector kept",
        "server/secure_sum/protocol.py",
        'replace(reply, packed=b"")',
        "reply",
        SITES + "test_the_coordinator_keeps_no_sites_vector",
    ),
    _d(
        "check coordinates",
        "shared/secure_sum/tail.py",
        " or tail[2:].any()",
        "",
        SITES + "test_an_update_masked_otherwise_voids_the_round_by_its_tail",
    ),
    _d(
        "replies under the sender's name",
        "server/secure_sum/exchange.py",
        "if reply.site != site:",
        NEVER,
        SITES + "test_a_site_that_breaks_the_protocol_before_its_update_is_dropped_and_named",
    ),
    _d(
        "aggregate norm bounded",
        "server/study/plausibility.py",
        "if not norm <= bound:",
        NEVER,
        "tests/server/study/test_plausibility.py::test_a_sum_beyond_its_bound_voids_the_round",
    ),
    _d(
        "invented hospitals bounded",
        "client/hospital/policy.py",
        "if vouched < needed:",
        NEVER,
        TRUST + "test_a_coordinator_that_invents_all_other_hospitals_is_refused",
    ),
    _d(
        "unknown sites count as colluding",
        "client/hospital/roster_trust.py",
        "return max(collusion + 1, study.group_size - 1 - collusion)",
        "return collusion + 1",
        TRUST + "test_two_known_hospitals_are_not_enough_against_five_inventions",
    ),
    _d(
        "stand-ins named",
        "client/hospital/policy.py",
        "if standing.against:",
        NEVER,
        TRUST + "test_a_stand_in_for_a_hospital_that_we_checked_is_named_whatever_the_bound",
    ),
    _d(
        "more vouchers than colluding sites",
        "client/hospital/roster_trust.py",
        "len(by) >= needed",
        "len(by) >= 1",
        TRUST + "test_one_liar_among_those_we_checked_adds_nobody",
    ),
    _d(
        "only checked hospitals vouch",
        "client/hospital/roster_trust.py",
        "if self.own.get(signer) in self._of_one_hospital(given.signer)",
        "if True",
        TRUST + "test_the_word_of_a_hospital_that_we_have_not_checked_counts_for_nothing",
    ),
    _d(
        "vouchers signed",
        "shared/enrolment/vouchers.py",
        ".verify(self.signature, statement)",
        "",
        "tests/shared/enrolment/test_vouchers.py::"
        "test_a_list_that_was_altered_or_forged_is_refused",
    ),
    _d(
        "withdrawn vouchers stay withdrawn",
        "client/hospital/voucher_store.py",
        "if known is not None and known.issued >= given.issued:",
        NEVER,
        STORE + "test_a_withdrawn_voucher_is_not_brought_back_by_an_older_list",
    ),
    _d(
        "vouchers as the log has them",
        "client/hospital/voucher_check.py",
        "if recorded.get(name) != held.get(name)",
        NEVER.rstrip(":"),
        STORE + "test_an_older_copy_put_back_is_noticed_and_the_named_command_mends_it",
    ),
    _d(
        "roster checked with every message",
        "client/service/study_sessions.py",
        "self._check_roster(known.approval)",
        "pass",
        "tests/client/service/test_study_sessions.py::"
        "test_a_roster_that_is_trusted_no_longer_is_refused_from_the_next_message_on",
    ),
    _d(
        "cancelling terms bounded",
        "shared/model/bookkeeping.py",
        "torch.maximum(norms_P, terms_P / MOST_CANCELLATION)",
        "norms_P",
        HOSTILE + "test_a_search_for_the_worst_change_finds_none_above_the_clip_norm",
    ),
    _d(
        "a gradient that is not finite counts as zero",
        "shared/model/bookkeeping.py",
        "torch.where(weight == 0, 0.0, values * weight)",
        "values * weight",
        HOSTILE + "test_a_search_for_the_worst_change_finds_none_above_the_clip_norm",
    ),
    _d(
        "each row by itself",
        "shared/model/layers.py",
        "return multiply_rows(x, weight.t(), bias)",
        "return functional.linear(x, weight, bias)",
        HOSTILE + "test_a_stays_numbers_are_the_same_bits_whoever_is_beside_it",
    ),
    _d(
        "sums that do not round",
        "shared/kernels/exact_product.py",
        "(_multiples(x, largest_N1, ROW_BITS) @ weight.parts)",
        "(x.double() @ weight.parts)",
        "tests/shared/kernels/test_exact_product.py::test_what_is_left_of_terms_that_cancel_has_no_order",
    ),
    _d(
        "labels of padded steps never read",
        "shared/model/branch.py",
        "        if self.task.per_step:\n            y = torch.where(",
        "        if False:\n            y = torch.where(",
        HOSTILE + "test_a_label_at_a_padded_step_is_never_looked_at",
    ),
    _d(
        "scores are numbers",
        "client/round/predictions.py",
        "scores.nan_to_num(nan=model.task.center if regression else 0.0).double()",
        "scores.double()",
        "tests/client/round/test_validation_sums.py::"
        "test_weights_and_records_made_to_overflow_give_finite_bounded_sums",
    ),
    _d(
        "losses are numbers",
        "client/round/predictions.py",
        ".nan_to_num(nan=LARGEST_LOSS).clamp(min=0)",
        "",
        "tests/client/round/test_validation_sums.py::"
        "test_weights_and_records_made_to_overflow_give_finite_bounded_sums",
    ),
    _d(
        "training that leaves all numbers moves nothing",
        "client/round/training_round.py",
        "if np.isfinite(trained_D).all():",
        "if True:",
        "tests/client/round/test_contribution.py::"
        "test_weights_that_training_leads_beyond_all_numbers_stay_where_they_were",
    ),
    _d(
        "weights checked before records",
        "client/round/contribution.py",
        "require_weights(global_D, self.parameters)",
        "pass",
        "tests/client/round/test_contribution.py::"
        "test_weights_that_are_not_finite_are_refused_before_a_record_is_looked_at",
    ),
    _d(
        "exported model signed",
        "shared/export/signed_model.py",
        ".verify(signature, manifest_statement(manifest))",
        "",
        "tests/shared/export/test_signed_model.py::"
        "test_another_signer_a_missing_part_and_a_stranger_are_refused",
    ),
    _d(
        "every part of an exported model",
        "shared/export/signed_model.py",
        "if found != digest:",
        NEVER,
        "tests/shared/export/test_signed_model.py::"
        "test_one_flipped_bit_anywhere_is_refused_with_what_does_not_match",
    ),
    _d(
        "stores compared at the start",
        "client/hospital/stores.py",
        "for sentence in older_stores(folder, approved):",
        "for sentence in ():",
        STORES + "test_every_combination_of_older_and_missing_stores_is_refused_or_harmless",
    ),
    _d(
        "log not older than the journal",
        "client/hospital/stores.py",
        "if end is not None and record.digests.get(end.entry) != end.digest:",
        NEVER,
        STORES + "test_every_combination_of_older_and_missing_stores_is_refused_or_harmless",
    ),
    _d(
        "log not older than a head of its own",
        "client/hospital/round_audit.py",
        "if found is None or found.digest != head.digest:",
        NEVER,
        STORES + "test_a_folder_that_was_put_back_as_a_whole_takes_part_in_no_round",
    ),
    _d(
        "other sites' heads never fall",
        "client/hospital/round_audit.py",
        "if number < least.get(identity, 0):",
        NEVER,
        STORES + "test_a_coordinator_that_hides_the_newest_head_finds_the_other_sites_refusing",
    ),
    _d(
        "a head rises with each release",
        "client/hospital/peer_heads.py",
        "SELECT identity, number + released_since FROM",
        "SELECT identity, number FROM",
        STORES + "test_a_state_put_back_by_one_round_is_noticed_by_those_who_opened_that_round",
    ),
    _d(
        "an update brings a newer head",
        "server/secure_sum/site_heads.py",
        "if known is not None and head.number <= known.number:",
        NEVER,
        "tests/server/secure_sum/test_site_heads.py::"
        "test_an_update_must_come_with_a_newer_head_than_any_before",
    ),
    _d(
        "a ledger in use never shrinks",
        "client/ledger/store.py",
        "if last < self._reached:",
        NEVER,
        STORES + "test_a_ledger_that_is_put_back_while_the_site_runs_is_refused",
    ),
    _d(
        "what is written off stays spent",
        "client/ledger/store.py",
        "already=written_off.epsilon)",
        "already=0.0)",
        STORES + "test_a_state_that_is_written_off_can_spend_nothing_until_the_lifetime_is_raised",
    ),
    _d(
        "no more calibrations than the study has",
        "client/ledger/store.py",
        "if most is not None and alike >= most:",
        NEVER,
        CALIBRATION + "test_a_site_answers_as_many_calibrations_as_the_study_has_and_each_once",
    ),
    _d(
        "no calibration that nobody approved",
        "client/round/contribution.py",
        "if asked.purpose is Purpose.CALIBRATION and not self._study.calibration_rounds:",
        NEVER,
        CALIBRATION + "test_a_study_without_calibration_refuses_to_be_asked_for_one",
    ),
    _d(
        "a code endorses its identity",
        "client/service/enroll.py",
        "if binding.site != site or binding.keys != code.endorse(binding.identity):",
        NEVER,
        "tests/client/service/test_recovering.py::test_another_codes_binding_is_refused",
    ),
    _d(
        "no older certificate than a head that was seen",
        "client/hospital/roster_change.py",
        "if seen is not None and seen.number > head.number:",
        NEVER,
        "tests/client/hospital/test_roster_change.py::"
        "test_an_older_certificate_than_this_site_has_seen_heads_is_refused",
    ),
    _d(
        "a new key needs a proof",
        "client/hospital/roster_change.py",
        "if identity != change.after:",
        NEVER,
        "tests/client/hospital/test_roster_change.py::test_a_recovery_that_nobody_made_is_refused",
    ),
    _d(
        "all that stay agreed to a roster",
        "shared/enrolment/roster_version.py",
        "if not is_signed(identity, agreement(self.version, roster), signature):",
        NEVER,
        ROSTERS + "test_a_version_that_not_all_agreed_to_is_refused",
    ),
    _d(
        "no older roster",
        "client/hospital/roster_versions.py",
        "if number < newest or (number == newest and roster_digest(roster) != agreed):",
        NEVER,
        ROSTERS + "test_two_sites_never_take_over_two_versions",
    ),
    _d(
        "a roster follows the one in force",
        "client/hospital/roster_versions.py",
        "if version.before != members_digest(approval.roster):",
        NEVER,
        ROSTERS + "test_a_version_that_follows_another_roster_or_is_signed_by_another_is_refused",
    ),
    _d(
        "no new key by a roster",
        "client/hospital/roster_versions.py",
        "if known[site] != then[site]:",
        NEVER,
        ROSTERS + "test_a_version_with_another_key_of_a_site_that_stays_is_refused",
    ),
    _d(
        "a joiner is vouched for",
        "client/hospital/roster_versions.py",
        "if unknown and policy.vouched_at_least is None:",
        NEVER,
        ROSTERS + "test_a_joiner_that_nobody_vouched_for_or_that_has_another_key_is_refused",
    ),
    _d(
        "a former budget goes into a new ledger only",
        "client/ledger/store.py",
        "if len(list(rows.entries())) + len(missing) > len(spent.releases):",
        NEVER,
        "tests/client/ledger/test_certificate.py::test_a_ledger_in_use_takes_no_former_budget",
    ),
    _d(
        "the code signs a succession",
        "shared/enrolment/recovery.py",
        "if not signed or self.identity == self.binding.identity:",
        NEVER,
        "tests/shared/enrolment/test_recovery.py::"
        "test_a_succession_is_of_this_hospital_from_this_key_to_that_one",
    ),
)
