"""Is a score what it says it is? `python -m ngram_eval.audit`: probes of any scorer, ours or a third party's.

`subjects` makes what is audited behave alike: a preset, a Python callable, a file of claimed probabilities. `probes`
holds the probes, one function each, which know nothing but that. `report` shows what they found.
"""
