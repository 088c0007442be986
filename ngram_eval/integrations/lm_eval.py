"""lm-evaluation-harness: the model `ngram`, any of the harness's `hf` models with a memory.

    python -m ngram_eval.integrations.lm_eval --model ngram --model_args pretrained=gpt2,memory=exact --tasks wikitext

It is the harness's own command line with one more model; the harness has no other way to add one. Every likelihood is
that of the blend, which sums to 1 over the vocabulary as the model's own distribution does.
"""

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.decoding import MemoryBatch, NgramLogitsProcessor, NgramMemory
from ngram_eval.errors import InputError, exit_on_input_error, refusing
from ngram_eval.kept import file as kept_file
from ngram_eval.models.hf.source import HfSource
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.text.windows import batches, plan_windows

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise InputError(
        f"the harness needs lm_eval, which can't be imported ({error}): pip install ngram_eval[lm-eval]"
    ) from error


@register_model("ngram")
class NgramLM(HFLM):  # type: ignore[misc]  # has no types
    """The harness's `hf` model, each sequence blended with a memory of its own.

    Further model arguments:
        memory: exact, mixer or tilt.
        text: A text file that every memory has observed before its sequence begins.
        kept: The same of a kept memory's file (.ngm), of this model's tokenizer; before `text`, if both are given.
        rolling: Windows of `loglikelihood_rolling`: `harness`, the harness's own, each with a memory of its own; or
            `sliding`, ours: they overlap, and one memory goes along the whole text.
        stride: Targets of a sliding window; by default half of the model's length.
    """

    def __init__(
        self,
        *,
        memory: str = "exact",
        text: str | None = None,
        kept: str | None = None,
        rolling: Literal["harness", "sliding"] = "harness",
        stride: int | None = None,
        **model: Any,
    ) -> None:
        """Load the model, and observe `kept` and `text`; raises `InputError` for arguments of another form."""
        super().__init__(**model)
        if self.backend != "causal":
            raise InputError(f"a memory needs a causal language model, and this one is {self.backend}")
        if rolling not in ("harness", "sliding"):
            raise InputError(f"rolling is {rolling}: give harness or sliding")
        self._rolling, self._stride = rolling, int(stride or max(self.max_length // 2, 1))
        tokenizer = HfTokenizer(self.tokenizer)
        size = self.model.get_output_embeddings().weight.shape[0]
        surfaces = [*tokenizer.surfaces(), *[None] * (size - tokenizer.vocab_size)]
        self._memory = NgramMemory(memory, vocabulary=Vocabulary(size, surfaces, neural=True))
        if kept is not None:
            found = kept_file.read(Path(kept))
            found.check(tokenizer, size, kept)
            self._memory.observe(found.tokens)
        if text is not None:
            with refusing(text, "can't be read as UTF-8 text", "give a text file"):
                known = Path(text).read_text(encoding="utf-8")
            self._memory.observe(self.tok_encode(known))

    def _model_call(self, inps: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Log-probabilities of the blend (B, T, V), of sequences (B, T); padding on the right changes nothing."""
        logits = super()._model_call(inps, *arguments, **options)
        rows: NDArray[np.float64] = torch.softmax(logits.double(), dim=-1).cpu().numpy()
        tokens: NDArray[np.int64] = inps.cpu().numpy()
        batch = MemoryBatch([self._memory.copy() for _ in tokens])
        batch.observe(tokens[:, :1])
        blended = np.empty_like(rows)
        for position in range(tokens.shape[1]):
            blended[:, position] = batch.distribution(rows[:, position])
            if position + 1 < tokens.shape[1]:
                batch.observe(tokens[:, position + 1 : position + 2], rows[:, position : position + 1])
        with np.errstate(divide="ignore"):  # the logarithm of 0 is intended
            return torch.from_numpy(np.log(blended)).to(logits.device)

    def _model_generate(self, *arguments: Any, **options: Any) -> torch.Tensor:
        processor = NgramLogitsProcessor(self._memory, pad_token_id=self.tokenizer.pad_token_id)
        generated: torch.Tensor = super()._model_generate(*arguments, **options, logits_processor=[processor])
        return generated

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in nats."""
        if self._rolling == "sliding":
            return [self._sliding(request.args[0]) for request in requests]
        whole: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        return whole

    def _sliding(self, text: str) -> float:
        tokens = np.array([self.prefix_token_id, *self.tok_encode(text)], np.uint32)
        length = min(self.max_length, len(tokens) - 1)
        if not length:
            return 0.0
        windows = plan_windows(len(tokens) - 1, WindowConfig(seq_len=length, stride=min(self._stride, length)))
        size = self.batch_size if isinstance(self.batch_size, int) else 1
        source = HfSource(self.model, batch_windows=size)
        memory = self._memory.copy()
        memory.observe(tokens[:1])
        return sum(
            float(np.log(memory.observe(tokens[batch.positions() + 1], source.probabilities(tokens, batch))).sum())
            for batch in batches(windows, size)
        )


def main() -> None:
    """The harness's command line, with the model `ngram` in it."""
    from lm_eval.__main__ import cli_evaluate

    with exit_on_input_error():
        cli_evaluate()


if __name__ == "__main__":
    sys.modules["ngram_eval.integrations.lm_eval"] = sys.modules["__main__"]  # registered once
    main()
