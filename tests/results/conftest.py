"""What the tests of results share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.evaluator import Evaluate
from tests.support.streams import Stream


@pytest.fixture
def results(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> Callable[..., Path]:
    """Evaluate the small stream with further flags; the result file."""

    def make(name: str, *flags: object) -> Path:
        tmp_path.joinpath("kept").mkdir(exist_ok=True)
        common = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--buckets", 512]
        evaluate(*common, *flags)
        return (tmp_path / "out.json").rename(tmp_path / "kept" / f"{name}.json")

    return make
