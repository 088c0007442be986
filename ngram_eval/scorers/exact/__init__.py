"""Exact counts and a chain of learned weights over them, a probability."""
