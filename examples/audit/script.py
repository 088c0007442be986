"""A script that prints a sum, as an evaluator: it is run on a file of the stream, and the last number is read."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("score.py")


def evaluate(tokens):
    np.save("tokens.npy", tokens)  # the working folder is its own
    sys.argv[1:] = ["tokens.npy"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return float(printed.getvalue().split()[-1])
