"""What the tests of Hugging Face models share."""

from pathlib import Path

import pytest

from ngram_eval.models.hf.tokenizer import HfTokenizer
from tests.support.hf_models import TEXT, saved


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    return saved(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tokenizers(models: dict[str, Path]) -> dict[str, HfTokenizer]:
    """The tokenizer of each kind."""
    return {kind: HfTokenizer.load(str(folder)) for kind, folder in models.items()}


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """The text."""
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path
