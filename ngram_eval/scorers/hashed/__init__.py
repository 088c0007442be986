"""PR #890's family: hashed counts and a gate, a pseudo-probability."""
