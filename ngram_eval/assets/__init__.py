"""The embedded default: a small language model, its tokenizer and a held-out sample. See README.md in this folder."""
