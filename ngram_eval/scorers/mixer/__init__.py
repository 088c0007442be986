"""Hashed contexts, mixed over binary decisions into a probability."""
