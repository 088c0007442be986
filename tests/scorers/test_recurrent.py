"""The mixer's recurrent network: gradients are derivatives, it learns, C++ equals it to the bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ngram_eval.config import MixerConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.scorers.mixer.model import MAX_RECURRENT, make_mixer, unspelt
from ngram_eval.scorers.mixer.recurrent import STEPS, Recurrent
from tests.support.codec import compress, decompress, method, novel


def cost(network: Recurrent, ranks: list[int]) -> float:
    """Nats of tokens by a network that learns them."""
    nats = 0.0
    for rank in ranks:
        nats -= np.log((network.below[rank + 1] - network.below[rank]) / network.below[-1])
        network.learn(rank)
    return float(nats)


def begun(cells: int, name: str = "out", at: Any = (0, 0), by: float = 0.0) -> Recurrent:
    """A network of five tokens whose outputs depend on its cells, with one weight changed."""
    network = Recurrent(5, cells)
    network.out.now[:, :5] = np.random.default_rng(1).normal(0, 1, (cells, 5))
    getattr(network, name).now[at] += np.float32(by)
    network._begin(0, np.zeros(cells, np.float32), np.zeros(cells, np.float32))
    network._predict()
    return network


@pytest.mark.parametrize("name", ["into", "again", "out"])
def test_gradients_are_derivatives(name: str) -> None:
    """Of what the steps between two updates cost, by differences of costs; a row's is of all its occurrences."""
    cells, ranks = 16, np.random.default_rng(0).integers(5, size=STEPS).tolist()
    gradients: dict[int, Any] = {}  # by whose they are

    def note(self: Any, rows: slice, gradient: Any, rate: Any) -> None:
        gradients.setdefault(id(self), np.zeros_like(self.now))[rows] += gradient

    network = begun(cells)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ngram_eval.scorers.mixer.recurrent.Weights.move", note)
        cost(network, ranks)
    for at in zip(*np.random.default_rng(2).integers((5, 5), size=(12, 2)).T, strict=True):
        less, more = (cost(begun(cells, name, at, by), ranks) for by in (-0.02, 0.02))
        found = gradients[id(getattr(network, name))][at]
        assert found == pytest.approx((more - less) / 0.04, rel=0.02, abs=2e-3)


def test_it_learns_what_is_far_back() -> None:
    """A token that repeats one of which those in between say nothing."""
    groups = [[first, 2, 2, 2, first] for first in np.random.default_rng(0).integers(2, size=1400).tolist()]
    network = Recurrent(3, 32)
    for group in groups[:1200]:
        cost(network, group)
    assert sum(cost(network, group) for group in groups[1200:]) < 1.2 * 200 * np.log(2)  # a bit a group: the first


def test_cpp_is_the_reference_in_the_long_run() -> None:
    """More cells and tokens than the mixer's conformance test has; the last vector of the outputs is not full."""
    config = MixerConfig(contexts=0, weight_sets=1, matches=0, cells=72, groups=4)
    rng = np.random.default_rng(3)
    tokens = np.tile(rng.integers(301, size=250), 2).astype(np.uint16)
    mixers = [make_mixer(backend, config, unspelt(301), neural=False) for backend in ("reference", "cpu")]
    p, p_cpp = (mixer.score(tokens, np.full((1, 301), 1 / 301))[0] for mixer in mixers)
    assert (p == p_cpp).all()


def test_one_result_on_every_processor() -> None:
    tokens = np.random.default_rng(4).integers(40, size=4000).astype(np.uint16) // 3
    config = MixerConfig(contexts=0, weight_sets=1, matches=0, cells=64, groups=4)
    p, _ = make_mixer("cpu", config, unspelt(40), neural=False).score(tokens, np.full((1, 40), 1 / 40))
    assert float(p.sum()).hex() == GOLDEN


GOLDEN = "0x1.23e84e3028d85p+8"


def test_a_file_comes_back() -> None:
    """The reader's network learns as the writer's did, decision by decision."""
    how = method("mixer-max")
    how = replace(how, mixer=replace(how.mixer, groups=1 << 10))
    text = novel(3000)
    assert decompress(compress(text, "train", method=how).container) == text


@pytest.mark.parametrize("cells", [-8, 12, 520])
def test_cells_are_bounded(cells: int) -> None:
    with pytest.raises(ValueError, match=f"cells is {cells}: give a multiple of 8 from 0 to 512"):
        MixerConfig(cells=cells)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_large_vocabularies_are_refused(backend: str) -> None:
    config = preset("mixer-max").mixer
    with pytest.raises(InputError, match=rf"cells is {config.cells} beside a vocabulary of 4,097: .* give cells 0"):
        make_mixer(backend, config, unspelt(MAX_RECURRENT + 1), neural=True)
