"""Score a token stream in bits per byte: `python -m ngram_eval.run` (see --help).

`evaluate` is the whole method in six steps: tokens → windows → logits → counts → blend → bits per byte.
"""

import platform
import sys
from dataclasses import asdict, dataclass, replace
from functools import reduce
from importlib.metadata import version
from operator import add
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngram_eval.blend import GatedBackoff
from ngram_eval.bpb import Tally, as_nats, bits_per_byte
from ngram_eval.config import ByteRule, EvalConfig, WindowConfig
from ngram_eval.counts import Best, Tokens, make_counts, resolve_backend
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import require_writable
from ngram_eval.neural import NeuralSource, RememberingSource, Stats, UniformSource, load_scores, save_scores
from ngram_eval.options import Options, asset, parse
from ngram_eval.prefill import prefill_locally, prefill_stop
from ngram_eval.ranks import Ranks, joined_ranks
from ngram_eval.report import Result, print_table, write_json
from ngram_eval.timing import Stopwatch
from ngram_eval.tokens import Manifest, Tokenizer, TokenStream, check_vocabulary, read_manifest, read_shards
from ngram_eval.windows import Windows, batches, plan_windows, share, target_count

_BLEND_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every preset of a call shares."""

    options: Options
    ranks: Ranks
    stream: TokenStream
    tokenizer: Tokenizer | None
    manifest: Manifest | None
    source: NeuralSource


def evaluate(job: Job, name: str, config: EvalConfig, clock: Stopwatch, progress: Progress) -> Tally:
    """What this rank's share of the stream costs under `config`; the ranks' tallies add up to the result."""
    tokens, source, options, ranks = job.stream.tokens, job.source, job.options, job.ranks
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    windows = plan_windows(targets, config.window)
    mine = share(windows, ranks.rank, ranks.world, config.window, options.batch_windows)
    before = prefill_stop(mine, config.ngram)
    task = progress.add_task(name, total=before + mine.scored)

    with clock.stage("prefill"):
        counts = make_counts(options.backend, config.ngram, options.count_threads())
        prefill_locally(counts, tokens, before, lambda positions: progress.advance(task, positions))

    blend = GatedBackoff(config.gate)
    tally = Tally()
    for batch in batches(mine, source.batch_windows):
        with clock.stage("neural"):
            stats = source.stats(tokens, batch)
        with clock.stage("counts"):
            best = counts.score_windows(tokens, batch.first, batch.stop)
        with clock.stage("blend"):
            charge(tally, blend, stats, best)
        if job.tokenizer is not None:
            with clock.stage("bytes"):
                count_bytes(tally, tokens, job.tokenizer, batch, config.byte_rule)
        progress.advance(task, batch.scored)
    return tally


def charge(tally: Tally, blend: GatedBackoff, stats: Stats, best: Best) -> None:
    """Add what the blend charges for each position; a part at a time, so that temporaries stay in the cache."""
    for start in range(0, len(best.order), _BLEND_AT_ONCE):
        part = slice(start, start + _BLEND_AT_ONCE)
        p_neural, order = stats.p_target[part], best.order[part]
        p = blend(Stats(p_neural, stats.entropy[part]), Best(order, best.context[part], best.full[part]))
        tally.add(p, p_neural, order)


def count_bytes(tally: Tally, tokens: Tokens, tokenizer: Tokenizer, windows: Windows, rule: ByteRule) -> None:
    """Add the bytes and the unknown targets of the scored positions."""
    for first, stop in windows.spans():
        decoded = int(tokenizer.target_bytes(tokens, first, stop, "decoded").sum())
        tally.decoded_bytes += decoded
        tally.bytes += decoded if rule == "decoded" else int(tokenizer.target_bytes(tokens, first, stop, rule).sum())
        tally.unknown_targets += tokenizer.unknown_targets(tokens, first, stop)


def load_inputs(options: Options) -> tuple[TokenStream, Tokenizer | None]:
    """The token stream and the tokenizer that the options name, checked against each other."""
    if options.embedded:
        return read_shards([str(asset("sample_000000.bin"))], options.max_tokens), Tokenizer.load(
            asset("tokenizer.model")
        )
    stream = read_shards(options.data, options.max_tokens)
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    if tokenizer is not None:
        check_vocabulary(stream.tokens, tokenizer.vocab_size, str(options.tokenizer))
    return stream, tokenizer


def load_manifest(stream: TokenStream, tokenizer: Tokenizer | None) -> Manifest | None:
    """The manifest beside the shards, where there is one and a tokenizer to count bytes with."""
    manifest = read_manifest(stream.paths) if tokenizer else None
    if manifest is not None and tokenizer is not None and manifest.tokenizer_sha256 != tokenizer.sha256:
        raise InputError(
            f"the tokenizer (sha256 {tokenizer.sha256[:12]}...) is not the one that made {stream.paths[0]} "
            f"(its manifest says {manifest.tokenizer_sha256[:12]}...): give that one"
        )
    return manifest


def load_source(options: Options, stream: TokenStream, tokenizer: Tokenizer | None, ranks: Ranks) -> NeuralSource:
    """The neural source that the options name, checked against the stream and the tokenizer."""
    if options.scores is not None:
        return load_scores(options.scores, (stream.total - 1, len(stream.tokens) - 1))
    if options.uniform:
        vocab_size = options.vocab_size if tokenizer is None else tokenizer.vocab_size
        assert vocab_size is not None, "Options.check asks for one of the two"
        check_vocabulary(stream.tokens, vocab_size, "--uniform")
        return UniformSource(vocab_size)
    from ngram_eval.forward import load_model_source  # imports torch, which takes seconds

    path = asset("model.ngev") if options.artifact is None else options.artifact
    source = load_model_source(
        path,
        device=options.device,
        local_rank=ranks.local_rank,
        dtype=options.dtype,
        batch_windows=options.batch_windows,
    )
    if tokenizer is not None and tokenizer.vocab_size != source.vocab_size:
        raise InputError(
            f"{path} has a vocabulary of {source.vocab_size} tokens, the tokenizer {options.tokenizer} one of "
            f"{tokenizer.vocab_size}: give the tokenizer that the model was trained with"
        )
    check_vocabulary(stream.tokens, source.vocab_size, str(path))
    return source


def summarise(job: Job, name: str, config: EvalConfig, tally: Tally, seconds: dict[str, float], reused: int) -> Result:
    """The result of a preset from the tally of all ranks."""
    options, stream, manifest = job.options, job.stream, job.manifest
    nats, neural_nats, hits = as_nats(tally.nats), as_nats(tally.neural_nats), sum(tally.hits_by_order.values())
    # The manifest knows the whole text; what part of it was scored is known in decoded bytes.
    original = (
        round(tally.decoded_bytes * manifest.original_bytes / manifest.decoded_bytes)
        if manifest is not None and manifest.decoded_bytes
        else 0
    )
    packages = ("ngram_eval", "numpy", "torch", "triton", "sentencepiece")
    return Result(
        preset=name,
        normalised=GatedBackoff.normalised,
        vocabulary_sum=None,
        subset=stream.total > len(stream.tokens),
        tokens=len(stream.tokens),
        positions=tally.positions,
        nats=nats,
        val_loss=nats / tally.positions,
        neural_nats=neural_nats,
        bytes=tally.bytes if job.tokenizer else None,
        val_bpb=bits_per_byte(nats, tally.bytes),
        neural_bpb=bits_per_byte(neural_nats, tally.bytes),
        original_bytes=original or None,
        original_bpb=bits_per_byte(nats, original),
        neural_original_bpb=bits_per_byte(neural_nats, original),
        unknown_targets=tally.unknown_targets if job.tokenizer else None,
        hits=hits,
        hit_rate=hits / tally.positions,
        hits_by_order={str(order): tally.hits_by_order.get(order, 0) for order in config.ngram.orders},
        neural_source=job.source.name,
        neural_reused=reused,
        world_size=job.ranks.world,
        backend=resolve_backend(options.backend),
        threads=options.count_threads(),
        neural_settings=job.source.settings,
        seconds={stage: round(value, 6) for stage, value in seconds.items()},
        data=[str(path) for path in stream.paths],
        config=asdict(config),
        versions={"python": platform.python_version(), **{package: version(package) for package in packages}},
        command=sys.argv,
    )


def run(options: Options, configs: dict[str, EvalConfig], ranks: Ranks, console: Console) -> None:
    """Evaluate every preset and report on rank 0."""
    clock = Stopwatch()
    require_writable("--json", options.json)
    require_writable("--save-scores", options.save_scores)
    with clock.stage("load"):
        stream, tokenizer = load_inputs(options)
        manifest = load_manifest(stream, tokenizer)
        source = load_source(options, stream, tokenizer, ranks)
    remembering = None
    runs_model = options.artifact is not None or options.embedded
    if options.save_scores is not None or (runs_model and len(configs) > 1):
        seq_len = next(iter(configs.values())).window.seq_len
        source = remembering = RememberingSource(source, len(stream.tokens) - 1, seq_len)
    job = Job(options=options, ranks=ranks, stream=stream, tokenizer=tokenizer, manifest=manifest, source=source)

    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), disable=ranks.rank > 0) as progress:
        for name, config in configs.items():
            reused_before = remembering.reused if remembering else 0
            tally = evaluate(job, name, config, clock, progress)
            reused = remembering.reused - reused_before if remembering else 0
            tallies, seconds, reuses = zip(*ranks.gather((tally, clock.seconds, reused)), strict=True)
            slowest = {stage: max(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}
            results.append(summarise(job, name, config, reduce(add, tallies), slowest, sum(reuses)))
            clock = Stopwatch()

    if options.save_scores is not None and remembering is not None:
        write_all_scores(job, remembering, config.window, options.save_scores)
    if ranks.rank == 0:
        if options.json is not None:
            write_json(options.json, results)
        print_table(results, console)


def write_all_scores(job: Job, source: RememberingSource, config: WindowConfig, path: Path) -> None:
    """Gather the statistics of every rank, add the positions behind the cut, and write all N - 1 on rank 0."""
    known = np.flatnonzero(~np.isnan(source.p_target))
    parts = job.ranks.gather((known, source.p_target[known], source.entropy[known]))
    if job.ranks.rank > 0:
        return
    for positions, p_target, entropy in reversed(parts):  # a position scored on two ranks keeps the lower one's
        source.p_target[positions], source.entropy[positions] = p_target, entropy
    cut = int(np.isnan(source.p_target).argmax()) if np.isnan(source.p_target).any() else len(source.p_target)
    windows = plan_windows(len(source.p_target), replace(config, rescore_tail=False))
    behind = windows[windows.stop > cut]
    for batch in batches(replace(behind, first=np.maximum(behind.first, cut)), source.batch_windows):
        source.stats(job.stream.tokens, batch)
    save_scores(path, source.p_target, source.entropy, source.train_seq_len)


def main() -> None:
    """The command line."""
    with exit_on_input_error(), joined_ranks() as ranks:
        options, configs = parse(sys.argv[1:])
        run(options, configs, ranks, Console())


if __name__ == "__main__":
    main()
