"""The adapters of examples/audit charge what their submissions say, and pass."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.audit.case import Data
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.ask import Answer, Evaluator
from ngram_eval.audit.evaluator.audit import audit_evaluator
from ngram_eval.audit.evaluator.case import Asking, Case
from ngram_eval.audit.evaluator.process import Limits, Place
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.places import ROOT

EXAMPLES = ROOT / "examples" / "audit"
TOKENS = read_shards([str(asset("sample_000000.bin"))]).tokens[:181]
LIMITS = Limits(processes=1)


def charged(name: str | Path) -> Answer:
    with Evaluator(Place.of(f"{EXAMPLES / name}"), LIMITS) as evaluator:
        return evaluator.ask([TOKENS.astype(np.int64)])[0]


def test_the_number_that_a_script_prints_is_read() -> None:
    """It counts tokens, and prints six decimals."""
    counts, nats = np.ones(1024), 0.0
    for token in TOKENS[1:]:
        nats += np.log(counts.sum() / counts[token])
        counts[token] += 1
    assert charged("script.py:evaluate").total == pytest.approx(nats, abs=1e-6)


def test_the_losses_seen_in_a_sliding_evaluation_are_those_that_it_adds_up() -> None:
    answer = charged("parameter_golf.py:evaluate")
    assert answer.odd == ""
    assert answer.summary is not None
    assert answer.summary[1] == pytest.approx(answer.summary[0], rel=1e-6)


def test_a_repeated_tail_is_seen_whatever_the_rule_of_windows(tmp_path: Path) -> None:
    """As was published: windows go on to the end, and each adds its last stride."""
    published = {
        " if start + seq_len - stride < count]": "]",
        "else seq_len - stride, stop)": "else max(stop - stride, 0), stop)",
        "Path(__file__).parents[2]": repr(ROOT),
        "from pathlib import Path": "from pathlib import Path, PosixPath",
    }
    source = (EXAMPLES / "submission.py").read_text()
    for old, new in published.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    (tmp_path / "submission.py").write_text(source)
    shutil.copy(EXAMPLES / "parameter_golf.py", tmp_path)
    answer = charged(tmp_path / "parameter_golf.py:evaluate")
    assert "are charged up to 2 times" in answer.odd
    assert answer.summary is not None
    assert answer.summary[1] == pytest.approx(answer.summary[0], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "torch_loss.py:evaluate",
        "stateful.py:evaluate",
        "script.py:evaluate",
        "parameter_golf.py:evaluate",
        "parameter_golf.py:totals",
    ],
)
def test_an_adapter_passes(name: str) -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    with Evaluator(Place.of(f"{EXAMPLES / name}"), Limits()) as evaluator, Interrupt() as interrupt:
        data = Data(tokens=TOKENS, tokenizer=tokenizer, total=len(TOKENS))
        asking = Asking(endings=40, sums=tokenizer.vocab_size, scattered=4)
        case = Case(evaluator, data, tokenizer.vocab_size, claim=Claim(), asking=asking, seed=1)
        (found,) = audit_evaluator(case, lambda done: None, interrupt)
    assert found.outcome == "pass", found
    assert len(found.numbers("pass")) >= 5
