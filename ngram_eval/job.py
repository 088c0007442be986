"""What the presets of a call share: token stream, tokenizer and neural source, checked against each other."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ngram_eval import __version__
from ngram_eval.config import EvalConfig
from ngram_eval.console import progress_bars
from ngram_eval.counts import ON_DEVICE, load_backend, resolve_backend
from ngram_eval.errors import InputError
from ngram_eval.neural import NeuralSource, UniformSource, load_logits, load_scores
from ngram_eval.options import JobOptions, asset
from ngram_eval.ranks import Ranks
from ngram_eval.scorers import Vocabulary
from ngram_eval.tokens import (
    Manifest,
    TextTokenizer,
    Tokenizer,
    TokenStream,
    check_vocabulary,
    file_sha256,
    read_manifest,
    read_shards,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every preset of a call shares."""

    options: JobOptions
    ranks: Ranks
    stream: TokenStream
    tokenizer: TextTokenizer | None
    manifest: Manifest | None
    source: NeuralSource
    backend: str
    """The counts backend, `auto` resolved."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What scorers may know of the tokens."""
        size, surfaces = self.source.vocab_size, None
        if self.tokenizer is not None:  # the model's table may have more rows than there are tokens
            surfaces = [*self.tokenizer.surfaces(), *[None] * size][:size]
        return Vocabulary(size, surfaces, neural=self.source.name != UniformSource.name)


@dataclass(frozen=True, slots=True)
class Input:
    """A file that an evaluation read."""

    role: str
    """data, tokenizer, or the flag of the neural source (`SOURCES`)."""
    path: str
    bytes: int | None
    """None for a model of several files, whose sha256 is of their names and sha256s."""
    sha256: str


SOURCES = ("artifact", "scores", "logits", "hf")
"""Roles of what a neural source is read from."""


_NOTICEABLE = 1 << 28
"""Bytes that take a moment to read: for so many a bar is shown."""


