"""The evaluator's command line, as several tests call it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.streams import Stream

Evaluate = Callable[..., dict[str, dict[str, Any]]]


def small(stream: Stream) -> list[object]:
    """The small stream under settings that fit it."""
    flags = ["--seq-len", 256, "--buckets", 512]
    return ["--data", stream.shard, "--scores", stream.scores, *flags]


def fails(capsys: Any, evaluate: Evaluate, *arguments: object) -> str:
    """The message of a call that must exit with 2 and leave nothing behind."""
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*arguments)
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return " ".join(captured.err.replace("│", " ").split())
