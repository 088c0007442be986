"""Command lines that evaluate: what they share, the evaluator's own, and one `EvalConfig` for each preset asked for.

Flags are generated from the dataclasses by tyro. A flag given overrides that field in every preset.
"""

import os
import sys
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from ngram_eval import __version__
from ngram_eval.config import DEFAULT_PRESETS, EvalConfig, preset
from ngram_eval.counts import ON_DEVICE
from ngram_eval.errors import InputError

EMBEDDED_SEQ_LEN = 256
"""Window of the embedded default: the sequence length its small model was trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Data, neural source and method: what every command line that evaluates takes."""

    data: tuple[str, ...] = ()
    """Shards (.bin): file names or quoted patterns, read in sorted order as one stream."""
    artifact: Path | None = None
    """Neural source: a model file of ours."""
    scores: Path | None = None
    """Neural source: an .npz with p_target and entropy of every position, from --save-scores or any other model."""
    logits: Path | None = None
    """Neural source: an .npy of logits or log-probabilities, (positions, vocabulary), from any model."""
    hf: str | None = None
    """Neural source: a Hugging Face causal language model with its tokenizer: a folder, a .gguf file, or a name on the
    hub. Needs `pip install ngram_eval[hf]`."""
    text: tuple[Path, ...] = ()
    """Text files (UTF-8) for --hf to cut and score, instead of --data; each is a document."""
    uniform: bool = False
    """Neural source: 1/V for every token, so the n-gram memory alone."""
    ttt: Literal["off", "legal"] = "off"
    """Test-time training: adapt the model on each 65,536 positions once they are scored (PR #890's history)."""
    tokenizer: Path | None = None
    """SentencePiece model of the data; without it there are no bytes and no bits per byte (--hf brings its own)."""
    vocab_size: int | None = None
    """V for --uniform when there is no --tokenizer."""
    preset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Method to evaluate, may be repeated: pr890 (as published), hashed (quirks mended), exact (exact counts, a
    probability), tilt (one hint, a probability), mixer or mixer-fast (hashed contexts of decisions, a probability).
    Default: the first three, without exact on triton."""
    max_tokens: int | None = None
    """Evaluate only the first tokens of the stream; the result is flagged as a subset."""
    json: Path | None = None
    """Write the full results here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no progress and no table: only errors, and what --json - writes."""
    device: str = "auto"
    """torch device of the model: auto, cpu, cuda, cuda:1 ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model's matrix products: auto is bfloat16 on GPUs and float32 on CPUs."""
    compile: bool = False
    """Run the model through torch.compile: half a minute at the start, for forward passes 3 times as fast on a GPU."""
    batch_windows: int = 32
    """Windows of one forward pass; on the CPU torch's threads share them, in parts of at least 1024 positions."""
    backend: str = "auto"
    """Count tables: auto, cpu (C++), triton or cuda (GPU, with the logits' statistics), reference (slow numpy)."""
    threads: int | None = None
    """Threads of the count tables; default: OMP_NUM_THREADS if set, else every core this process may use."""
    version: bool = False
    """Print the version and stop."""
    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    """The method; a flag given here overrides the field in every preset."""

    @property
    def embedded(self) -> bool:
        """Whether the embedded default is evaluated."""
        return not self.data and not self.text and not self._sources()

    def _sources(self) -> list[str]:
        return [flag for flag in ("artifact", "scores", "logits", "hf", "uniform") if getattr(self, flag)]

    def check(self) -> None:
        """Raise `InputError` for flags that do not go together or are out of range."""
        sources = self._sources()
        if len(sources) > 1:
            raise InputError(f"--{' and --'.join(sources)} are all neural sources: give one of them")
        if self.data and not sources:
            raise InputError(
                "--data needs a neural source: --artifact, --scores, --logits or --hf with a file, or --uniform"
            )
        if self.text and (not self.hf or self.data or self.tokenizer):
            raise InputError("--text is cut by the tokenizer of --hf: give that, and neither --data nor --tokenizer")
        if self.hf and not self.data and not self.text:
            raise InputError("--hf needs something to score: --text FILE, or the tokens, --data 'PATTERN'")
        if sources and not self.data and not self.text:
            raise InputError(f"--{sources[0]} needs the tokens to score: --data 'PATTERN'")
        if self.embedded and (self.tokenizer or self.vocab_size):
            raise InputError("--tokenizer and --vocab-size describe --data, and no --data was given")
        if self.ttt != "off" and not (self.embedded or self.artifact):
            raise InputError(f"--ttt {self.ttt} adapts a model of ours: give --artifact, or leave it out")
        if self.ttt != "off" and self.backend in ON_DEVICE:
            raise InputError(f"--ttt {self.ttt} keeps its statistics on the host: give --backend cpu")
        if self.compile and (self.ttt != "off" or not (self.embedded or self.artifact)):
            raise InputError("--compile compiles a model of ours that stays as it is: give --artifact, and no --ttt")
        if self.uniform and not self.tokenizer and not self.vocab_size:
            raise InputError("--uniform needs the vocabulary size: give --tokenizer FILE or --vocab-size V")
        for name in ("vocab_size", "max_tokens", "batch_windows", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}: give at least 1")

    def count_threads(self) -> int:
        """Threads for the count tables."""
        if self.threads is not None:
            return self.threads
        named = os.environ.get("OMP_NUM_THREADS", "")
        if named.isdecimal() and int(named) > 0:
            return int(named)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(JobOptions):
    """Score a token stream in bits per byte: a language model, an n-gram memory, and both together.

    Without --data and a neural source, the embedded default is evaluated: a small model on a held-out novel.
    """

    report: Path | None = None
    """Write one HTML page with table and charts here, which needs nothing else to be read."""
    plot: Path | None = None
    """Write the charts of --report into this folder as PNG files; needs matplotlib."""
    from_result: Path | None = None
    """Run again what a --json file tells of, and say whether it is equal; other flags given beside it come on top."""
    save_scores: Path | None = None
    """Write the neural statistics of every position here, for --scores."""
    ngram: Literal["auto", "sharded", "pipelined"] = "auto"
    """Ranks' share of the n-gram work: sharded, each counts and scores a stretch; pipelined, one engine on rank 0 does,
    beside everyone's forward passes. auto: pipelined for what learns online (exact, tilt), sharded for the rest."""
    prefill: Literal["auto", "scan", "local"] = "auto"
    """How a sharded rank gets the counts before its stretch: scan, ranks add theirs up; local, each counts all that is
    before by itself, as published. The counts are the same; auto takes the faster."""
    checkpoint: Path | None = None
    """Folder for checkpoints that all ranks see; of an earlier run's: give --resume too."""
    every: int = 1_000_000
    """Positions that a rank scores between checkpoints."""
    resume: bool = False
    """Go on from --checkpoint, on any number of ranks; from the beginning if the folder holds none."""
    rank_timeout: float = 30.0
    """Seconds without a sign of life after which a rank is given up, and with it the run."""

    def check(self) -> None:
        super(Options, self).check()
        if self.resume and self.checkpoint is None:
            raise InputError("--resume goes on from a checkpoint: give --checkpoint FOLDER")
        if self.checkpoint is not None and self.save_scores is not None:
            raise InputError("--save-scores needs the statistics of one whole run: leave it out, or --checkpoint")
        if self.every < 1:
            raise InputError(f"--every is {self.every}: give at least 1 position")
        if not 1.0 <= self.rank_timeout < float("inf"):
            raise InputError(f"--rank-timeout is {self.rank_timeout}: give at least 1 second")

    def sharing(self, name: str, config: EvalConfig) -> Literal["sharded", "pipelined"]:
        """How the ranks share the n-gram work of a preset; raises `InputError` where it can't be as asked."""
        if self.ngram == "sharded" and config.learns_online:
            raise InputError(
                f"--ngram sharded and --preset {name}: it learns from each position for the next, so no rank can begin "
                "in the middle of the stream; give --ngram pipelined"
            )
        if self.ngram == "pipelined" and self.backend in ON_DEVICE and not config.learns_online:
            raise InputError(
                f"--ngram pipelined runs its engine on a CPU thread, and --backend {self.backend} counts on the GPU: "
                "give --backend cpu, or --ngram sharded"
            )
        if self.ngram == "auto":
            return "pipelined" if config.learns_online else "sharded"
        return self.ngram


