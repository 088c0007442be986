"""What each honest blend makes of a text, beside the model alone: `python -m benchmarks.blends --out FILE.md`.

All lines share one forward pass and the same positions. The rivals have exact counts too, and the context alone chooses
their order, so that their values sum to 1 like ours.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.collisions import DictionaryCounts
from benchmarks.machine import describe_machine, publish
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.config import EvalConfig, ExactConfig, GateConfig, NgramConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN, DataSettings, ModelSettings, Settings
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.source import Stats, statistics
from ngram_eval.scorers.base import Scorer
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.windows import batches, plan_windows, target_count

ALPHAS = tuple(round(0.05 * i, 2) for i in range(1, 20))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Compare blends on one text; without --data on the embedded sample."""

    data: tuple[str, ...] = ()
    """Token shards of the text."""
    artifact: Path | None = None
    """Model file, for --data."""
    tokenizer: Path | None = None
    """SentencePiece model, for --data."""
    seq_len: int = EMBEDDED_SEQ_LEN
    """Window of the model."""
    max_tokens: int | None = None
    """Tokens to use; default: all."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def exact_variants(base: EvalConfig) -> Iterator[tuple[str, EvalConfig]]:
    """The family of preset `exact`, one thing changed at a time."""
    yield "exact", base
    for order in (3, 5, 9, 16, 32):
        yield f"exact, orders to {order}", replace(base, ngram=replace(base.ngram, max_order=order))
    yield "exact, counted after each window of 32", replace(base, exact=ExactConfig(by_window=True))
    yield "exact, then a learned tilt", replace(base, exact=ExactConfig(tilt="learned"))
    yield "tilt alone, learned", replace(base, exact=preset("tilt").exact)
    for beta in (1.0, 2.0, 3.0):
        for confidence in (0.0, 0.5, 0.8):
            tilt = ExactConfig(chain=False, tilt="fixed", tilt_beta=beta, tilt_confidence=confidence)
            yield f"tilt alone, beta {beta:g}, confidence {confidence:g}", replace(base, exact=tilt)


def measure(options: Options) -> str:
    """The Markdown report."""
    job = load_job(
        Settings(
            data=DataSettings(data=options.data, tokenizer=options.tokenizer, max_tokens=options.max_tokens),
            model=ModelSettings(artifact=options.artifact),
        ),
        ALONE,
    )
    tokens = job.stream.tokens[:]
    assert job.tokenizer is not None
    base = preset("exact")
    base = replace(base, window=replace(base.window, seq_len=options.seq_len))
    targets = target_count(len(tokens), max(options.seq_len, job.source.train_seq_len))
    windows = plan_windows(targets, base.window)
    rows = [job.source.probabilities(tokens, batch) for batch in batches(windows, job.source.batch_windows)]
    source = SavedLogits(np.log(np.maximum(np.concatenate(rows), 1e-30)), Path("computed"))
    parts = [(batch, statistics(source, tokens, batch, rows=True)) for batch in batches(windows, 64)]
    stats = Stats(
        np.concatenate([part.p_target for _, part in parts]), np.concatenate([part.entropy for _, part in parts])
    )
    text_bytes = int(job.tokenizer.target_bytes(tokens, 0, targets, "decoded").sum())

    def bpb(p: NDArray[np.float64]) -> float:
        return float(bits_per_byte(float(nats_of(p).sum()), text_bytes) or np.nan)

    def scored(scorer: Scorer) -> float:
        return bpb(np.concatenate([scorer.score(tokens, batch, part).values for batch, part in parts]))

    lines = {"the model alone": bpb(stats.p_target)}
    for least in (1, 2):
        counts = DictionaryCounts(NgramConfig(min_count=least))
        best = counts.score_windows(tokens, windows.first, windows.stop)
        fixed = {a: bpb(GatedBackoff(GateConfig(alpha_range=0, alpha_fixed=a))(stats, best)) for a in ALPHAS}
        alpha = min(fixed, key=fixed.__getitem__)
        lines[f"best fixed alpha ({alpha:g}), orders 2 to 9, least count {least}"] = fixed[alpha]
        lines[f"PR #890's gate, orders 2 to 9, least count {least}"] = bpb(GatedBackoff(GateConfig())(stats, best))
    for name, config in exact_variants(base):
        lines[name] = scored(make_scorer("cpu", config))
    neural = lines["the model alone"]
    return (
        "\n".join(
            [
                "# Blends that are probabilities",
                "",
                f"Command: `{shlex.join(['python', '-m', 'benchmarks.blends', *sys.argv[1:]])}`",
                "",
                describe_machine(),
                "",
                f"{targets:,} positions, {text_bytes:,} bytes, window {options.seq_len}, stride 32.",
                "",
                "| | bits per byte | against the model alone |",
                "|---|---|---|",
                *(f"| {name} | {value:.4f} | {value / neural - 1:+.1%} |" for name, value in lines.items()),
            ]
        )
        + "\n"
    )


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.blends")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
