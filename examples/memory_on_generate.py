"""Put a memory on `transformers.generate`: what the prompt and the text so far repeat becomes more likely.

    python examples/memory_on_generate.py MODEL prompt.txt --new-tokens 100 --seen notes.txt

It prints the continuation without the memory, then with it. Sampling, temperature and top-p work as ever, on the blend.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from ngram_eval import NgramLogitsProcessor, NgramMemory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or a name on the hub")
    parser.add_argument("prompt", type=Path, help="text that is continued")
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--seen", type=Path, help="text that the memory has read before, such as the user's own notes")
    asked = parser.parse_args()

    model: Any = AutoModelForCausalLM.from_pretrained(asked.model)
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(asked.model)
    memory = NgramMemory("exact")
    if asked.seen:
        memory.observe(tokenizer(asked.seen.read_text(encoding="utf-8"))["input_ids"])

    prompt = tokenizer(asked.prompt.read_text(encoding="utf-8"), return_tensors="pt")
    settings = {"max_new_tokens": asked.new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
    for name, processors in (("without", []), ("with", [NgramLogitsProcessor(memory)])):
        with torch.inference_mode():
            written = model.generate(**prompt, **settings, logits_processor=LogitsProcessorList(processors))
        print(f"--- {name} the memory\n{tokenizer.decode(written[0, prompt['input_ids'].shape[1] :])}")


if __name__ == "__main__":
    main()
