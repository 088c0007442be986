"""Loading: the token stream, tokenizer and neural source of an evaluation, checked against each other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.assets import asset
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.distributed.ranks import ALONE, Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation.settings import Settings
from ngram_eval.files import Unchanged, file_sha256
from ngram_eval.kept import file as kept_file
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.models.saved_scores import load_scores
from ngram_eval.models.source import NeuralSource, UniformSource
from ngram_eval.scorers.backends import ON_DEVICE, load_backend, resolve_backend
from ngram_eval.scorers.base import Scorer, Vocabulary
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.primed import PrimedScorer
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.kept import KeptMemory, joined
from ngram_eval.text.manifest import Manifest, read_manifest
from ngram_eval.text.reading import read_texts
from ngram_eval.text.samples import choose_samples
from ngram_eval.text.shards import TokenStream, read_shards
from ngram_eval.text.tokenizer import Encoder, TextTokenizer, Tokenizer, check_vocabulary
from ngram_eval.text.tokenizer_files import check_tokens, file_of, load_tokenizer
from ngram_eval.text.windows import target_count
from ngram_eval.timing import Track, untracked


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The inputs that all presets of a call share."""

    settings: Settings
    """The settings it was loaded from; for a model and tokens from Python only the hardware is set."""
    ranks: Ranks
    stream: TokenStream
    tokenizer: TextTokenizer | None
    manifest: Manifest | None
    source: NeuralSource
    backend: str
    """The backend of the counts, `auto` resolved."""
    files: Unchanged = field(default_factory=Unchanged)
    """What it was loaded from, except a model from the hub."""
    kept: KeptMemory | None = None
    """What every scorer counts before the stream."""
    model: str = ""
    """The model's identity, by which what was learned with it is found; empty for one that can't be run again."""

    @property
    def threads(self) -> int:
        """Threads for the count tables."""
        return self.settings.hardware.count_threads()

    def targets(self, window: WindowConfig) -> int:
        """Number of positions that a preset with such windows scores."""
        return target_count(len(self.stream.tokens), max(window.seq_len, self.source.train_seq_len))

    def samples(self, window: WindowConfig) -> NDArray[np.int64]:
        """Positions at which a preset with such windows looks at whole distributions; none if the source has none."""
        count = self.settings.samples if self.source.gives_all else 0
        return choose_samples(self.targets(window), count, window)

    def scorer(self, config: EvalConfig, backend: str | None = None) -> Scorer:
        """A new scorer of a preset, of the job's backend unless another is named, which begins with what is kept."""
        scorer = make_scorer(backend or self.backend, config, self.threads, self.vocabulary)
        if self.kept is None:
            return scorer
        if (learned := self.kept.learned.get(learning_key(config, self.model))) is not None:
            load_learned(scorer, dict(learned), "the memory")
        return PrimedScorer(scorer, self.kept.tokens)

    def after_learning(self, learned: Mapping[str, Mapping[str, NDArray[Any]]]) -> "Job":
        """The job whose scorers begin with what was learned on its memory, too."""
        assert self.kept is not None, "it is what was learned on"
        return replace(self, kept=replace(self.kept, learned={**self.kept.learned, **learned}))

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary as scorers see it."""
        size, surfaces = self.source.vocab_size, None
        if self.tokenizer is not None:  # the model's vocabulary may be larger than the tokenizer's, or unknown (0)
            surfaces = [*self.tokenizer.surfaces(), *[None] * size][: size or None]
        return Vocabulary(size, surfaces, neural=self.source.name != UniformSource.name)


@dataclass(frozen=True, slots=True)
class Input:
    """A file that an evaluation read."""

    role: str
    """data, tokenizer, memory, or the flag of the neural source (`SOURCES`)."""
    path: str
    bytes: int | None
    """None for a model of several files; its sha256 is over their names and sha256s."""
    sha256: str


SOURCES = ("artifact", "scores", "logits", "hf")
"""Roles of the files of neural sources."""
_NOTICEABLE = 1 << 28
"""Bytes from which on reading shows a progress bar."""


def _named(settings: Settings) -> list[tuple[str, Path]]:
    """(role, path) of each file that the settings name, but for data and texts."""
    named = {name: getattr(settings.model, name) for name in ("artifact", "scores", "logits")}
    if settings.embedded:
        named |= {"artifact": asset("model.ngev"), "tokenizer": asset("tokenizer.model")}
    elif settings.data.tokenizer is not None:
        named["tokenizer"] = file_of(settings.data.tokenizer)
    memories = [("memory", path) for path in settings.data.memory]
    return [*((role, path) for role, path in named.items() if path is not None), *memories]


def read_inputs(job: Job, track: Track = untracked) -> list[Input]:
    """Every file that decides the result, with its sha256. Ranks share the reading; all ranks call this."""
    settings, ranks = job.settings, job.ranks
    shards = [("data", path) for path in job.stream.paths]
    others = _named(settings)
    mine = [*shards[ranks.rank :: ranks.world], *(others if ranks.rank == 0 else [])]
    total = sum(path.stat().st_size for _, path in mine)
    advance = (track if total >= _NOTICEABLE else untracked)("reading", total)
    hashed = [Input(role, str(path), path.stat().st_size, file_sha256(path, advance)) for role, path in mine]
    shares = ranks.gather([one for one in hashed if one.role == "data"])
    if ranks.rank == 0 and job.tokenizer is not None and _is_known_by_name(settings.data.tokenizer):
        hashed.append(Input("tokenizer", str(settings.data.tokenizer), None, job.tokenizer.sha256))
    if settings.model.hf is not None and ranks.rank == 0:
        from ngram_eval.models.hf.loading import digest  # needs transformers

        hashed.append(Input("hf", settings.model.hf, None, digest(settings.model.hf)))
    rest = ranks.broadcast([one for one in hashed if one.role != "data"])
    return [*(shares[i % ranks.world][i // ranks.world] for i in range(len(shards))), *rest]


def _is_known_by_name(tokenizer: Path | None) -> bool:
    return tokenizer is not None and file_of(tokenizer) is None


def load_job(settings: Settings, ranks: Ranks, track: Track = untracked) -> Job:
    """Load what the settings name; raises `InputError` for files that are missing, damaged or do not fit together.

    A model of `--hf`, which may take long, is tracked, as one part.
    """
    loaded = (untracked if settings.model.hf is None else track)("loading", 1)
    backend = resolve_backend(settings.hardware.backend)
    stream, tokenizer = load_stream(settings, ranks)
    paths = [*stream.paths, *(path for _, path in _named(settings))]
    if settings.model.hf is not None:
        from ngram_eval.models.hf.loading import files_of  # needs transformers

        paths += files_of(Path(settings.model.hf))
    files = Unchanged(paths)
    source = load_source(settings, stream, tokenizer, ranks, backend)
    job = Job(
        settings=settings,
        ranks=ranks,
        stream=stream,
        tokenizer=tokenizer,
        manifest=_load_manifest(stream, tokenizer, ranks),
        source=source,
        backend=backend,
        files=files,
        kept=load_kept(settings.data.memory, tokenizer, source.vocab_size, track),
        model=model_identity(settings, source.vocab_size) if settings.data.memory else "",
    )
    loaded(1)
    return job


def learning_key(config: EvalConfig, model: str) -> str:
    """The key of what a scorer learned: of all of its method but the windows, and of the model's identity."""
    method = {name: value for name, value in config.to_json().items() if name != "window"}
    whole = json.dumps([method, model], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def load_learned(scorer: Scorer, learned: dict[str, NDArray[Any]], source: str) -> None:
    """Hand a scorer what another one had learned; raises `InputError`, naming where it is from, for another kind's."""
    try:
        scorer.load_learned(learned)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        message = f"{source} holds what another scorer has learned ({error}): remove it and begin again"
        raise InputError(message) from error


def model_identity(settings: Settings, vocab_size: int) -> str:
    """What tells a model that can be run again from others; empty for statistics of a file."""
    model = settings.model
    if settings.uniform:
        return f"uniform {vocab_size}"
    if model.hf is not None:
        from ngram_eval.models.hf.loading import digest  # needs transformers

        return f"hf {digest(model.hf)}"
    if model.artifact is None and not settings.embedded:
        return ""
    return f"artifact {file_sha256(model.artifact or asset('model.ngev'))} {model.ttt}"


def load_kept(
    paths: Sequence[Path], tokenizer: TextTokenizer | None, vocab_size: int, track: Track = untracked
) -> KeptMemory | None:
    """The memories of files, one after another; raises `InputError` for tokens of another tokenizer than the data's.

    A `vocab_size` of 0 is not known.
    """
    memories = [kept_file.read(path, track) for path in paths]
    for memory, path in zip(memories, paths, strict=True):
        memory.check(tokenizer, vocab_size, str(path))
    return joined(memories, [str(path) for path in paths]) if memories else None


def memory_job(settings: Settings, kept: KeptMemory, tokenizer: Path | None, source: str) -> Job:
    """The job of scoring a memory's own text with the model of `settings`; messages call the memory `source`."""
    known: TextTokenizer | None = load_tokenizer(tokenizer) if tokenizer else None
    if settings.model.hf is not None:
        from ngram_eval.models.hf.tokenizer import HfTokenizer  # needs transformers

        known = HfTokenizer.load(settings.model.hf)
    elif settings.embedded:
        known = Tokenizer.load(asset("tokenizer.model"))
    settings = replace(settings, model=replace(settings.model, vocab_size=kept.vocab_size))
    stream, backend = TokenStream(kept.tokens, (), len(kept.tokens)), resolve_backend("cpu")
    model = load_source(settings, stream, known, ALONE, backend)
    kept.check(known, model.vocab_size, source)
    return Job(
        settings=settings,
        ranks=ALONE,
        stream=stream,
        tokenizer=known,
        manifest=None,
        source=model,
        backend=backend,
        kept=kept,
        model=model_identity(settings, model.vocab_size),
    )


def load_stream(settings: Settings, ranks: Ranks) -> tuple[TokenStream, TextTokenizer | None]:
    """The token stream and tokenizer that the settings name, checked against each other; each rank checks a part."""
    data, model, hf = settings.data, settings.model, settings.model.hf
    if settings.embedded:
        stream = read_shards([str(asset("sample_000000.bin"))], data.max_tokens)
        return stream, Tokenizer.load(asset("tokenizer.model"))
    if hf is not None:
        from ngram_eval.models.hf.hub import check_name  # needs the hub's library

        check_name(hf)
    tokenizer: Encoder | None = load_tokenizer(data.tokenizer, model.vocab_size) if data.tokenizer else None
    if hf is not None and tokenizer is None:
        from ngram_eval.models.hf.tokenizer import HfTokenizer  # needs transformers

        tokenizer = HfTokenizer.load(hf)
    if data.text:
        tokenizer = tokenizer or bytes_tokenizer()
        return read_texts(tokenizer, data.text, data.max_tokens, data.text_field), tokenizer
    stream = read_shards(data.data, data.max_tokens, data.raw_dtype)
    if tokenizer is not None:
        source = str(data.tokenizer or f"the tokenizer of --hf {hf}")
        check_tokens(stream.tokens, tokenizer, source, ranks.part)
    return stream, tokenizer


def _load_manifest(stream: TokenStream, tokenizer: TextTokenizer | None, ranks: Ranks) -> Manifest | None:
    """The manifest beside the shards; None without a manifest or without a tokenizer."""
    manifest = read_manifest(stream.paths, ranks.part) if tokenizer else None
    if manifest is not None and tokenizer is not None and manifest.tokenizer_sha256 != tokenizer.sha256:
        raise InputError(
            f"the tokenizer (sha256 {tokenizer.sha256[:12]}...) is not the one that made {stream.paths[0]} "
            f"(its manifest says {manifest.tokenizer_sha256[:12]}...): give that one"
        )
    return manifest


def load_source(
    settings: Settings, stream: TokenStream, tokenizer: TextTokenizer | None, ranks: Ranks, backend: str
) -> NeuralSource:
    """The neural source that the settings name, checked against the stream and the tokenizer."""
    model, hardware = settings.model, settings.hardware
    if backend in ON_DEVICE:
        from ngram_eval.models.transformer_source import check_kernels_run_on, choose_device

        load_backend(backend, "hashed")  # raises if something is missing
        check_kernels_run_on(choose_device(hardware.device, ranks.local_rank), backend)
    if model.scores is not None:
        return load_scores(model.scores, (stream.total - 1, len(stream.tokens) - 1), ranks.part)
    if model.logits is not None:
        logits = load_logits(model.logits, (stream.total - 1, len(stream.tokens) - 1))
        if tokenizer is not None and tokenizer.vocab_size < logits.vocab_size:  # rows are often padded
            tokenizer = None
        _check_vocabularies(stream, tokenizer, logits.vocab_size, str(model.logits), ranks)
        return logits
    if settings.uniform:
        if tokenizer is not None:
            return UniformSource(tokenizer.vocab_size)
        assert model.vocab_size is not None, "Settings.check asks for one of the two"
        check_vocabulary(stream.tokens, model.vocab_size, "--vocab-size", ranks.part)
        return UniformSource(model.vocab_size)
    run_on: dict[str, Any] = {
        "device": hardware.device,
        "local_rank": ranks.local_rank,
        "dtype": hardware.dtype,
        "batch_windows": hardware.batch_windows,
    }
    ours = {**run_on, "use_kernels": backend in ON_DEVICE, "compiled": hardware.compile}
    if model.hf is not None:
        from ngram_eval.models.hf.lead import lead_of_model  # these need transformers
        from ngram_eval.models.hf.source import load_hf_source
        from ngram_eval.models.hf.tokenizer import HfTokenizer

        own = tokenizer.hf if isinstance(tokenizer, HfTokenizer) else None
        lead = lead_of_model(model.hf, model.lead, own)
        hf = load_hf_source(model.hf, lead, prefix=model.weights_prefix, **run_on)
        # A model's vocabulary may be larger than its tokenizer's: sizes are often rounded up.
        check_vocabulary(stream.tokens, hf.vocab_size, f"--hf {model.hf}", ranks.part)
        return hf
    path = asset("model.ngev") if model.artifact is None else model.artifact
    source: NeuralSource
    if model.ttt == "legal":  # all import torch, which takes seconds
        from ngram_eval.models.test_time_training import load_adapting_source

        source = load_adapting_source(path, **run_on)
    else:
        from ngram_eval.models.banded_source import BandedSource
        from ngram_eval.models.transformer_source import load_transformer_source

        if model.forward == "banded":
            ours |= {"of": BandedSource, "chunk": model.chunk, "sinks": model.sinks}
        source = load_transformer_source(path, **ours)
    _check_vocabularies(stream, tokenizer, source.vocab_size, str(path), ranks)
    return source


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
