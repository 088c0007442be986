"""PR #890's family: hashed counts and a gate; its score is a pseudo-probability."""
