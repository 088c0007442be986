"""Every reader of files from outside: the kinds of files, and the functions of the package that open them."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import save

from ngram_eval.audit.claim import load_claim
from ngram_eval.models import artifact
from tests.fuzz import cases, formats, token_cases
from tests.fuzz.formats import Format


class Reader(NamedTuple):
    """A kind of file."""

    name: str
    file: str
    """The name that a damaged file gets."""
    format: Format
    seeds: Callable[[], list[bytes]]
    """Valid files, the same each time."""
    read: Callable[[Path], object]
    opens: tuple[str, ...] = ()
    """The functions of the package that open such a file, as module:function."""


READERS = (
    Reader(
        *("shard", "tokens_000000.bin", formats.SHARD, token_cases.shards, token_cases.read_shard),
        ("text.shards:_read_header", "text.shards:read"),
    ),
    Reader("shard-npy", "tokens.npy", formats.NPY, token_cases.npy_tokens, token_cases.read_shard),
    Reader("shard-raw", "val.bin", formats.BYTES, lambda: [bytes(range(200))], token_cases.read_raw_shard),
    Reader(
        *(
            "manifest",
            "tokens_manifest.json",
            formats.JSON,
            cases.old("tokens_manifest.json"),
            token_cases.read_manifest,
        ),
        ("text.manifest:parse_manifest", "text.manifest:read_manifest"),
    ),
    Reader(
        *("tokenizer", "tokenizer.model", formats.MODEL, cases.old("tokenizer.model"), token_cases.read_tokenizer),
        ("text.tokenizer:load", "codec.packing:_cut"),
    ),
    Reader(
        *("tokenizer-json", "tokenizer.json", formats.JSON, partial(cases.hf_file, "tokenizer.json")),
        *(token_cases.read_any_tokenizer, ("text.tokenizer_json:read_definition",)),
    ),
    Reader(
        *("tokenizer-config", "tokenizer_config.json", formats.JSON, partial(cases.hf_file, "tokenizer_config.json")),
        *(token_cases.read_tokenizer_config, ("text.tokenizer_json:_named_starts",)),
    ),
    Reader(
        *("tokenizer-tiktoken", "a.tiktoken", formats.LINES, token_cases.ranks, token_cases.read_any_tokenizer),
        ("text.byte_tokens:load_ranks",),
    ),
    Reader(
        *("tokenizer-llm.c", "gpt2_tokenizer.bin", formats.LLM_C, token_cases.llm_c, token_cases.read_any_tokenizer),
        ("text.byte_tokens:load_llm_c",),
    ),
    Reader(
        *("artifact", "model.ngev", formats.ARTIFACT, cases.old("trained.ngev"), artifact.load),
        ("models.artifact:load", "models.artifact:trained_length"),
    ),
    Reader(
        *("scores-npz", "scores.npz", formats.NPZ, lambda: cases.npz(cases.scores()), cases.read_scores),
        ("models.saved_arrays:open_arrays", "models.saved_arrays:__init__", "models.saved_arrays:read"),
    ),
    Reader(
        "scores-safetensors", "scores.safetensors", formats.TENSORS, lambda: [save(cases.scores())], cases.read_scores
    ),
    Reader(
        *("logits", "logits.npy", formats.NPY, cases.logits, cases.read_logits),
        ("models.saved_logits:load_logits",),
    ),
    Reader("claimed", "claims.npz", formats.NPZ, lambda: cases.npz(cases.claims()), cases.read_claims),
    Reader("claim", "claim.json", formats.JSON, cases.claim, load_claim, ("audit.claim:load_claim",)),
    Reader(
        *("result", "result.json", formats.RESULT, cases.old("result.json", "of_model.json"), cases.read_result),
        ("results.result_file:read_runs",),
    ),
    Reader("from-result", "result.json", formats.RESULT, cases.old("result.json", "of_model.json"), cases.run_again),
    *(
        Reader(
            *(f"checkpoint-{name}", "a.ckpt", formats.CHECKPOINT, partial(cases.checkpoints, name), cases.resume(name)),
            ("evaluation.checkpoint:_read",),
        )
        for name in ("exact", "tilt", "mixer", "hashed")
    ),
    Reader(
        *("training", "checkpoint.safetensors", formats.TRAINING, cases.training, cases.read_training),
        tuple(f"train.snapshot:{name}" for name in ("_read_metadata", "read_config", "read_weights", "resume")),
    ),
    Reader("journal", "log.jsonl", formats.LINES, cases.journal, cases.cut_journal, ("train.journal:read",)),
    Reader(
        *("codec", "a.ngc", formats.CODEC, cases.codec, cases.decompress),
        ("codec.container:read", "cli.codec:_read"),
    ),
    Reader(*("kept", "a.ngm", formats.KEPT, cases.kept, cases.read_kept), ("kept.file:open_kept",)),
    Reader(
        *("txt", "a.txt", formats.LINES, lambda: [cases.TEXT], cases.segments),
        ("text.documents:_file_source", "text.documents:_read_documents"),
    ),
    Reader("jsonl", "a.jsonl", formats.LINES, lambda: [cases.RECORDS], cases.segments),
    Reader("txt.zst", "a.txt.zst", formats.zstd(formats.LINES), lambda: [cases.zstd(cases.TEXT)], cases.segments),
    Reader(
        "jsonl.zst", "a.jsonl.zst", formats.zstd(formats.LINES), lambda: [cases.zstd(cases.RECORDS)], cases.segments
    ),
    *(
        Reader(
            *(f"txt.{kind}", f"a.txt.{kind}", formats.packed(formats.LINES, tool)),
            *(partial(cases.packed_text, tool), cases.segments),
        )
        for kind, tool in {"gz": gzip, "bz2": bz2, "xz": lzma}.items()
    ),
    Reader(
        *("parquet", "a.parquet", formats.BYTES, cases.parquet, cases.segments),
        ("text.parquet:read_parquet",),
    ),
    Reader(
        *("convert-pt", "a.pt", formats.TORCH, cases.published, cases.read_published),
        ("models.convert:read", "models.convert:_load", "models.convert:convert"),
    ),
    Reader("convert-ptz", "a.ptz", formats.PTZ, cases.published_packed, cases.read_published),
    Reader(
        *("hf-config", "config.json", formats.JSON, partial(cases.hf_file, "config.json"), cases.read_hf),
        ("models.hf.loading:load_tokenizer", "models.hf.loading:load_model"),
    ),
    Reader(
        *("hf-tokenizer", "tokenizer.json", formats.JSON, partial(cases.hf_file, "tokenizer.json"), cases.read_hf),
        ("models.hf.tokenizer:_compare_with_file",),
    ),
    Reader(
        *("hf-weights", "model.safetensors", formats.TENSORS, partial(cases.hf_file, "model.safetensors")),
        cases.read_hf,
    ),
    Reader("hf-text", "a.txt", formats.LINES, lambda: [cases.TEXT], cases.read_hf_text),
    Reader(
        *("gguf", "a.gguf", formats.BYTES, cases.gguf, cases.read_gguf),
        ("models.hf.gguf_file:_reader",),
    ),
)
