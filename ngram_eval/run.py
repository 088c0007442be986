"""The evaluator, `python -m ngram_eval.run` (also under torchrun): score a token stream in bits per byte.

The method is `ngram_eval.evaluation.evaluate`, the command line `ngram_eval.cli.run`.
"""

from ngram_eval.cli.run import main

if __name__ == "__main__":
    main()
