"""Exact counts, blended by a chain of learned weights into a probability."""