def read_inputs(job: Job, *, quiet: bool = True) -> list[Input]:
    """Every file that decides the result, hashed; ranks share them out, and all call this together.

    Unless `quiet`, a bar on stderr says how far it is.
    """
    options, ranks = job.options, job.ranks
    shards = [("data", path) for path in job.stream.paths]
    others = [("artifact", asset("model.ngev")), ("tokenizer", asset("tokenizer.model"))] if options.embedded else []
    for role in ("artifact", "scores", "logits", "tokenizer"):
        path = getattr(options, role)
        others += [(role, path)] if path is not None else []
    mine = [*shards[ranks.rank :: ranks.world], *(others if ranks.rank == 0 else [])]
    total = sum(path.stat().st_size for _, path in mine)
    with progress_bars(quiet=quiet or total < _NOTICEABLE) as progress:
        bar = progress.add_task("reading", total=total)
        hashed = [_hashed(role, path, partial(progress.advance, bar)) for role, path in mine]
    shares = ranks.gather([one for one in hashed if one.role == "data"])
    if options.hf is not None and ranks.rank == 0:
        from ngram_eval.hf.loading import digest  # needs transformers

        hashed.append(Input("hf", options.hf, None, digest(options.hf)))
    rest = ranks.broadcast([one for one in hashed if one.role != "data"])
    return [*(shares[i % ranks.world][i // ranks.world] for i in range(len(shards))), *rest]


def _hashed(role: str, path: Path, advance: Callable[[int], None]) -> Input:
    return Input(role, str(path), path.stat().st_size, file_sha256(path, advance))


def fingerprint(job: Job, config: EvalConfig, sharing: str) -> dict[str, Any]:
    """All that decides an evaluation's sums, as JSON, for a checkpoint."""
    ranks, inputs = job.ranks, read_inputs(job)
    source_sha256 = next((one.sha256 for one in inputs if one.role in SOURCES), None)
    by_ranks = config.depends_on_ranks and sharing == "sharded"
    return {
        "version": __version__,
        "data": {Path(one.path).name: one.sha256 for one in inputs if one.role == "data"},
        "tokens": len(job.stream.tokens),
        "tokenizer": job.tokenizer.sha256 if job.tokenizer else None,
        "neural source": {
            "name": job.source.name,
            "sha256": source_sha256,
            "train_seq_len": job.source.train_seq_len,
            "vocab_size": job.source.vocab_size,
            "batch_windows": job.source.batch_windows,
            "settings": {name: value.split(":")[0] for name, value in job.source.settings.items()},
        },
        "backend": job.backend if job.backend in ON_DEVICE else "cpu",  # whose floats are the reference's, bit for bit
        "number of ranks": ranks.world if by_ranks else "any",
        "config": asdict(config),
    }


def load_job(options: JobOptions, ranks: Ranks) -> Job:
    """Load what the options name; raises `InputError` for what is missing, broken or does not fit together."""
    backend = resolve_backend(options.backend)
    stream, tokenizer = load_stream(options, ranks)
    return Job(
        options=options,
        ranks=ranks,
        stream=stream,
        tokenizer=tokenizer,
        manifest=_load_manifest(stream, tokenizer, ranks),
        source=_load_source(options, stream, tokenizer, ranks, backend),
        backend=backend,
    )


def load_stream(options: JobOptions, ranks: Ranks) -> tuple[TokenStream, TextTokenizer | None]:
    """The token stream and the tokenizer that the options name, checked against each other, each rank a part."""
    if options.embedded:
        stream = read_shards([str(asset("sample_000000.bin"))], options.max_tokens)
        return stream, Tokenizer.load(asset("tokenizer.model"))
    tokenizer: TextTokenizer | None = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    if options.hf is not None and tokenizer is None:
        from ngram_eval.hf.tokenizer import HfTokenizer  # needs transformers

        tokenizer = own = HfTokenizer.load(options.hf)
        if options.text:
            return own.read_texts(options.text, options.max_tokens), own
    stream = read_shards(options.data, options.max_tokens)
    if tokenizer is not None:
        source = str(options.tokenizer or f"the tokenizer of --hf {options.hf}")
        check_vocabulary(stream.tokens, tokenizer.vocab_size, source, ranks.part)
    return stream, tokenizer


def _load_manifest(stream: TokenStream, tokenizer: TextTokenizer | None, ranks: Ranks) -> Manifest | None:
    """The manifest beside the shards, where there is one and a tokenizer to count bytes with."""
    manifest = read_manifest(stream.paths, ranks.part) if tokenizer else None
    if manifest is not None and tokenizer is not None and manifest.tokenizer_sha256 != tokenizer.sha256:
        raise InputError(
            f"the tokenizer (sha256 {tokenizer.sha256[:12]}...) is not the one that made {stream.paths[0]} "
            f"(its manifest says {manifest.tokenizer_sha256[:12]}...): give that one"
        )
    return manifest


def _load_source(
    options: JobOptions, stream: TokenStream, tokenizer: TextTokenizer | None, ranks: Ranks, backend: str
) -> NeuralSource:
    """The neural source that the options name, checked against the stream and the tokenizer."""
    use_kernels = backend in ON_DEVICE
    if use_kernels:
        from ngram_eval.forward import check_kernels_run_on, choose_device

        load_backend(backend)  # says what is missing, where something is
        check_kernels_run_on(choose_device(options.device, ranks.local_rank), backend)
    if options.scores is not None:
        return load_scores(options.scores, (stream.total - 1, len(stream.tokens) - 1), ranks.part)
    if options.logits is not None:
        logits = load_logits(options.logits, (stream.total - 1, len(stream.tokens) - 1))
        _check_vocabularies(stream, tokenizer, logits.vocab_size, str(options.logits), ranks)
        return logits
    if options.uniform:
        if tokenizer is not None:
            return UniformSource(tokenizer.vocab_size)
        assert options.vocab_size is not None, "Options.check asks for one of the two"
        check_vocabulary(stream.tokens, options.vocab_size, "--vocab-size", ranks.part)
        return UniformSource(options.vocab_size)
    if options.hf is not None:
        from ngram_eval.hf.source import load_hf_source  # needs transformers
        from ngram_eval.hf.tokenizer import HfTokenizer

        hf = load_hf_source(
            options.hf,
            tokenizer if isinstance(tokenizer, HfTokenizer) else None,
            device=options.device,
            local_rank=ranks.local_rank,
            dtype=options.dtype,
            batch_windows=options.batch_windows,
        )
        # A model's table may have more rows than its tokenizer has tokens, for the sake of round numbers.
        check_vocabulary(stream.tokens, hf.vocab_size, f"--hf {options.hf}", ranks.part)
        return hf
    path = asset("model.ngev") if options.artifact is None else options.artifact
    source = _load_model(path, options, ranks, use_kernels)
    _check_vocabularies(stream, tokenizer, source.vocab_size, str(path), ranks)
    return source


def _load_model(path: Path, options: JobOptions, ranks: Ranks, use_kernels: bool) -> NeuralSource:
    """The source that runs an artifact; importing torch for it takes seconds."""
    if options.ttt == "legal":
        from ngram_eval.ttt import load_adapting_source

        return load_adapting_source(
            path,
            device=options.device,
            local_rank=ranks.local_rank,
            dtype=options.dtype,
            batch_windows=options.batch_windows,
        )
    from ngram_eval.forward import load_model_source

    return load_model_source(
        path,
        device=options.device,
        local_rank=ranks.local_rank,
        dtype=options.dtype,
        batch_windows=options.batch_windows,
        use_kernels=use_kernels,
        compiled=options.compile,
    )


def _check_vocabularies(
    stream: TokenStream, tokenizer: TextTokenizer | None, vocab_size: int, source: str, ranks: Ranks
) -> None:
    """Raise `InputError` unless the stream's tokens, and the tokenizer if there is one, fit the source's vocabulary."""
    if tokenizer is None:
        check_vocabulary(stream.tokens, vocab_size, source, ranks.part)
    elif tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"{source} has a vocabulary of {vocab_size} tokens, the tokenizer {tokenizer.vocab_size}: "
            "give the tokenizer that the model was trained with"
        )
