"""`python -m ngram_eval.codec` is `ngram-eval codec`."""

from ngram_eval.cli.codec import main

if __name__ == "__main__":
    main()
