"""`python -m ngram_eval.audit` is `ngram-eval audit`."""

from ngram_eval.cli.audit import main

if __name__ == "__main__":
    main()
