"""Hashed contexts mixed over binary decisions, a probability."""
