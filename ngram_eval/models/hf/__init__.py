"""Hugging Face models and tokenizers, the extra `hf`. No module outside this package imports transformers.

`loading` finds and opens them, `tokenizer` counts the bytes of tokens, `source` runs a model over windows.
"""
