"""How long an evaluation takes: costs measured, times predicted."""
