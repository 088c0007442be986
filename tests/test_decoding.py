"""The memory on a decoding loop: what the evaluator charges, normalised; and on `transformers.generate`."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval import NgramMemory, evaluate, preset
from ngram_eval.config import EvalConfig, ExactConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.source import UniformSource, statistics
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.stream import MAX_VOCABULARY
from ngram_eval.text.windows import plan_windows
from tests.support.places import ROOT

V = 12


def stream(length: int = 80) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Tokens that repeat themselves, and a distribution before each but the first."""
    rng = np.random.default_rng(3)
    phrases = [rng.integers(0, V, 7) for _ in range(4)]
    tokens = np.concatenate([phrases[i] for i in rng.integers(0, 4, length)])[:length].astype(np.uint16)
    logits = rng.normal(size=(length - 1, V))
    return tokens, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


METHODS = {
    "exact": preset("exact"),
    "tilt": preset("tilt"),
    "both": replace(preset("exact"), exact=ExactConfig(tilt="learned")),
    "mixer": replace(preset("mixer"), mixer=replace(preset("mixer").mixer, groups=1 << 12)),
}
VOCABULARY = Vocabulary(V, [bytes([97 + token]) for token in range(V)], neural=True)


def charged(config: EvalConfig, tokens: NDArray[np.uint16], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the evaluator's scorer charges for every target."""
    source = SavedLogits(np.log(rows), "computed")
    scorer = make_scorer("cpu", config, vocabulary=VOCABULARY)
    windows = plan_windows(len(tokens) - 1, replace(config.window, seq_len=len(tokens) - 1, stride=len(tokens) - 1))
    return scorer.score(tokens, windows, statistics(source, tokens, windows, rows=config.needs_rows)).values


@pytest.mark.parametrize("method", METHODS)
def test_a_loop_is_charged_as_the_evaluator_charges(method: str) -> None:
    config = METHODS[method]
    tokens, rows = stream()
    rows = SavedLogits(np.log(rows), "computed").probabilities(tokens, plan_windows(79, WindowConfig(seq_len=79)))
    memory, found = NgramMemory(config, vocabulary=VOCABULARY), []
    memory.observe(tokens[:1])
    for token, row in zip(tokens[1:], rows, strict=True):
        blended = memory.distribution(row)
        assert blended.sum() == pytest.approx(1, abs=1e-12)
        assert (blended == memory.distribution(row)).all(), "looking changes nothing"
        found.append(blended[token])
        memory.observe([token], row[None])
    np.testing.assert_allclose(found, charged(config, tokens, rows), rtol=1e-12)
    assert memory.tokens.tolist() == tokens.tolist()
    assert len(memory) == len(tokens)
    assert repr(memory) == f"<NgramMemory: {config.scorer}, {len(tokens)} tokens observed, backend cpu>"


@given(cuts=st.lists(st.integers(1, 78), max_size=5), counted=st.integers(0, 60))
def test_observing_in_pieces_is_observing_one_by_one(cuts: list[int], counted: int) -> None:
    tokens, rows = stream()
    whole, parts = NgramMemory(), NgramMemory()
    whole.observe(tokens[:counted])
    parts.observe(tokens[:counted])
    known = np.concatenate([np.full((1, V), 1 / V), rows])  # before the first token nothing is
    for token, row in zip(tokens[counted:], known[counted:], strict=True):
        whole.observe([token], row[None])
    for start, stop in itertools.pairwise(sorted({counted, *(c for c in cuts if c > counted), len(tokens)})):
        parts.observe(tokens[start:stop], known[start:stop])
    assert (whole.distribution(rows[0]) == parts.distribution(rows[0])).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_goes_on_by_itself(method: str) -> None:
    tokens, rows = stream()
    one = NgramMemory(METHODS[method], vocabulary=VOCABULARY)
    one.observe(tokens[:40], np.concatenate([rows[:1], rows[:39]]))
    other = one.copy()
    before = one.distribution(rows[50])
    assert (other.distribution(rows[50]) == before).all()
    other.observe(tokens[40:60], rows[39:59])
    assert (one.distribution(rows[50]) == before).all()
    one.observe(tokens[40:60], rows[39:59])
    assert (one.distribution(rows[50]) == other.distribution(rows[50])).all()
    empty = NgramMemory().copy()
    assert (empty.distribution(rows[0]) == rows[0]).all()


def test_room_grows() -> None:
    memory = NgramMemory()
    for _ in range(3):
        memory.observe(np.arange(900))
    assert memory.tokens.tolist() == list(range(900)) * 3
    p = memory.distribution(np.full(1000, 1 / 1000))
    assert p.sum() == pytest.approx(1)


def test_repetition_is_expected_and_learned() -> None:
    memory, row = NgramMemory(), np.full(5000, 1 / 5000)
    memory.observe(np.arange(300))
    memory.observe(np.arange(20))
    before = memory.distribution(row)[20]
    assert before > 0.3
    memory.observe(np.arange(20, 200), np.broadcast_to(row, (180, 5000)))
    assert memory.distribution(row)[200] > max(before, 0.95)


@pytest.mark.parametrize("name", ["hashed", "pr890", "ppmd"])
def test_a_score_is_not_to_be_drawn_from(name: str) -> None:
    with pytest.raises(InputError, match="do not sum to 1, so they are not a distribution"):
        NgramMemory(name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.observe([[1]]), "give one integer per token"),
        (lambda m: m.observe([0.5]), "give one integer per token"),
        (lambda m: m.observe([-1]), r"tokens range from -1 to -1: they must be in \[0, 524,287\)"),
        (lambda m: m.observe([MAX_VOCABULARY]), "tokens range from 524287"),
        (lambda m: m.observe([5], [[0.5, 0.5]]), r"tokens range from 5 to 5: they must be in \[0, 2\)"),
        (lambda m: m.observe([0, 1], [[0.5, 0.5]]), r"give one distribution per token, \(2, V\)"),
        (lambda m: m.distribution([1.0, 2.0]), "give softmax"),
        (lambda m: m.distribution([1.5, -0.5]), "range from -0.5 to 1.5"),
        (lambda m: m.distribution([float("nan"), 1.0]), "must sum to 1"),
        (lambda m: NgramMemory("best"), "preset is 'best'"),
        (lambda m: NgramMemory(backend="triton"), "has no exact counts"),
        (lambda m: NgramMemory("mixer"), "give vocabulary=Vocabulary"),
    ],
)
def test_bad_input(call: Callable[[NgramMemory], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(NgramMemory())


# transformers.generate


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model that generates."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    from ngram_eval.models.hf.loading import load_model
    from tests.support import hf_models

    folder = tmp_path_factory.mktemp("llama")
    hf_models.save_llama(folder)
    return load_model(str(folder), torch.float32)


PROMPTS = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5], [0, 0, 0, 9, 10, 11, 9, 10, 11]])
"""The second padded on the left."""


