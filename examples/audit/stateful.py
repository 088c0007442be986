"""A class with state, as an evaluator: every stream gets a new one."""

from submission import Counter


def evaluate(tokens):
    counter = Counter()
    yield from (counter.charge(token) for token in tokens[1:].tolist())
