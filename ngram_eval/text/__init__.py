"""The input of a model: token streams, shards, tokenizers and their bytes, windows, samples."""
