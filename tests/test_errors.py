"""An error names what its reader typed: arguments in Python, flags on a command line."""

import pytest

from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError, exit_on_input_error


def windows() -> EvalConfig:
    return EvalConfig(window=WindowConfig(seq_len=8, stride=9))


def test_python_reads_arguments_and_a_command_line_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"), exit_on_input_error():
        windows()
    assert "error: --stride is 9: it may not exceed --seq-len (8)" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"^stride is 9: it may not exceed seq_len \(8\)"):
        windows()


def test_a_command_in_a_message_stays_as_it_is() -> None:
    error = InputError("--max-tokens is 0: `python -m ngram_eval.prepare --max-tokens 9`, or no `--max-tokens`")
    assert str(error) == "max_tokens is 0: `python -m ngram_eval.prepare --max-tokens 9`, or no `max_tokens`"
