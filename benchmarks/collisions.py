"""PR #890's gain against the size of its tables: `python -m benchmarks.collisions --out FILE.md --plot FILE.svg`.

One text, one model, tables of 2^10 to 2^26 buckets. For each: the score that the method claims, the sum of its values
over the vocabulary, and what the text costs when every value is divided by that sum, as a code would have to. Beside
them the rule on exact counts, which the tables converge to as collisions vanish, the model alone, and what exact counts
bring when they are blended into a probability (preset `exact`).
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.machine import describe_machine, publish
from ngram_eval.audit.subjects.scorer import SharedSource
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.config import EvalConfig, NgramConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import Job, load_job
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN, DataSettings, Settings
from ngram_eval.files import replacing
from ngram_eval.scorers.base import NeuralScorer, Scorer
from ngram_eval.scorers.hashed.counts import Best, Matches
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.reference import best_match
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.samples import choose_samples, cut, entropy_of
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import batches, plan_windows, target_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the gain against the size of the tables."""

    preset: str = "pr890"
    """Whose tables: pr890 or hashed. The last stride is scored once in either case."""
    log_buckets: tuple[int, ...] = tuple(range(10, 27, 2))
    """Sizes, as powers of 2."""
    samples: int = 2048
    """Positions at which the values are added up over the vocabulary."""
    toy: bool = False
    """A short stretch and three sizes, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""
    plot: Path | None = None
    """Draw it here, .svg or .png; needs matplotlib (`pip install -e '.[plot]'`)."""


class DictionaryCounts:
    """`ngram_eval.scorers.hashed.counts.Counts` of the same rule in dictionaries of n-grams: nothing collides."""

    def __init__(self, config: NgramConfig) -> None:
        self.config = config
        self._successors: list[dict[bytes, Counter[int]]] = [{} for _ in config.orders]

    def _contexts(self, tokens: Tokens, position: int) -> Iterator[tuple[int, bytes]]:
        """(row, context) of the orders that have a whole one."""
        end = position + 1 - self.config.context_lag
        for row, order in enumerate(self.config.orders):
            if end >= order - 1:
                yield row, tokens[end - order + 1 : end].tobytes()

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        for position in range(start, stop):
            target = int(tokens[position + 1])
            for row, context in self._contexts(tokens, position):
                self._successors[row].setdefault(context, Counter())[target] += 1

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        shape = (len(self.config.orders), stop - start)
        matches = Matches(np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))
        for position in range(start, stop):
            for row, context in self._contexts(tokens, position):
                found = self._successors[row].get(context, Counter())
                matches.context[row, position - start] = found.total()
                matches.full[row, position - start] = found[int(tokens[position + 1])]
        return matches

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        shape = (len(self.config.orders), vocab)
        matches = Matches(np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))
        for row, context in self._contexts(tokens, position):
            found = self._successors[row].get(context, Counter())
            matches.context[row] = found.total()
            matches.full[row, list(found)] = list(found.values())
        return matches

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        scored = []
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            scored.append(best_match(self.lookup(tokens, first, stop), self.config))
            self.update(tokens, first, stop)
        return Best(*map(np.concatenate, zip(*scored, strict=True)))

    def state(self) -> NDArray[np.uint32]:
        raise NotImplementedError("dictionaries have no tables")

    def load_state(self, state: NDArray[np.uint32]) -> None:
        raise NotImplementedError("dictionaries have no tables")


class Line(NamedTuple):
    """What one scorer makes of the text, in bits per byte."""

    claimed: float
    """Over all positions."""
    at_samples: float
    """The same over the sampled positions."""
    vocabulary_sum: float
    """Mean over the sampled positions."""
    renormalised: float
    """Over the sampled positions, each value divided by its sum."""


def measure_scorer(scorer: Scorer, job: Job, config: EvalConfig, samples: NDArray[np.int64]) -> Line:
    """Score the stream once, looking at the whole vocabulary at the samples on the way."""
    tokens, source, tokenizer = job.stream.tokens, job.source, job.tokenizer
    assert tokenizer is not None
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    charged, sums = [], []
    for batch in batches(plan_windows(targets, config.window), source.batch_windows):
        stats, entry = source.stats(tokens, batch), 0
        for looks, part in cut(batch, samples, scorer.window_wise):
            for position in looks:
                (neural,) = source.probabilities(tokens, batch.scoring(position))
                sums.append(scorer.distribution(tokens, position, neural, entropy_of(neural)).sum())
            charged.append(scorer.score(tokens, part, stats.part(slice(entry, entry + part.scored))).values)
            entry += part.scored
    sizes = tokenizer.target_bytes(tokens, 0, targets, "decoded")
    return line_of(np.concatenate(charged), np.array(sums), samples, sizes)


def line_of(
    charged: NDArray[np.float64], sums: NDArray[np.float64], samples: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Line:
    """The line of the values charged (T,), their sums at the samples, and the targets' bytes (T,)."""
    nats = nats_of(charged)

    def per_byte(costs: NDArray[np.float64], of: NDArray[np.int64]) -> float:
        found = bits_per_byte(float(costs.sum()), int(of.sum()))
        assert found is not None
        return found

    divided = nats[samples] + np.log(sums)
    return Line(
        per_byte(nats, sizes),
        per_byte(nats[samples], sizes[samples]),
        float(np.mean(sums)),
        per_byte(divided, sizes[samples]),
    )


