"""The audit's command line."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.cli import audit
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from tests.audit.test_formats import SCHEMA, problems
from tests.support import evaluators
from tests.support.planted import VOCAB
from tests.support.streams import Stream


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any]]:
    """Audit in this process: (exit code, JSON or None)."""

    def call(*arguments: object) -> tuple[int, Any]:
        out = tmp_path / "audit.json"
        out.unlink(missing_ok=True)
        monkeypatch.setattr(sys, "argv", ["audit", "--seed", "0", *map(str, arguments), "--json", str(out)])
        with pytest.raises(SystemExit) as exit_info:
            audit.main()
        code = exit_info.value.code
        assert isinstance(code, int)
        return code, json.loads(out.read_text()) if out.exists() else None

    return call


Run = Callable[..., tuple[int, Any]]


def test_the_embedded_default(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    presets = [flag for name in ("pr890", "exact") for flag in ("--preset", name)]
    code, found = run("--positions", 700, "--stride", 64, "--samples", 8, "--cuts", 1, *presets)
    assert code == 1
    assert found["verdict"] == "refuted"
    numbers = {
        one["subject"]: [p["number"] for p in one["probes"] if p["verdict"] == "refuted"] for one in found["audits"]
    }
    assert numbers["neural"] == numbers["exact"] == []
    assert {1, 3, 5, 6, 15} <= set(numbers["pr890"])
    assert not {2, 4, 7, 13} & set(numbers["pr890"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("verdict: refuted: pr890 (1, ")
    assert re.search(r"passed: neural \(\d+ of 20\), exact \(\d+ of 20\)\. Audited", printed[-1])
    assert re.search(r"Audited: 700 of 33,954 positions, --seed 0; a fault at 2\d % of them or more", printed[-1])
    assert any("✗" in line for line in printed)


def test_exit_codes(
    stream: Stream, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--data", stream.shard, "--positions", 300, "--samples", 8]
    code, found = run(*few, "--callable", "tests.support.functions:counting")
    assert (code, found["verdict"]) == (0, "pass")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "verdict: every probe that applies passed: tests.support.functions:counting (11 of 20). Audited: "
    )
    assert "300 of 2,999 positions, --seed 0; a fault at 0.33 % of them or more is found" in last
    assert found["audits"][0]["probes"][0]["value"] == pytest.approx(0, abs=1e-6)
    assert found["audits"][0]["probes"][8]["verdict"] == "not applicable"
    assert run(*few, "--callable", "tests.support.functions:unnormalised")[0] == 1
    for name in ("failing", "short", "not_a_function", "missing"):
        assert run(*few, "--callable", f"tests.support.functions:{name}")[0] == 2
    assert "--callable" in capsys.readouterr().err
    monkeypatch.setattr(audit, "print_table", lambda audited, console: 1 / 0)
    assert run(*few, "--callable", "tests.support.functions:uniform")[0] == 3
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert error.splitlines()[-1].startswith("verdict: none")


@pytest.mark.parametrize(
    "flags",
    [
        ["--callable", "a:b", "--uniform"],
        ["--alphabet", "bytes"],
        ["--callable", "tests.support.functions:uniform", "--text", "pyproject.toml"],
        ["--seed", "-1"],
        ["--data", "d.bin", "--uniform", "--vocab-size", "9", "--text", "missing.txt"],
        ["--format", "html"],
        ["--callable", "a:b", "--claimed", "c.npz"],
        ["--claimed", "missing.npz", "--data", "d.bin"],
        ["--claimed", "c.npz"],
        ["--claimed", "c.npz", "--preset", "hashed"],
        ["--samples", "0"],
        ["--cuts", "9", "--samples", "8"],
        ["--positions", "-1"],
        ["--claim", "missing.json"],
        ["--data", "d.bin"],
        ["--preset", "exakt"],
        ["--buckets", "1000"],
        ["--no-such-flag"],
    ],
)
def test_bad_flags(run: Run, flags: list[str]) -> None:
    assert run(*flags) == (2, None)


def test_written_claims(stream: Stream, run: Run, tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (len(stream.tokens) - 1, VOCAB)).astype(np.float32)
    np.save(tmp_path / "l.npy", logits)
    p = np.exp(logits.astype(np.float64))
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(len(p)), stream.tokens[1:]]
    np.savez(tmp_path / "c.npz", p=p)
    common = ["--data", stream.shard, "--logits", tmp_path / "l.npy", "--claimed", tmp_path / "c.npz"]
    assert run(*common)[0] == 4
    (tmp_path / "claim.json").write_text(
        json.dumps({"positions": len(p), "nats": float(-np.log(p).sum()), "bytes": None})
    )
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 4
    (tmp_path / "claim.json").write_text(json.dumps({"nats": float(-np.log(p).sum()) - 1}))
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 1
    np.savez(tmp_path / "c.npz", p=p[:2816])  # whole sequences of 256
    assert run(*common, "--seq-len", 256)[0] == 4
    assert run(*common)[0] == 1
    (tmp_path / "claim.json").write_text('{"subset": true}')
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 4
    (tmp_path / "claim.json").write_text('{"bits": 3}')
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 2
    for broken in ({"q": p}, {"p": -p}, {"p": p, "positions": p}, {"p": p, "positions": np.arange(len(p)) + 1}):
        np.savez(tmp_path / "c.npz", **broken)
        assert run(*common)[0] == 2


def test_a_result_is_a_claim(stream: Stream, run: Run, evaluate: Any, tmp_path: Path) -> None:
    common = ["--data", stream.shard, "--uniform", "--vocab-size", VOCAB, "--seq-len", 64, "--preset", "hashed"]
    result = evaluate(*common)["hashed"]
    (tmp_path / "r.json").write_text(json.dumps({"runs": [result]}))
    assert run(*common, "--claim", tmp_path / "r.json", "--positions", 700) == (2, None)  # of the whole data
    _, found = run(*common, "--claim", tmp_path / "r.json", "--positions", 0)
    assert found["audits"][1]["probes"][4]["verdict"] == "pass"
    (tmp_path / "r.json").write_text(json.dumps({"runs": [{**result, "nats": result["nats"] - 1}]}))
    _, found = run(*common, "--claim", tmp_path / "r.json", "--positions", 0)
    assert found["audits"][1]["probes"][4]["verdict"] == "refuted"


def probes_of(found: Any) -> dict[str, Any]:
    """The first subject's probes, by name."""
    return {one["name"]: one for one in found["audits"][0]["probes"]}


