"""The memory inside other people's tools: lm-evaluation-harness and transformers' generation."""
