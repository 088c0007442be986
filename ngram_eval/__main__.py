"""`python -m ngram_eval` is `ngram-eval`."""

from ngram_eval.cli.main import main

main()
