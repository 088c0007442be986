"""Hugging Face models: every byte of a text counted once, statistics as the model's own, and clear refusals."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from hf_models import KINDS, TEXT, save_gguf, save_gpt2, save_llama, saved
from processes import finish, launch

from ngram_eval import evaluate as evaluate_api
from ngram_eval import preset
from ngram_eval.cli import audit
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models import logits_source as forwarded
from ngram_eval.models.hf import source as hf_source
from ngram_eval.models.hf.loading import digest, load_model, load_tokenizer
from ngram_eval.models.hf.source import HfSource, load_hf_source
from ngram_eval.models.hf.tokenizer import HfTokenizer, byte_table
from ngram_eval.text.shards import write_shard
from ngram_eval.text.windows import Windows, batches, plan_windows

Evaluate = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    return saved(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokenizers(models: dict[str, Path]) -> dict[str, HfTokenizer]:
    """The tokenizer of each kind."""
    return {kind: HfTokenizer.load(str(folder)) for kind, folder in models.items()}


def load(folder: Path, **changes: Any) -> HfSource:
    """The model's source on the CPU."""
    arguments = {"device": "cpu", "local_rank": 0, "dtype": "float32", "batch_windows": 3, **changes}
    return load_hf_source(str(folder), HfTokenizer.load(str(folder)), **arguments)


# Bytes


