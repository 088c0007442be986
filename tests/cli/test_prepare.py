"""Preparing text by command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.text.prepare import PrepareConfig
from tests.support.places import SAMPLE_PATH
from tests.support.prepared import SAMPLE, run
from tests.support.processes import heeding_ctrl_c


def command(*arguments: object, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    argv = [sys.executable, "-m", "ngram_eval", "prepare", *map(str, arguments)]
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, model_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "ngram_eval",
        "prepare",
        "-",
        "--out",
        str(tmp_path / "out"),
        "--tokenizer",
        str(model_path),
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=heeding_ctrl_c) as process:
        assert process.stdin is not None
        process.stdin.write(SAMPLE.encode())
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not (tmp_path / "out").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    assert not (tmp_path / "out").exists()


# The command line


def test_the_command_prints_what_it_stores(tmp_path: Path, model_path: Path) -> None:
    result = command("-", "--out", tmp_path, "--tokenizer", model_path, stdin="a▁b".encode())
    assert result.returncode == 0, result.stderr
    assert result.stdout == (tmp_path / "tokens_manifest.json").read_bytes()
    assert b"warning: 1 of 1 documents do not decode" in result.stderr
    assert json.loads(result.stdout)["command"].startswith("ngram-eval prepare - --out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.txt", "--tokenizer", "MODEL"], "error: no.txt: no such file or folder"),
        (["BAD", "--train-tokenizer", "300"], "bad.txt:2 is not UTF-8"),
        (["BAD"], "give either --tokenizer FILE or"),
    ],
)
def test_bad_input_exits_with_2_and_no_traceback(
    tmp_path: Path, model_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"fine\nnot \xff")
    names = {"MODEL": str(model_path), "BAD": str(tmp_path / "bad.txt")}
    result = command(*(names.get(argument, argument) for argument in arguments), "--out", tmp_path / "out")
    assert result.returncode == 2
    assert message.encode() in result.stderr
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_which_errors_a_command_line_catches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def exit_code(error: BaseException) -> object:
        with pytest.raises(SystemExit) as caught, exit_on_input_error():
            raise error
        assert caught.value.__suppress_context__
        return caught.value.code

    assert exit_code(InputError("say what")) == 2
    assert capsys.readouterr().err == "error: say what\n"
    assert exit_code(OSError(28, os.strerror(28), "disk")) == 2
    assert "No space left on device: 'disk'" in capsys.readouterr().err
    assert exit_code(KeyboardInterrupt()) == 130
    for bug in (ValueError("bug"), BrokenPipeError(32, "pipe"), OSError("bug")):
        with pytest.raises(type(bug)), exit_on_input_error():
            raise bug


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "no input is given"),
        ({"inputs": ("-", "-")}, "- is given twice"),
        ({"tokenizer": None}, "give either tokenizer FILE or train_tokenizer VOCABULARY"),
        ({"train_tokenizer": 300}, "give either tokenizer"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"train_characters": 0}, "train_characters is 0"),
        ({"shard_tokens": 0}, "shard_tokens is 0"),
        ({"shard_tokens": 2**31}, "shard_tokens is 2147483648: give 1 to 2147483647"),
    ],
)
def test_bad_flags_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareConfig(**{"inputs": ("a.txt",), "out": tmp_path, "tokenizer": Path("t.model"), **options})


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match="2"), exit_on_input_error():
            run(out, SAMPLE_PATH, tokenizer=model_path)
    assert (tmp_path / "file").read_text() == "here first"
