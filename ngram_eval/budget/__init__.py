"""How long an evaluation takes: what each stage costs here, measured, and what follows for a longer text on more ranks.

`measure.py` takes the times, `exchange.py` those of ranks that exchange, `predict.py` is the arithmetic.
"""
