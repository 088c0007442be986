"""Data as it lies about, from the command line: other people's shards and tokenizers, and any text."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.cli import main as cli
from ngram_eval.text.shards import write_shard
from tests.support.places import SAMPLE_PATH
from tests.support.shards import header
from tests.support.streams import Stream

Runs = Callable[..., dict[str, dict[str, Any]]]
WHOLE = ["--preset", "exact", "--seq-len", "1", "--stride", "1", "--threads", "1", "--quiet"]
"""Every position is scored, whatever their number."""
TEXT = SAMPLE_PATH.read_text(encoding="utf-8")[:3000]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", *map(str, arguments)])
    return capsys.readouterr().err


def test_the_same_tokens_score_the_same_in_every_form(stream: Stream, tmp_path: Path, evaluate: Runs) -> None:
    scores = ("--scores", stream.scores, *WHOLE)
    expected = evaluate("--data", stream.shard, *scores)["exact"]["val_loss"]
    tokens = stream.tokens
    (tmp_path / "llama3.bin").write_bytes(header(len(tokens), 7, 20240801) + tokens.astype("<u4").tobytes())
    np.save(tmp_path / "tokens.npy", tokens.astype(np.int64))
    (tmp_path / "val.bin").write_bytes(tokens.tobytes())
    for given in (["llama3.bin"], ["tokens.npy"], ["val.bin", "--raw-dtype", "uint16"]):
        name, *flags = given
        run = evaluate("--data", tmp_path / name, *flags, *scores)["exact"]
        assert run["val_loss"] == expected
        assert run["settings"]["data"]["raw_dtype"] == (flags[1] if flags else None)


def test_a_text_needs_neither_model_nor_tokenizer(tmp_path: Path, evaluate: Runs) -> None:
    """Its bytes are the tokens, all of which are scored; a file that is packed is the same text."""
    (tmp_path / "novel.md").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    (tmp_path / "novel.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "novel").write_bytes(TEXT.encode())
    found = [
        evaluate("--text", tmp_path / name, *flags, *WHOLE)["exact"]
        for name, flags in (("novel.md", ()), ("novel.txt.gz", ["--uniform"]), ("novel", ()))
    ]
    assert found[0]["bytes"] == found[0]["positions"] == len(TEXT.encode())
    assert found[0]["neural_source"] == "uniform"
    assert found[0]["neural_bpb"] == pytest.approx(np.log2(257))
    assert found[0]["val_bpb"] < 4
    assert len({run["val_bpb"] for run in found}) == 1


def test_documents_of_a_folder_are_each_scored(tmp_path: Path, evaluate: Runs) -> None:
    folder = tmp_path / "texts"
    (folder / "in").mkdir(parents=True)
    (folder / "a.md").write_text(TEXT[:1000])
    (folder / "in" / "b.jsonl").write_text(json.dumps({"body": TEXT[:500]}) + "\n" + json.dumps({"body": "é"}) + "\n")
    (folder / "page.html").write_text("no text")
    run = evaluate("--text", folder, "--text-field", "body", *WHOLE)["exact"]
    assert run["bytes"] == len(TEXT[:1000].encode()) + len(TEXT[:500].encode()) + 2
    assert run["positions"] == run["bytes"] + 2  # the later documents' first tokens are scored as well
    assert [Path(one["path"]).name for one in run["inputs"]] == ["a.md", "b.jsonl"]


def test_a_tokenizer_of_ones_own_cuts_a_text(tmp_path: Path, model_path: Path, evaluate: Runs) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    run = evaluate("--text", tmp_path / "a.txt", "--tokenizer", model_path, *WHOLE)["exact"]
    assert run["bytes"] == len(TEXT.encode()) > run["positions"]
    assert [one["role"] for one in run["inputs"]] == ["data", "tokenizer"]
    assert evaluate("--from-result", tmp_path / "out.json", "--quiet")["exact"]["val_bpb"] == run["val_bpb"]


def test_shards_have_bits_per_byte_without_a_model(tmp_path: Path, evaluate: Runs) -> None:
    """As of GPT-2's tokens in llm.c's shards: all that is needed is the tokenizer's file."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install ngram_eval[hf]")
    from tests.support.hf_tokenizers import byte_level

    byte_level(False).save(str(tmp_path / "tokenizer.json"))
    from ngram_eval.text.tokenizer_files import load_tokenizer

    tokens = load_tokenizer(tmp_path / "tokenizer.json").tokens_of(TEXT)
    write_shard(tmp_path / "val.bin", np.append(np.uint16(0), tokens))
    for tokenizer in (tmp_path / "tokenizer.json", tmp_path):
        flags = ("--data", tmp_path / "val.bin", "--tokenizer", tokenizer, "--uniform", *WHOLE)
        run = evaluate(*flags)["exact"]
        assert run["bytes"] == len(TEXT.encode())
        assert run["val_bpb"] == pytest.approx(run["val_loss"] * len(tokens) / len(TEXT.encode()) / np.log(2))
        _, file = run["inputs"]
        assert (file["role"], Path(file["path"]).name) == ("tokenizer", "tokenizer.json")


def test_what_does_not_go_together_is_refused(
    stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    text = ("--text", tmp_path / "a.txt")
    assert "--text and --data are both something to score" in refusal(capsys, *text, "--data", stream.shard)
    assert "--raw-dtype uint16 describes --data" in refusal(capsys, *text, "--raw-dtype", "uint16")
    assert "leave --tokenizer out" in refusal(capsys, *text, "--hf", "m", "--tokenizer", "t.model")
    assert "pr890 counts bytes by a formula for SentencePiece" in refusal(capsys, *text, "--preset", "pr890")
    (tmp_path / "empty").write_bytes(b"")
    assert "empty: empty; give --text a file with text" in refusal(capsys, "--text", tmp_path / "empty")
    assert "no.txt can't be read" in refusal(capsys, "--text", tmp_path / "no.txt")
    assert "--text is -, standard input" in refusal(capsys, "--text", "-")
