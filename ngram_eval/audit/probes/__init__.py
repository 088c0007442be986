"""The probes: each tests one property of a subject and returns its finding. `PROBES` lists them, a module a kind."""

from ngram_eval.audit.case import Case
from ngram_eval.audit.finding import Probe
from ngram_eval.audit.probes.account import (
    bytes_are_the_text_s,
    data_is_canonical,
    each_position_once,
    size_is_decimal,
    text_is_not_trained_on,
)
from ngram_eval.audit.probes.drawn import drawn_from_itself, random_numbers
from ngram_eval.audit.probes.kept import text_is_not_in_the_memory
from ngram_eval.audit.probes.past import (
    cuts_of_prefixes,
    documents_are_apart,
    future_is_unseen,
    no_ghost_of_the_text,
    scores_before_counting,
    target_changes_no_other,
)
from ngram_eval.audit.probes.runs import no_gain_from_collisions, same_number_again, without_weight_it_is_the_model
from ngram_eval.audit.probes.values import every_token_is_possible, renormalised, sums_to_one

_CHANCE = "gains of less than 20.7 nats in all, which chance may have"
_WHOLE = "nothing: all of it is compared"

PROBES: tuple[Probe[Case], ...] = (
    Probe("sum to 1", "mean |Σ - 1|", sums_to_one, True, "less than the tolerance"),
    Probe(
        "future unseen", "nats", future_is_unseen, True, "what sees across none of the cuts: row 4 withholds the rest"
    ),
    Probe("target unseen", "change", target_changes_no_other, False, "targets that were not put"),
    Probe("scored, then counted", "nats", scores_before_counting, True, "less than the tolerance"),
    Probe("each position once", "off", each_position_once, True, _WHOLE),
    Probe("the text's bytes", "off", bytes_are_the_text_s, False, "without --text, what the decoder does not write"),
    Probe("weight 0 is the model", "off", without_weight_it_is_the_model, False, _WHOLE),
    Probe("same number again", "nats", same_number_again, False, "differences that cancel out in the mean"),
    Probe("no collision gain", "nats", no_gain_from_collisions, False, "gains below 0.5 % of the score", False),
    Probe("renormalised", "bpb", renormalised, False, "a lower claim that other positions make up for"),
    Probe("documents apart", "nats", documents_are_apart, False, "what only another past would change"),
    Probe("size", "MB", size_is_decimal, False, _WHOLE),
    Probe("random numbers", "nats", random_numbers, False, _CHANCE),
    Probe("drawn from itself", "nats", drawn_from_itself, False, _CHANCE),
    Probe("cuts of prefixes", "nats", cuts_of_prefixes, False, "what sees across none of the cuts; a longer block"),
    Probe("no ghost of the text", "rank", no_ghost_of_the_text, False, "a memory of a smaller part of the text"),
    Probe("every token possible", "tokens", every_token_is_possible, False, "tokens ruled out at some positions only"),
    Probe(
        "text not trained on",
        "share",
        text_is_not_trained_on,
        False,
        "texts without 32 tokens in a row in common",
        False,
    ),
    Probe("the data claimed", "off", data_is_canonical, False, _WHOLE),
    Probe(
        "text not in the memory", "share", text_is_not_in_the_memory, False, "texts that differ every 16 tokens", False
    ),
)
"""All probes; their numbers start at 1."""
