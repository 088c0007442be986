"""Compresses files of text with the evaluator's own probabilities: `python -m ngram_eval.codec` (see docs/codec.md).

bytes ──alphabet──▶ tokens ──coder──▶ payload ──container──▶ file, and back. The size of the file proves the number.
"""
