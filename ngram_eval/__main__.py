"""`python -m ngram_eval` is `ngram-eval`."""

from ngram_eval.cli import main

main()
