"""What the tests of models share."""

import pytest

from ngram_eval.models import artifact
from tests.support.artifacts import TINY_QUANT, random_model


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a tiny artifact."""
    path = tmp_path_factory.mktemp("artifact") / "good.ngev"
    artifact.save(path, random_model(), TINY_QUANT, 64)
    return path.read_bytes()
