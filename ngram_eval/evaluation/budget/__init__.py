"""How long an evaluation takes: stages are measured, times predicted."""
