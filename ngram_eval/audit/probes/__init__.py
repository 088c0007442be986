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

PROBES: tuple[Probe[Case], ...] = (
    Probe("sum to 1", "mean |Σ - 1|", sums_to_one, essential=True),
    Probe("future unseen", "nats", future_is_unseen, essential=True),
    Probe("target unseen", "change", target_changes_no_other),
    Probe("scored, then counted", "nats", scores_before_counting, essential=True),
    Probe("each position once", "off", each_position_once, essential=True),
    Probe("the text's bytes", "off", bytes_are_the_text_s),
    Probe("weight 0 is the model", "off", without_weight_it_is_the_model),
    Probe("same number again", "nats", same_number_again),
    Probe("no collision gain", "nats", no_gain_from_collisions, proves=False),
    Probe("renormalised", "bpb", renormalised),
    Probe("documents apart", "nats", documents_are_apart),
    Probe("size", "MB", size_is_decimal),
    Probe("random numbers", "nats", random_numbers),
    Probe("drawn from itself", "nats", drawn_from_itself),
    Probe("cuts of prefixes", "nats", cuts_of_prefixes),
    Probe("no ghost of the text", "rank", no_ghost_of_the_text),
    Probe("every token possible", "tokens", every_token_is_possible),
    Probe("text not trained on", "share", text_is_not_trained_on, proves=False),
    Probe("the data claimed", "off", data_is_canonical),
    Probe("text not in the memory", "share", text_is_not_in_the_memory, proves=False),
)
"""All probes; their numbers start at 1."""
