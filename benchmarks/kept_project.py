"""What a memory of a project is worth beside a pretrained model, on files of it that are not in the memory.

`python -m benchmarks.kept_project --hf MODEL --scored FILE ... --project FOLDER ... --other FOLDER`. Each file and each
window is forwarded once; every memory then scores the same distributions at the same positions.
"""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from benchmarks.kept_memory import PRESETS, kept_size, read_source
from benchmarks.machine import describe_machine, publish_lines
from benchmarks.pretrained import KeptSource
from ngram_eval import evaluate, preset
from ngram_eval.config import WindowConfig
from ngram_eval.kept import file as kept_file
from ngram_eval.models.hf.lead import lead_of_model
from ngram_eval.models.hf.source import load_hf_source
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.text.kept import kept_of

WINDOWS = (WindowConfig(seq_len=512, stride=256), WindowConfig(seq_len=2048, stride=2048))
KINDS = ("*.py", "*.md", "*.cc", "*.h")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure memories of a project beside a pretrained model."""

    hf: str
    """The model: a folder, a .gguf file or a name on the hub."""
    project: tuple[Path, ...]
    """Folders and files whose source and documentation are known."""
    scored: tuple[Path, ...]
    """Files of the project that are scored, and in no memory."""
    other: Path | None = None
    """A folder of other packages, for a larger memory."""
    most: int = 16_000_000
    """Bytes of their Python source in it."""
    tokens: int = 2048
    """Positions scored of each file."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def text_of(paths: Sequence[Path], without: Sequence[Path]) -> str:
    """The text of files, and of the source and documentation in folders, but for some files."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(one for kind in KINDS for one in path.rglob(kind)) if path.is_dir() else [path]
        found |= dict.fromkeys(one.resolve() for one in inside)
    left_out = {one.resolve() for one in without}
    return "\n".join(one.read_bytes().decode() for one in found if one not in left_out)


def measure(options: Options) -> Iterator[str]:
    """The lines of the result."""
    torch.set_num_threads(1)
    tokenizer = HfTokenizer.load(options.hf)
    source = load_hf_source(
        options.hf, lead_of_model(options.hf), device="auto", local_rank=0, dtype="auto", batch_windows=1
    )
    yield "# A project kept in memory, beside a pretrained model\n"
    yield f"`{shlex.join(['python', '-m', 'benchmarks.kept_project', *sys.argv[1:]])}`\n"
    yield describe_machine() + f", torch {torch.__version__}\n"
    texts = {"the project": text_of(options.project, options.scored)}
    if options.other is not None:
        data, _ = read_source(options.other, ("",), options.most)
        texts["other source, then the project"] = data.decode(errors="ignore") + texts["the project"]
    yield "| memory | bytes of text | tokens | bytes of its file |"
    yield "|---|--:|--:|--:|"
    memories: dict[str, list[Path]] = {"empty": []}
    with tempfile.TemporaryDirectory() as folder:
        for title, text in texts.items():
            kept = kept_of(tokenizer.tokens_of(text), tokenizer)
            memories[title] = [Path(folder) / f"{len(memories)}.ngm"]
            kept_file.write(memories[title][0], kept, "none")
            yield f"| {title} | {len(text.encode()):,} | {len(kept.tokens):,} | {kept_size(kept):,} |"
        yield "\n| file | window, stride | the model alone | preset | " + " | ".join(memories) + " |"
        yield "|---|---|--:|---|" + "--:|" * len(memories)
        for path in options.scored:
            tokens = tokenizer.tokens_of(path.read_bytes().decode())[: options.tokens + 1]
            for window in WINDOWS:
                forwarded = KeptSource(source, tokens, window)
                for name in PRESETS:
                    config = replace(preset(name), window=window)
                    found = [
                        evaluate(forwarded, tokens, config, tokenizer=tokenizer, memory=memory)
                        for memory in memories.values()
                    ]
                    cells = " | ".join(f"{one.val_bpb:.4f}" for one in found)
                    about = f"{path.name} | {window.seq_len:,}, {window.stride:,} | {found[0].neural_bpb:.4f}"
                    yield f"| {about} | `{name}` | {cells} |"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.kept_project")
    publish_lines(measure(options), options.out)


if __name__ == "__main__":
    main()