AnyOptions = TypeVar("AnyOptions", bound=JobOptions)


def parse(arguments: list[str], default: AnyOptions, prog: str) -> tuple[AnyOptions, dict[str, EvalConfig]]:
    """(options, preset name -> its configuration with the flags given applied). Exits for --help and --version."""
    if {"-h", "--help"} & set(arguments):
        _parse(arguments, default, prog)
    named, _ = tyro.cli(_Named, args=arguments, return_unknown_args=True, add_help=False)
    options, configs = default, {}
    for name in named.preset or DEFAULT_PRESETS:  # a flag may be out of range for one preset and not for another
        config = preset(name)
        options = _parse(arguments, replace(default, config=config), prog)
        if options.version:
            print(f"ngram_eval {__version__}")
            sys.exit(0)
        options.check()
        if options.embedded:
            config = replace(config, window=replace(config.window, seq_len=EMBEDDED_SEQ_LEN))
            options = _parse(arguments, replace(default, config=config), prog)
        configs[name] = options.config
    return options, configs


@dataclass(frozen=True)
class _Named:
    preset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()


def _parse(arguments: list[str], default: AnyOptions, prog: str) -> AnyOptions:
    return tyro.cli(type(default), prog=prog, args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,))


def asset(name: str) -> Path:
    """A file of the embedded default: sample_000000.bin, tokenizer.model or model.ngev."""
    return Path(str(files("ngram_eval.assets") / name))
