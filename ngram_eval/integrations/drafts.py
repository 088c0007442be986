"""Drafts for `transformers.generate`: the memory proposes tokens, one forward pass of the model verifies all of them.

    model.generate(**inputs, max_new_tokens=200, custom_generate=NgramDrafts())

The text is the one that greedy decoding gives, in fewer forward passes: after Leviathan et al. 2023, "Fast Inference
from Transformers via Speculative Decoding", with exact counts in the place of a small model.
"""

from typing import Any

import numpy as np
import torch

from ngram_eval.decoding import NgramMemory
from ngram_eval.errors import InputError


class NgramDrafts:
    """A decoding loop for the argument `custom_generate`: greedy, of one sequence.

    The memory begins as a copy of `memory` (default: an empty one of `exact`), and observes the prompt and every
    token. Logits processors and stopping criteria apply to each token as without drafts.
    """

    def __init__(self, memory: NgramMemory | None = None, *, tokens: int = 10) -> None:
        """`tokens`: most of one draft. Raises `InputError` unless the memory counts exactly."""
        self._memory = NgramMemory() if memory is None else memory
        self._memory.continuation(0, 1)  # refuses other methods before a model is run
        self._tokens = tokens
        self.forwards = self.drafted = self.accepted = 0
        """Forward passes, tokens drafted and tokens accepted, since the object was made."""

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        *,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **settings: Any,
    ) -> torch.Tensor:
        """The prompt (1, T) and what follows it; raises `InputError` unless decoding is greedy, of one sequence."""
        from transformers import DynamicCache

        masked = settings.get("attention_mask")
        if len(input_ids) != 1 or (masked is not None and not masked.all()):
            raise InputError(f"input_ids are {len(input_ids)} sequences: drafts are for one without padding")
        if generation_config.do_sample or generation_config.num_beams > 1:
            raise InputError("drafts are verified by greedy decoding: give do_sample=False, num_beams=1")
        vocabulary = model.config.get_text_config().vocab_size
        memory, cache, cached = self._memory.copy(), DynamicCache(config=model.config), 0
        memory.observe(input_ids[0].cpu().numpy())
        sequence = input_ids
        while True:
            draft = memory.continuation(self._tokens, vocabulary)
            ahead = torch.from_numpy(draft.astype(np.int64)).to(sequence.device)
            asked = torch.cat([sequence, ahead[None]], dim=1)
            logits = model(asked[:, cached:], past_key_values=cache, use_cache=True).logits
            first = sequence.shape[1] - 1 - cached
            self.forwards += 1
            self.drafted += len(draft)
            for index in range(len(draft) + 1):
                scores = logits_processor(sequence, logits[:, first + index].float())
                token = scores.argmax(dim=-1, keepdim=True)
                sequence = torch.cat([sequence, token], dim=1)
                memory.observe([int(token)])
                if bool(stopping_criteria(sequence, None).all()):
                    return sequence
                if index < len(draft):
                    if int(token) != draft[index]:
                        break
                    self.accepted += 1
            cached = sequence.shape[1] - 1  # the newest token has not been forwarded
            if refused := asked.shape[1] - cached:
                cache.crop(-refused)
