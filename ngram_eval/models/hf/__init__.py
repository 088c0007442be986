"""Hugging Face models and tokenizers, the extra `hf`. Nothing outside this room imports transformers.

`loading` finds and opens them, `tokenizer` counts the bytes that tokens stand for, `source` runs a model over windows.
"""
