"""What the tests of the codec share."""

from pathlib import Path

import pytest
import sentencepiece

from tests.support.codec import novel


@pytest.fixture(scope="session")
def lossy_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that normalises, adds and removes spaces, and has no bytes to fall back on."""
    prefix = tmp_path_factory.mktemp("lossy") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(novel(20_000).decode().splitlines()),
        model_prefix=str(prefix),
        model_type="unigram",
        vocab_size=200,
        normalization_rule_name="nmt_nfkc_cf",
        minloglevel=2,
    )
    return prefix.with_suffix(".model")
