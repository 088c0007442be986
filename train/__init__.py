"""Trains models that `ngram_eval` evaluates; imported as `ngram_eval.train`."""