BYTES = """
import numpy as np

def predict(past, state):
    counts = state.setdefault("counts", np.ones(256))
    counts[past[-1]] += 1
    return counts / counts.sum() * FACTOR
"""


def test_a_function_of_bytes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is named, and its claim is of the bytes of the text; the artifact is only a file that has a size."""
    monkeypatch.chdir(tmp_path)
    text = "It is a truth universally acknowledged. " * 9
    (tmp_path / "novel.txt").write_text(text)
    (tmp_path / "weights.pt").write_bytes(bytes(1_500_000))
    flags = ["--alphabet", "bytes", "--text", "novel.txt", "--claim", "claim.json", "--artifact", "weights.pt"]
    for factor, claim, code, wrong in (
        (1, {"bytes": len(text) - 1, "megabytes": 1.5}, 0, set()),
        (1, {"bytes": len(text) + 9, "megabytes": 1.43}, 1, {"the text's bytes", "size"}),
        (1.01, {}, 1, {"sum to 1"}),
    ):
        (tmp_path / f"f{factor}.py").write_text(BYTES.replace("FACTOR", str(factor)))
        (tmp_path / "claim.json").write_text(json.dumps(claim))
        found_code, found = run("--callable", f"f{factor}.py:predict", "--positions", 0, *flags)
        refuted = {name for name, one in probes_of(found).items() if one["verdict"] == "refuted"}
        assert (found_code, wrong <= refuted) == (code, True), refuted
        assert bool(refuted) == bool(wrong)
    assert found["settings"]["alphabet"] == "bytes"
    assert found["settings"]["positions"] == len(text) - 1


def test_bytes_of_the_packaged_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(BYTES.replace("FACTOR", "1"))
    code, found = run("--callable", tmp_path / "f.py:predict", "--alphabet", "bytes", "--positions", 300)
    assert code == 0
    assert probes_of(found)["random numbers"]["evidence"].startswith(("8.", "9."))
    assert found["settings"]["of"] > 60_000, "bytes, not tokens"


def test_the_data_is_compared_with_its_text_and_searched_in_the_training_data(
    stream: Stream, run: Run, tmp_path: Path
) -> None:
    tokenizer, sample = asset("tokenizer.model"), asset("sample_000000.bin")
    text = Tokenizer.load(tokenizer).decode(read_shards([str(sample)]).tokens[:])
    (tmp_path / "same.txt").write_text(text)
    (tmp_path / "folded.txt").write_text(text.lower())
    (tmp_path / "f.py").write_text(BYTES.replace("FACTOR", "1").replace("256", "1024"))
    flags = ["--data", sample, "--tokenizer", tokenizer, "--callable", tmp_path / "f.py:predict", "--positions", 200]
    digest = hashlib.sha256(sample.read_bytes()).hexdigest()
    (tmp_path / "claim.json").write_text(json.dumps({"tokens": 33955, "sha256": digest}))
    code, found = run(*flags, "--text", tmp_path / "same.txt", "--claim", tmp_path / "claim.json")
    assert code == 0
    assert probes_of(found)["the data claimed"]["verdict"] == "pass"
    _, found = run(*flags, "--text", tmp_path / "folded.txt", "--training", sample)
    refuted = {name for name, one in probes_of(found).items() if one["verdict"] == "refuted"}
    assert refuted == {"the text's bytes", "text not trained on"}


def test_annotations_take_the_table_s_place(run: Run, stream: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--data", stream.shard, "--positions", 300, "--callable", "tests.support.functions:unnormalised"]
    run(*few, "--format", "github")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::error title=tests.support.functions%3Aunnormalised%3A sum to 1::")
    assert lines[-1].startswith("::notice title=audit::verdict: refuted: tests.support.functions:unnormalised (1, ")
    assert all(line.startswith("::") for line in lines)


def test_a_new_seed_is_drawn_and_printed(stream: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = []
    for _ in range(2):
        with pytest.raises(SystemExit):
            audit.main(
                ["--data", str(stream.shard), "--positions", "40", "--callable", "tests.support.functions:uniform"]
            )
        seeds.append(re.search(r"--seed (\d+)", capsys.readouterr().out.splitlines()[-1]))
    assert seeds[0] is not None
    assert seeds[1] is not None
    assert seeds[0][1] != seeds[1][1]


@pytest.mark.slow
def test_the_whole_default_as_a_user_runs_it(tmp_path: Path) -> None:
    """Its seed is a new one, and its verdict the same each time."""
    command = [sys.executable, "-m", "ngram_eval.audit", "--json", str(tmp_path / "audit.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "refuted: pr890 (1, 3, 5, 6, 8, 9, 10, 15), hashed (1, 3, 9, 10); " in last
    found = {one["subject"]: one["probes"] for one in json.loads((tmp_path / "audit.json").read_text())["audits"]}
    unasked = {one["number"] for one in found["exact"] if one["verdict"] == "not applicable"}
    assert unasked == {7, 9, 11, 12, 18, 19, 20}, "no weight, no buckets, and five that want a claim or other data"
    assert {one["number"] for one in found["exact"] if one["verdict"] == "pass"} == set(range(1, 21)) - unasked


EVALUATORS = Path(evaluators.__file__)
QUICK = ("--positions", 120, "--endings", 30, "--sums", 2 * VOCAB, "--scattered", 2, "--processes", 1, "--seed", 3)


def test_a_whole_evaluator(run: Run, stream: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run("--evaluator", f"{EVALUATORS}:wide", "--data", stream.shard, *QUICK)
    assert code == 0
    (audited,) = found["audits"]
    assert audited["verdict"] == "pass"
    assert problems(found, SCHEMA) == []
    assert found["settings"]["evaluator"] == f"{EVALUATORS}:wide"
    runs = {one["name"]: one["details"].get("runs", 0) for one in audited["probes"]}
    assert max(runs.values()) < found["settings"]["runs"] > 100
    assert all(runs[probe["name"]] for probe in audited["probes"][:8]), "these ask, the others look at what was said"
    assert found["settings"]["vocab_size"] == VOCAB
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("verdict: every probe that applies passed: ")
    assert "Audited: 120 of 2,999 positions, --seed 3" in last


def test_a_whole_evaluator_that_cheats_is_refuted(run: Run, stream: Stream) -> None:
    code, found = run("--evaluator", f"{EVALUATORS}:wide_and_unnormalised", "--data", stream.shard, *QUICK)
    assert code == 1
    assert found["audits"][0]["probes"][0]["verdict"] == "refuted"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--evaluator", "a:b", "--callable", "c:d"), "--evaluator has its own model: give no other subject"),
        (("--evaluator", "a:b", "--preset", "exact"), "no --preset"),
        (("--evaluator", "nothing"), "give module:function or path/eval.py:function"),
        (("--evaluator", f"{EVALUATORS}:failing", "--positions", "50"), "raised RuntimeError: no such weights"),
        (("--evaluator", f"{EVALUATORS}:wide", "--positions", "5"), "6 tokens to audit are too few"),
        (("--evaluator", f"{EVALUATORS}:wide", "--sums", "0"), "--endings, --sums and --scattered are at least 1"),
        (("--evaluator", f"{EVALUATORS}:wide", "--timeout", "0"), "--timeout is above 0"),
        (("--callable", "a:b", "--fresh"), "go with --evaluator"),
    ],
)
def test_flags_of_an_evaluator_that_can_t_be_met(
    run: Run, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert run(*flags) == (2, None)
    assert message in capsys.readouterr().err