class Recorder:
    """A processor around another that keeps what it was given and what came out."""

    def __init__(self, inner: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.inner = inner
        self.steps: list[tuple[list[list[int]], NDArray[np.float64], NDArray[np.float64]]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out = self.inner(input_ids, scores)
        given, got = scores.double().numpy().copy(), out.double().numpy().copy()
        self.steps.append((input_ids.tolist(), given, got))
        return out


def replayed(steps: list[Any], step: int, row: int, prompt: list[int]) -> NDArray[np.float64]:
    """The blend of a sequence at a step, its memory made anew from its prompt and the steps it came by."""
    sequence = steps[step][0][row]
    memory = NgramMemory()
    memory.observe(prompt)
    for earlier in range(step + 1):
        length = len(steps[earlier][0][0])
        at = steps[earlier][0].index(sequence[:length])
        given = steps[earlier][1][at]
        p = np.exp(given - given.max()) / np.exp(given - given.max()).sum()
        if earlier == step:
            return memory.distribution(p)
        memory.observe([sequence[length]], p[None])
    raise AssertionError


def generate(model: Any, processor: Any, **settings: Any) -> Any:
    """Eight new tokens."""
    from transformers import LogitsProcessorList

    mask = (PROMPTS > 0).long()
    return model.generate(
        PROMPTS,
        attention_mask=mask,
        logits_processor=LogitsProcessorList([processor]),
        max_new_tokens=8,
        pad_token_id=0,
        eos_token_id=None,
        **settings,
    )


@pytest.mark.parametrize("beams", [1, 3])
def test_every_sequence_and_beam_is_blended_with_its_own_memory(llama: Any, beams: int) -> None:
    from ngram_eval import NgramLogitsProcessor

    recorder = Recorder(NgramLogitsProcessor(pad_token_id=0))
    generate(llama, recorder, num_beams=beams, do_sample=False)
    assert len(recorder.steps) == 8
    moved = 0
    for step, (sequences, _, out) in enumerate(recorder.steps):
        assert len(sequences) == 2 * beams
        np.testing.assert_allclose(np.exp(out).sum(axis=1), 1, atol=1e-5)
        for row, sequence in enumerate(sequences):
            prompt = PROMPTS[0].tolist() if sequence[0] else PROMPTS[1, 3:].tolist()
            np.testing.assert_allclose(np.exp(out[row]), replayed(recorder.steps, step, row, prompt), atol=1e-6)
            moved += step > 0 and sequence[:-1] != recorder.steps[step - 1][0][row]
    assert (moved > 0) == (beams > 1), "beams change places"


def test_greedy_generation_is_the_loop_by_hand(llama: Any) -> None:
    from ngram_eval import NgramLogitsProcessor

    done = generate(llama, NgramLogitsProcessor(pad_token_id=0), do_sample=False)
    memory, tokens = NgramMemory(), PROMPTS[0].tolist()
    memory.observe(tokens)
    for _ in range(8):
        with torch.inference_mode():
            p = torch.softmax(llama(torch.tensor([tokens])).logits[0, -1].double(), dim=-1).numpy()
        token = int(memory.distribution(p).argmax())
        memory.observe([token], p[None])
        tokens.append(token)
    assert done[0].tolist() == tokens
    plain = generate(llama, lambda ids, scores: scores, do_sample=False)
    assert done.tolist() != plain.tolist(), "the memory has a say"


def test_what_was_forbidden_stays_so_and_the_rest_sums_to_one() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    from ngram_eval import NgramLogitsProcessor

    scores = torch.zeros(1, 9)
    scores[0, 4] = -math.inf
    out = NgramLogitsProcessor()(torch.tensor([[3, 4, 3, 4, 3]]), scores)  # a memory expects 4
    assert out[0, 4] == -math.inf
    assert out.exp().sum().item() == pytest.approx(1)
    with pytest.raises(InputError, match="scores are NaN"):
        NgramLogitsProcessor()(torch.tensor([[3]]), torch.full((1, 9), math.nan))


def test_a_memory_given_is_copied_and_generations_are_apart() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    from ngram_eval import NgramLogitsProcessor

    known = NgramMemory()
    known.observe([1, 2, 3, 4, 1, 2, 3, 4])
    processor = NgramLogitsProcessor(known)
    prompt, scores = torch.tensor([[7, 1, 2, 3]]), torch.zeros(1, 9)
    first = processor(prompt, scores)
    assert first[0].argmax() == 4
    processor(torch.tensor([[7, 1, 2, 3, 5]]), scores)
    assert (processor(prompt, scores) == first).all()
    assert len(known) == 8


# evaluate


def window(seq_len: int, stride: int) -> EvalConfig:
    """Preset exact under windows that fit."""
    return replace(preset("exact"), window=WindowConfig(seq_len=seq_len, stride=stride))


class Bigram(torch.nn.Module):
    """Logits that depend on the newest token alone, so that windows do not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        """As nanoGPT returns them."""
        return self.table[tokens], None


def test_the_same_model_in_every_form_is_the_same() -> None:
    tokens, _ = stream(65)
    module = Bigram().eval()
    table = module.table.detach().numpy()
    by_array = evaluate(table[tokens[:-1]], tokens, window(32, 8))
    assert by_array.positions == 64
    assert by_array.vocabulary_sum == pytest.approx(1, abs=1e-6)
    assert (by_array.bytes, by_array.preset, by_array.data) == (None, "exact", [])
    forms: list[Any] = [module, lambda windows: table[windows], lambda windows: table[windows][:, -8:].tolist()]
    for model, config in ((forms[0], window(32, 8)), (forms[1], window(16, 5)), (forms[2], window(8, 8))):
        found = evaluate(model, tokens.tolist(), config, batch_windows=3)
        assert found.nats == pytest.approx(by_array.nats, rel=1e-6)
        assert found.neural_nats == pytest.approx(by_array.neural_nats, rel=1e-6)
    hashed = evaluate(module, tokens, replace(preset("hashed"), window=WindowConfig(seq_len=32, stride=8)))
    assert not hashed.normalised


def test_evaluate_counts_bytes_by_a_tokenizer_of_ours() -> None:
    from ngram_eval.assets import asset
    from ngram_eval.text.shards import read_shards
    from ngram_eval.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    tokens = read_shards([str(asset("sample_000000.bin"))], 300).tokens[:]
    uniform = np.zeros((299, tokenizer.vocab_size))
    found = evaluate(uniform, tokens, window(64, 64), tokenizer=tokenizer)
    assert found.bytes == tokenizer.target_bytes(tokens, 0, 256, "decoded").sum()
    assert found.bytes is not None
    assert found.neural_bpb == pytest.approx(256 * 10 / found.bytes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "gpt2"}, "model is a str: give a model, a function of windows, or logits"),
        ({"tokens": [1]}, "give at least two integers"),
        ({"tokens": [0.5, 1.5]}, "give at least two integers"),
        ({"tokens": [-1, 5]}, "tokens range from -1"),
        ({"tokens": np.full(65, 13)}, "outside the vocabulary of the model"),
        ({"config": "best"}, "preset is 'best'"),
        ({"config": "exact"}, "shorter than one sequence of 2048"),
        ({"tokenizer": "t.model"}, "tokenizer is a str"),
        ({"model": np.zeros((3, V))}, r"the logits are float64 of shape \(3, 12\): give floats \(64, vocabulary\)"),
        ({"model": Bigram()}, "Bigram, is in training mode"),
        ({"model": lambda windows: np.zeros((2, 2))}, r"gave \(2, 2\) for windows of shape \(1, 2\)"),
        ({"model": lambda windows: np.full((*windows.shape, V), np.nan)}, "are NaN"),
        ({"batch_windows": 0}, "^batch_windows is 0"),
    ],
)
def test_evaluate_refuses(arguments: dict[str, Any], message: str) -> None:
    given = {"model": Bigram().eval(), "tokens": stream(65)[0], "config": window(32, 8), **arguments}
    with pytest.raises(InputError, match=message):
        evaluate(given.pop("model"), given.pop("tokens"), given.pop("config"), **given)


def test_a_function_must_not_change_its_vocabulary() -> None:
    sizes = iter([V, V, V + 1])  # asked for its form, whether it is causal, and for windows
    with pytest.raises(InputError, match="gave 13 logits a position, not 12"):
        evaluate(lambda windows: np.zeros((*windows.shape, next(sizes))), stream(65)[0], window(32, 32))


def test_a_vocabulary_above_the_limit_is_told() -> None:
    given = stream(65)[0]
    with pytest.raises(InputError, match="vocabulary has 524,288 tokens, and exact counts at most 524,287"):
        evaluate(UniformSource(MAX_VOCABULARY + 1), given, window(32, 32))
    assert evaluate(UniformSource(MAX_VOCABULARY), given, window(32, 32)).positions == 64


def test_public_names_are_listed(tmp_path: Path) -> None:
    import ngram_eval

    assert set(ngram_eval.__all__) == {*ngram_eval._HOMES, "__version__"} <= set(dir(ngram_eval))
    reference = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("api*.md")))
    for name in ngram_eval.__all__:
        assert getattr(ngram_eval, name)
        assert name == "__version__" or f"ngram_eval.{name}" in reference, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ngram_eval.nothing  # noqa: B018
