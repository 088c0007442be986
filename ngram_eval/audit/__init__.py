"""The audit, `python -m ngram_eval.audit`: probes whether a score of any scorer is a probability.

`subjects` gives all that can be audited one interface: a preset, a Python callable, a file of claimed probabilities.
`probes` holds the probes, one function each, which use only this interface. `report` shows the findings.
"""