def test_the_byte_table_is_that_of_the_tokenizers_library() -> None:
    from tokenizers import pre_tokenizers

    table = byte_table()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet())
    ((written, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é\n 東")
    assert bytes(table[character] for character in written) == "é\n 東".encode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from([TEXT, "<s>a</s>", "a <0x41>"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from([TEXT, "<s>a</s>", "<0x41>"])
)
def test_every_byte_of_a_text_is_counted_once(tokenizers: dict[str, HfTokenizer], kind: str, text: str) -> None:
    """Whatever the text, special tokens' names in it included; or, never in silence, it is refused."""
    tokenizer = tokenizers[kind]
    if kind == "llama" and text.startswith(" "):  # its encoder takes such a space for the one that it adds
        with pytest.raises(InputError, match=r"lossy, it drops or rewrites text\. At byte 0"):
            tokenizer.encode(text)
        return
    if kind == "llama" and "▁" in text:  # which is how it writes spaces
        with pytest.raises(InputError, match="lossy"):
            tokenizer.encode(text)
        return
    tokens = tokenizer.encode(text)
    assert tokenizer.start_id is not None
    stream = np.append(np.array([tokenizer.start_id], tokens.dtype), tokens)
    sizes = tokenizer.target_bytes(stream, 0, len(tokens), "decoded")
    assert sizes.sum() == len(text.encode())
    assert not (tokens == tokenizer.start_id).any()
    middle = len(tokens) // 2
    assert tokenizer.target_bytes(stream, middle, len(tokens), "decoded").tolist() == sizes[middle:].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_what_the_tokenizer_itself_decodes(
    tokenizers: dict[str, HfTokenizer], kind: str, tmp_path: Path
) -> None:
    """Two documents, each led by a special token; the decoder is another way to the same number."""
    tokenizer = tokenizers[kind]
    for name, text in (("a.txt", TEXT), ("b.txt", "Again: " + TEXT)):
        (tmp_path / name).write_bytes(text.encode())
    stream = tokenizer.read_texts([tmp_path / "a.txt", tmp_path / "b.txt"])
    tokens = stream.tokens[:]
    assert (tokens == tokenizer.start_id).sum() == 2
    sizes = tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "decoded")
    assert sizes.sum() == 2 * len(TEXT.encode()) + 7 == tokenizer.text_bytes(tokens)
    for stop in range(2, 200):
        assert tokenizer.text_bytes(tokens[:stop]) == sizes[: stop - 1].sum(), stop
    assert tokenizer.unknown_targets(tokens, 0, len(tokens) - 1) == 0
    short = tokenizer.read_texts([tmp_path / "a.txt"], 10)
    assert (len(short.tokens), short.total) == (10, len(tokenizer.encode(TEXT)) + 1)


def changed(folder: Path, to: Path, **changes: Any) -> HfTokenizer:
    """The tokenizer of a folder with parts of its tokenizer.json replaced."""
    to.mkdir()
    definition = json.loads((folder / "tokenizer.json").read_text())
    (to / "tokenizer.json").write_text(json.dumps({**definition, **changes}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (to / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return HfTokenizer.load(str(to))


@pytest.mark.parametrize(
    ("normalizer", "text", "at"),
    [
        (
            {"type": "Lowercase"},
            "well,\nwell, Éclair",
            r"At byte 12 \(line 2\) the text has 'Éclair', its tokens spell 'é",
        ),
        ({"type": "NFC"}, "a\u0301b", r"At byte 0 \(line 1\)"),
        (
            {"type": "Strip", "strip_left": True, "strip_right": True},
            "a b\n",
            r"At byte 3 \(line 1\) the text has '\\n'",
        ),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused_and_says_where(
    models: dict[str, Path], tmp_path: Path, normalizer: dict[str, Any], text: str, at: str
) -> None:
    lossy = changed(models["gpt2"], tmp_path / "lossy", normalizer=normalizer)
    lossy.encode("all is well")
    with pytest.raises(InputError, match=rf"novel\.txt: the tokenizer of --hf .*lossy, it drops or rewrites.* {at}"):
        lossy.encode(text, "novel.txt")


def test_unknown_tokens_are_refused_in_a_text_and_counted_in_shards(models: dict[str, Path], tmp_path: Path) -> None:
    definition = json.loads((models["llama"] / "tokenizer.json").read_text())
    no_bytes = {"byte_fallback": False, "unk_token": "<unk>"}
    without = changed(models["llama"], tmp_path / "unk", model={**definition["model"], **no_bytes})
    with pytest.raises(InputError, match=r"unknown token replaces text it has no token for \(1 times\).*At byte 4 "):
        without.encode("the ☃ fox")
    assert without.unknown_id == 0
    tokens = np.array([1, 0, 5, 0, 9], np.uint16)
    assert without.unknown_targets(tokens, 0, 4) == 2
    assert without.target_bytes(tokens, 0, 4, "decoded")[[0, 2]].tolist() == [0, 0]


def test_a_tokenizer_of_unknown_kind_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="decodes by WordPiece: the bytes of tokens are known only for byte-level"):
        changed(models["gpt2"], tmp_path / "pieces", decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    with pytest.raises(InputError, match="decodes by nothing"):
        changed(models["gpt2"], tmp_path / "none", decoder=None)
    definition = json.loads((models["gpt2"] / "tokenizer.json").read_text())
    odd = {**definition["model"], "vocab": {**definition["model"]["vocab"], " odd": 369}}
    with pytest.raises(InputError, match="the token 369, ' odd', holds ' ', which byte-level BPE does not write"):
        changed(models["gpt2"], tmp_path / "odd", model=odd)


def test_vocabularies_up_to_262144(models: dict[str, Path], tmp_path: Path) -> None:
    definition = json.loads((models["gpt2"] / "tokenizer.json").read_text())

    def of(size: int) -> dict[str, Any]:
        vocabulary = definition["model"]["vocab"]
        more = {f"a{number}": number for number in range(len(vocabulary), size)}
        return {**definition["model"], "vocab": {**vocabulary, **more}}

    largest = changed(models["gpt2"], tmp_path / "largest", model=of(1 << 18))
    assert largest.vocab_size == 1 << 18
    assert largest.encode("the fox").dtype == np.uint32
    tokens = np.array([5, 262143, 300], np.uint32)
    assert largest.target_bytes(tokens, 0, 2, "decoded")[0] == len("a262143")
    with pytest.raises(InputError, match=r"has 262,145 tokens: give 1 to 262,144"):
        changed(models["gpt2"], tmp_path / "larger", model=of((1 << 18) + 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read"), (b"", "empty"), (b"abc\xff\xfe", r"not UTF-8 at byte 3 \(ff fe\)")],
)
def test_bad_texts(tokenizers: dict[str, HfTokenizer], tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"text\.txt: {message}"):
        tokenizers["gpt2"].read_texts([path])


# Statistics


def by_hand(folder: Path, tokens: Any, windows: Windows, lead: int | None) -> np.ndarray[Any, Any]:
    """(positions, V): a forward for each position by itself, of its window's tokens up to it."""
    model = load_model(str(folder), torch.float32)
    rows = []
    for start, first, stop in zip(windows.start, windows.first, windows.stop, strict=True):
        for position in range(first, stop):
            given = tokens[start : position + 1].tolist()
            if lead is not None and given[0] != lead:
                given.insert(0, lead)
            with torch.inference_mode():
                rows.append(torch.softmax(model(torch.tensor([given])).logits[0, -1].double(), dim=-1).numpy())
    return np.array(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [3, 16])
def test_statistics_are_the_model_s(models: dict[str, Path], kind: str, stride: int) -> None:
    """One forward a position, of the window up to it, led by BOS where the tokenizer leads texts by it."""
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = np.append(np.array([tokenizer.start_id], np.uint16), tokenizer.encode(TEXT[:300]))[:57]
    tokens[32] = tokenizer.start_id  # a window that starts with BOS by itself
    source = load(models[kind])
    assert (source.lead_id is None) == (kind == "gpt2")
    windows = plan_windows(48, WindowConfig(seq_len=16, stride=stride))
    expected = by_hand(models[kind], tokens, windows, source.lead_id)
    targets = tokens[windows.positions() + 1]
    at = 0
    for batch in batches(windows, 3):
        stats, rows = source.stats(tokens, batch), source.probabilities(tokens, batch)
        here = slice(at, at := at + batch.scored)
        np.testing.assert_allclose(rows, expected[here], atol=2e-6)
        assert (stats.p_target == rows[np.arange(len(rows)), targets[here]]).all(), "bit for bit"
        entropy = -(expected[here] * np.log(expected[here])).sum(axis=1)
        np.testing.assert_allclose(stats.entropy, entropy, rtol=1e-5)
    assert at == 48


@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_parts_are_the_logits(models: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory holds a few windows, less than a window, or nothing to answer the next question from."""
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = tokenizer.encode(TEXT)[:200]
    (first, *_, last) = batches(plan_windows(144, WindowConfig(seq_len=24, stride=8)), 5)
    whole = load(models[kind])
    size = whole.vocab_size
    for windows in (first, last):
        expected = whole.probabilities(tokens, windows)
        for logits, softmax, kept in ((2 * 8 * size, 3 * size, 0), (3 * size, size, 1 << 28), (1, 1, 1 << 28)):
            monkeypatch.setattr(hf_source, "_LOGITS_AT_ONCE", logits)
            monkeypatch.setattr(forwarded, "_SOFTMAX_AT_ONCE", softmax)
            monkeypatch.setattr(forwarded, "_KEPT", kept)
            source = load(models[kind])
            np.testing.assert_allclose(source.probabilities(tokens, windows), expected, atol=1e-6)
            np.testing.assert_allclose(
                source.stats(tokens, windows).p_target, whole.stats(tokens, windows).p_target, atol=1e-6
            )
        monkeypatch.undo()


def test_what_was_just_forwarded_is_not_forwarded_again(models: dict[str, Path]) -> None:
    """Whole distributions of a batch, or of one of its positions, come from the batch's own forward."""
    tokens = HfTokenizer.load(str(models["llama"])).encode(TEXT)[:200]
    source, forwards = load(models["llama"]), []
    model = source._model
    model.register_forward_hook(lambda *_: forwards.append(1))
    windows = plan_windows(144, WindowConfig(seq_len=24, stride=8))
    first, second, *_ = batches(windows, 5)
    assert first.scored == 24
    stats = source.stats(tokens, second)
    assert len(forwards) == 1
    rows = source.probabilities(tokens, second)
    for at, position in enumerate(second.positions().tolist()):
        assert (source.probabilities(tokens, windows.scoring(position))[0] == rows[at]).all()
        assert rows[at, tokens[position + 1]] == stats.p_target[at]
    assert len(forwards) == 1
    source.probabilities(tokens, first)
    source.probabilities(tokens.copy(), first)  # another stream, for all that is known
    source.probabilities(tokens, first)
    assert len(forwards) == 4


def test_windows_longer_than_the_model_s_positions_are_refused(
    models: dict[str, Path], evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    for kind, most, message in (
        ("gpt2", 64, "a window has 65 tokens, and the model 64 positions; give at most 64"),
        ("llama", 95, "a window, with token 1 before it, has 97 tokens, and the model 96 positions; give at most 95"),
    ):
        flags = ["--hf", models[kind], "--text", tmp_path / "a.txt", "--preset", "hashed", "--stride", 32]
        assert evaluate(*flags, "--seq-len", most)["hashed"]["positions"] >= most
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            evaluate(*flags, "--seq-len", most + 1)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err


def test_nan_weights_are_told(models: dict[str, Path]) -> None:
    source = load(models["gpt2"])
    with torch.no_grad():
        source._model.transformer.wte.weight[7] = float("nan")
    tokens = np.full(40, 7, np.uint16)
    (windows,) = batches(plan_windows(16, WindowConfig(seq_len=16, stride=16)), 5)
    with pytest.raises(InputError, match="position 0 are NaN"):
        source.stats(tokens, windows)
    with pytest.raises(InputError, match="position 0 are NaN"):
        source.probabilities(tokens, windows)


def test_a_model_in_training_mode_is_refused(models: dict[str, Path]) -> None:
    model = load_model(str(models["gpt2"]), torch.float32).train()
    with pytest.raises(InputError, match="GPT2LMHeadModel, is in training mode"):
        HfSource(model, lead_id=None, batch_windows=1)


# The command line


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """The text."""
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_shards_give_the_same_result(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, kind: str
) -> None:
    flags = ["--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    flags += ["--preset", "hashed", "--preset", "exact", "--preset", "tilt", "--preset", "mixer-fast", "--groups", 4096]
    of_text = evaluate("--hf", models[kind], "--text", text_file, *flags)
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = tokenizer.read_texts([text_file]).tokens[:]
    write_shard(tmp_path / "data.bin", tokens)
    of_shards = evaluate("--hf", models[kind], "--data", tmp_path / "data.bin", *flags)
    positions = (len(tokens) - 1) // 32 * 32
    windows = plan_windows(positions, WindowConfig(seq_len=32, stride=8))
    p = by_hand(models[kind], tokens, windows, tokenizer.lead_id)[np.arange(positions), tokens[1 : positions + 1]]
    for name, result in of_text.items():
        assert result["neural_source"] == "hf"
        assert result["neural_nats"] == pytest.approx(-np.log(p).sum(), rel=1e-6)
        spelt = tokenizer._join(tokens[: positions + 1].tolist())
        assert result["bytes"] == len(spelt) - (kind == "llama")
        assert result["vocabulary_sum"] == pytest.approx(1, abs=1e-6) or name == "hashed"
        assert result["unknown_targets"] == 0
        for key in ("nats", "neural_nats", "positions", "bytes", "vocabulary_sum", "hits_by_order"):
            assert of_shards[name][key] == result[key], (name, key)
    assert of_text["exact"]["val_bpb"] < of_text["exact"]["neural_bpb"], "the text repeats itself"


def test_the_python_function_gives_the_same(models: dict[str, Path], evaluate: Evaluate, text_file: Path) -> None:
    flags = ["--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    expected = evaluate("--hf", models["llama"], "--text", text_file, "--preset", "exact", *flags)["exact"]
    model, tokenizer = load_model(str(models["llama"]), torch.float32), load_tokenizer(str(models["llama"]))
    tokens = tokenizer(TEXT, split_special_tokens=True)["input_ids"]
    window = WindowConfig(seq_len=32, stride=8)
    config = replace(preset("exact"), window=window)
    result = evaluate_api(model, tokens, config, tokenizer=tokenizer, batch_windows=3)
    for key in ("nats", "neural_nats", "positions", "bytes", "val_bpb", "vocabulary_sum", "hits_by_order"):
        assert getattr(result, key) == expected[key], key


def test_a_gguf_file(models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path) -> None:
    """Tokenizer and weights of one file; the model says what it said before it was written."""
    model = save_gguf(models["gpt2"], tmp_path / "tiny.gguf")
    flags = ["--hf", tmp_path / "tiny.gguf", "--text", text_file, "--seq-len", 64, "--stride", 64, "--preset", "exact"]
    result = evaluate(*flags)["exact"]
    tokens = HfTokenizer.load(str(models["gpt2"])).read_texts([text_file]).tokens[:]
    expected = evaluate_api(
        model,
        tokens,
        replace(preset("exact"), window=WindowConfig(seq_len=64, stride=64)),
        tokenizer=load_tokenizer(str(models["gpt2"])),
    )
    assert result["tokens"] == len(tokens)
    assert result["bytes"] == expected.bytes
    assert result["nats"] == pytest.approx(expected.nats, rel=1e-5)
    assert len(digest(str(tmp_path / "tiny.gguf"))) == 64


def test_two_ranks_give_the_same_bits(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two.json"
    flags = ["--hf", models["llama"], "--text", text_file, "--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    flags += ["--preset", "hashed", "--preset", "tilt"]
    code, _, err = finish(launch(2, *flags, "--json", out))
    assert code == 0, err
    one = evaluate(*flags)
    for two in json.loads(out.read_text())["runs"]:
        for key in ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum"):
            assert two[key] == one[two["preset"]][key], (two["preset"], key)


def test_the_audit_refutes_nothing_of_a_probability(
    models: dict[str, Path], text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes by the tokenizer's own decoder included."""
    flags = ["--hf", models["llama"], "--text", text_file, "--seq-len", 32, "--stride", 8, "--positions", 256]
    monkeypatch.setattr(sys, "argv", ["audit", *map(str, flags), "--samples", "8", "--preset", "exact"])
    with pytest.raises(SystemExit) as exit_info:
        audit.main()
    printed = capsys.readouterr().out
    assert exit_info.value.code == 0, printed
    assert "6 the text's bytes (off)           ✓ 0      ✓ 0" in printed


def test_two_texts_are_two_documents(models: dict[str, Path], evaluate: Evaluate, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("The quick brown fox. " * 9)
    flags = ["--hf", models["llama"], "--text", tmp_path / "a.txt", tmp_path / "b.txt", "--preset", "exact"]
    result = evaluate(*flags, "--seq-len", 16, "--stride", 16)["exact"]
    assert result["data"] == [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert result["positions"] == (result["tokens"] - 1) // 16 * 16


def test_the_published_byte_rule_is_not_for_these_tokenizers(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--hf", models["gpt2"], "--text", text_file, "--seq-len", 32, "--stride", 32]
    assert list(evaluate(*flags)) == ["hashed", "exact"]
    assert "Left out pr890" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(*flags, "--preset", "pr890")
    assert "--hf needs --byte-rule decoded" in capsys.readouterr().err
    assert evaluate(*flags, "--preset", "pr890", "--byte-rule", "decoded")["pr890"]["bytes"] > 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hf", "{gpt2}"], "--hf needs something to score: --text FILE"),
        (["--text", "{text}"], "--text needs the tokenizer of --hf"),
        (["--hf", "{gpt2}", "--text", "{text}", "--data", "x.bin"], "--text needs the tokenizer of --hf"),
        (["--hf", "{gpt2}", "--uniform", "--text", "{text}"], "--hf and --uniform are all neural sources"),
        (["--hf", "{gpt2}", "--text", "{text}", "--ttt", "legal"], "--ttt legal adapts a model of --artifact"),
        (["--hf", "./nowhere", "--text", "{text}"], "--hf is ./nowhere: no such folder or file"),
        (["--hf", "some/where/else", "--text", "{text}"], "no such folder or file"),
        (["--hf", "{text}", "--text", "{text}"], "a file: give the model's folder, a .gguf file"),
        (["--hf", "{empty}", "--text", "{text}"], "transformers can't load its tokenizer"),
        (["--hf", "{broken}", "--text", "{text}"], "transformers can't load its model"),
        (["--hf", "{shrunk}", "--text", "{text}"], "is outside the vocabulary of --hf"),
    ],
)
def test_bad_input_is_one_line(
    models: dict[str, Path],
    evaluate: Evaluate,
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    save_gpt2(tmp_path / "broken")
    (tmp_path / "broken/model.safetensors").write_bytes(b"not weights")
    if "{shrunk}" in flags:
        save_llama(tmp_path / "shrunk", vocab_size=300)
    places = {name: tmp_path / name for name in ("empty", "broken", "shrunk")} | {"text": text_file, **models}
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*(flag.format(**places) for flag in flags), "--seq-len", 32, "--preset", "exact")
    assert exit_info.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_the_hub_out_of_reach_is_told(text_file: Path) -> None:
    done = run_python(
        "import sys; from ngram_eval.run import main;"
        f"sys.argv = ['run', '--hf', 'nobody/no-such-model', '--text', {str(text_file)!r}]; main()",
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2, done.stderr
    assert "no such folder or file here, and the hub does not give it either" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_transformers_it_is_named(text_file: Path) -> None:
    done = run_python(
        "import sys; sys.modules['transformers'] = None\n"
        "from ngram_eval.run import main\n"
        f"sys.argv = ['run', '--hf', 'x', '--text', {str(text_file)!r}]; main()"
    )
    assert done.returncode == 2, done.stderr
    assert "\nerror: --hf needs transformers, which can't be imported" in done.stderr
    assert "pip install ngram_eval[hf]" in done.stderr


def test_nothing_else_imports_transformers() -> None:
    done = run_python(
        "import sys, numpy as np, ngram_eval\n"
        "assert 'torch' not in sys.modules, 'a light import'\n"
        "import ngram_eval.run, ngram_eval.cli.audit, ngram_eval.cli.codec, ngram_eval.train\n"
        "logits = np.zeros((64, 8))\n"
        "from ngram_eval.config import EvalConfig, WindowConfig\n"
        "config = EvalConfig(scorer='exact', window=WindowConfig(seq_len=32, stride=32))\n"
        "ngram_eval.evaluate(logits, np.zeros(65, np.int64), config); ngram_eval.NgramMemory()\n"
        "assert 'transformers' not in sys.modules and 'tokenizers' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_digest_is_of_all_that_decides(models: dict[str, Path], tmp_path: Path) -> None:
    save_gpt2(tmp_path / "copy")
    assert digest(str(tmp_path / "copy")) == digest(str(models["gpt2"]))
    weights = tmp_path / "copy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert digest(str(tmp_path / "copy")) != digest(str(models["gpt2"]))


def test_resumes_with_the_same_model_only(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_gpt2(tmp_path / "model")
    flags = ["--hf", tmp_path / "model", "--text", text_file, "--seq-len", 32, "--stride", 8, "--preset", "exact"]
    flags += ["--batch-windows", 2, "--checkpoint", tmp_path / "state", "--every", 100]
    done = evaluate(*flags)["exact"]
    again = evaluate(*flags, "--resume")["exact"]
    assert (again["nats"], again["resumed_positions"]) == (done["nats"], done["positions"])
    (tmp_path / "model/generation_config.json").write_text("{}")
    with pytest.raises(SystemExit):
        evaluate(*flags, "--resume")
    assert "neural source" in capsys.readouterr().err
