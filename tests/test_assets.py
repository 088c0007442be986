"""The embedded default is what its note says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.assets import asset, build
from ngram_eval.assets.build import HELD_OUT, split
from ngram_eval.errors import InputError
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN
from ngram_eval.models import artifact
from ngram_eval.text.manifest import read_manifest
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.train.config import embedded


def test_the_sample_is_the_beginning_of_the_held_out_novel() -> None:
    stream = read_shards([str(asset("sample_000000.bin"))])
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    text = tokenizer.decode(stream.tokens[:])
    assert text.startswith(HELD_OUT)
    assert text.endswith("\n\n")
    manifest = read_manifest(stream.paths)
    assert manifest is not None
    assert manifest.original_bytes == manifest.decoded_bytes == len(text.encode())
    assert manifest.tokenizer_sha256 == tokenizer.sha256


def test_the_model_is_of_the_embedded_preset() -> None:
    model, train_seq_len = artifact.load(asset("model.ngev"))
    assert model.config == embedded().model
    assert train_seq_len == EMBEDDED_SEQ_LEN == embedded().seq_len
    assert asset("model.ngev").stat().st_size <= 1_000_000


def test_splitting_the_novels() -> None:
    text = "EMMA\n\nfive novels\n\n" + HELD_OUT + "\n\none paragraph\n\nanother paragraph\n\nthe rest"
    training, sample = split(text, Path("novels.txt"), len(HELD_OUT) + 25)
    assert training == "EMMA\n\nfive novels\n\n"
    assert sample == HELD_OUT + "\n\none paragraph\n\n"
    with pytest.raises(InputError, match=r"novels\.txt"):
        split("no such novel", Path("novels.txt"), 100)


@pytest.mark.slow
def test_the_build_makes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def briefly(command: list[str], **options: Any) -> None:
        run([*command, "--steps", "1", "--batch", "1"] if command[3] == "train" else command, **options)

    monkeypatch.setattr(subprocess, "run", briefly)
    sentences = [f"It is a truth, number {i}, universally acknowledged." for i in range(200)]
    (tmp_path / "novels.txt").write_text("\n\n".join([*sentences, HELD_OUT, *sentences, ""]))
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["build", "novels.txt", "--out", "out", "--vocab-size", "300", "--sample-characters", "2000"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", arguments)
    build.main()
    made = {"model.ngev", "sample_000000.bin", "sample_manifest.json", "tokenizer.model"}
    assert {path.name for path in out.iterdir()} == made