def measure_all(options: Options) -> tuple[int, dict[int, Line], dict[str, Line]]:
    """(positions, log2 of the buckets -> line, name -> line of what has no buckets)."""
    sizes = (8, 12, 18) if options.toy else options.log_buckets
    job = load_job(Settings(data=DataSettings(max_tokens=600 if options.toy else None)), ALONE)
    job = replace(job, source=SharedSource(job.source))
    config = preset(options.preset)
    config = replace(config, window=replace(config.window, seq_len=EMBEDDED_SEQ_LEN, rescore_tail=False))
    targets = target_count(len(job.stream.tokens), EMBEDDED_SEQ_LEN)
    samples = choose_samples(targets, 32 if options.toy else options.samples, config.window)

    def measured(scorer: Scorer) -> Line:
        return measure_scorer(scorer, job, config, samples)

    lines = {}
    for size in sizes:
        tables = replace(config, ngram=replace(config.ngram, buckets=1 << size))
        lines[size] = measured(make_scorer(job.backend, tables))
    beside = {
        "the rule on exact counts": HashedScorer(DictionaryCounts(config.ngram), GatedBackoff(config.gate)),
        "the model alone": NeuralScorer(),
        "preset exact": make_scorer(job.backend, preset("exact")),
    }
    return targets, lines, {name: measured(scorer) for name, scorer in beside.items()}


def report(options: Options, positions: int, lines: dict[int, Line], beside: dict[str, Line]) -> str:
    """The result as Markdown."""
    first, last = min(lines), max(lines)
    text = [
        "# PR #890's gain against the size of its tables",
        "",
        f"Command: `{' '.join(['python -m benchmarks.collisions', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        f"The embedded model on the embedded held-out novel, {positions:,} positions, preset `{options.preset}` with "
        "the last stride scored once. Bits per byte, lower is better. Of the last three columns, at sampled positions.",
        "",
        "| buckets a table | positions a bucket | claimed score | mean Σ | claimed at the samples | renormalised |",
        "|---|---|---|---|---|---|",
    ]
    text += [f"| 2^{size} | {positions / 2**size:.2g} | {_cells(line)} |" for size, line in lines.items()]
    text += [f"| {name} | | {_cells(line)} |" for name, line in beside.items()]
    text += [
        "",
        f"From 2^{last} down to 2^{first} buckets the claimed score falls from {lines[last].claimed:.3f} to "
        f"{lines[first].claimed:.3f}, while what it stands for rises from {lines[last].renormalised:.3f} to "
        f"{lines[first].renormalised:.3f}.",
    ]
    return "\n".join(text) + "\n"


def _cells(line: Line) -> str:
    return f"{line.claimed:.3f} | {line.vocabulary_sum:.3g} | {line.at_samples:.3f} | {line.renormalised:.3f}"


def draw(path: Path, lines: dict[int, Line], beside: dict[str, Line]) -> None:
    """Claimed and renormalised bits per byte against the buckets."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "collisions"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    sizes = list(lines)
    axes.plot(sizes, [lines[size].renormalised for size in sizes], "o-", color="tab:red", label="renormalised")
    axes.plot(sizes, [lines[size].claimed for size in sizes], "o-", color="tab:blue", label="claimed score")
    styles = {"the model alone": ("black", ":"), "the rule on exact counts": ("tab:blue", "--")}
    for name, line in beside.items():
        color, style = styles.get(name, ("tab:green", "-"))
        label = f"{name}, Σ = {line.vocabulary_sum:.3g}"
        axes.axhline(line.claimed, color=color, linestyle=style, linewidth=1.2, label=label)
    axes.set_xticks(sizes, [f"$2^{{{size}}}$\nΣ {lines[size].vocabulary_sum:.3g}" for size in sizes])
    axes.set_xlabel("buckets a table, and the mean sum of the values over the vocabulary")
    axes.set_ylabel("bits per byte")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.collisions")
    found = measure_all(options)
    publish(report(options, *found), options.out)
    if options.plot is not None:
        draw(options.plot, *found[1:])


if __name__ == "__main__":
    main()
