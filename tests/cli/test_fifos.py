"""A pipe in the place of a file that is read would be waited for, for ever: it is refused, and named."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ngram_eval.assets import asset
from ngram_eval.cli import main as cli
from tests.support.flags import NAMES, flags_of

RUN = "--uniform --vocab-size 50 --preset hashed"
INPUTS: dict[str, list[str]] = {
    "run": [
        "--data FIFO --uniform --vocab-size 50",
        "--data SHARD --artifact FIFO",
        "--data SHARD --scores FIFO",
        "--data SHARD --scores FIFO.safetensors",
        "--data SHARD --logits FIFO",
        "--data SHARD --uniform --tokenizer FIFO",
        "--from-result FIFO",
        "--data SHARD --uniform --vocab-size 50 --memory FIFO",
    ],
    "prepare": ["FIFO.txt --tokenizer MODEL --out OUT", "TEXT --tokenizer FIFO --out OUT"],
    "train": [
        "--data FIFO --out OUT",
        "--data SHARD --val FIFO --out OUT",
        "--data SHARD --val SHARD --tokenizer FIFO --out OUT",
    ],
    "audit": [
        "--callable FIFO:f --data SHARD --vocab-size 50",
        "--claimed FIFO --data SHARD",
        "--claim FIFO --data SHARD --uniform --vocab-size 50",
    ],
    "convert": ["FIFO --out OUT"],
    "compare": ["FIFO"],
    "explain": ["--data FIFO --uniform --vocab-size 50 --position 3"],
    "budget": ["--quiet --data FIFO --uniform --vocab-size 50"],
    "doctor": [],
    "codec compress": [
        "FIFO OUT --uniform --tokenizer bytes",
        "TEXT OUT --uniform --tokenizer FIFO",
        "TEXT OUT --artifact FIFO",
    ],
    "codec decompress": ["FIFO OUT"],
    "codec verify": ["FIFO"],
    "memory build": [
        "--data FIFO --vocab-size 50 --out OUT",
        "--data SHARD --tokenizer FIFO --out OUT",
        "--data SHARD --vocab-size 1024 --max-bytes 99 --score-with FIFO --out OUT",
    ],
    "memory info": ["FIFO"],
    "memory merge": ["FIFO --out OUT"],
    "memory learn": ["FIFO --out OUT --uniform"],
    "memory verify": ["FIFO"],
}
"""Command -> flags, one of which names a pipe."""
OUTPUTS = {
    "--json",
    "--report",
    "--plot",
    "--save-scores",
    "--checkpoint",
    "--folder",
    "--log-folder",
    "--out",
    "--curve",
    "--summary",
    "--sarif",
}


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    def wake(*_: object) -> None:
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("command", "flags"), [(name, one) for name, all_ in INPUTS.items() for one in all_])
def test_a_pipe_is_refused(command: str, flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("some text")
    named = {"SHARD": asset("sample_000000.bin"), "MODEL": asset("tokenizer.model"), "TEXT": tmp_path / "text.txt"}
    named["OUT"] = tmp_path / "out"
    words = []
    for word in flags.split():
        if word.startswith("FIFO"):
            name = word.partition(":")[0]
            os.mkfifo(tmp_path / name)
            word = f"{tmp_path}/{word}"
        words.append(str(named.get(word, word)))
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command.split(), *words])
    error = capsys.readouterr().err
    assert "FIFO" in error
    assert error.count("\n") == 1, error
    assert "Traceback" not in error


@pytest.mark.slow  # imports transformers
def test_a_pipe_in_the_place_of_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test_a_pipe_is_refused("run", "--hf FIFO --data SHARD --preset hashed", tmp_path, capsys)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", NAMES, ids=" ".join)
def test_no_flag_that_names_a_file_is_missing_here(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tried = " ".join([*INPUTS["run"], *INPUTS[" ".join(command)]]).split()
    files = {flag for flag, kind in flags_of(command, capsys).items() if "PATH" in kind}
    assert files - OUTPUTS - {"--text"} <= set(tried)  # a text is read as --tokenizer is, once a model is loaded
