"""A script that scores a file of tokens and prints a sum; a stand-in for your own."""

import math
import sys

import numpy as np

tokens = np.load(sys.argv[1])
counts, nats = np.ones(1024), 0.0
for token in tokens[1:]:
    nats += math.log(counts.sum() / counts[token])
    counts[token] += 1
print(f"{len(tokens) - 1} tokens, total nats: {nats:.6f}")
