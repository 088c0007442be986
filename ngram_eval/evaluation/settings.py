"""Data, model and hardware of an evaluation: all that decides a result, except the method (`EvalConfig`).

The command line makes its flags of these fields. A result holds them, and a re-run reads them from it.
"""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ngram_eval.errors import InputError
from ngram_eval.scorers.backends import ON_DEVICE
from ngram_eval.text.samples import SAMPLES
from ngram_eval.text.shards import Raw
from ngram_eval.text.tokenizer_files import is_sentencepiece

EMBEDDED_SEQ_LEN = 256
"""Window of the embedded default: the sequence length its small model was trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """Data: the text to score; by default the embedded novel."""

    data: tuple[str, ...] = ()
    """Shards (.bin, .npy): file names or quoted patterns, read in sorted order as one stream."""
    raw_dtype: Raw | None = None
    """Type of the tokens in --data files without a header, as nanoGPT writes them; it is never guessed."""
    text: tuple[Path, ...] = ()
    """Text files (UTF-8; also packed, .jsonl, .parquet) or folders of them instead of --data, each file, line or row a
    document. Cut by --tokenizer or that of --hf; without either, bytes are the tokens."""
    text_field: str = "text"
    """Field of .jsonl, or column of .parquet, that holds the text."""
    tokenizer: Path | None = None
    """Tokenizer of the data: a SentencePiece .model, a tokenizer.json or its folder, a .tiktoken file, llm.c's
    gpt2_tokenizer.bin, or a name that tiktoken knows (tiktoken:gpt2). Without it shards have no bytes, and there are no
    bits per byte (--hf brings its own)."""
    max_tokens: int | None = None
    """Evaluate only the first tokens of the stream; the result is flagged as a subset."""
    memory: tuple[Path, ...] = ()
    """Kept memories (.ngm, `ngram-eval memory build`) that are counted before the first token; several add up."""
    learn: bool = False
    """Score the text of --memory with the model before, so that presets begin with the weights that they learn from it.
    `ngram-eval memory learn` does so once, and keeps them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Model: one neural source, which gives each token's probability."""

    artifact: Path | None = None
    """Neural source: a model file of this package (.ngev)."""
    scores: Path | None = None
    """Neural source: p_target and entropy of every position (.npz or .safetensors), by --save-scores or any model."""
    logits: Path | None = None
    """Neural source: an .npy of logits or log-probabilities, (positions, vocabulary), from any model."""
    hf: str | None = None
    """Neural source: a Hugging Face causal language model with its tokenizer: a folder, a .gguf file, or a name on the
    hub. Needs `pip install ngram_eval[hf]`."""
    lead: str = "auto"
    """Tokens put before every window of --hf that does not begin with them: auto, those that its tokenizer puts before
    a text; none; or their names or numbers, separated by commas."""
    weights_prefix: str = ""
    """Prefix to remove from the names of the weights of --hf: _orig_mod. (torch.compile), module. (a wrapper)."""
    uniform: bool = False
    """Neural source: 1/V for every token, so the n-gram memory works alone. The default for --text."""
    vocab_size: int | None = None
    """V for --uniform when there is no --tokenizer; or for a .tiktoken file, which leaves out special tokens."""
    ttt: Literal["off", "legal"] = "off"
    """Test-time training: adapt the model on each 65,536 positions once they are scored (PR #890's history)."""
    forward: Literal["windows", "banded"] = "windows"
    """windows: every window passes through the model, as published. banded: chunks of the stream pass once, and each
    position sees the last --seq-len tokens."""
    chunk: int | None = None
    """Positions that one forward pass of --forward banded scores; default: 8 times the length that the model was
    trained on, or what fits 1 GiB (8 GiB on a GPU)."""
    sinks: int = 0
    """First positions of a chunk that --forward banded keeps visible to all of it; our models need none."""

    @property
    def sources(self) -> list[str]:
        """The neural sources that are given."""
        return [name for name in ("artifact", "scores", "logits", "hf", "uniform") if getattr(self, name)]


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareSettings:
    """Hardware: device, precision, threads, and how ranks share the work."""

    device: str = "auto"
    """torch device of the model: auto, cpu, cuda, cuda:1 ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model's matrix products: auto is bfloat16 on GPUs and float32 on CPUs."""
    compile: bool = False
    """Run the model through torch.compile: it takes half a minute and makes forward passes on a GPU 3 times as fast."""
    batch_windows: int = 32
    """Windows of one forward pass; on the CPU torch's threads share them, in parts of at least 1024 positions."""
    backend: str = "auto"
    """Count tables: auto, cpu (C++), triton or cuda (GPU, with the logits' statistics), reference (slow numpy)."""
    threads: int | None = None
    """Threads of the count tables (exact counts use up to two, the mixer one); default: OMP_NUM_THREADS if set, else
    every core this process may use."""
    ngram: Literal["auto", "sharded", "pipelined"] = "auto"
    """How ranks share the n-gram work. sharded: each rank counts and scores a stretch. pipelined: one engine on rank 0
    does all of it, beside the ranks' forward passes. auto: pipelined for what learns online (exact, tilt, mixer, ppmd),
    else sharded."""
    prefill: Literal["auto", "scan", "local"] = "auto"
    """How a sharded rank gets the counts before its stretch. scan: ranks add up their tables. local: each rank counts
    everything before its stretch, as published. The counts are equal; auto takes the faster."""

    def count_threads(self) -> int:
        """Threads for the count tables."""
        if self.threads is not None:
            return self.threads
        named = os.environ.get("OMP_NUM_THREADS", "")
        if named.isdecimal() and int(named) > 0:
            return int(named)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSettings:
    """Output: checkpoints, from which a killed evaluation resumes."""

    checkpoint: Path | None = None
    """Folder for checkpoints; all ranks must see it. With an earlier run's folder, give --resume too."""
    every: int = 1_000_000
    """Positions that a rank scores between checkpoints."""
    resume: bool = False
    """Resume from --checkpoint, on any number of ranks; start at the beginning if the folder holds no checkpoint."""

    def check(self) -> None:
        """Raise `InputError` for settings that do not go together or are out of range."""
        if self.resume and self.checkpoint is None:
            raise InputError("--resume needs a checkpoint to resume from: give --checkpoint FOLDER")
        if self.every < 1:
            raise InputError(f"--every is {self.every}: give at least 1 position")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Data, model and hardware of an evaluation."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)
    samples: int = SAMPLES
    """Positions at which the sum over the vocabulary is computed."""

    @property
    def embedded(self) -> bool:
        """Whether the embedded default is evaluated: neither data nor a neural source is given."""
        return not self.data.data and not self.data.text and not self.model.sources

    @property
    def uniform(self) -> bool:
        """Whether every token is given 1/V."""
        return self.model.uniform or bool(self.data.text and not self.model.sources)

    @property
    def sentencepiece(self) -> bool:
        """Whether bytes can be counted by the published formula, which is for SentencePiece models."""
        if self.data.tokenizer is not None:
            return is_sentencepiece(self.data.tokenizer)
        return not self.model.hf and not self.data.text

    def trained_length(self) -> int:
        """The sequence length that the artifact was trained on; 0 for other neural sources. Windows default to it."""
        if self.embedded:
            return EMBEDDED_SEQ_LEN
        if self.model.artifact is None:
            return 0
        from ngram_eval.models.artifact import trained_length  # imports torch, which takes seconds

        return trained_length(self.model.artifact)

    def check(self) -> None:
        """Raise `InputError` for settings that do not go together or are out of range."""
        data, model, hardware, sources = self.data, self.model, self.hardware, self.model.sources
        ours = bool(self.embedded or model.artifact)
        if len(sources) > 1:
            raise InputError(f"--{' and --'.join(sources)} are all neural sources: give one of them")
        if data.text and data.data:
            raise InputError("--text and --data are both something to score: give one of them")
        if Path("-") in data.text:
            raise InputError("--text is -, standard input, which can't be read again: give a file")
        if data.data and not sources:
            raise InputError(
                "--data needs a neural source: --artifact, --scores, --logits or --hf with a file, or --uniform"
            )
        if data.text and model.hf and data.tokenizer:
            raise InputError("--hf cuts --text by its own tokenizer: leave --tokenizer out")
        if data.learn and not data.memory:
            raise InputError("--learn is from the text of --memory: give one, or leave --learn out")
        if data.raw_dtype and not data.data:
            raise InputError(f"--raw-dtype {data.raw_dtype} describes --data: give it, or leave --raw-dtype out")
        if not model.hf and (model.lead != "auto" or model.weights_prefix):
            raise InputError("--lead and --weights-prefix describe the model of --hf: give --hf, or leave them out")
        if model.hf and not data.data and not data.text:
            raise InputError("--hf needs something to score: --text FILE, or the tokens, --data 'PATTERN'")
        if sources and not data.data and not data.text:
            raise InputError(f"--{sources[0]} needs something to score: --data 'PATTERN' or --text FILE")
        if self.embedded and (data.tokenizer or model.vocab_size):
            raise InputError("--tokenizer and --vocab-size describe --data or --text, and neither was given")
        if model.ttt != "off" and not ours:
            raise InputError(f"--ttt {model.ttt} adapts a model of --artifact: give one, or leave --ttt out")
        if model.ttt != "off" and hardware.backend in ON_DEVICE:
            raise InputError(f"--ttt {model.ttt} keeps its statistics on the host: give --backend cpu")
        if model.forward == "banded":
            if model.hf:
                raise InputError(
                    "--forward banded masks what a position sees, and --hf runs a model's own attention, most of which "
                    "lean on the first tokens of a window: leave --forward out"
                )
            if not ours:
                raise InputError("--forward banded runs a model of --artifact: give one, or leave --forward out")
            if model.ttt != "off":
                raise InputError(
                    f"--ttt {model.ttt} adapts the model between windows, and a chunk of --forward banded has one "
                    "model throughout: leave one of them out"
                )
        elif model.chunk is not None or model.sinks:
            raise InputError("--chunk and --sinks belong to --forward banded: give it too, or leave them out")
        if hardware.compile and (model.ttt != "off" or not ours):
            raise InputError("--compile needs a model of --artifact without --ttt: give --artifact, and no --ttt")
        if model.uniform and not data.tokenizer and not data.text and not model.vocab_size:
            raise InputError("--uniform needs the vocabulary size: give --tokenizer FILE or --vocab-size V")
        self.check_numbers()

    def check_numbers(self) -> None:
        """Raise `InputError` for numbers out of range."""
        for part in (self.data, self.model, self.hardware):
            for name in ("vocab_size", "max_tokens", "chunk", "batch_windows", "threads"):
                value = getattr(part, name, None)
                if value is not None and value < 1:
                    raise InputError(f"--{name.replace('_', '-')} is {value}: give at least 1")
        if self.samples < 0:
            raise InputError(f"--samples is {self.samples}: give 0 for none, or more")
        if self.model.sinks < 0:
            raise InputError(f"--sinks is {self.model.sinks}: give 0 for none, or more")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON; `ngram_eval.structured.build` reads it."""
        found = asdict(self)
        for part in (found["data"], found["model"], found["hardware"]):
            for name, value in part.items():
                if isinstance(value, tuple):
                    part[name] = [str(one) for one in value]
                elif isinstance(value, Path):
                    part[name] = str(value)
        return found
